package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// ParkedRecord is a record that waits on a retry topic, as operators see it. Its value is not shown.
type ParkedRecord struct {
	Group       string             `json:"group"`
	Topic       string             `json:"topic"` // that it was read from
	Partition   int32              `json:"partition"`
	Offset      int64              `json:"offset"`
	Key         string             `json:"key"`
	Tenant      string             `json:"tenant"`
	EventID     string             `json:"event_id"`
	Disposition topics.Disposition `json:"disposition"` // retry, blocked-by, paused, manual
	Attempt     int                `json:"attempt"`     // attempts made
	FirstFailed time.Time          `json:"first_failed_at,omitzero"`
	NotBefore   time.Time          `json:"not_before,omitzero"` // of its next attempt
	Class       string             `json:"class,omitempty"`
	Code        string             `json:"code,omitempty"`
	Error       string             `json:"error,omitempty"`
	Fingerprint string             `json:"fingerprint,omitempty"`
}

func compareParked(a, b ParkedRecord) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

// ReadParked returns the parked records that s selects, by topic, partition and offset. It reads the retry topics themselves, as a
// new owner would, up to what was committed at the time of the call: it needs no running process and no database.
func ReadParked(ctx context.Context, kafka []kgo.Opt, s Selection) ([]ParkedRecord, error) {
	cl, err := kgo.NewClient(append(slices.Clone(kafka),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the last record below the end may be a marker
	)...)
	if err != nil {
		return nil, fmt.Errorf("reading parked records: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	sources, err := retryTopics(ctx, adm, s)
	if err != nil {
		return nil, fmt.Errorf("reading parked records of group %s: %w", s.Group, err)
	}
	f := fold{s: &s, sources: sources, live: map[place]ParkedRecord{}}
	if err := f.read(ctx, cl, adm); err != nil {
		return nil, fmt.Errorf("reading parked records of group %s: %w", s.Group, err)
	}
	var found []ParkedRecord
	for _, r := range f.live {
		if s.selects(&r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, compareParked)
	return found, nil
}

// retryTopics maps the retry topics of s to the topics whose records they hold.
func retryTopics(ctx context.Context, adm *kadm.Client, s Selection) (map[string]string, error) {
	if s.Group == "" {
		return nil, errors.New("name the group")
	}
	all, err := adm.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	suffix := topics.Retry("", s.Group)
	for name := range all {
		source, ok := strings.CutSuffix(name, suffix)
		if ok && (len(s.Topics) == 0 || slices.Contains(s.Topics, source)) {
			found[name] = source
		}
	}
	for _, t := range s.Topics {
		if !all.Has(topics.Retry(t, s.Group)) {
			return nil, fmt.Errorf("there is no topic %s; which topics the group reads says `leat topics plan`", topics.Retry(t, s.Group))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no topic ends in %s; is the name of the group right?", suffix)
	}
	return found, nil
}

// place is a parked id on a retry topic.
type place struct{ topic, id string }

// fold keeps the newest record of each parked id.
type fold struct {
	s       *Selection
	sources map[string]string
	live    map[place]ParkedRecord
	left    map[string]map[int32]int64 // offsets up to which partitions are still to be read
	silent  int                        // polls in a row that brought nothing
}

func (f *fold) read(ctx context.Context, cl *kgo.Client, adm *kadm.Client) error {
	names := make([]string, 0, len(f.sources))
	for name := range f.sources {
		names = append(names, name)
	}
	starts, err := adm.ListStartOffsets(ctx, names...)
	if err != nil {
		return err
	}
	ends, err := adm.ListCommittedOffsets(ctx, names...)
	if err != nil {
		return err
	}
	if err := errors.Join(starts.Error(), ends.Error()); err != nil {
		return err
	}
	f.left = map[string]map[int32]int64{}
	from := map[string]map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		if start.Offset >= end.Offset {
			return
		}
		if f.left[end.Topic] == nil {
			f.left[end.Topic], from[end.Topic] = map[int32]int64{}, map[int32]kgo.Offset{}
		}
		f.left[end.Topic][end.Partition], from[end.Topic][end.Partition] = end.Offset, kgo.NewOffset().At(start.Offset)
	})
	cl.AddConsumePartitions(from)
	for len(f.left) > 0 {
		if err := f.poll(ctx, cl); err != nil {
			return err
		}
	}
	return nil
}

// What is left counts as compacted away when nothing has come for so many polls of so long: a broker sends nothing for a batch
// without records, and after a clean-up the last one may have none.
const (
	quiet    = time.Second
	quietFor = 10
)

func (f *fold) poll(ctx context.Context, cl *kgo.Client) error {
	pollCtx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	fetches := cl.PollRecords(pollCtx, 10_000)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var failed error
	fetches.EachError(func(topic string, p int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) {
			failed = fmt.Errorf("fetching %s/%d: %w", topic, p, err)
		}
	})
	if failed != nil {
		return failed
	}
	if f.silent++; fetches.NumRecords() > 0 {
		f.silent = 0
	}
	if f.silent >= quietFor {
		clear(f.left)
		return nil
	}
	fetches.EachPartition(func(tp kgo.FetchTopicPartition) {
		for _, rec := range tp.Records {
			f.take(rec)
		}
		if n := len(tp.Records); n > 0 && tp.Records[n-1].Offset+1 >= f.left[tp.Topic][tp.Partition] {
			delete(f.left[tp.Topic], tp.Partition)
			if len(f.left[tp.Topic]) == 0 {
				delete(f.left, tp.Topic)
			}
		}
	})
	return nil
}

func (f *fold) take(rec *kgo.Record) {
	if rec.Attrs.IsControl() {
		return
	}
	at := place{rec.Topic, string(rec.Key)}
	if rec.Value == nil {
		delete(f.live, at)
		return
	}
	p, err := processors.DecodeParked(f.sources[rec.Topic], rec)
	if err != nil {
		return // no process can read it either, and says so
	}
	f.live[at] = parkedRecord(f.s.Group, p)
}

func parkedRecord(group string, p processors.Parked) ParkedRecord {
	r := ParkedRecord{
		Group: group, Topic: p.Failure.Topic, Partition: p.Failure.Partition, Offset: p.Failure.Offset, Key: string(p.Key),
		Disposition: p.Failure.Disposition, Attempt: p.Failure.Attempt, FirstFailed: p.Failure.FirstFailedAt, NotBefore: p.Failure.NotBefore,
		Class: p.Failure.Class, Code: p.Failure.Code, Error: p.Failure.Message, Fingerprint: p.Failure.Fingerprint,
	}
	for _, h := range p.Headers {
		switch h.Key {
		case topics.HeaderTenant:
			r.Tenant = string(h.Value)
		case topics.HeaderID:
			r.EventID = string(h.Value)
		}
	}
	if tenant, _, _, err := topics.SplitKey(p.Key); err == nil {
		r.Tenant = tenant
	}
	return r
}
