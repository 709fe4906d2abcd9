// Package journal is what the index knows of single events: where each record of source and finance topics stands on Kafka
// (Journal), and each failed attempt to handle one (Attempts). Both are projections; trace and others look things up in them.
//
// Neither holds payloads, and neither decides anything.
package journal

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/topics"
)

// DefaultKeep is how long rows are kept if nothing is said.
const DefaultKeep = 90 * 24 * time.Hour

// maxKey bounds the keys that are journalled: longer ones are none of ours, and no index takes them.
const maxKey = 2 << 10

// Journal is the projection of source and finance topics to leat_control.journal. One value serves one index.
type Journal struct {
	keep time.Duration

	since, till time.Time // rows have a partition from when to when
	topics      map[topic]int32
	systems     map[string]int32
	headers     []topics.Header // of the record in hand
}

// topic is a topic under the id that Kafka has given to it.
type topic struct {
	name string
	id   [16]byte
}

var (
	_ index.Projection = (*Journal)(nil)
	_ index.Keeper     = (*Journal)(nil)
)

// New returns the projection. Rows are dropped by the week, when all of the week is older than keep; 0 means DefaultKeep.
func New(keep time.Duration) *Journal { return &Journal{keep: cmp.Or(keep, DefaultKeep)} }

// Name is "journal".
func (j *Journal) Name() string { return "journal" }

// Reads reports whether name is a source or a finance topic, and not a retry or dead-letter topic of one.
func (j *Journal) Reads(name string) bool {
	return (strings.HasPrefix(name, "source.") || strings.HasPrefix(name, "finance.")) && strings.Count(name, ".") == 2
}

const journalUpkeep = `select since, till from leat_control.journal_upkeep($1)`

// Upkeep makes and drops partitions.
func (j *Journal) Upkeep(ctx context.Context, tx pgx.Tx) error {
	// The names are read anew: the database may be another one, restored from a backup.
	j.topics, j.systems = nil, nil
	var since, till time.Time
	if err := tx.QueryRow(ctx, journalUpkeep, j.keep).Scan(&since, &till); err != nil {
		return fmt.Errorf("looking after the partitions of the journal: %w", err)
	}
	j.since, j.till = since, till
	return nil
}

// Reset empties the journal.
func (j *Journal) Reset(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `select leat_control.journal_reset()`)
	return err
}

func journalColumns() []string {
	return []string{"at", "changed_at", "event_id", "sequence", "epoch", "offset", "topic", "partition", "system", "deletion", "key"}
}

// Apply copies a row for each record. Those that are older than what the journal keeps, and those that are no events of ours, have none.
func (j *Journal) Apply(ctx context.Context, tx pgx.Tx, recs []*kgo.Record) error {
	if j.till.IsZero() {
		if err := j.Upkeep(ctx, tx); err != nil {
			return err
		}
	}
	entries := make([]entry, 0, len(recs))
	for _, rec := range recs {
		if e, ok := j.entry(ctx, rec); ok {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	if err := j.name(ctx, tx, entries); err != nil {
		return err
	}
	i := 0
	row := make([]any, len(journalColumns()))
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"leat_control", "journal"}, journalColumns(), pgx.CopyFromFunc(func() ([]any, error) {
		if i == len(entries) {
			return nil, nil
		}
		e := &entries[i]
		i++
		row[0], row[1], row[2], row[3], row[4], row[5] = &e.at, &e.changed, &e.event, &e.sequence, &e.epoch, &e.offset
		row[6], row[7], row[8], row[9], row[10] = &e.topicNo, &e.partition, &e.systemNo, &e.deletion, &e.key
		return row, nil
	}))
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

// entry is a row of the journal.
type entry struct {
	at, changed     time.Time
	event           [16]byte
	sequence, epoch int64
	offset          int64
	topic           topic
	topicNo         int32
	partition       int32
	system          string
	systemNo        int32
	deletion        bool
	key             string
}

// entry reads a record; false if it is not to be journalled.
func (j *Journal) entry(ctx context.Context, rec *kgo.Record) (entry, bool) {
	at := rec.Timestamp
	if at.Before(j.since) || len(rec.Key) > maxKey || !utf8.Valid(rec.Key) || bytes.IndexByte(rec.Key, 0) >= 0 {
		return entry{}, false
	}
	j.headers = j.headers[:0]
	for _, h := range rec.Headers {
		j.headers = append(j.headers, topics.Header(h))
	}
	env, err := topics.DecodeEnvelope(j.headers)
	if err != nil {
		return entry{}, false
	}
	event, err := uuid.Parse(env.ID)
	if err != nil {
		return entry{}, false
	}
	if !at.Before(j.till) {
		at = time.Now() // the writer's clock is weeks ahead
	}
	return entry{
		at: at, changed: env.Time, event: event, sequence: env.Sequence, epoch: env.Epoch, offset: rec.Offset,
		topic: topic{rec.Topic, index.TopicID(ctx, rec.Topic)}, partition: rec.Partition, system: env.System,
		deletion: env.Operation == topics.Delete, key: string(rec.Key),
	}, true
}

const readNames = `select id, topic, topic_id from leat_control.journal_topics`

const readSystems = `select id, system from leat_control.journal_systems`

const addTopic = `insert into leat_control.journal_topics (topic, topic_id) values ($1, $2) returning id`

const addSystem = `insert into leat_control.journal_systems (system) values ($1) returning id`

// name gives topics and systems their numbers. New ones are not remembered: the transaction may come to nothing, and the next one
// reads what is there.
func (j *Journal) name(ctx context.Context, tx pgx.Tx, entries []entry) error {
	topicNos, systemNos := j.topics, j.systems
	known := func() bool {
		for i := range entries {
			e := &entries[i]
			var ok1, ok2 bool
			e.topicNo, ok1 = topicNos[e.topic]
			e.systemNo, ok2 = systemNos[e.system]
			if !ok1 || !ok2 {
				return false
			}
		}
		return true
	}
	if known() {
		return nil
	}
	if err := j.readNames(ctx, tx); err != nil {
		return err
	}
	topicNos, systemNos = maps.Clone(j.topics), maps.Clone(j.systems)
	for i := range entries {
		e := &entries[i]
		if err := number(ctx, tx, topicNos, e.topic, addTopic, e.topic.name, e.topic.id); err != nil {
			return fmt.Errorf("numbering topic %s: %w", e.topic.name, err)
		}
		if err := number(ctx, tx, systemNos, e.system, addSystem, e.system); err != nil {
			return fmt.Errorf("numbering system %s: %w", e.system, err)
		}
	}
	known()
	return nil
}

func number[K comparable](ctx context.Context, tx pgx.Tx, numbers map[K]int32, key K, sql string, args ...any) error {
	if _, ok := numbers[key]; ok {
		return nil
	}
	var id int32
	err := tx.QueryRow(ctx, sql, args...).Scan(&id)
	numbers[key] = id
	return err
}

func (j *Journal) readNames(ctx context.Context, tx pgx.Tx) error {
	j.topics, j.systems = map[topic]int32{}, map[string]int32{}
	var id int32
	var t topic
	rows, err := tx.Query(ctx, readNames)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id, &t.name, &t.id}, func() error { j.topics[t] = id; return nil })
	}
	if err != nil {
		return fmt.Errorf("reading the topics of the journal: %w", err)
	}
	var system string
	rows, err = tx.Query(ctx, readSystems)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id, &system}, func() error { j.systems[system] = id; return nil })
	}
	if err != nil {
		return fmt.Errorf("reading the systems of the journal: %w", err)
	}
	return nil
}
