package processors

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// takeIn folds what the folder has read into the lots, answers questions, and lets partitions be read or not.
func (s *session) takeIn() {
	for {
		select {
		case ask := <-s.asks:
			ask()
			continue
		default:
		}
		break
	}
	s.orders = s.r.orders.Load()
	for _, p := range s.owned() {
		if p.orders != s.orders {
			p.orders = s.orders
			p.lot.hold(s.orders.Tenants, s.r.now())
		}
		s.mu.Lock()
		inbox, done := p.inbox, p.foldDone
		p.inbox = nil
		s.mu.Unlock()
		for _, rec := range inbox {
			s.foldRecord(p, rec)
		}
		p.lot.commit()
		changed := len(inbox) > 0 || done != p.folded
		p.folded = done
		if changed {
			s.publish(p, 0)
		} else {
			s.gate(p)
		}
	}
}

// foldRecord applies one record of the retry topic to p's lot.
func (s *session) foldRecord(p *partition, rec parkedRecord) {
	if rec.tail && writer(rec.Record) == s.id {
		return // the lot has it already, and may be further by now
	}
	if order := orderOf(rec.Record); order != "" {
		if _, offset, err := topics.SplitParkedID(rec.Key); err == nil {
			p.mark(mark{order, offset})
		}
	}
	if rec.Value == nil {
		if _, offset, err := topics.SplitParkedID(rec.Key); err == nil {
			p.lot.remove(offset)
		}
		return
	}
	e, err := decodeParked(p.topic, rec.Record)
	if err != nil {
		s.r.log.Error("ignoring a record of the retry topic", "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "error", err)
		return
	}
	p.lot.put(e)
}

func writer(rec *kgo.Record) string {
	for _, h := range rec.Headers {
		if h.Key == topics.HeaderWriter {
			return string(h.Value)
		}
	}
	return ""
}

// publish shows the state of p, and next, the offset to be settled next, if it has changed.
func (s *session) publish(p *partition, next int64) {
	s.gate(p)
	v := *p.view.Load()
	if next > 0 {
		v.Offset = next
	}
	v.ParkedKeys, v.ParkedRecords, v.ParkedBytes = len(p.lot.queues), len(p.lot.byOffset), p.lot.bytes
	v.ParkedSince, _ = p.lot.oldest()
	switch {
	case !p.folded:
		v.State = "folding"
	case p.paused:
		v.State = "full"
	default:
		v.State = "running"
	}
	p.view.Store(&v)
	if p.stable.Load() <= v.Offset {
		p.caughtUp.Store(s.r.now().UnixMilli())
	}
}

// gate stops reading p while its retry partition is not folded or too much is parked, and starts it again. It goes on at
// nine tenths of the cap, so that it does not flap. A partition that is taken away stays paused in the client; assigned
// anew it begins paused anyway.
func (s *session) gate(p *partition) {
	records, bytes := len(p.lot.byOffset), p.lot.bytes
	maxRecords, maxBytes := s.r.cfg.MaxParkedRecords, s.r.cfg.MaxParkedBytes
	if p.paused {
		maxRecords, maxBytes = max(1, maxRecords-maxRecords/10), max(1, maxBytes-maxBytes/10)
	}
	want := !p.folded || records >= maxRecords || bytes >= maxBytes
	if want == p.paused {
		return
	}
	p.paused = want
	one := map[string][]int32{p.topic: {p.partition}}
	if want {
		s.r.log.Warn("too much is parked; not reading the partition", "topic", p.topic, "partition", p.partition, "records", records, "bytes", bytes)
		s.sess.Client().PauseFetchPartitions(one)
		return
	}
	s.sess.Client().ResumeFetchPartitions(one)
}

// nextDue returns how long until the first parked head is due. While the breaker is not closed, parked records wait too,
// but for the probe.
func (s *session) nextDue() (ok bool, wait time.Duration) {
	for _, p := range s.owned() {
		if !p.folded {
			continue
		}
		if at, parked := p.lot.nextDue(); parked {
			if d := at.Sub(s.r.now()); !ok || d < wait {
				ok, wait = true, max(0, d)
			}
		}
	}
	return ok, wait
}

// watchLag keeps what the brokers have of the owned partitions current, also of those that are not read now. It is also what
// notices that Kafka does not answer: the client waits for its brokers without a word.
func (s *session) watchLag(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, 5*time.Second)
		if ctx.Err() != nil {
			return
		}
		if err := s.lookAtLogs(ctx); err != nil {
			text := "Kafka does not answer: " + err.Error()
			s.kafkaError.Store(&text)
			continue
		}
		s.kafkaError.Store(nil)
	}
}

func (s *session) lookAtLogs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stable, err := s.fold.adm.ListCommittedOffsets(ctx, s.r.cfg.Topics...)
	if err != nil {
		return err
	}
	// After the stable offsets: what is stable by now was below the end before.
	ends, err := s.fold.adm.ListEndOffsets(ctx, s.r.cfg.Topics...)
	if err != nil {
		return err
	}
	starts, err := s.fold.adm.ListStartOffsets(ctx, s.r.cfg.Topics...)
	if err != nil {
		return err
	}
	for _, p := range s.owned() {
		l, ok1 := stable.Lookup(p.topic, p.partition)
		end, ok2 := ends.Lookup(p.topic, p.partition)
		start, ok3 := starts.Lookup(p.topic, p.partition)
		if !ok1 || !ok2 || !ok3 || l.Err != nil || end.Err != nil || start.Err != nil {
			continue
		}
		now := s.r.now()
		p.observe(start.Offset, l.Offset, end.Offset, now)
		if l.Offset <= p.view.Load().Offset {
			p.caughtUp.Store(now.UnixMilli())
		}
	}
	return nil
}
