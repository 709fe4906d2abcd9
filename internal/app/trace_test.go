package app

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/operations/trace"
)

func TestTraceReport_IsATimeline(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 3, 12, 7, 0, time.UTC)
	took, amount, currency, later := 95.4, "12.50", "USD", at.Add(90*time.Second)
	r := TraceReport{trace.Report{
		Query: "acme/shop/42",
		Journey: trace.Journey{
			State: trace.StatePublished, Meaning: "the target has it", Took: &took,
			Version: &trace.Version{System: "shop", Epoch: 1, Sequence: 9, EventID: "e1"},
			Outbox:  trace.Outbox{Note: "the row has been cleaned up"},
			Places: []trace.Place{
				{
					Topic: "source.shop.invoice", Partition: 1, Offset: 5, At: at.Add(20 * time.Millisecond), ChangedAt: at, EventID: "e1", Key: "acme/shop/42",
					Groups: []trace.Progress{{Group: "normalize", Committed: 6, Past: true}},
				},
				{
					Topic: "finance.invoice.v1", Partition: 1, Offset: 4, At: at.Add(time.Second), ChangedAt: at, EventID: "e2", Key: "acme/shop/42",
					Groups: []trace.Progress{{Group: "reporting", Committed: 4}},
				},
			},
			Attempts: []trace.Attempt{{
				At: at.Add(1500 * time.Millisecond), Group: "reporting", Attempt: 1, Class: "transient", Code: "conflict",
				Message: "row is locked", Disposition: "retry", SettledAt: &later,
			}},
			Links:    []trace.Link{{Entity: "invoice", Key: "acme/shop/42", EventID: "e2", Epoch: 1, Sequence: 9, PublishedAt: later, Compared: "this"}},
			Targets:  []trace.Target{{Table: "reporting.invoices", Key: "acme/shop/42", Status: "open", Amount: &amount, Currency: &currency, Sequence: 9, PublishedAt: later}},
			Problems: []string{"the moon is away"},
		},
		Versions: []trace.Version{
			{Sequence: 9, Topic: "source.shop.invoice", EventID: "e1", ChangedAt: at},
			{Sequence: 3, Topic: "source.shop.customer", EventID: "e0", ChangedAt: at, Deletion: true},
		},
		Waiting: &trace.Outbox{ID: 12, EventID: "e9"},
	}}
	var out strings.Builder
	require.NoError(t, r.WriteText(&out))
	require.Equal(t, `event e1: row 9 of outbox shop, epoch 1
published: the target has it, 1m35.4s after the change

  2026-11-24 03:12:07.000            source                      the change occurred
  2026-11-24 03:12:07.020  +20ms     source.shop.invoice/1 at 5  acme/shop/42, event e1
  2026-11-24 03:12:08.000  +980ms    finance.invoice.v1/1 at 4   acme/shop/42, event e2
  2026-11-24 03:12:08.500  +500ms    reporting                   attempt 1 failed: transient conflict: row is locked
  2026-11-24 03:13:37.000  +1m28.5s  target                      invoice acme/shop/42 applied
                                     outbox                      the row has been cleaned up
  group normalize                    source.shop.invoice/1 at 5  settled
  group reporting                    finance.invoice.v1/1 at 4   not reached: the group is at 4
  link                               invoice acme/shop/42        this version: row 9, epoch 1; event e2 from /0 at 0
  reporting.invoices                 acme/shop/42                open 12.50 USD, as of row 9, published 2026-11-24T03:13:37Z

a newer change waits in the outbox: row 12, event e9

versions, newest first
  2026-11-24 03:12:07.000  row 9  source.shop.invoice   upsert    event e1
  2026-11-24 03:12:07.000  row 3  source.shop.customer  deletion  event e0
records of other entities have the same key; follow one of them with --entity customer
PROBLEM: the moon is away
`, out.String())
}
