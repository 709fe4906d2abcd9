package offsets

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

const insertPlan = `insert into leat_control.plans (id, hash, group_name, author, reason, created_at, expires_at, plan)
values ($1, $2, $3, $4, $5, $6, $7, $8)`

// store writes a new plan. It is not yet a change, so the audit log has no entry of it; the plan itself says who made it and why.
func (o *Offsets) store(ctx context.Context, c Content) (*Plan, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("writing the plan: %w", err)
	}
	p := &Plan{ID: newID(), Hash: hashOf(text), State: Planned, Content: c}
	if _, err := o.cfg.DB.Exec(ctx, insertPlan, p.ID, p.Hash, c.Group, c.Author, c.Reason, c.CreatedAt, c.ExpiresAt, string(text)); err != nil {
		return nil, fmt.Errorf("storing the plan: %w", hint(err))
	}
	return p, nil
}

// newID is short enough to be typed and to be said on the telephone: 40 random bits.
func newID() string {
	var b [5]byte
	_, _ = rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

const planColumns = `id, hash, case when state = 'planned' and expires_at <= now() then 'expired' else state end, plan::text,
  coalesce(applied_by, ''), applied_at, coalesce(undone_by, ''), undone_at, before, after, cancelled, problem`

const selectPlan = `select ` + planColumns + ` from leat_control.plans where id = $1`

// By the index on (group_name, created_at) where a group is given.
const selectPlans = `select ` + planColumns + ` from leat_control.plans where $1 = '' or group_name = $1 order by created_at desc limit $2`

// ErrNoPlan is returned for the id of a plan that there is not.
var ErrNoPlan = errors.New("there is no such plan; `leat offsets show` lists them")

// Get returns a plan. A plan whose content is not what was stored first is an error.
func (o *Offsets) Get(ctx context.Context, id string) (*Plan, error) {
	rows, err := o.cfg.DB.Query(ctx, selectPlan, id)
	if err != nil {
		return nil, fmt.Errorf("reading plan %s: %w", id, hint(err))
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPlan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("plan %s: %w", id, ErrNoPlan)
	}
	if err != nil {
		return nil, fmt.Errorf("reading plan %s: %w", id, hint(err))
	}
	return p, nil
}

// Plans returns the newest plans, of one group if that is given.
func (o *Offsets) Plans(ctx context.Context, group string, limit int) ([]*Plan, error) {
	rows, err := o.cfg.DB.Query(ctx, selectPlans, group, limit)
	if err != nil {
		return nil, fmt.Errorf("reading plans: %w", hint(err))
	}
	plans, err := pgx.CollectRows(rows, scanPlan)
	if err != nil {
		return nil, fmt.Errorf("reading plans: %w", hint(err))
	}
	return plans, nil
}

func scanPlan(row pgx.CollectableRow) (*Plan, error) {
	var p Plan
	var content string
	err := row.Scan(&p.ID, &p.Hash, &p.State, &content, &p.AppliedBy, &p.AppliedAt, &p.UndoneBy, &p.UndoneAt, &p.Before, &p.After, &p.Cancelled,
		&p.Problem)
	if err != nil {
		return nil, err
	}
	if hashOf([]byte(content)) != p.Hash {
		return nil, fmt.Errorf("plan %s was changed after it was made: its content no longer has its hash; plan again", p.ID)
	}
	return &p, json.Unmarshal([]byte(content), &p.Content)
}

// hint adds the remedy where a migration is missing.
func hint(err error) error {
	if isUndefined(err) {
		return fmt.Errorf("%w; run `leat migrate up control`", err)
	}
	return err
}
