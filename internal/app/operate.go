package app

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/operations/audit"
)

// controlDB connects to Leat's own database, which every operator's verb needs.
func (a *App) controlDB(ctx context.Context) (*pgxpool.Pool, error) {
	if err := a.cfg.Require(config.NeedControl); err != nil {
		return nil, err
	}
	url := a.cfg.Control.URL
	db, err := pgxpool.New(ctx, url.Reveal())
	if err != nil {
		return nil, fmt.Errorf("connecting to the control database %s: %w", url, err)
	}
	return db, nil
}

// operator is the person at the command line. What they say is kept for ever, and read by many: without the secrets in it.
func (a *App) operator(reason string) (audit.Operator, error) {
	o := audit.Operator{Name: a.hider.Told(audit.Actor(a.getenv)), Reason: a.hider.Told(reason)}
	return o, o.Validate()
}

// told is what a person said, to be kept; nil if nothing.
func (a *App) told(s *string) *string {
	if s == nil {
		return nil
	}
	told := a.hider.Told(*s)
	return &told
}
