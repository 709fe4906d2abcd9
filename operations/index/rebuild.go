package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/audit"
)

// Beginner is a pgxpool.Pool or a pgx.Conn.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// No index may apply records between the removal of rows and that of positions: this waits for the end of its transaction, and
// lets none begin. Readers are not held up.
const lockWriters = `lock table leat_control.positions in share row exclusive mode`

const dropPositions = `delete from leat_control.positions where projection = $1`

// Rebuild removes all rows of the projections and their positions, in one transaction with its entry of the audit log. A running
// index notices at once and reads everything again that the topics still have; ReadStatus tells how far it is. What topics
// have no longer, because their retention has passed or because they were deleted, is gone from the projection.
func Rebuild(ctx context.Context, db Beginner, op audit.Operator, projections ...Projection) error {
	if err := op.Validate(); err != nil {
		return err
	}
	if len(projections) == 0 {
		return errors.New("rebuilding the index: no projection is named")
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockWriters); err != nil {
			return fmt.Errorf("waiting for the running index: %w", err)
		}
		for _, p := range projections {
			if err := p.Reset(ctx, tx); err != nil {
				return fmt.Errorf("removing the rows of %s: %w", p.Name(), err)
			}
			if _, err := tx.Exec(ctx, dropPositions, p.Name()); err != nil {
				return fmt.Errorf("removing the positions of %s: %w", p.Name(), err)
			}
			entry := audit.Entry{Actor: op.Name, Action: "index rebuild", Object: "projection " + p.Name(), Reason: op.Reason}
			if err := audit.Record(ctx, tx, entry); err != nil {
				return err
			}
		}
		return nil
	})
}
