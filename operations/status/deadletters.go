package status

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Queryer is a pgxpool.Pool, a pgx.Conn or a pgx.Tx.
type Queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// A letter that failed again has become another one, which is open itself. dead_letters_state is the index.
const openLetters = `select group_name, count(*), min(at) from leat_control.dead_letters where state = 'open' group by group_name`

// OpenDeadLetters counts the dead letters of each group that nobody has decided about, as far as the index has read.
func OpenDeadLetters(ctx context.Context, db Queryer) ([]DeadLetters, error) {
	rows, err := db.Query(ctx, openLetters)
	if err != nil {
		return nil, fmt.Errorf("counting dead letters: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DeadLetters])
	if err != nil {
		return nil, fmt.Errorf("counting dead letters: %w", err)
	}
	return found, nil
}
