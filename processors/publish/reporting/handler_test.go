package reporting_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/publish/reporting"
	"github.com/leat-io/leat/topics"
)

const (
	showInvoices = `select source_id, status, total::text, deleted_at is not null from reporting.invoices order by 1`
	showLines    = `select invoice_id, line_no, total::text, deleted_at is not null from reporting.invoice_lines order by 1, 2`
)

func TestHandler_AppliesThenLeavesAReplayAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	changes := []change{
		upsert(1, invoice("a", "open", "30.00", "10.00", "20.00")),
		upsert(2, invoice("b", "paid", "5.00", "5.00")),
	}
	require.Equal(t, []string{"applied", "applied"}, b.outcomes(t, changes...))
	before := b.query(t, "select * from reporting.links order by source_id")
	require.Equal(t, []string{"unchanged", "unchanged"}, b.outcomes(t, changes...))
	require.Equal(t, before, b.query(t, "select * from reporting.links order by source_id"), "a replay writes nothing")
	require.Equal(t, "a open 30.00 false\nb paid 5.00 false", b.query(t, showInvoices))
	require.Equal(t, "a 1 10.00 false\na 2 20.00 false\nb 1 5.00 false", b.query(t, showLines))
}

func TestHandler_AppliesACorrectedMappingAtTheSameVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.outcomes(t, upsert(7, invoice("a", "open", "30.00", "10.00", "15.00", "5.00")))
	require.Equal(t, []string{"applied"}, b.outcomes(t, upsert(7, invoice("a", "open", "31.00", "31.00"))))
	require.Equal(t, "a open 31.00 false", b.query(t, showInvoices))
	require.Equal(t, "a 1 31.00 false", b.query(t, showLines), "lines that the new content no longer has are gone")
	require.Equal(t, []string{"unchanged"}, b.outcomes(t, upsert(7, invoice("a", "open", "31.00", "31.00"))))
}

func TestHandler_NeverLetsAnOlderVersionOverwriteANewer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Equal(t, []string{"applied"}, b.outcomes(t, upsert(10, invoice("a", "paid", "10.00", "10.00"))))
	require.Equal(t, []string{"superseded"}, b.outcomes(t, upsert(9, invoice("a", "open", "10.00", "4.00", "6.00"))))
	require.Equal(t, []string{"superseded"}, b.outcomes(t, erase(9, "a")))
	require.Equal(t, "a paid 10.00 false", b.query(t, showInvoices))
	require.Equal(t, "a 1 10.00 false", b.query(t, showLines))

	moved := upsert(1, invoice("a", "void", "10.00", "10.00"))
	moved.epoch = 2
	require.Equal(t, []string{"applied"}, b.outcomes(t, moved), "a source that moved begins its sequence anew")
	require.Equal(t, []string{"superseded"}, b.outcomes(t, upsert(99, invoice("a", "open", "10.00", "10.00"))))
	require.Equal(t, "a void 10.00 false", b.query(t, showInvoices))
	require.Equal(t, "2 1", b.query(t, "select source_epoch, sequence from reporting.invoices"))
}

func TestHandler_KeepsADeletionWithItsVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.outcomes(t, upsert(1, invoice("a", "open", "10.00", "10.00")))
	require.Equal(t, []string{"deleted"}, b.outcomes(t, erase(3, "a")))
	require.Equal(t, []string{"unchanged"}, b.outcomes(t, erase(3, "a")))
	require.Equal(t, []string{"superseded"}, b.outcomes(t, upsert(2, invoice("a", "paid", "10.00", "10.00"))))
	require.Equal(t, "a open 10.00 true", b.query(t, showInvoices))
	require.Equal(t, "a 1 10.00 true", b.query(t, showLines))
	require.Empty(t, b.query(t, "select * from reporting.control_totals"))

	require.Equal(t, []string{"deleted"}, b.outcomes(t, erase(5, "never-seen")))
	require.Equal(t, []string{"superseded"}, b.outcomes(t, upsert(4, invoice("never-seen", "open", "1.00"))))
	require.Equal(t, "acme/shop/never-seen true 5",
		b.query(t, "select target_id, deleted, sequence from reporting.links where source_id = 'never-seen'"))

	require.Equal(t, []string{"applied"}, b.outcomes(t, upsert(6, invoice("a", "paid", "12.00", "12.00"))))
	require.Equal(t, "a paid 12.00 false", b.query(t, showInvoices), "a newer version brings it back")
	require.Equal(t, "a 1 12.00 false", b.query(t, showLines))
}

