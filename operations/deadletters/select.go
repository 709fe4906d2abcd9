package deadletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/topics"
)

// Selection says which dead letters are meant. All its conditions must hold; the zero value selects every letter.
type Selection struct {
	IDs         []ID      `json:"ids,omitempty"`
	Group       string    `json:"group,omitempty"`
	Topic       string    `json:"topic,omitempty"` // the dead-letter topic, or the topic that the record came from
	Tenant      string    `json:"tenant,omitempty"`
	Class       string    `json:"class,omitempty"`
	Code        string    `json:"code,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	States      []State   `json:"states,omitempty"`
	Since       time.Time `json:"since,omitzero"` // given up at or after
	Until       time.Time `json:"until,omitzero"` // given up before
	Key         string    `json:"key,omitempty"`  // the record's key: <tenant>/<system>/<id>
	EventID     string    `json:"event_id,omitempty"`
	Owner       string    `json:"owner,omitempty"`
	Job         string    `json:"job,omitempty"` // the redrive that has or had them
}

// Validate reports every problem of s.
func (s Selection) Validate() error {
	var errs []error
	for _, st := range s.States {
		if !slices.Contains(States(), st) {
			errs = append(errs, fmt.Errorf("state %q is unknown: use open, redriving, redriven, resolved, failed_again or discarded", st))
		}
	}
	if !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until) {
		errs = append(errs, errors.New("since is not before until: no letter can be selected"))
	}
	return errors.Join(errs...)
}

// Empty reports whether s selects every letter: states alone narrow down nothing.
func (s Selection) Empty() bool { return s.String() == "" }

// String says what is selected, but for the states.
func (s Selection) String() string {
	var parts []string
	add := func(name, v string) {
		if v != "" {
			parts = append(parts, name+" "+v)
		}
	}
	if n := len(s.IDs); n == 1 {
		add("letter", s.IDs[0].String())
	} else if n > 1 {
		add("letters", fmt.Sprintf("%s and %d others", s.IDs[0], n-1))
	}
	add("group", s.Group)
	add("topic", s.Topic)
	add("tenant", s.Tenant)
	add("class", s.Class)
	add("code", s.Code)
	add("fingerprint", s.Fingerprint)
	add("key", s.Key)
	add("event", s.EventID)
	add("owner", s.Owner)
	add("redrive", s.Job)
	if !s.Since.IsZero() {
		add("since", s.Since.UTC().Format(time.RFC3339))
	}
	if !s.Until.IsZero() {
		add("until", s.Until.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

// where are the conditions of s on dead_letters d and dead_letter_notes n, with their arguments behind args.
func (s Selection) where(args []any) (string, []any) {
	conds := []string{"true"}
	add := func(cond string, v any) {
		args = append(args, v)
		conds = append(conds, strings.ReplaceAll(cond, "?", fmt.Sprintf("$%d", len(args))))
	}
	for _, c := range []struct{ cond, v string }{
		{"d.group_name = ?", s.Group},
		{"(d.topic = ? or d.original_topic = ?)", s.Topic},
		{"d.tenant = ?", s.Tenant},
		{"d.class = ?", s.Class},
		{"d.code = ?", s.Code},
		{"d.fingerprint = ?", s.Fingerprint},
		{"d.event_id = ?", s.EventID},
		{"n.owner = ?", s.Owner},
		{"d.job::text = ?", s.Job},
	} {
		if c.v != "" {
			add(c.cond, c.v)
		}
	}
	if tenant, system, id, err := topics.SplitKey([]byte(s.Key)); err == nil {
		add("d.tenant = ?", tenant) // these three have an index
		add("d.system = ?", system)
		add("d.source_id = ?", clean(id, maxText))
	}
	if s.Key != "" {
		add("d.record_key = ?", []byte(s.Key))
	}
	if len(s.States) > 0 {
		states := make([]string, len(s.States))
		for i, st := range s.States {
			states[i] = string(st)
		}
		add("d.state = any(?)", states)
	}
	if !s.Since.IsZero() {
		add("d.at >= ?", s.Since)
	}
	if !s.Until.IsZero() {
		add("d.at < ?", s.Until)
	}
	if len(s.IDs) > 0 {
		c := columns(s.IDs)
		args = append(args, c...)
		conds = append(conds, fmt.Sprintf(`(d.topic, d.partition, d."offset") in (select * from unnest($%d::text[], $%d::int[], $%d::bigint[]))`,
			len(args)-2, len(args)-1, len(args)))
	}
	return strings.Join(conds, " and "), args
}

// lettersAndNotes is what a Selection's conditions are about.
const lettersAndNotes = ` from leat_control.dead_letters d left join leat_control.dead_letter_notes n
	on n.topic = d.topic and n.partition = d.partition and n."offset" = d."offset" and n.at = d.at where `

// Count is how many letters have a property.
type Count struct {
	Name    string    `json:"name"`
	Letters int64     `json:"letters"`
	Stage   string    `json:"stage,omitempty"`   // of a fingerprint
	Code    string    `json:"code,omitempty"`    // of a fingerprint
	Example string    `json:"example,omitempty"` // of a fingerprint: its newest message
	Newest  time.Time `json:"newest,omitzero"`
}

// List is what a Selection selects. The totals count all of it, exactly; Letters are the newest so many.
type List struct {
	Total        int64    `json:"total"`
	States       []Count  `json:"states"`
	Fingerprints []Count  `json:"fingerprints"` // the most frequent ones
	Letters      []Letter `json:"letters"`
}

// Topten bounds the fingerprints of a List.
const topFingerprints = 10

const countFingerprints = `select d.fingerprint, count(*), max(d.at), (array_agg(d.stage order by d.at desc))[1],
	(array_agg(d.code order by d.at desc))[1], (array_agg(d.message order by d.at desc))[1]`

// List returns what s selects, newest first, at most limit letters (default 50). All its numbers are of one moment.
func (o *Office) List(ctx context.Context, s Selection, limit int) (l List, err error) {
	if err := s.Validate(); err != nil {
		return l, err
	}
	where, args := s.where(nil)
	// Of one snapshot, so that the totals fit each other while letters come in.
	err = pgx.BeginTxFunc(ctx, o.DB, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select d.state, count(*), max(d.at)`+lettersAndNotes+where+` group by d.state`, args...)
		if err != nil {
			return err
		}
		l.States, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Count, err error) {
			return c, row.Scan(&c.Name, &c.Letters, &c.Newest)
		})
		if err != nil {
			return err
		}
		order := States()
		slices.SortFunc(l.States, func(a, b Count) int {
			return slices.Index(order, State(a.Name)) - slices.Index(order, State(b.Name))
		})
		for _, c := range l.States {
			l.Total += c.Letters
		}
		rows, err = tx.Query(ctx, fmt.Sprintf(countFingerprints+lettersAndNotes+where+` group by 1 order by 2 desc, 1 limit %d`, topFingerprints), args...)
		if err != nil {
			return err
		}
		l.Fingerprints, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Count, err error) {
			return c, row.Scan(&c.Name, &c.Letters, &c.Newest, &c.Stage, &c.Code, &c.Example)
		})
		if err != nil {
			return err
		}
		l.Letters, err = letters(ctx, tx, where, `d.at desc, d.topic, d.partition, d."offset" desc`, cmp.Or(limit, 50), args)
		return err
	})
	if err != nil {
		return l, fmt.Errorf("reading the index of dead letters: %w", err)
	}
	return l, nil
}

