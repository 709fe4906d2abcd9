package reporting

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// Kind is what diagnose makes of an error: "record", "conflict", "target" or "unknown"; code is the code it gives.
func Kind(err error) (kind, code string) {
	f := diagnose(err)
	return [...]string{faultUnknown: "unknown", faultRecord: "record", faultConflict: "conflict", faultTarget: "target"}[f.kind], f.code
}

// BareUpsert writes invoices without guard and link rows, to compare with.
func BareUpsert(ctx context.Context, db *pgxpool.Pool, batch []processors.Message) error {
	records := make([]*record, len(batch))
	for i := range batch {
		v := new(invoice)
		if err := json.Unmarshal(batch[i].Value, v); err != nil {
			return fmt.Errorf("decoding: %w", err)
		}
		records[i] = &record{body: v, version: version{1, 1}, envelope: topics.Envelope{Time: batch[i].Time}}
		records[i].tenant, records[i].system, records[i].sourceID = v.identity()
	}
	var b pgx.Batch
	upsertInvoices(&b, records)
	return db.SendBatch(ctx, &b).Close()
}
