package offsets

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// ParkedMode says what becomes of parked records of the range that a plan has a group read again.
type ParkedMode string

// The modes. None of them loses a record. One that is still parked when it is read again keeps its place; one whose retry comes before
// that is read again like any other.
const (
	ParkedKeep   ParkedMode = "keep"   // they stay parked
	ParkedDrain  ParkedMode = "drain"  // apply waits until the running members have settled them
	ParkedCancel ParkedMode = "cancel" // they are taken off the retry topic: the group reads them again anyway
)

// parked are the source offsets of the records that a group has parked, by source partition, in order.
func (o *Offsets) parked(ctx context.Context, group string, ps []tp) (map[tp][]int64, error) {
	retry, err := o.existing(ctx, ps, func(topic string) string { return topics.Retry(topic, group) })
	if err != nil {
		return nil, err
	}
	live := map[tp]map[int64]struct{}{}
	var stretches []*stretch
	for _, p := range ps {
		name := topics.Retry(p.topic, group)
		f, ok := retry[tp{name, p.partition}]
		if !ok {
			continue
		}
		offsets := map[int64]struct{}{}
		live[p] = offsets
		stretches = append(stretches, &stretch{
			topic: name, partition: p.partition, from: f.LogStart, to: f.End,
			each: func(recs []*kgo.Record) (bool, error) {
				for _, rec := range recs {
					_, offset, err := topics.SplitParkedID(rec.Key)
					switch {
					case err != nil: // not ours; the stage leaves it alone too
					case rec.Value == nil:
						delete(offsets, offset)
					default:
						offsets[offset] = struct{}{}
					}
				}
				return true, nil
			},
		})
	}
	if err := o.reader().read(ctx, stretches); err != nil {
		return nil, fmt.Errorf("reading what group %s has parked: %w", group, err)
	}
	sorted := map[tp][]int64{}
	for p, offsets := range live {
		for offset := range offsets {
			sorted[p] = append(sorted[p], offset)
		}
		slices.Sort(sorted[p])
	}
	return sorted, nil
}

// existing are the facts of those partitions of companion topics that exist.
func (o *Offsets) existing(ctx context.Context, ps []tp, companion func(topic string) string) (map[tp]Facts, error) {
	var names []string
	for _, topic := range topicNames(ps) {
		names = append(names, companion(topic))
	}
	details, err := o.adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	var there []tp
	for _, p := range ps {
		d := details[companion(p.topic)]
		if d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("describing topic %s: %w", companion(p.topic), d.Err)
		}
		if _, ok := d.Partitions[p.partition]; ok {
			there = append(there, tp{companion(p.topic), p.partition})
		}
	}
	facts, err := o.facts(ctx, there, nil)
	if err != nil {
		return nil, err
	}
	all := map[tp]Facts{}
	for i, p := range there {
		all[p] = facts[i]
	}
	return all, nil
}

func inRange(offsets []int64, from, to int64) (n int64) {
	lo, _ := slices.BinarySearch(offsets, from)
	hi, _ := slices.BinarySearch(offsets, to)
	return int64(hi - lo)
}

// letters are the source offsets of the dead letters of a partition, in order.
type letters struct {
	offsets []int64
	indexed bool // from the index, where those that are settled do not count
	whole   bool // none was left out
}

// letterLimit is how many records of dead-letter topics are read where the index does not have them.
const letterLimit = 500_000

// deadLetters are those of a group by source partition: from the index in Postgres where that has read the dead-letter topic to its end,
// else from the topic. fingerprint selects those of one kind of failure.
func (o *Offsets) deadLetters(ctx context.Context, group, fingerprint string, ps []tp) (map[tp]*letters, error) {
	dlqs, err := o.existing(ctx, ps, func(topic string) string { return topics.DLQ(topic, group) })
	if err != nil {
		return nil, err
	}
	all := map[tp]*letters{}
	var stretches []*stretch
	for _, p := range ps {
		f, ok := dlqs[tp{topics.DLQ(p.topic, group), p.partition}]
		if !ok {
			continue
		}
		l, err := o.indexedLetters(ctx, &f, p, fingerprint)
		if err != nil {
			return nil, err
		}
		if l == nil {
			l = &letters{}
			stretches = append(stretches, l.stretch(&f, p, fingerprint))
		}
		all[p] = l
	}
	if err := o.reader().read(ctx, stretches); err != nil {
		return nil, fmt.Errorf("reading the dead letters of group %s: %w", group, err)
	}
	for _, l := range all {
		slices.Sort(l.offsets)
		l.offsets = slices.Compact(l.offsets)
	}
	return all, nil
}

