package offsets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

const (
	// eventSkew is how far before the event's own time its record may stand: clocks differ.
	eventSkew = 5 * time.Minute
	// eventLimit is how many records are searched for an event.
	eventLimit = 500_000
)

// goalsBefore is the offset of one event; the other partitions are left alone, because an event has a place in one only.
func (o *Offsets) goalsBefore(ctx context.Context, r *Request, fs []Facts) ([]goal, []string, error) {
	goals := make([]goal, len(fs))
	for i := range goals {
		goals[i].untold = true
	}
	at := func(place tp, offset int64, how string) ([]goal, []string, error) {
		for i := range fs {
			if fs[i].Topic == place.topic && fs[i].Partition == place.partition {
				goals[i] = goal{offset: offset}
				return goals, []string{fmt.Sprintf("event %s stands at %s offset %d (%s); other partitions are left alone",
					r.Target.EventID, place, offset, how)}, nil
			}
		}
		return nil, nil, refuse(fmt.Sprintf("event %s stands at %s offset %d, which is not among the partitions of the request",
			r.Target.EventID, place, offset))
	}
	place, offset, err := o.journal(ctx, r.Target.EventID, fs)
	if err != nil {
		return nil, nil, err
	}
	if offset >= 0 {
		return at(place, offset, "from the journal")
	}
	place, offset, searched, err := o.search(ctx, r.Target, fs)
	if err != nil {
		return nil, nil, err
	}
	if offset < 0 {
		return nil, nil, refuse(fmt.Sprintf("event %s was not found: %s. Is the id right, and the topic? --event-time and --event-key say where to look",
			r.Target.EventID, searched))
	}
	return at(place, offset, searched)
}

// By the journal's index of event ids. An event stands once on a topic, but for a source that was relayed again: then the first place
// counts. The id of the topic keeps places on a topic of the same name that is gone out of it.
const journalSQL = `select t.topic, j.partition, j."offset" from leat_control.journal j join leat_control.journal_topics t on t.id = j.topic
where j.event_id = $1 and (t.topic, t.topic_id) in (select * from unnest($2::text[], $3::uuid[])) order by j.at, j."offset" limit 1`

// journal looks the event up among what has been indexed; offset -1 says that it is not there.
func (o *Offsets) journal(ctx context.Context, event string, fs []Facts) (place tp, offset int64, err error) {
	id, err := uuid.Parse(event)
	if err != nil {
		return tp{}, -1, nil //nolint:nilerr // the journal has UUIDs only
	}
	names, ids := make([]string, len(fs)), make([]uuid.UUID, len(fs))
	for i := range fs {
		if ids[i], err = topicUUID(fs[i].TopicID); err != nil {
			return tp{}, -1, err
		}
		names[i] = fs[i].Topic
	}
	err = o.cfg.DB.QueryRow(ctx, journalSQL, id, names, ids).Scan(&place.topic, &place.partition, &offset)
	switch {
	case errors.Is(err, pgx.ErrNoRows), isUndefined(err):
		return tp{}, -1, nil
	case err != nil:
		return tp{}, -1, fmt.Errorf("looking for event %s in the journal: %w", event, err)
	}
	return place, offset, nil
}

// search reads from the event's own time on, in the partition of its key if that is known, and says how far it has looked.
func (o *Offsets) search(ctx context.Context, t Target, fs []Facts) (place tp, offset int64, searched string, err error) {
	when, err := eventTime(t)
	if err != nil {
		return tp{}, -1, "", err
	}
	from := when.Add(-eventSkew)
	ps := make([]tp, len(fs))
	for i := range fs {
		ps[i] = tp{fs[i].Topic, fs[i].Partition}
	}
	listed, err := o.adm.ListOffsetsAfterMilli(ctx, from.UnixMilli(), topicNames(ps)...)
	if err != nil {
		return tp{}, -1, "", fmt.Errorf("looking for the records of %s: %w", from.Format(time.RFC3339), err)
	}
	found, count := kgo.Record{Offset: -1}, 0
	var stretches []*stretch
	for i := range fs {
		f := &fs[i]
		l, ok := listed.Lookup(f.Topic, f.Partition)
		if !ok || l.Err != nil {
			return tp{}, -1, "", fmt.Errorf("looking for the records of %s in %s: %w", from.Format(time.RFC3339), f.name(), orUnknown(l.Err))
		}
		if t.EventKey != "" && partitionOf(t.EventKey, len(listed[f.Topic])) != f.Partition {
			continue
		}
		stretches = append(stretches, &stretch{
			topic: f.Topic, partition: f.Partition, from: max(l.Offset, f.LogStart), to: f.Stable,
			each: func(recs []*kgo.Record) (bool, error) {
				for _, rec := range recs {
					if count++; header(rec, topics.HeaderID) == t.EventID {
						found = *rec
						return false, nil
					}
				}
				return found.Offset < 0 && count < eventLimit, nil
			},
		})
	}
	if err := o.reader().read(ctx, stretches); err != nil {
		return tp{}, -1, "", err
	}
	searched = fmt.Sprintf("searched %d records of %d partitions from %s on", count, len(stretches), from.UTC().Format(time.RFC3339))
	if found.Offset < 0 && count >= eventLimit {
		searched += fmt.Sprintf(", the limit of %d", eventLimit)
	}
	return tp{found.Topic, found.Partition}, found.Offset, searched, nil
}

// eventTime is what the request says, or what a version 7 UUID says about itself.
func eventTime(t Target) (time.Time, error) {
	if t.EventTime != "" {
		return parseDatetime(t.EventTime)
	}
	id, err := uuid.Parse(t.EventID)
	if err != nil || id.Version() != 7 {
		return time.Time{}, refuse(fmt.Sprintf("event %s is not in the journal, and its id does not tell its time as a version 7 UUID does: "+
			"say about when it happened with --event-time", t.EventID))
	}
	sec, nsec := id.Time().UnixTime()
	return time.Unix(sec, nsec).UTC(), nil
}

// partitionOf is the partition of a key in a topic of n partitions, as Kafka's default partitioner has it.
func partitionOf(key string, n int) int32 {
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: []byte(key)}, n))
}

func header(rec *kgo.Record, name string) string {
	for i := range rec.Headers {
		if rec.Headers[i].Key == name {
			return string(rec.Headers[i].Value)
		}
	}
	return ""
}