func TestHandler_TakesTheNewestOfAKeyInOneBatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	paid := invoice("a", "paid", "10.00", "10.00")
	require.Equal(t, []string{"superseded", "applied", "applied", "superseded", "unchanged"}, b.outcomes(
		t,
		upsert(1, invoice("a", "open", "10.00", "10.00")),
		upsert(3, paid),
		upsert(2, invoice("b", "open", "7.00", "7.00")),
		upsert(2, invoice("a", "open", "9.00", "9.00")),
		upsert(3, paid),
	))
	require.Equal(t, "a paid 10.00 false\nb open 7.00 false", b.query(t, showInvoices))

	require.Equal(t, []string{"superseded", "deleted"}, b.outcomes(t, upsert(4, paid), erase(5, "a")))
	require.Equal(t, []string{"superseded", "applied"}, b.outcomes(t, erase(6, "a"), upsert(7, paid)))
	require.Equal(t, "reporting finance.invoice.v1 3 9 7 false",
		b.query(t, "select publication, topic, topic_partition, topic_offset, sequence, deleted from reporting.links where source_id = 'a'"))
}

func TestHandler_WritesContactsAndPayments(t *testing.T) {
	t.Parallel()
	b := setup(t)
	unapplied := brl("0.50")
	v := topics.Payment{
		Tenant: "acme", System: "shop", SourceID: "p1", Direction: "received", ContactID: "not-arrived", Date: "2026-11-30",
		Status: "posted", Amount: brl("10.50"), Unapplied: &unapplied, Allocations: []topics.Allocation{
			{TargetType: "invoice", TargetID: "a", Amount: brl("4.00")}, {TargetType: "invoice", TargetID: "b", Amount: brl("6.00")},
		},
	}
	c := topics.Contact{
		Tenant: "acme", System: "shop", SourceID: "c1", Kinds: []string{"customer", "vendor"}, DisplayName: "Zoë & Söhne",
		Status: "active", Address: &topics.Address{City: "São Paulo", Country: "BR"},
	}
	require.Equal(t, []string{"applied", "applied"}, b.outcomes(t,
		change{entity: "payment", id: "p1", sequence: 1, value: v}, change{entity: "contact", id: "c1", sequence: 2, value: c}))
	require.Equal(t, "p1 received not-arrived 2026-11-30 null BRL 10.50 0.50", b.query(t,
		"select source_id, direction, contact_id, date::text, method, currency, amount::text, unapplied::text from reporting.payments"))
	require.Equal(t, "1 a 4.00\n2 b 6.00",
		b.query(t, "select allocation_no, target_id, amount::text from reporting.payment_allocations order by 1"))
	require.Equal(t, "customer+vendor Zoë & Söhne null São Paulo BR", strings.ReplaceAll(b.query(t,
		"select array_to_string(kinds, '+'), display_name, tax_id, city, country from reporting.contacts"), `\u0026`, "&"))

	v.Allocations = v.Allocations[1:]
	unapplied.Amount = "4.50"
	require.Equal(t, []string{"applied", "deleted"}, b.outcomes(t,
		change{entity: "payment", id: "p1", sequence: 3, value: v}, change{entity: "contact", id: "c1", sequence: 4}))
	require.Equal(t, "1 b 6.00", b.query(t, "select allocation_no, target_id, amount::text from reporting.payment_allocations"))
	require.Equal(t, "payment received 2026-11-01 posted 1 1 10.50 6.00 4.50", b.query(t,
		"select entity, type, period::text, status, records, lines, total::text, lines_total::text, open_total::text from reporting.control_totals"))
	require.Equal(t, []string{"deleted"}, b.outcomes(t, change{entity: "payment", id: "p1", sequence: 5}))
	require.Equal(t, "1", b.query(t, "select count(*) from reporting.payment_allocations where deleted_at is not null"))
	require.Equal(t, "contact 0 1\npayment 0 1",
		b.query(t, "select entity, live, deleted from reporting.source_progress order by 1"))
}

func TestControlTotals_SumExactlyByMonthAndStatus(t *testing.T) {
	t.Parallel()
	b := setup(t)
	october, draft := invoice("d", "open", "0.10", "0.10"), invoice("e", "draft", "1.00")
	october.IssueDate = "2026-10-31"
	b.outcomes(t, upsert(1, invoice("a", "open", "999999999999999.99", "999999999999999.99")),
		upsert(2, invoice("b", "open", "0.01", "0.01")), upsert(3, invoice("c", "open", "0.02", "0.01", "0.01")),
		upsert(4, october), upsert(5, draft))
	require.Equal(t, "invoice BRL 2026-10-01 open 1 1 0.10 0.10\n"+
		"invoice BRL 2026-11-01 draft 1 0 1.00 null\n"+
		"invoice BRL 2026-11-01 open 3 4 1000000000000000.02 1000000000000000.02", b.query(t,
		"select type, currency, period::text, status, records, lines, total::text, lines_total::text "+
			"from reporting.control_totals order by period, status"))
	require.Equal(t, "invoice BRL 5 5 1000000000000001.12",
		b.query(t, "select entity, currency, records, lines, total::text from reporting.source_totals"))
}