func (l *letters) stretch(f *Facts, p tp, fingerprint string) *stretch {
	from := max(f.LogStart, f.Stable-letterLimit) // the newest, if there are more
	l.whole = from == f.LogStart
	return &stretch{
		topic: f.Topic, partition: f.Partition, from: from, to: f.Stable,
		each: func(recs []*kgo.Record) (bool, error) {
			for _, rec := range recs {
				failure, err := topics.DecodeFailure(headers(rec))
				if err == nil && failure.Topic == p.topic && failure.Partition == p.partition &&
					(fingerprint == "" || failure.Fingerprint == fingerprint) {
					l.offsets = append(l.offsets, failure.Offset)
				}
			}
			return true, nil
		},
	}
}

func headers(rec *kgo.Record) []topics.Header {
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header(h)
	}
	return hs
}

// By the primary key of positions. The index counts only if it has read the very topic, to its end.
const indexedSQL = `select exists (select from leat_control.positions where projection = 'deadletters' and topic = $1 and partition = $2
  and topic_id = $3 and next_offset >= $4)`

// By the primary key's first two columns; only open ones wait for anybody.
const lettersSQL = `select distinct original_offset from leat_control.dead_letters
where topic = $1 and partition = $2 and original_topic = $3 and original_partition = $4 and ($5 = '' or fingerprint = $5) and state = 'open'
order by 1`

// indexedLetters returns nil where the index does not have them all.
func (o *Offsets) indexedLetters(ctx context.Context, f *Facts, p tp, fingerprint string) (*letters, error) {
	id, err := topicUUID(f.TopicID)
	if err != nil {
		return nil, err
	}
	var indexed bool
	err = o.cfg.DB.QueryRow(ctx, indexedSQL, f.Topic, f.Partition, id, f.Stable).Scan(&indexed)
	if isUndefined(err) || err == nil && !indexed {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking the index of dead letters: %w", err)
	}
	rows, err := o.cfg.DB.Query(ctx, lettersSQL, f.Topic, f.Partition, p.topic, p.partition, fingerprint)
	if err != nil {
		return nil, fmt.Errorf("reading the index of dead letters: %w", err)
	}
	offsets, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("reading the index of dead letters: %w", err)
	}
	return &letters{offsets: offsets, indexed: true, whole: true}, nil
}

// isUndefined reports whether a table is not there: its migration has not been applied.
func isUndefined(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "42P01"
}

// goalsDead are the first dead letters of each partition; partitions without one are left alone.
func (o *Offsets) goalsDead(ctx context.Context, r *Request, fs []Facts) ([]goal, []string, error) {
	ps := make([]tp, len(fs))
	for i := range fs {
		ps[i] = tp{fs[i].Topic, fs[i].Partition}
	}
	dead, err := o.deadLetters(ctx, r.Group, r.Target.Fingerprint, ps)
	if err != nil {
		return nil, nil, err
	}
	goals := make([]goal, len(fs))
	found, indexed, whole := 0, false, true
	for i, p := range ps {
		l := dead[p]
		if l == nil || len(l.offsets) == 0 {
			goals[i] = goal{untold: true}
			continue
		}
		goals[i] = goal{offset: l.offsets[0]}
		found++
		indexed, whole = indexed || l.indexed, whole && l.whole
	}
	what := "dead letter of group " + r.Group
	if r.Target.Fingerprint != "" {
		what += " with fingerprint " + r.Target.Fingerprint
	}
	if found == 0 {
		return nil, nil, refuse("there is no " + what + " in these partitions")
	}
	note := fmt.Sprintf("%d of %d partitions have a %s; the others are left alone", found, len(fs), what)
	if indexed {
		note += "; redriven, resolved and discarded ones do not count"
	}
	if !whole {
		return nil, nil, refuse(fmt.Sprintf("the dead-letter topics hold more than %d records a partition and are not indexed yet, so the first one is not known: "+
			"run `leat index run`, or name an offset", letterLimit))
	}
	return goals, []string{note}, nil
}

// topicUUID is Kafka's id of a topic as Postgres keeps it.
func topicUUID(id string) (uuid.UUID, error) {
	raw, err := base64.StdEncoding.DecodeString(id)
	if err != nil {
		return uuid.UUID{}, fmt.Errorf("topic id %q: %w", id, err)
	}
	return uuid.FromBytes(raw)
}
