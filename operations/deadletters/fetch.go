package deadletters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// fetchRecords and fetchBytes bound what is read from topics, and moved in one transaction, at a time.
	fetchRecords = 500
	fetchBytes   = 8 << 20
	// fetchGap is the number of offsets between two wanted records from which on a new fetch is cheaper than reading on.
	fetchGap = 5_000
	// fetchPatience is how long a broker may leave a fetch without any answer.
	fetchPatience = 45 * time.Second
)

type partition struct {
	topic string
	n     int32
}

// span is a stretch of one partition in which wanted records stand: its first and its last offset.
type span struct{ first, last int64 }

// fetch reads the records of letters from their topics. Letters whose record the topic no longer has are not in the result.
func (o *Office) fetch(ctx context.Context, letters []ID) (map[ID]*kgo.Record, error) {
	if len(letters) == 0 {
		return nil, nil
	}
	admin, err := kgo.NewClient(o.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer admin.Close()
	spans, err := plan(ctx, kadm.NewClient(admin), letters)
	if err != nil {
		return nil, err
	}
	found := make(map[ID]*kgo.Record, len(letters))
	wanted := make(map[ID]bool, len(letters))
	for _, id := range letters {
		wanted[id] = true
	}
	for len(spans) > 0 { // one stretch of each partition at a time
		pass := map[partition]span{}
		for p, s := range spans {
			pass[p] = s[0]
			if spans[p] = s[1:]; len(s) == 1 {
				delete(spans, p)
			}
		}
		if err := o.pass(ctx, pass, wanted, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// plan cuts what is wanted into stretches that the topics have. An offset below the start has expired; one behind the end never
// was, or was in a topic that has been made anew.
func plan(ctx context.Context, admin *kadm.Client, letters []ID) (map[partition][]span, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	letters = slices.Clone(letters)
	slices.SortFunc(letters, ID.compare)
	var names []string
	for _, id := range letters {
		if !slices.Contains(names, id.Topic) {
			names = append(names, id.Topic)
		}
	}
	starts, err := admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing offsets of dead-letter topics: %w", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing offsets of dead-letter topics: %w", err)
	}
	spans := map[partition][]span{}
	for _, id := range letters {
		start, ok1 := starts.Lookup(id.Topic, id.Partition)
		end, ok2 := ends.Lookup(id.Topic, id.Partition)
		if !ok1 || !ok2 || start.Err != nil || end.Err != nil || id.Offset < start.Offset || id.Offset >= end.Offset {
			continue
		}
		p := partition{id.Topic, id.Partition}
		if s := spans[p]; len(s) > 0 && id.Offset-s[len(s)-1].last <= fetchGap {
			s[len(s)-1].last = id.Offset
			continue
		}
		spans[p] = append(spans[p], span{id.Offset, id.Offset})
	}
	return spans, nil
}

func (o *Office) pass(ctx context.Context, pass map[partition]span, wanted map[ID]bool, found map[ID]*kgo.Record) error {
	from := map[string]map[int32]kgo.Offset{}
	for p, s := range pass {
		if from[p.topic] == nil {
			from[p.topic] = map[int32]kgo.Offset{}
		}
		from[p.topic][p.n] = kgo.NewOffset().At(s.first)
	}
	client, err := kgo.NewClient(slices.Concat(o.Kafka, []kgo.Opt{
		kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the wanted record may be gone, and a marker the last one there is
	})...)
	if err != nil {
		return fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	for len(pass) > 0 {
		pollCtx, cancel := context.WithTimeout(ctx, fetchPatience)
		fetches := client.PollFetches(pollCtx)
		cancel()
		if err := fetches.Err(); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("nothing came from Kafka for %s", fetchPatience)
			}
			return fmt.Errorf("reading dead letters: %w", err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			id := ID{rec.Topic, rec.Partition, rec.Offset}
			if wanted[id] && !rec.Attrs.IsControl() {
				found[id] = rec
			}
			p := partition{rec.Topic, rec.Partition}
			if s, ok := pass[p]; ok && rec.Offset >= s.last {
				delete(pass, p)
			}
		})
	}
	return nil
}

// chunks cuts letters, in their order, so that no chunk holds more than is good to hold in memory.
func chunks(letters []Letter, do func([]Letter) error) error {
	for len(letters) > 0 {
		n, bytes := 0, 0
		for n < len(letters) && n < fetchRecords && (n == 0 || bytes+letters[n].Bytes <= fetchBytes) {
			bytes += letters[n].Bytes
			n++
		}
		if err := do(letters[:n]); err != nil {
			return err
		}
		letters = letters[n:]
	}
	return nil
}
