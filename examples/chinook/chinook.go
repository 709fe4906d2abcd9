// Package chinook is a sample source system: the shop of the Chinook sample database, with its customers, invoices and
// payments, which writes an outbox event in every business transaction. Read it as a model for your own: shop.go is the
// part that a real system has, a transaction each that changes a business row and says so in the outbox.
//
// It knows nothing of Leat but the outbox package. It loads 59 customers and 412 invoices, then it lives: new invoices,
// payments, corrections, cancellations, deletions and now and then a broken record, the same ones for the same seed.
package chinook

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Names of the shop in Leat.
const (
	Tenant   = "chinook-music"
	System   = "chinook"
	Customer = "customer"
	Invoice  = "invoice"
	Payment  = "payment"
)

// Entities lists what the shop writes to its outbox.
func Entities() []string { return []string{Customer, Invoice, Payment} }

//go:embed schema.sql
var schemaSQL string

// Migrate makes the business tables where they do not exist. The outbox schema must be there already.
func Migrate(ctx context.Context, db *pgxpool.Pool) error {
	if _, err := db.Exec(ctx, schemaSQL); err != nil {
		return fmt.Errorf("making the shop's tables: %w", err)
	}
	return nil
}

// Options of a Shop. The zero value of each field but DB means its default.
type Options struct {
	DB     *pgxpool.Pool // the shop's database
	Seed   uint64        // the same seed gives the same life; default 1
	Rate   float64       // business transactions a second; default 2
	Logger *slog.Logger  // default: discards
}

// Validate reports every problem of o.
func (o Options) Validate() error {
	var errs []error
	if o.DB == nil {
		errs = append(errs, errors.New("chinook: DB is nil"))
	}
	if o.Rate < 0 || o.Rate > 10_000 {
		errs = append(errs, fmt.Errorf("chinook: rate %g is not between 0 and 10000 a second", o.Rate))
	}
	return errors.Join(errs...)
}

// Shop is the source system. One Shop at a time works on a database.
type Shop struct {
	opts Options
	desk desk
}

// New returns a shop. It touches nothing.
func New(o Options) (*Shop, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Seed = cmp.Or(o.Seed, 1)
	o.Rate = cmp.Or(o.Rate, 2)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Shop{opts: o, desk: desk{db: o.DB}}, nil
}

// Run lets the shop live until ctx ends. It waits out an outage of its database.
func (s *Shop) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.live(ctx); err != nil && ctx.Err() == nil {
			s.opts.Logger.Warn("the shop is closed for a moment", "error", err)
			pause(ctx, 2*time.Second)
		}
	}
	return nil
}

func (s *Shop) live(ctx context.Context) error {
	l, err := newLife(ctx, s.desk, s.opts.Seed)
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / s.opts.Rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		what, err := l.step(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		s.opts.Logger.Debug("business transaction", "what", what)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
