package trace

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const columnsOfVersion = `s.system, j.epoch, j.sequence, t.topic, j.event_id::text, j.changed_at, j.deletion`

// By journal_event. An id occurs at several places when its row was relayed again, and with several versions after a move of the source.
const findEvent = `select ` + columnsOfVersion + `
from leat_control.journal j join leat_control.journal_topics t on t.id = j.topic join leat_control.journal_systems s on s.id = j.system
where j.event_id = $1 order by j.at desc limit 100`

func (c Config) versionsOfEvent(ctx context.Context, id uuid.UUID) ([]Version, error) {
	return c.versions(ctx, 100, findEvent, [16]byte(id))
}

// By journal_key, newest partition first: older versions than are asked for are not read. A version has a row for each place, so
// more rows are read than versions are wanted.
const findKey = `select ` + columnsOfVersion + `
from leat_control.journal j join leat_control.journal_topics t on t.id = j.topic join leat_control.journal_systems s on s.id = j.system
where j.key = $1 and ($2 = '' or j.topic in (
  select id from leat_control.journal_topics where split_part(topic, '.', case when topic like 'source.%' then 3 else 2 end) = $2))
order by j.at desc limit $3`

func (c Config) versionsOfKey(ctx context.Context, key, entity string, limit int) ([]Version, error) {
	return c.versions(ctx, limit, findKey, key, entity, 10*limit)
}

// versions are the different ones among the rows, the newest first. A row of a source topic stands for its version before one
// of a finance topic.
func (c Config) versions(ctx context.Context, limit int, sql string, args ...any) ([]Version, error) {
	rows, err := c.Control.Query(ctx, sql, args...)
	var found []Version
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Version])
	}
	if err != nil {
		return nil, fmt.Errorf("looking in the journal: %w", err)
	}
	var list []Version
	for _, v := range found {
		i := slices.IndexFunc(list, func(w Version) bool {
			return w.System == v.System && w.Epoch == v.Epoch && w.Sequence == v.Sequence
		})
		switch {
		case i < 0:
			list = append(list, v)
		case strings.HasPrefix(v.Topic, "source."):
			list[i] = v
		}
	}
	// By version where the times do not say it: a replay of an old event is written late.
	slices.SortStableFunc(list, func(a, b Version) int {
		if a.System != b.System {
			return 0
		}
		return compareVersions(b.Epoch, b.Sequence, a.Epoch, a.Sequence)
	})
	return list[:min(len(list), limit)], nil
}

func compareVersions(epochA, sequenceA, epochB, sequenceB int64) int {
	switch {
	case epochA != epochB:
		return sign(epochA - epochB)
	default:
		return sign(sequenceA - sequenceB)
	}
}

func sign(n int64) int { return int(max(-1, min(1, n))) }

// By journal_sequence. A topic that was made anew has a newer row in journal_topics.
const findPlaces = `select t.topic, j.partition, j."offset", j.at, j.changed_at, j.event_id::text, j.key, j.deletion,
  exists (select from leat_control.journal_topics n where n.topic = t.topic and n.id > t.id)
from leat_control.journal j join leat_control.journal_topics t on t.id = j.topic
where j.system = (select id from leat_control.journal_systems where system = $1) and j.epoch = $2 and j.sequence = $3
order by j.at, t.topic desc, j.partition, j."offset" limit 1000`

func (c Config) places(ctx context.Context, v Version) ([]Place, error) {
	rows, err := c.Control.Query(ctx, findPlaces, v.System, v.Epoch, v.Sequence)
	list := []Place{}
	if err == nil {
		var p Place
		_, err = pgx.ForEachRow(rows, []any{
			&p.Topic, &p.Partition, &p.Offset, &p.At, &p.ChangedAt, &p.EventID, &p.Key, &p.Deletion, &p.Former,
		}, func() error {
			p.Groups = []Progress{}
			list = append(list, p)
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the places of an event in the journal: %w", err)
	}
	return list, nil
}

// sourcePlace is the newest place on a source topic, -1 if there is none.
func sourcePlace(places []Place) int {
	for i, p := range slices.Backward(places) {
		if strings.HasPrefix(p.Topic, "source.") {
			return i
		}
	}
	return -1
}

// Attempt is a failed attempt to handle the event or one of its finance records.
type Attempt struct {
	At          time.Time  `json:"at"`
	Group       string     `json:"group"`
	Stage       string     `json:"stage"`
	Attempt     int        `json:"attempt"`
	Class       string     `json:"class"`
	Code        string     `json:"code"`
	Message     string     `json:"message"`
	Disposition string     `json:"disposition"` // retry: it waits for another attempt; permanent, exhausted, manual: it became a dead letter
	Fingerprint string     `json:"fingerprint"`
	NotBefore   *time.Time `json:"not_before,omitempty"`
	SettledAt   *time.Time `json:"settled_at,omitempty"` // since when the record waits no longer
	Topic       string     `json:"topic"`                // where the attempt stands
	Partition   int32      `json:"partition"`
	Offset      int64      `json:"offset"`
	Of          string     `json:"of"` // the record, as topic/partition/offset
	OutboxID    *int64     `json:"outbox_id,omitempty"`
}

// DeadLetter is a record that a group has given up.
type DeadLetter struct {
	At          time.Time `json:"at"`
	State       string    `json:"state"` // open, redriving, redriven, resolved, failed_again, discarded
	StateAt     time.Time `json:"state_at"`
	Group       string    `json:"group"`
	Class       string    `json:"class"`
	Code        string    `json:"code"`
	Message     string    `json:"message"`
	Disposition string    `json:"disposition"`
	Fingerprint string    `json:"fingerprint"`
	Attempts    int       `json:"attempts"`
	Topic       string    `json:"topic"`
	Partition   int32     `json:"partition"`
	Offset      int64     `json:"offset"`
}

// By attempts_event and attempts_record.
const findAttempts = `select at, group_name, stage, attempt, class, code, message, disposition, fingerprint, not_before, settled_at,
  topic, partition, "offset", format('%s/%s/%s', original_topic, original_partition, original_offset), outbox_id
from leat_control.attempts
where event_id = any ($1::text[]) or tenant = $2 and system = $3 and source_id = $4
order by at, attempt limit 1000`

// By dead_letters_event and dead_letters_record.
const findDeadLetters = `select at, state, state_at, group_name, class, code, message, disposition, fingerprint, attempts,
  topic, partition, "offset"
from leat_control.dead_letters
where event_id = any ($1::text[]) or tenant = $2 and system = $3 and source_id = $4
order by at limit 1000`

// failures fills in the attempts and dead letters of events, or of a business record.
func (c Config) failures(ctx context.Context, j *Journey, ids []string, rec *record) error {
	args := []any{ids, nil, nil, nil} // equal to nothing
	if rec != nil {
		args = []any{ids, rec.tenant, rec.system, rec.id}
	}
	rows, err := c.Control.Query(ctx, findAttempts, args...)
	if err == nil {
		j.Attempts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Attempt])
	}
	if err != nil {
		return fmt.Errorf("looking for failed attempts: %w", err)
	}
	rows, err = c.Control.Query(ctx, findDeadLetters, args...)
	if err == nil {
		j.DeadLetters, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DeadLetter])
	}
	if err != nil {
		return fmt.Errorf("looking for dead letters: %w", err)
	}
	return nil
}
