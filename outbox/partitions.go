package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Querier is a pgx connection, pool or transaction. Maintain needs a connection or pool, at isolation level read committed.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Upkeep says which partitions of the outbox to make and which to drop.
type Upkeep struct {
	// Ahead is how many empty partitions of a million ids to have before the ids in use; 2 if zero.
	Ahead int
	// Delivered is the relay's cursor; nil drops nothing.
	Delivered *Delivered
	// Keep is how long delivered rows stay, from their writing: the later of the time in a UUIDv7 event id and occurred_at, of
	// the last row of a partition. Negative is for ever.
	Keep time.Duration
}

// Delivered is how far a relay has come: the last id and the snapshot of its last batch, as Postgres writes it (pg_snapshot).
type Delivered struct {
	ID       int64
	Snapshot string
}

// UpkeepReport names the partitions that Maintain made and dropped.
type UpkeepReport struct {
	Made    []string `json:"made"`
	Dropped []string `json:"dropped"`
}

const (
	makePartitions = `select leat.make_partitions($1)`
	// Runs after makePartitions and for one partition in a transaction: its exclusive lock is held as briefly as can be, and
	// writers go on between two of them.
	dropPartitions = `select leat.drop_partitions($1, $2::pg_snapshot, make_interval(secs => $3))`
)

// Maintain makes partitions ahead of the ids in use and drops old ones whose every row was delivered. Only whole partitions go,
// never a row that was not delivered, nor one of a transaction that still runs. A writer waits 200 ms at most; what could not be
// locked in that time is left to the next call. Both parts are tried; the error joins theirs.
func Maintain(ctx context.Context, db Querier, u Upkeep) (UpkeepReport, error) {
	var report UpkeepReport
	ahead := u.Ahead
	if ahead == 0 {
		ahead = 2
	}
	made, errMake := names(ctx, db, makePartitions, ahead)
	if errMake != nil {
		errMake = fmt.Errorf("making outbox partitions: %w", errMake)
	}
	report.Made = made
	if u.Delivered == nil || u.Keep < 0 {
		return report, errMake
	}
	var errDrop error
	report.Dropped, errDrop = drop(ctx, db, u)
	return report, errors.Join(errMake, errDrop)
}

func drop(ctx context.Context, db Querier, u Upkeep) (all []string, err error) {
	for {
		dropped, err := names(ctx, db, dropPartitions, u.Delivered.ID, u.Delivered.Snapshot, u.Keep.Seconds())
		if err != nil {
			return all, fmt.Errorf("dropping outbox partitions: %w", err)
		}
		if len(dropped) == 0 {
			return all, nil
		}
		all = append(all, dropped...)
	}
}

func names(ctx context.Context, db Querier, sql string, args ...any) ([]string, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
