package offsets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// defaultLimit is how many records a plan reads to count and judge them.
const defaultLimit = 500_000

// measure counts and judges what lies between the group's position and its target.
func (o *Offsets) measure(ctx context.Context, r *Request, c *Content) error {
	m := &measuring{o: o, content: c, limit: cmp.Or(r.Limit, defaultLimit)}
	own := o.own(c.Group)
	switch {
	case own == nil:
		c.Forecast = "unknown: the group is not of this installation"
	case own.Forecast == nil:
		c.Forecast = "unknown: " + own.Blind
	default:
		m.forecast = own.Forecast()
		c.Forecast = "every record of the range was judged by the link rows of the target"
	}
	if err := m.read(ctx); err != nil {
		return err
	}
	if err := o.companions(ctx, c); err != nil {
		return err
	}
	if err := o.margins(ctx, c); err != nil {
		return err
	}
	c.sum()
	return nil
}

// measuring is one pass over the ranges of a plan.
type measuring struct {
	o        *Offsets
	content  *Content
	limit    int64
	forecast Forecast // nil: none, or no longer

	done, all int64
	told      time.Time
}

// measured is a range while it is read.
type measured struct {
	*Partition
	*stretch
	share       int64 // of the limit
	count, size int64
}

// read reads every range once from its beginning, as far as its share of the limit goes, and the end of those that it does not reach.
func (m *measuring) read(ctx context.Context) error {
	c := m.content
	for i := range c.Partitions {
		m.all += c.Partitions[i].To - c.Partitions[i].From
	}
	ranges := make([]*measured, len(c.Partitions))
	stretches := make([]*stretch, len(c.Partitions))
	for i := range c.Partitions {
		ranges[i] = m.newRange(ctx, &c.Partitions[i])
		stretches[i] = ranges[i].stretch
	}
	if err := m.o.reader().read(ctx, stretches); err != nil {
		return lost(err)
	}
	sampled := false
	for _, r := range ranges {
		reached := r.To
		switch {
		case r.stopped:
			reached = r.Last.Offset + 1
		case r.To > r.Stable: // records of open transactions cannot be read yet
			reached = max(r.Stable, r.From)
		}
		r.Records, r.Bytes = extrapolate(r.count, r.size, r.From, reached, r.To)
		if r.stopped && reached < r.To {
			sampled = true
			if err := m.findLast(ctx, r.Partition, reached); err != nil {
				return lost(err)
			}
		}
	}
	if sampled && m.forecast != nil {
		c.Forecast = fmt.Sprintf("sampled: the first %d records of %d offsets were judged by the link rows of the target; --limit reads more", m.done, m.all)
	}
	return nil
}

// lost turns the one error that planning again helps into a refusal.
func lost(err error) error {
	if errors.Is(err, errGone) {
		return refuse("retention removed records while the plan was made: plan again")
	}
	return err
}

func (m *measuring) newRange(ctx context.Context, p *Partition) *measured {
	r := &measured{Partition: p, share: p.To - p.From}
	if m.all > m.limit {
		r.share = max(int64(float64(r.share)/float64(m.all)*float64(m.limit)), 1)
	}
	r.stretch = &stretch{topic: p.Topic, partition: p.Partition, from: p.From, to: p.To}
	r.each = func(recs []*kgo.Record) (bool, error) {
		recs = recs[:min(int64(len(recs)), r.share-r.count)]
		for _, rec := range recs {
			r.size += size(rec)
		}
		r.count += int64(len(recs))
		if p.First == nil {
			p.First = mark(recs[0])
		}
		p.Last = mark(recs[len(recs)-1])
		m.tell(len(recs))
		return r.count < r.share, m.judge(ctx, p, recs)
	}
	return r
}

func (m *measuring) tell(n int) {
	m.done += int64(n)
	if now := m.o.now(); now.Sub(m.told) > time.Second {
		if !m.told.IsZero() {
			m.o.progress("read %d records of at most %d", m.done, min(m.all, m.limit))
		}
		m.told = now
	}
}

// judge asks the forecast about records. A target that does not answer spoils the forecast, not the plan.
func (m *measuring) judge(ctx context.Context, p *Partition, recs []*kgo.Record) error {
	if m.forecast == nil {
		return nil
	}
	const batch = 5_000
	for len(recs) > 0 {
		n := min(len(recs), batch)
		msgs := make([]processors.Message, n)
		for i, rec := range recs[:n] {
			msgs[i] = processors.Message{
				Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Time: rec.Timestamp, Key: rec.Key, Value: rec.Value,
				Headers: headers(rec), Attempt: 1,
			}
		}
		outlook, err := m.forecast.Foresee(ctx, msgs)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			m.forecast = nil
			m.content.Forecast = "unknown: " + err.Error()
			for i := range m.content.Partitions {
				m.content.Partitions[i].Outlook = Outlook{}
			}
			return nil
		}
		p.Outlook = p.Outlook.plus(outlook)
		recs = recs[n:]
	}
	return nil
}

