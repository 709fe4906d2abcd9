package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// upsertBatch is how many documents one transaction writes, on each of two connections.
const upsertBatch = 1000

// column is one of a bare statement: its values for document i, or for line l of it.
type column struct {
	name, kind, cast string
	value            func(i, l int) string
}

func key(i int) string { return "invoice-" + strconv.Itoa(i%keys) }

func constant(v string) func(int, int) string { return func(int, int) string { return v } }

// documentColumns are those that publish writes of an invoice whose record is number i; their values travel as text, as there.
func documentColumns() []column {
	text := func(name string, value func(int, int) string) column { return column{name, "text", "", value} }
	return []column{
		text("tenant", constant("acme")), text("system", constant("shop")), text("source_id", func(i, _ int) string { return key(i) }),
		text("type", constant("invoice")), text("number", func(i, _ int) string { return strconv.Itoa(i) }),
		text("contact_id", func(i, _ int) string { return strconv.Itoa(i % 59) }),
		{"issue_date", "text", "date", constant("2026-11-23")},
		text("status", constant("open")), text("currency", constant("USD")),
		{"subtotal", "text", "numeric", constant("31.50")},
		{"total", "text", "numeric", constant("31.50")},
		{"source_epoch", "int8", "", constant("1")},
		{"sequence", "int8", "", func(i, _ int) string { return strconv.Itoa(i + 1) }},
		{"source_changed_at", "timestamptz", "", constant("2026-11-23 10:00:00Z")},
	}
}

func lineColumns() []column {
	return []column{
		{"tenant", "text", "", constant("acme")},
		{"system", "text", "", constant("shop")},
		{"invoice_id", "text", "", func(i, _ int) string { return key(i) }},
		{"line_no", "int4", "", func(_, l int) string { return strconv.Itoa(l + 1) }},
		{"line_id", "text", "", func(_, l int) string { return strconv.Itoa(l + 1) }},
		{"item", "text", "", func(_, l int) string { return strconv.Itoa(2 + 2*l) }},
		{"quantity", "text", "numeric", func(_, l int) string { return strconv.Itoa(1 + l) }},
		{"unit_price", "text", "numeric", constant("10.50")},
		{"total", "text", "numeric", func(_, l int) string { return strconv.Itoa(10 + 10*l) }},
		{"currency", "text", "", constant("USD")},
	}
}

func linkColumns() []column {
	return []column{
		{"publication", "text", "", constant("reporting")},
		{"entity", "text", "", constant("invoice")},
		{"tenant", "text", "", constant("acme")},
		{"system", "text", "", constant("shop")},
		{"source_id", "text", "", func(i, _ int) string { return key(i) }},
		{"source_epoch", "int8", "", constant("1")},
		{"sequence", "int8", "", func(i, _ int) string { return strconv.Itoa(i + 1) }},
		{"content_hash", "bytea", "", constant(`\x000102030405060708090a0b0c0d0e0f`)},
		{"deleted", "bool", "", constant("f")},
		{"event_id", "uuid", "", constant(uuid.NewString())},
		{"topic", "text", "", constant("finance.invoice.v1")},
		{"topic_partition", "int4", "", constant("1")},
		{"topic_offset", "int8", "", func(i, _ int) string { return strconv.Itoa(i) }},
	}
}

// upsertSQL is the statement of the shape that publish uses: an unnest of one array a column.
func upsertSQL(table string, columns []column, keys, guard string) string {
	var names, values, arrays, set []string
	for n, c := range columns {
		names, arrays = append(names, c.name), append(arrays, fmt.Sprintf("$%d::text[]::%s[]", n+1, c.kind))
		value := "i." + c.name
		if c.cast != "" {
			value += "::" + c.cast
		}
		values = append(values, value)
		if !strings.Contains(", "+keys+",", " "+c.name+",") {
			set = append(set, c.name+" = excluded."+c.name)
		}
	}
	all := strings.Join(names, ", ")
	return "insert into " + table + " as t (" + all + ") select " + strings.Join(values, ", ") + " from unnest(" + strings.Join(arrays, ", ") +
		") as i(" + all + ") on conflict (" + keys + ") do update set " + strings.Join(set, ", ") + guard
}

// statement is an upsertSQL with how many rows of it a document has.
type statement struct {
	sql     string
	columns []column
	rows    int
}

const (
	newer    = " where excluded.sequence > t.sequence"
	newerRow = " where (excluded.source_epoch, excluded.sequence) > (t.source_epoch, t.sequence)"
)

// upsertLimit writes invoices and nothing else, guarded by their own sequence.
func (b *bench) upsertLimit(ctx context.Context) error {
	c := documentColumns()
	return b.bareUpsert(ctx, "upsert", statement{upsertSQL("reporting.invoices", c, "tenant, system, source_id", newer), c, 1})
}

// upsertFlatLimit writes invoices without lines, and the link rows that guard them.
func (b *bench) upsertFlatLimit(ctx context.Context) error {
	return b.bareUpsert(ctx, "upsert-flat", linkStatement(), documentStatement())
}

// upsertRowsLimit writes the very rows that publish writes: invoices, their two lines, and the link rows.
func (b *bench) upsertRowsLimit(ctx context.Context) error {
	lines := lineColumns()
	return b.bareUpsert(ctx, "upsert-rows", linkStatement(), documentStatement(),
		statement{upsertSQL("reporting.invoice_lines", lines, "tenant, system, invoice_id, line_no", ""), lines, 2})
}

func linkStatement() statement {
	c := linkColumns()
	return statement{upsertSQL("reporting.links", c, "publication, tenant, system, entity, source_id", newerRow), c, 1}
}

func documentStatement() statement {
	c := documentColumns()
	return statement{upsertSQL("reporting.invoices", c, "tenant, system, source_id", ""), c, 1}
}

// bareUpsert writes as many documents as publish gets, the statements of a batch in one transaction and one round trip.
func (b *bench) bareUpsert(ctx context.Context, scenario string, statements ...statement) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	n, m, begin := b.publishRows(), b.meter(), time.Now()
	var g errgroup.Group
	const connections = 2
	for w := range connections {
		g.Go(func() error {
			for at := w * upsertBatch; at < n; at += connections * upsertBatch {
				var batch pgx.Batch
				for _, s := range statements {
					batch.Queue(s.sql, s.arguments(at, min(upsertBatch, n-at))...)
				}
				if err := pgx.BeginFunc(ctx, r.reporting, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &batch).Close() }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b.report.add(scenario, "records/s", "records/s", float64(n)/time.Since(begin).Seconds())
	return m.add(scenario, n)
}

func (s statement) arguments(at, n int) []any {
	args := make([]any, len(s.columns))
	for c := range s.columns {
		values := make([]string, 0, n*s.rows)
		for i := at; i < at+n; i++ {
			for l := range s.rows {
				values = append(values, s.columns[c].value(i, l))
			}
		}
		args[c] = values
	}
	return args
}

// publishRows is how many invoices are published: lines and links make three to four rows of each.
func (b *bench) publishRows() int { return max(10_000, b.o.rows/5) }
