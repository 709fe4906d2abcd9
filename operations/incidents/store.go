package incidents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DB is a pgx.Tx, a pgx.Conn or a pgxpool.Pool.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// ErrStale is returned by Save when somebody else has changed the standing since it was read.
var ErrStale = errors.New("the incident was changed by somebody else in between")

// The hours are those that Policy looks at: an escalation may be a day old, and is judged by the day before it.
const selectIncidents = `select clock_timestamp(), i.fingerprint, i.systemic, i.stage, i.group_names, i.class, i.code, i.message, i.first_seen,
  i.last_seen, i.failures, i.dead, i.keys, i.more_keys, i.example,
  (select coalesce(jsonb_agg(jsonb_build_object('hour', h.hour, 'failures', h.failures, 'dead_letters', h.dead) order by h.hour), '[]')
   from leat_control.incident_hours h where h.fingerprint = i.fingerprint and h.hour > now() - interval '50 hours'),
  coalesce(s.state, ''), coalesce(s.since, 'epoch'), coalesce(s.why, ''), coalesce(s.episode, 0), coalesce(s.opened_at, 'epoch'),
  coalesce(s.escalations, 0), coalesce(s.severity, ''), s.resolved_at, coalesce(s.base_failures, 0), coalesce(s.base_dead, 0),
  coalesce(s.seen_at, 'epoch'), s.muted_until, coalesce(s.muted_until_escalating, false), coalesce(s.owner, ''), coalesce(s.note, ''),
  coalesce(s.told, false), coalesce(s.version, 0),
  exists (select from leat_control.notifications n where n.fingerprint = i.fingerprint and n.episode = s.episode and n.state = 'failed')`

const fromIncidents = ` from leat_control.incidents i left join leat_control.incident_standings s on s.fingerprint = i.fingerprint `

// scan reads a row of selectIncidents and what extra takes. now is the database's clock.
func scan(row pgx.CollectableRow, extra ...any) (i Incident, now time.Time, err error) {
	f, s := &i.Facts, &i.Standing
	var example, hours []byte
	var resolved, muted *time.Time
	err = row.Scan(append([]any{
		&now, &f.Fingerprint, &f.Systemic, &f.Stage, &f.Groups, &f.Class, &f.Code, &f.Message, &f.First, &f.Last, &f.Failures, &f.Dead,
		&f.Keys, &f.MoreKeys, &example, &hours, &s.State, &s.Since, &s.Why, &s.Episode, &s.Opened, &s.Escalations, &s.Severity, &resolved,
		&s.BaseFailures, &s.BaseDead, &s.Seen, &muted, &s.MutedUntilEscalating, &s.Owner, &s.Note, &s.told, &s.version, &i.NotifyFailed,
	}, extra...)...)
	if err != nil {
		return i, now, err
	}
	if resolved != nil {
		s.ResolvedAt = *resolved
	}
	if muted != nil {
		s.MutedUntil = *muted
	}
	return i, now, errors.Join(json.Unmarshal(example, &f.Example), json.Unmarshal(hours, &f.Hours))
}

const whereFingerprint = `where i.fingerprint = $1`

// get reads an incident as it stands at the database's time of now, whether or not a notifier has looked at it.
func get(ctx context.Context, db DB, p Policy, fingerprint string) (i Incident, now time.Time, err error) {
	rows, err := db.Query(ctx, selectIncidents+fromIncidents+whereFingerprint, fingerprint)
	if err != nil {
		return i, now, fmt.Errorf("reading incident %s: %w", fingerprint, err)
	}
	i, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (i Incident, err error) {
		i, now, err = scan(row)
		return i, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return i, now, fmt.Errorf("incident %s: %w", fingerprint, ErrNotFound)
	}
	if err != nil {
		return i, now, fmt.Errorf("reading incident %s: %w", fingerprint, err)
	}
	i.Standing = p.WithDefaults().Next(i.Standing, &i.Facts, now)
	return i, now, nil
}

// Filter selects incidents. Its zero value selects those that are not resolved.
type Filter struct {
	All    bool  // resolved ones too
	State  State // only this one
	Stage  string
	Tenant string
	Limit  int // the newest so many; default 100
}

const whereListed = `where ($1 = '' or i.stage = $1)
  and ($2 = '' or exists (select from leat_control.incident_tenants t where t.fingerprint = i.fingerprint and t.tenant = $2))
  and ($3 or s.fingerprint is null or s.state <> 'resolved' or i.last_seen > s.resolved_at)
order by i.last_seen desc`