func TestHandler_StoresHostileTextAsText(t *testing.T) {
	t.Parallel()
	b := setup(t)
	nasty := `'); drop table reporting.links; -- {"a",NULL} \ "` + "\t\n"
	v := invoice(nasty, "open", "1.00", "1.00")
	v.Memo, v.Lines[0].Description, v.Number = nasty, nasty, "NULL"
	require.Equal(t, []string{"applied"}, b.outcomes(t, upsert(1, v)))
	require.Equal(t, "true true true true", b.query(t, "select i.source_id = $1, i.memo = $1, l.description = $1, i.number = 'NULL' "+
		"from reporting.invoices i join reporting.invoice_lines l on l.invoice_id = i.source_id", nasty))

	good, _ := json.Marshal(invoice("x", "open", "1.00"))
	for name, c := range map[string]struct{ find, put string }{
		"a character Postgres cannot store": {`"open"`, `"open","memo":"a\u0000b"`},
		"a number out of all bounds":        {`"1.00"`, `"` + strings.Repeat("9", 200_000) + `"`},
		"a number with an exponent":         {`"1.00"`, `"1e400000"`},
		"not a number":                      {`"1.00"`, `"NaN"`},
		"a float":                           {`"1.00"`, `1.00`},
		"an impossible day":                 {"2026-11-23", "2026-02-30"},
		"an unknown status":                 {`"open"`, `"overdue"`},
		"an unknown property":               {`"open"`, `"open","x":1`},
		"no JSON":                           {`{`, `[`},
	} {
		results := b.handle(t.Context(), change{entity: "invoice", id: "x", sequence: 2, value: strings.Replace(string(good), c.find, c.put, 1)})
		require.Error(t, results[0].Err, name)
		require.Equal(t, "contract", processors.Code(results[0].Err), name)
		require.Less(t, len(results[0].Err.Error()), 1000, name)
	}
	require.Equal(t, []string{"error identity"}, b.outcomes(t, change{entity: "invoice", id: "y", sequence: 2, value: string(good)}))
	require.Equal(t, []string{"error envelope"}, b.outcomes(t, erase(1, "a\x00b")))
	require.Equal(t, []string{"error kind"}, b.outcomes(t, change{entity: "journal", id: "y", sequence: 2}))
	m := b.message(upsert(1, invoice("x", "open", "1.00")))
	m.Value = nil
	require.Equal(t, []string{"error contract"}, said(b.handler.Handle(t.Context(), []processors.Message{m})))
	m.Headers = m.Headers[1:]
	require.Equal(t, []string{"error envelope"}, said(b.handler.Handle(t.Context(), []processors.Message{m})))
	require.Equal(t, "1", b.query(t, "select count(*) from reporting.links"))
}

func TestHandler_ADryRunTellsOutcomesAndChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.outcomes(t, upsert(5, invoice("a", "open", "10.00", "10.00")), upsert(5, invoice("b", "open", "1.00", "1.00")))
	all := func() string {
		return b.query(t, `select to_jsonb(l) from reporting.links l order by source_id`) + b.query(t, showInvoices) + b.query(t, showLines)
	}
	before := all()
	changes := []change{
		upsert(6, invoice("a", "paid", "12.00", "12.00")), upsert(4, invoice("b", "void", "1.00", "1.00")), upsert(1, invoice("c", "open", "3.00", "3.00")),
		erase(7, "b"), upsert(6, invoice("d", "open", "-1e400000")),
	}
	real := b.handler
	var err error
	b.handler, err = reporting.New(b.db, reporting.Config{DryRun: true})
	require.NoError(t, err)
	want := []string{"applied", "superseded", "applied", "deleted", "error contract"}
	require.Equal(t, want, b.outcomes(t, changes...))
	require.Equal(t, want, b.outcomes(t, changes...), "a second time: nothing has changed in between")
	require.Equal(t, before, all())
	b.handler = real
	require.Equal(t, want, b.outcomes(t, changes...), "what the dry run said comes true")
	require.NotEqual(t, before, all())
}
