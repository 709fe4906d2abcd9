package reporting_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/publish/reporting"
	"github.com/leat-io/leat/topics"
)

type bundle struct {
	db      *pgxpool.Pool
	url     string
	handler processors.Handler
	offset  int64
}

func setup(tb testing.TB) *bundle {
	tb.Helper()
	url := testenv.Postgres(tb)
	db, err := pgxpool.New(tb.Context(), url)
	require.NoError(tb, err)
	tb.Cleanup(db.Close)
	migrate(tb, db)
	h, err := reporting.New(db, reporting.Config{})
	require.NoError(tb, err)
	return &bundle{db: db, url: url, handler: h}
}

func migrate(tb testing.TB, db *pgxpool.Pool) {
	tb.Helper()
	conn := stdlib.OpenDBFromPool(db)
	defer conn.Close()
	_, err := migrations.Up(tb.Context(), conn, migrations.Reporting)
	require.NoError(tb, err)
}

// change is one message in the making.
type change struct {
	entity, id      string
	epoch, sequence int64
	value           any // nil: a deletion
}

func (b *bundle) message(c change) processors.Message {
	b.offset++
	e := topics.Envelope{
		ID: uuid.NewString(), Tenant: "acme", System: "shop", Kind: topics.FinanceKind(c.entity, 1), Operation: topics.Upsert,
		Subject: c.id, Time: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), Sequence: c.sequence, Epoch: max(c.epoch, 1),
	}
	var value []byte
	switch v := c.value.(type) {
	case nil:
		e.Operation = topics.Delete
	case string:
		value = []byte(v)
	default:
		value, _ = json.Marshal(v)
	}
	return processors.Message{
		Topic: topics.Finance(c.entity, 1), Partition: 3, Offset: b.offset, Time: time.Now(),
		Key: topics.Key("acme", "shop", c.id), Value: value, Headers: e.Append(nil), Attempt: 1,
	}
}

func (b *bundle) handle(ctx context.Context, changes ...change) []processors.Result {
	batch := make([]processors.Message, len(changes))
	for i, c := range changes {
		batch[i] = b.message(c)
	}
	return b.handler.Handle(ctx, batch)
}

// outcomes are those of changes handled in one batch, an error as its class and code.
func (b *bundle) outcomes(t *testing.T, changes ...change) []string {
	t.Helper()
	return said(b.handle(t.Context(), changes...))
}

func said(results []processors.Result) []string {
	out := make([]string, len(results))
	for i, r := range results {
		if out[i] = r.Outcome; r.Err != nil {
			out[i] = "error " + processors.Code(r.Err)
		}
	}
	return out
}

func (b *bundle) query(t *testing.T, sql string, args ...any) string {
	t.Helper()
	rows, err := b.db.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		text := make([]string, len(values))
		for i, v := range values {
			j, _ := json.Marshal(v)
			text[i] = strings.Trim(string(j), `"`)
		}
		return strings.Join(text, " "), err
	})
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}

func brl(amount string) topics.Money {
	return topics.Money{Amount: topics.Decimal(amount), Currency: "BRL"}
}

// bill is an invoice with one line for each amount.
func invoice(id, status, total string, lines ...string) topics.Invoice {
	v := topics.Invoice{
		Tenant: "acme", System: "shop", SourceID: id, Type: "invoice", ContactID: "c1", IssueDate: "2026-11-23",
		Currency: "BRL", Status: status, Total: brl(total), Lines: []topics.InvoiceLine{},
	}
	for i, l := range lines {
		v.Lines = append(v.Lines, topics.InvoiceLine{
			ID: strconv.Itoa(i + 1), Quantity: "1", UnitPrice: brl(l), Total: brl(l), Description: "line of " + l,
		})
	}
	return v
}

func upsert(sequence int64, v topics.Invoice) change {
	return change{entity: "invoice", id: v.SourceID, sequence: sequence, value: v}
}

func erase(sequence int64, id string) change {
	return change{entity: "invoice", id: id, sequence: sequence}
}
