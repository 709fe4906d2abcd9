package incidents

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Detail is all that is known of an incident.
type Detail struct {
	Incident
	Tenants         []Tenant `json:"tenants"`           // most failures first
	KeySample       []string `json:"key_sample"`        // up to 20
	OpenDeadLetters int64    `json:"open_dead_letters"` // of this fingerprint, that nobody has decided about
	Notices         []Notice `json:"notifications"`     // oldest first
}

// Notice is a notification about an incident and how its delivery stands.
type Notice struct {
	ID       string    `json:"id"`
	Receiver string    `json:"receiver"`
	Episode  int       `json:"episode"`
	Kind     string    `json:"kind"`
	State    string    `json:"state"`
	Created  time.Time `json:"created_at"`
	Sent     time.Time `json:"sent_at,omitzero"`
	Attempts int       `json:"attempts"`
	Error    string    `json:"error,omitempty"`
}

// Show returns all that is known of an incident, with the hours of the last two days.
func Show(ctx context.Context, db DB, p Policy, fingerprint string) (Detail, error) {
	i, _, err := get(ctx, db, p, fingerprint)
	if err != nil {
		return Detail{}, err
	}
	d := Detail{Incident: i}
	if d.Tenants, err = Tenants(ctx, db, fingerprint); err != nil {
		return d, err
	}
	if err := d.read(ctx, db); err != nil {
		return d, fmt.Errorf("reading incident %s: %w", fingerprint, err)
	}
	return d, nil
}

const selectTenants = `select tenant, failures, dead, keys, last_seen from leat_control.incident_tenants where fingerprint = $1
order by failures desc, tenant`

// Tenants returns whom an incident hits, most failures first.
func Tenants(ctx context.Context, db DB, fingerprint string) ([]Tenant, error) {
	rows, err := db.Query(ctx, selectTenants, fingerprint)
	if err != nil {
		return nil, fmt.Errorf("reading the tenants of incident %s: %w", fingerprint, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Tenant])
	if err != nil {
		return nil, fmt.Errorf("reading the tenants of incident %s: %w", fingerprint, err)
	}
	return list, nil
}

const (
	selectKeys = `select coalesce(jsonb_agg(key order by key), '[]') from (
  select key from leat_control.incident_keys where fingerprint = $1 order by key limit 20) k`
	countOpen     = `select count(*) from leat_control.dead_letters where fingerprint = $1 and state = 'open'`
	selectNotices = `select id::text, receiver, episode, kind, state, created_at, coalesce(sent_at, '0001-01-01Z'), attempts, error
from leat_control.notifications where fingerprint = $1 order by seq`
)

// OpenDeadLetters counts the dead letters of a fingerprint that nobody has decided about.
func OpenDeadLetters(ctx context.Context, db DB, fingerprint string) (n int64, err error) {
	if err = db.QueryRow(ctx, countOpen, fingerprint).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting the dead letters of incident %s: %w", fingerprint, err)
	}
	return n, nil
}

func (d *Detail) read(ctx context.Context, db DB) (err error) {
	var keys []byte
	if err := db.QueryRow(ctx, selectKeys, d.Fingerprint).Scan(&keys); err != nil {
		return err
	}
	if err := json.Unmarshal(keys, &d.KeySample); err != nil {
		return err
	}
	if d.OpenDeadLetters, err = OpenDeadLetters(ctx, db, d.Fingerprint); err != nil {
		return err
	}
	rows, err := db.Query(ctx, selectNotices, d.Fingerprint)
	if err != nil {
		return err
	}
	d.Notices, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (n Notice, err error) {
		var sent time.Time
		err = row.Scan(&n.ID, &n.Receiver, &n.Episode, &n.Kind, &n.State, &n.Created, &sent, &n.Attempts, &n.Error)
		if sent.Year() > 1 {
			n.Sent = sent
		}
		return n, err
	})
	return err
}
