package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Role is what a database role may do with the outbox.
type Role string

// The roles. Neither can update or delete rows, and neither owns anything.
const (
	// Writer may insert events, by Write or leat.emit. It cannot read them.
	Writer Role = "writer"
	// Relay may read events and keep the partitions, through functions that run with their owner's rights.
	Relay Role = "relay"
)

// Grants returns the statements that give a database role the rights of r, in order. They can be run again.
func Grants(role string, r Role) ([]string, error) {
	who := pgx.Identifier{role}.Sanitize()
	switch r {
	case Writer:
		return []string{
			"grant usage on schema leat to " + who,
			// transaction_id and id are not among the columns: their defaults must decide them.
			"grant insert (event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at)" +
				" on leat.outbox to " + who,
		}, nil
	case Relay:
		return []string{
			"grant usage on schema leat to " + who,
			"grant select on leat.outbox, leat.outbox_default, leat.source, leat.partitions to " + who,
			"grant execute on function leat.identity() to " + who,
			"grant execute on function leat.make_partitions(int) to " + who,
			"grant execute on function leat.drop_partitions(bigint, pg_snapshot, interval) to " + who,
		}, nil
	}
	return nil, fmt.Errorf("no rights of kind %q: use writer or relay", r)
}

// Grant gives an existing database role the rights of r, in one transaction. The caller must own the outbox.
func Grant(ctx context.Context, db Conn, role string, r Role) error {
	statements, err := Grants(role, r)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s); err != nil {
				return fmt.Errorf("granting %s rights to %s: %w", r, role, err)
			}
		}
		return nil
	})
}
