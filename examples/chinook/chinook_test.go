package chinook

import (
	"context"
	"database/sql"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
)

// setup returns a shop on a database of its own.
func setup(t *testing.T, o Options) *Shop {
	t.Helper()
	url := testenv.Postgres(t)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer db.Close()
	_, err = migrations.Up(t.Context(), db, migrations.Outbox)
	require.NoError(t, err)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, Migrate(t.Context(), pool))
	require.NoError(t, Migrate(t.Context(), pool), "twice is once")
	o.DB = pool
	s, err := New(o)
	require.NoError(t, err)
	return s
}

type event struct {
	Tenant, Entity, Key, Operation string
	Payload                        []byte
}

func events(t *testing.T, s *Shop) []event {
	t.Helper()
	rows, err := s.opts.DB.Query(t.Context(), `select tenant, entity, key, operation, payload from leat.outbox order by id`)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	require.NoError(t, err)
	return out
}

func TestLoad_HasTheControlTotalsOfTheData(t *testing.T) {
	t.Parallel()
	s := setup(t, Options{})
	for _, want := range []Loaded{{59, 412, 2240}, {}} { // the second time there is nothing to do
		n, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	totals, err := ReadTotals(t.Context(), s.opts.DB)
	require.NoError(t, err)
	require.Equal(t, Totals{59, 412, 2240, 0, "2328.60", "0.00"}, totals)
	es := events(t, s)
	require.Len(t, es, 59+412)
	require.Equal(t, event{"chinook-music", "customer", "2", "upsert", []byte(`{"customer_id":2,"first_name":"Leonie",` +
		`"last_name":"Köhler","company":null,"address":"Theodor-Heuss-Straße 34","city":"Stuttgart","state":null,` +
		`"country":"Germany","postal_code":"70174","phone":"+49 0711 2842222","fax":null,"email":"leonekohler@surfeu.de",` +
		`"support_rep_id":5}`)}, es[1])
	require.Equal(t, event{"chinook-music", "invoice", "1", "upsert", []byte(`{"invoice_id":1,"customer_id":2,` +
		`"invoice_date":"2021-01-01 00:00:00","billing_address":"Theodor-Heuss-Straße 34","billing_city":"Stuttgart",` +
		`"billing_state":null,"billing_country":"Germany","billing_postal_code":"70174","total":"1.98","currency":"USD",` +
		`"status":"open","lines":[` +
		`{"invoice_line_id":1,"invoice_id":1,"track_id":2,"unit_price":"0.99","quantity":1},` +
		`{"invoice_line_id":2,"invoice_id":1,"track_id":4,"unit_price":"0.99","quantity":1}]}`)}, es[59])
}

func TestLife_IsTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	var lives [2][]event
	for i := range lives {
		s := setup(t, Options{})
		live(t, s, 7, 400)
		lives[i] = events(t, s)
	}
	require.Equal(t, lives[0], lives[1])
	other := setup(t, Options{})
	live(t, other, 8, 400)
	require.NotEqual(t, lives[0], events(t, other))
}

// live loads the data and takes n steps; it returns how often each kind of step was taken.
func live(t *testing.T, s *Shop, seed uint64, n int) map[string]int {
	t.Helper()
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	l, err := newLife(t.Context(), s.desk, seed)
	require.NoError(t, err)
	counts := map[string]int{}
	for range n {
		what, err := l.step(t.Context())
		require.NoError(t, err, what)
		counts[what]++
	}
	return counts
}

func TestLife_DoesEverythingAndKeepsItsBooksInOrder(t *testing.T) {
	t.Parallel()
	s := setup(t, Options{})
	counts := live(t, s, 3, 1500)
	for _, what := range []string{
		"new invoice", "payment", "correction", "cancellation", "deletion", "new customer", "customer correction",
		"broken: unknown country", "broken: no customer", "broken: decimal comma", "broken: no price", "repair of a broken record",
	} {
		require.Positive(t, counts[what], what)
	}
	var wrong int
	require.NoError(t, s.opts.DB.QueryRow(t.Context(), `
		select count(*) from shop.invoices i
		join (select invoice_id, sum(unit_price * quantity) as lines from shop.invoice_lines group by 1) l using (invoice_id)
		left join (select invoice_id, sum(amount) as paid from shop.payments group by 1) p using (invoice_id)
		where i.total <> l.lines or coalesce(paid, 0) > i.total or (status = 'paid') <> (coalesce(paid, 0) = i.total)
		  or status = 'cancelled' and paid > 0`).Scan(&wrong))
	require.Zero(t, wrong)

	last := map[string]event{}
	var comma, anonymous, free, deleted int
	for _, e := range events(t, s) {
		last[e.Entity+"/"+e.Key] = e
		if e.Operation == "delete" {
			deleted++
			require.Empty(t, e.Payload)
			continue
		}
		comma += count(e, `"total":"[0-9]+,[0-9]+"`)
		anonymous += count(e, `"customer_id":null`)
		free += count(e, `"unit_price":"n/a"`)
	}
	require.Equal(t, counts["broken: decimal comma"], comma)
	require.Equal(t, counts["broken: no customer"], anonymous)
	require.Equal(t, counts["broken: no price"], free)
	require.Equal(t, counts["deletion"], deleted)
	stillBroken := 0
	for _, e := range last {
		stillBroken += count(e, `"total":"[0-9]+,|"customer_id":null|"n/a"`)
	}
	require.Less(t, stillBroken, comma+anonymous+free, "broken records are exported again some steps later")
}

func count(e event, pattern string) int {
	return len(regexp.MustCompile(pattern).FindAll(e.Payload, -1))
}

func TestRun_LivesUntilItIsToldToStop(t *testing.T) {
	t.Parallel()
	s := setup(t, Options{Rate: 500})
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	require.Eventually(t, func() bool {
		totals, err := ReadTotals(ctx, s.opts.DB)
		return err == nil && totals.Invoices > 415 && totals.Payments > 3
	}, 20*time.Second, 20*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}

func TestOptions_ReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Rate: -1})
	require.ErrorContains(t, err, "DB is nil")
	require.ErrorContains(t, err, "rate -1 is not between")
}