// List returns the incidents that f selects: those that deserve attention first, the newest of each kind first.
func List(ctx context.Context, db DB, p Policy, f Filter) ([]Incident, error) {
	rows, err := db.Query(ctx, selectIncidents+fromIncidents+whereListed, f.Stage, f.Tenant, f.All || f.State == Resolved)
	if err != nil {
		return nil, fmt.Errorf("listing incidents: %w", err)
	}
	defer rows.Close()
	list := []Incident{}
	for len(list) < cmp.Or(f.Limit, 100) && rows.Next() {
		i, now, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("listing incidents: %w", err)
		}
		i.Standing = p.WithDefaults().Next(i.Standing, &i.Facts, now)
		if f.State == i.State || f.State == "" && (f.All || i.State != Resolved) {
			list = append(list, i)
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing incidents: %w", err)
	}
	slices.SortStableFunc(list, func(a, b Incident) int {
		return cmp.Compare(slices.Index(States(), a.State), slices.Index(States(), b.State))
	})
	return list, nil
}

const (
	insertStanding = `insert into leat_control.incident_standings (fingerprint, state, since, why, episode, opened_at, escalations, severity,
  resolved_at, base_failures, base_dead, seen_at, muted_until, muted_until_escalating, owner, note, told)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) on conflict do nothing`

	// The row stays locked until the transaction ends; who waited for it finds another version.
	updateStanding = `update leat_control.incident_standings set state = $2, since = $3, why = $4, episode = $5, opened_at = $6,
  escalations = $7, severity = $8, resolved_at = $9, base_failures = $10, base_dead = $11, seen_at = $12, muted_until = $13,
  muted_until_escalating = $14, owner = $15, note = $16, told = $17, version = version + 1
where fingerprint = $1 and version = $18`
)

// Save writes the standing of an incident that was read before, in tx. If somebody else has changed it in between, it writes nothing and
// returns ErrStale.
func Save(ctx context.Context, tx pgx.Tx, i *Incident) error {
	s := &i.Standing
	args := []any{
		i.Fingerprint, s.State, s.Since, s.Why, s.Episode, s.Opened, s.Escalations, s.Severity, optional(s.ResolvedAt), s.BaseFailures,
		s.BaseDead, s.Seen, optional(s.MutedUntil), s.MutedUntilEscalating, s.Owner, s.Note, s.told,
	}
	sql := insertStanding
	if s.version > 0 {
		sql, args = updateStanding, append(args, s.version)
	}
	tag, err := tx.Exec(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("writing the state of incident %s: %w", i.Fingerprint, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrStale
	}
	s.version++
	return nil
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Candidate is an incident whose standing may have to move, or of which somebody may have to be told.
type Candidate struct {
	Incident           // as it was stored: Next has not been asked
	Now      time.Time // the database's clock
	Told     []string  // notifications of this episode: "<receiver> <kind> <number>"
	Tenants  []string  // whom it hits
}

// MarkTold notes that the notifier has looked at the incident as it is saved now.
func (c *Candidate) MarkTold() { c.told = true }

// Untold reports whether a person has changed the incident and the notifier has not looked at it since.
func (c *Candidate) Untold() bool { return !c.told }

const (
	selectTold = `,
  (select coalesce(array_agg(n.receiver || ' ' || n.kind || ' ' || n.number), '{}') from leat_control.notifications n
   where n.fingerprint = i.fingerprint and n.episode = s.episode),
  (select coalesce(array_agg(t.tenant), '{}') from leat_control.incident_tenants t where t.fingerprint = i.fingerprint)`

	// What is open, by its partial index, and what has failed lately, by the index of last_seen: what has been resolved for long is not
	// even looked at.
	selectDue = `with due as (select fingerprint from leat_control.incident_standings where state <> 'resolved' or not told
  union select fingerprint from leat_control.incidents where last_seen > now() - make_interval(secs => $1))
`

	// What is resolved and told needs another look only when it fails again. The limit keeps a storm of causes from becoming one
	// of queries: what nobody has looked at yet comes first, and of the rest each has its turn by chance.
	whereCandidate = ` join due on due.fingerprint = i.fingerprint
where s.fingerprint is null or s.state <> 'resolved' or not s.told or i.last_seen > s.resolved_at
order by s.fingerprint is null or not s.told desc, random() limit 2000`
)

// Candidates returns the incidents that the notifier has to look at: those that are open, and those that have failed within p.Quiet.
func Candidates(ctx context.Context, db DB, p Policy) ([]Candidate, error) {
	rows, err := db.Query(ctx, selectDue+selectIncidents+selectTold+fromIncidents+whereCandidate, p.WithDefaults().Quiet.Seconds())
	if err != nil {
		return nil, fmt.Errorf("reading open incidents: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Candidate, err error) {
		c.Incident, c.Now, err = scan(row, &c.Told, &c.Tenants)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading open incidents: %w", err)
	}
	return list, nil
}

// In the partial index of what is open.
const countStates = `select state, count(*) from leat_control.incident_standings where state <> 'resolved' or not told group by state`

// Count counts the incidents that are open, by state.
func Count(ctx context.Context, db DB) (map[State]int, error) {
	rows, err := db.Query(ctx, countStates)
	if err != nil {
		return nil, fmt.Errorf("counting incidents: %w", err)
	}
	counts := map[State]int{}
	var state State
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { counts[state] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting incidents: %w", err)
	}
	return counts, nil
}