// findLast finds the last record of a range of which only the beginning was read.
func (m *measuring) findLast(ctx context.Context, p *Partition, reached int64) error {
	for window := int64(64); ; window *= 8 {
		from := max(p.To-window, reached)
		s := &stretch{topic: p.Topic, partition: p.Partition, from: from, to: p.To, each: func(recs []*kgo.Record) (bool, error) {
			p.Last = mark(recs[len(recs)-1])
			return true, nil
		}}
		if err := m.o.reader().read(ctx, []*stretch{s}); err != nil {
			return err
		}
		if p.Last.Offset >= from || from == reached {
			return nil
		}
	}
}

func size(rec *kgo.Record) int64 {
	n := len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

func mark(rec *kgo.Record) *Mark {
	key := strings.ToValidUTF8(string(rec.Key), "\uFFFD")
	return &Mark{
		Offset: rec.Offset, Time: rec.Timestamp.UTC(), Key: key[:min(len(key), 200)],
		EventID: header(rec, topics.HeaderID),
	}
}

// companions counts what is parked and dead.
func (o *Offsets) companions(ctx context.Context, c *Content) error {
	ps := c.place()
	parked, err := o.parked(ctx, c.Group, ps)
	if err != nil {
		return err
	}
	dead, err := o.deadLetters(ctx, c.Group, "", ps)
	if err != nil {
		return err
	}
	for i, at := range ps {
		p := &c.Partitions[i]
		p.Parked = int64(len(parked[at]))
		p.DeadInRange.Exact = true
		if p.Direction == Reread {
			p.ParkedInRange = inRange(parked[at], p.From, p.To)
		}
		if l := dead[at]; l != nil {
			p.DeadInRange = Count{inRange(l.offsets, p.From, p.To), l.whole}
		}
	}
	return nil
}

// margins says how far the targets are from being deleted.
func (o *Offsets) margins(ctx context.Context, c *Content) error {
	places := make([]placed, len(c.Partitions))
	for i := range c.Partitions {
		places[i] = placed{&c.Partitions[i].Facts, c.Partitions[i].Target}
	}
	margins, err := o.marginsOf(ctx, places)
	for i := range margins {
		c.Partitions[i].Margin = margins[i]
	}
	return err
}

// placed is a position in a partition.
type placed struct {
	*Facts
	offset int64
}

// marginsOf reads one record at each position and compares its time with the topic's retention.
func (o *Offsets) marginsOf(ctx context.Context, places []placed) ([]Margin, error) {
	margins := make([]Margin, len(places))
	ps := make([]tp, len(places))
	for i, p := range places {
		ps[i] = tp{p.Topic, p.Partition}
	}
	retention, err := o.retention(ctx, topicNames(ps))
	if err != nil {
		return nil, err
	}
	var stretches []*stretch
	for i, p := range places {
		margins[i].Records = p.offset - p.LogStart
		keep, limited := retention[p.Topic]
		if !limited || p.offset < p.LogStart {
			continue
		}
		stretches = append(stretches, &stretch{
			topic: p.Topic, partition: p.Partition, from: p.offset, to: p.Stable,
			each: func(recs []*kgo.Record) (bool, error) {
				left := recs[0].Timestamp.Add(keep).Sub(o.now()).Seconds()
				margins[i].Seconds = &left
				return false, nil
			},
		})
	}
	return margins, lost(o.reader().read(ctx, stretches))
}

// retention is for how long topics keep records; those that keep them whatever their age are left out.
func (o *Offsets) retention(ctx context.Context, names []string) (map[string]time.Duration, error) {
	all := map[string]time.Duration{}
	if len(names) == 0 {
		return all, nil
	}
	configs, err := o.adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("reading the retention of topics: %w", err)
	}
	for _, topic := range configs {
		if topic.Err != nil {
			return nil, fmt.Errorf("reading the retention of topic %s: %w", topic.Name, topic.Err)
		}
		settings := map[string]string{}
		for _, setting := range topic.Configs {
			settings[setting.Key] = setting.MaybeValue()
		}
		ms, err := strconv.ParseInt(settings["retention.ms"], 10, 64)
		if err == nil && ms >= 0 && strings.Contains(cmp.Or(settings["cleanup.policy"], "delete"), "delete") {
			all[topic.Name] = time.Duration(ms) * time.Millisecond
		}
	}
	return all, nil
}

func (c *Content) sum() {
	t := Total{Reread: Count{Exact: true}, Skip: Count{Exact: true}, Bytes: Count{Exact: true}, DeadInRange: Count{Exact: true}}
	for i := range c.Partitions {
		p := &c.Partitions[i]
		switch p.Direction {
		case Reread:
			t.Reread = t.Reread.plus(p.Records)
		case Skip:
			t.Skip = t.Skip.plus(p.Records)
		}
		t.Bytes = t.Bytes.plus(p.Bytes)
		t.Lost += p.Lost
		t.ParkedInRange += p.ParkedInRange
		t.DeadInRange = t.DeadInRange.plus(p.DeadInRange)
		t.Outlook = t.Outlook.plus(p.Outlook)
	}
	c.Total = t
}
