package app

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/examples/chinook"
)

// SampleOptions of RunSample.
type SampleOptions struct {
	Rate float64       // business transactions a second; 0 loads the data and waits
	Seed uint64        // the same seed gives the same life
	Wait time.Duration // for the database and its outbox schema
}

// RunSample runs the sample shop on the database of the source chinook until ctx ends.
func (a *App) RunSample(ctx context.Context, o SampleOptions) error {
	src := a.cfg.Source(chinook.System)
	if src == nil || src.URL.Empty() {
		return fmt.Errorf("the configuration has no source %s with a url: add it to sources, with entities %v",
			chinook.System, chinook.Entities())
	}
	db, err := pgxpool.New(ctx, src.URL.Reveal())
	if err != nil {
		return fmt.Errorf("connecting to the shop's database %s: %w", src.URL, err)
	}
	defer db.Close()
	if err := a.awaitOutbox(ctx, db, o.Wait); err != nil {
		return err
	}
	if err := chinook.Migrate(ctx, db); err != nil {
		return err
	}
	shop, err := chinook.New(chinook.Options{DB: db, Seed: o.Seed, Rate: o.Rate, Logger: a.log})
	if err != nil {
		return err
	}
	if _, err := shop.Load(ctx); err != nil {
		return err
	}
	if o.Rate == 0 {
		<-ctx.Done()
		return nil
	}
	return shop.Run(ctx)
}

const hasOutboxSQL = `select to_regclass('leat.outbox') is not null`

// awaitOutbox waits until the database answers and has the outbox schema: where everything starts at once, as in Compose,
// the migration may come later.
func (a *App) awaitOutbox(ctx context.Context, db *pgxpool.Pool, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		has := false
		err := db.QueryRow(ctx, hasOutboxSQL).Scan(&has)
		if err == nil && has {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("there is no table leat.outbox: run `leat migrate up outbox --source %s`", chinook.System)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the shop's database: %w", err)
		case <-tick.C:
		}
	}
}
