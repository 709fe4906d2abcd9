package outbox_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// The event is written in the transaction of the change itself, after the UPDATE has locked the record.
func Example() {
	pay := func(ctx context.Context, db *pgx.Conn, id string, invoice []byte) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "update invoices set status = 'paid' where id = $1", id); err != nil {
				return err
			}
			return outbox.Write(ctx, tx, outbox.Event{
				Tenant: "acme", Entity: "invoice", Key: id, Operation: topics.Upsert, Payload: invoice,
			})
		})
	}
	_ = pay
}

// Every problem of an event is named before the database is touched.
func ExampleWrite_problems() {
	err := outbox.Write(context.Background(), nil, outbox.Event{Tenant: "acme", Entity: "Invoice", Operation: topics.Upsert})
	fmt.Println(err)
	// Output:
	// event 0 (Invoice ""): entity "Invoice" is not a valid name: use 1 to 63 lower-case letters, digits, '-' and '_'
	// key is empty: it is the id of the record in the source system
	// payload is empty: an upsert carries the whole record
}

// The statements can be shown to a database administrator before they are run.
func ExampleGrants() {
	statements, _ := outbox.Grants("shop", outbox.Writer)
	for _, s := range statements {
		fmt.Println(s)
	}
	// Output:
	// grant usage on schema leat to "shop"
	// grant insert (event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at) on leat.outbox to "shop"
}
