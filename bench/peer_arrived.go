package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// arrived is what a topic holds of the records 0 to n-1.
type arrived struct {
	distinct, duplicates int
	inversions           int // first arrivals that came after a later one of the same key
}

// add adds what was counted to the report. A lost record is no result.
func (a arrived) add(r *report, scenario string) {
	r.add(scenario, "distinct records", "records", float64(a.distinct))
	r.add(scenario, "duplicates", "records", float64(a.duplicates))
	if a.distinct > keys { // else no key came twice
		r.add(scenario, "out of order within a key", "records", float64(a.inversions))
	}
}

// numbering tells the number of a record.
type numbering func(*kgo.Record) (int, error)

// drained waits until the topic holds all of n records for a read_committed consumer, and returns how many became visible in a second
// from the first to the last. It gives up when failed has an error. As throughput does, it watches the last stable offsets, and reads the records afterwards.
func (b *bench) drained(ctx context.Context, topic string, n int, number numbering, failed func() error) (float64, arrived, error) {
	const quiet = time.Second
	var first, last time.Time
	var before, visible int64
	for ; ; pause(ctx, 5*time.Millisecond) {
		if err := failed(); err != nil {
			return 0, arrived{}, err
		}
		sum, err := b.stable(ctx, topic)
		if err != nil {
			return 0, arrived{}, err
		}
		switch {
		case sum != visible:
			visible, last = sum, time.Now()
			if first.IsZero() {
				first, before = last, sum
			}
		case visible >= int64(n) && time.Since(last) > quiet: // markers of transactions count as offsets
			a, err := b.arrivedIn(ctx, topic, n, number)
			if err != nil {
				return 0, a, err
			}
			if a.distinct == n {
				return float64(int64(n)-before) / last.Sub(first).Seconds(), a, nil
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// stable is the sum of the topic's last stable offsets.
func (b *bench) stable(ctx context.Context, topic string) (sum int64, err error) {
	offsets, err := b.adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	offsets.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum, offsets.Error()
}

// arrivedIn reads all that the topic holds.
func (b *bench) arrivedIn(ctx context.Context, topic string, n int, number numbering) (a arrived, err error) {
	seen := make([]bool, n)
	newest := map[int]int{}
	err = b.eachRecord(ctx, topic, func(rec *kgo.Record) error {
		i, err := number(rec)
		if err != nil {
			return err
		}
		if i < 0 || i >= n {
			return fmt.Errorf("%s holds record %d, and only %d were written", topic, i, n)
		}
		if seen[i] {
			a.duplicates++
			return nil
		}
		seen[i] = true
		a.distinct++
		if newest[i%keys] > i {
			a.inversions++
		}
		newest[i%keys] = max(newest[i%keys], i)
		return nil
	})
	return a, err
}

// eachRecord calls f with what a read_committed consumer finds in a topic, up to its present end.
func (b *bench) eachRecord(ctx context.Context, topic string, f func(*kgo.Record) error) error {
	ends, err := b.adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return err
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.servers.brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(left) > 0 {
		fetches := cl.PollRecords(ctx, -1)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if !rec.Attrs.IsControl() && err == nil {
				err = f(rec)
			}
			if rec.Offset+1 >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// numberOfRow is the number that a record of an outbox's row has in its payload.
func numberOfRow(rec *kgo.Record) (int, error) { return sequence(rec.Value) }

// sequence is the number in a payload: the invoice_id of its first line. Fields come in any order.
func sequence(value []byte) (int, error) {
	_, rest, _ := bytes.Cut(value, []byte(`"lines"`))
	_, rest, ok := bytes.Cut(rest, []byte(`"invoice_id": `))
	end := bytes.IndexAny(rest, ",}")
	if !ok || end < 0 {
		return 0, errors.New("a record that arrived is not an invoice that was written")
	}
	return strconv.Atoi(string(rest[:end]))
}
