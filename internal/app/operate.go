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

// operator is the person at the command line.
func (a *App) operator(reason string) (audit.Operator, error) {
	o := audit.Operator{Name: audit.Actor(a.getenv), Reason: reason}
	return o, o.Validate()
}