const selectLetters = `select d.topic, d.partition, d."offset", d.at, d.format, d.record_key, d.tenant, d.system, d.source_id, d.event_id, d.group_name,
	d.stage, d.original_topic, d.original_partition, d.original_offset, d.original_at, d.class, d.code, d.disposition, d.fingerprint,
	d.message, d.attempts, d.first_failed_at, d.last_failed_at, d.replay_count, d.replay_id, d.bytes, d.state, d.state_at,
	coalesce(d.job::text, ''), d.successor_topic, d.successor_partition, d.successor_offset, coalesce(n.owner, ''), coalesce(n.note, '')`

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// letters returns those for which where holds; a limit of 0 is none.
func letters(ctx context.Context, db queryer, where, order string, limit int, args []any) ([]Letter, error) {
	sql := selectLetters + lettersAndNotes + where + ` order by ` + order
	if limit > 0 {
		sql += fmt.Sprintf(" limit %d", limit)
	}
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return collectLetters(rows)
}

func collectLetters(rows pgx.Rows) ([]Letter, error) { return pgx.CollectRows(rows, scanLetter) }

func scanLetter(row pgx.CollectableRow) (l Letter, err error) {
	var topic *string
	var partition *int32
	var offset *int64
	err = row.Scan(&l.ID.Topic, &l.ID.Partition, &l.ID.Offset, &l.At, &l.Format, &l.Key, &l.Tenant, &l.System, &l.SourceID, &l.EventID, &l.Group,
		&l.Stage, &l.OriginalTopic, &l.OriginalPartition, &l.OriginalOffset, &l.OriginalAt, &l.Class, &l.Code, &l.Disposition, &l.Fingerprint,
		&l.Message, &l.Attempts, &l.FirstFailedAt, &l.LastFailedAt, &l.ReplayCount, &l.ReplayID, &l.Bytes, &l.State, &l.StateAt,
		&l.Job, &topic, &partition, &offset, &l.Owner, &l.Note)
	if topic != nil {
		l.Successor = &ID{*topic, *partition, *offset}
	}
	l.At, l.StateAt = l.At.UTC(), l.StateAt.UTC()
	return l, err
}
