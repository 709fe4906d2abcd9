package index

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// position is a row of leat_control.positions.
type position struct {
	topicID [16]byte
	next    int64
}

// assign decides where each partition is read on, writes down what differs from the positions in the database, and begins to read.
func (s *session) assign(ctx context.Context) error {
	details, err := s.topics(ctx)
	if err != nil {
		return err
	}
	s.looked = time.Now()
	s.ids, s.next = map[string][16]byte{}, map[partition]int64{}
	if len(details) == 0 {
		return nil
	}
	starts, ends, err := bounds(ctx, s.admin, details.Names())
	if err != nil {
		return err
	}
	for name, t := range details {
		s.ids[name] = t.ID
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	err = pgx.BeginFunc(bounded, s.conn, func(tx pgx.Tx) error { return s.settle(bounded, tx, details, starts, ends) })
	if err != nil {
		return fmt.Errorf("deciding where to read on: %w", err)
	}
	offsets := map[string]map[int32]kgo.Offset{}
	for p, next := range s.next {
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.Offset{}
		}
		offsets[p.topic][p.partition] = kgo.NewOffset().At(next)
	}
	s.client.AddConsumePartitions(offsets)
	return nil
}

// bounds are the first and the last offset of each partition.
func bounds(ctx context.Context, admin *kadm.Client, names []string) (starts, ends kadm.ListedOffsets, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if starts, err = admin.ListStartOffsets(ctx, names...); err == nil {
		err = starts.Error()
	}
	if err == nil {
		if ends, err = admin.ListEndOffsets(ctx, names...); err == nil {
			err = ends.Error()
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listing offsets: %w", err)
	}
	return starts, ends, nil
}

const readPositions = `select topic, partition, topic_id, next_offset from leat_control.positions where projection = $1`

// The position of a partition that is read for the first time, or not from where the last one stands.
const setPosition = `insert into leat_control.positions (projection, topic, partition, topic_id, next_offset) values ($1, $2, $3, $4, $5)
on conflict (projection, topic, partition) do update set topic_id = excluded.topic_id, next_offset = excluded.next_offset, at = now()`

// A rebuild must not come between the reading of the positions and the writing of new ones. It locks the table against every writer
// first, and this against the rebuild; readers and other projections are not held up.
const lockPositions = `lock table leat_control.positions in row exclusive mode`

// settle fills s.next, in tx.
func (s *session) settle(ctx context.Context, tx pgx.Tx, details kadm.TopicDetails, starts, ends kadm.ListedOffsets) error {
	if _, err := tx.Exec(ctx, lockPositions); err != nil {
		return err
	}
	known, err := positions(ctx, tx, s.name)
	if err != nil {
		return err
	}
	var anew []string
	var lost, beyond []partition
	var lostRecords int64
	for name, t := range details {
		for n := range t.Partitions {
			p := partition{name, n}
			start, ok1 := starts.Lookup(name, n)
			end, ok2 := ends.Lookup(name, n)
			if !ok1 || !ok2 {
				return fmt.Errorf("%s has no offsets", p)
			}
			at, seen := known[p]
			next := at.next
			switch {
			case !seen:
				next = start.Offset
			case at.topicID != s.ids[name]:
				anew, next = append(anew, name), start.Offset
			case next < start.Offset:
				lost, lostRecords, next = append(lost, p), lostRecords+start.Offset-next, start.Offset
			case next > end.Offset:
				beyond, next = append(beyond, p), end.Offset
			}
			s.next[p] = next
			if seen && at.topicID == s.ids[name] && at.next == next {
				continue
			}
			if _, err := tx.Exec(ctx, setPosition, s.name, name, n, s.ids[name], next); err != nil {
				return fmt.Errorf("writing the position of %s: %w", p, err)
			}
		}
	}
	s.say(ctx, lost, lostRecords, beyond)
	return s.forget(ctx, tx, anew)
}

// say tells what cannot be read any more.
func (s *session) say(ctx context.Context, lost []partition, records int64, beyond []partition) {
	if len(lost) > 0 {
		s.metrics.skipped.WithLabelValues(s.name).Add(float64(records))
		s.log.WarnContext(ctx, "records were removed from topics before the index had read them: they will be missing in it",
			"offsets", records, "partitions", quoteAll(lost))
	}
	if len(beyond) > 0 {
		s.log.WarnContext(ctx, "topics end before the position of the index: they have lost records; it goes on at their end, "+
			"and `leat index rebuild` makes it agree with what is left", "partitions", quoteAll(beyond))
	}
}

// forget removes rows of topics that were made anew.
func (s *session) forget(ctx context.Context, tx pgx.Tx, anew []string) error {
	slices.Sort(anew)
	for _, topic := range slices.Compact(anew) {
		s.log.WarnContext(ctx, "a topic was deleted and made anew: the index reads it from its beginning", "topic", topic)
		f, ok := s.p.(Forgetter)
		if !ok {
			continue
		}
		if err := f.Forget(ctx, tx, topic); err != nil {
			return fmt.Errorf("forgetting the former topic %s: %w", topic, err)
		}
	}
	return nil
}

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func positions(ctx context.Context, db queryer, projection string) (map[partition]position, error) {
	rows, err := db.Query(ctx, readPositions, projection)
	if err != nil {
		return nil, fmt.Errorf("reading the positions: %w", err)
	}
	known := map[partition]position{}
	var p partition
	var at position
	_, err = pgx.ForEachRow(rows, []any{&p.topic, &p.partition, &at.topicID, &at.next}, func() error {
		known[p] = at
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the positions: %w", err)
	}
	return known, nil
}
