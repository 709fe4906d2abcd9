package reporting_test

import (
	"testing"

	"github.com/stretchr/testify/require"
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
