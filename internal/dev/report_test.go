package dev

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/examples/chinook"
)

func TestReport_NamesEveryDifference(t *testing.T) {
	t.Parallel()
	r := &Report{
		Source:        chinook.Totals{Customers: 59, Invoices: 412, Lines: 2240, Invoiced: "2328.60", Paid: "0.00"},
		Target:        chinook.Totals{Customers: 59, Invoices: 411, Lines: 2240, Invoiced: "2327.61", Paid: "0.00"},
		OutboxRows:    471,
		SourceRecords: map[string]int{"source.chinook.customer": 59, "source.chinook.invoice": 411},
		DeadLetters:   map[string]int{"source.chinook.invoice.normalize.dlq": 1, "leat.relay.dlq": 0},
	}
	r.compare(errors.New("the data was not published within 2m0s"))
	require.False(t, r.Agree)
	require.ErrorIs(t, r.Err(), errDisagree)
	require.Equal(t, []string{
		"the data was not published within 2m0s",
		"invoices: 412 in the source, 411 in the target",
		"invoiced: 2328.60 in the source, 2327.61 in the target",
		"outbox rows and records on source topics: 471 in the source, 470 in the target",
		"1 dead letters on source.chinook.invoice.normalize.dlq",
	}, r.Differences)
}

func TestSummary_RedrawsOnATerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := &summary{r: &rehearsal{Options: Options{Stdout: &out}}, tty: true}
	st := state{
		Time: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), OutboxRows: 471, Counts: Counts{Relayed: 471, Normalized: 470, Applied: 469},
		Source: chinook.Totals{Invoices: 412}, Target: chinook.Totals{Invoices: 410},
	}
	block := st.block()
	require.Contains(t, block, "outbox 471 → relayed 471 → normalized 470 → published 469")
	require.Contains(t, block, "15:04:05  differences are on their way")
	require.Empty(t, s.erase(), "nothing is shown yet")
	s.rows = strings.Count(block, "\n")
	s.line("  dead letter: %s", "acme/shop/1")
	require.Equal(t, "\x1b[6A\x1b[J  dead letter: acme/shop/1\n", out.String())
	require.Empty(t, s.erase(), "what stays is above the next block")
	st.Target = st.Source
	require.Contains(t, st.block(), "both agree")
}
