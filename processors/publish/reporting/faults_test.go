package reporting_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/publish/reporting"
)

func TestDiagnose_KnowsWhoIsToBlame(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"22003": "record refused", "23514": "record refused", "54000": "record refused", "P0001": "record refused",
		"40001": "conflict conflict", "40P01": "conflict conflict", "55P03": "conflict conflict",
		"26000": "conflict prepared_statement", "0A000": "conflict prepared_statement",
		"57014": "target timeout", "57P01": "target unavailable", "57P03": "target unavailable", "08006": "target unavailable",
		"55006": "target unavailable", "XX001": "target unavailable", "53100": "target resources", "53300": "target resources",
		"25006": "target read_only", "28P01": "target authentication", "3D000": "target database", "3F000": "target schema",
		"42P01": "target schema", "42703": "target schema", "42501": "target privilege", "99999": "unknown unknown",
	} {
		kind, got := reporting.Kind(fmt.Errorf("writing: %w", &pgconn.PgError{Code: code}))
		require.Equal(t, want, kind+" "+got, code)
	}
	kind, code := reporting.Kind(errors.Join(context.DeadlineExceeded))
	require.Equal(t, "target connection", kind+" "+code)
}

func TestHandler_FailsOnlyTheRecordThatPostgresRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.db.Exec(t.Context(), `alter table reporting.invoices add constraint house_rule check (total < 1000),
		add constraint other_rule check (memo <> 'no')`)
	require.NoError(t, err)
	var changes []change
	want := make([]string, 50)
	for i := range want {
		v := invoice(fmt.Sprintf("i%02d", i), "open", "10.00", "10.00")
		want[i] = "applied"
		if i == 17 || i == 18 || i == 49 {
			v.Total, want[i] = brl("1000.00"), "error refused"
		}
		changes = append(changes, upsert(int64(i+1), v))
	}
	require.Equal(t, want, b.outcomes(t, changes...))
	require.Equal(t, "47 47 47", b.query(t, "select (select count(*) from reporting.invoices), "+
		"(select count(*) from reporting.invoice_lines), (select count(*) from reporting.links)"))

	// The refused version goes to the dead letters; what stood before it in the batch must not be lost with it.
	tooMuch, good := invoice("a", "open", "1000.00"), invoice("a", "open", "9.00", "9.00")
	require.Equal(t, []string{"superseded", "applied", "error refused", "applied", "error refused"}, b.outcomes(t,
		upsert(60, invoice("a", "draft", "9.00")), upsert(61, good), upsert(62, tooMuch),
		upsert(63, invoice("b", "open", "1.00")), upsert(64, tooMuch)))
	require.Contains(t, b.query(t, showInvoices), "a open 9.00 false")
}

func TestHandler_SaysWhenTheTargetIsNotThere(t *testing.T) {
	t.Parallel()
	one := upsert(1, invoice("a", "open", "1.00", "1.00"))
	failure := func(t *testing.T, b *bundle) (code, text string) {
		t.Helper()
		results := b.handle(t.Context(), one, upsert(2, invoice("b", "open", "1.00")))
		require.Error(t, results[0].Err)
		require.Equal(t, results[0].Err, results[1].Err)
		return processors.Code(results[0].Err), results[0].Err.Error()
	}
	t.Run("no tables", func(t *testing.T) {
		t.Parallel()
		code, text := failure(t, bare(t, testenv.Postgres(t), reporting.Config{}))
		require.Equal(t, "schema", code)
		require.Contains(t, text, "leat migrate up reporting")
	})
	t.Run("no server", func(t *testing.T) {
		t.Parallel()
		code, _ := failure(t, bare(t, "postgres://nobody@127.0.0.1:1/none?sslmode=disable", reporting.Config{}))
		require.Equal(t, "connection", code)
	})
	t.Run("no database", func(t *testing.T) {
		t.Parallel()
		code, _ := failure(t, bare(t, strings.Replace(testenv.Postgres(t), "/leat_test", "/absent_leat_test", 1), reporting.Config{}))
		require.Equal(t, "database", code)
	})
	t.Run("read only", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		u, err := url.Parse(b.url)
		require.NoError(t, err)
		q := u.Query()
		q.Set("default_transaction_read_only", "on")
		u.RawQuery = q.Encode()
		code, text := failure(t, bare(t, u.String(), reporting.Config{}))
		require.Equal(t, "read_only", code)
		require.Contains(t, text, "primary")
	})
	t.Run("locked", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		tx, err := b.db.Begin(t.Context())
		require.NoError(t, err)
		defer tx.Rollback(context.Background())
		_, err = tx.Exec(t.Context(), "lock table reporting.invoices")
		require.NoError(t, err)
		code, _ := failure(t, bare(t, b.url, reporting.Config{StatementTimeout: 100 * time.Millisecond}))
		require.Equal(t, "timeout", code)
		require.NoError(t, tx.Rollback(t.Context()))
		require.Equal(t, []string{"applied"}, b.outcomes(t, one), "and goes on when the lock is gone")
	})
	t.Run("context done", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, b.handle(ctx, one)[0].Err, context.Canceled)
	})
}

func bare(t *testing.T, address string, config reporting.Config) *bundle {
	t.Helper()
	db, err := pgxpool.New(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	h, err := reporting.New(db, config)
	require.NoError(t, err)
	return &bundle{db: db, url: address, handler: h}
}

func TestGrants_AreEnoughAndNoMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	publisher, reader := testenv.Name("leat-publisher"), testenv.Name("leat-reader")
	exec := func(sql string) error {
		_, err := b.db.Exec(context.Background(), sql)
		return err
	}
	for _, role := range []string{publisher, reader} {
		require.NoError(t, exec(`create role "`+role+`" login password 'p'`))
		t.Cleanup(func() {
			db, err := pgx.Connect(context.Background(), b.url)
			require.NoError(t, err)
			defer db.Close(context.Background())
			_, err = db.Exec(context.Background(), `drop owned by "`+role+`"; drop role "`+role+`"`)
			require.NoError(t, err)
		})
	}
	as := func(role string) *bundle {
		u, err := url.Parse(b.url)
		require.NoError(t, err)
		u.User = url.UserPassword(role, "p")
		return bare(t, u.String(), reporting.Config{})
	}
	p, r := as(publisher), as(reader)
	one := upsert(1, invoice("a", "open", "3.00", "1.00", "2.00"))
	results := p.handle(t.Context(), one)
	require.Equal(t, []string{"error privilege"}, said(results))
	require.ErrorContains(t, results[0].Err, "grant_publisher")

	require.NoError(t, exec(`select reporting.grant_publisher('`+publisher+`'), reporting.grant_reader('`+reader+`')`))
	require.Equal(t, []string{"applied"}, p.outcomes(t, one))
	require.Equal(t, []string{"applied"}, p.outcomes(t, upsert(2, invoice("a", "open", "3.00", "3.00"))))
	require.Equal(t, []string{"deleted"}, p.outcomes(t, erase(3, "a")))
	for _, sql := range []string{"delete from reporting.invoices", "truncate reporting.links", "delete from reporting.links"} {
		_, err := p.db.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "permission denied", sql)
	}
	require.Equal(t, "0", r.query(t, "select count(*) from reporting.control_totals"))
	require.Equal(t, []string{"error privilege"}, r.outcomes(t, upsert(4, invoice("a", "open", "3.00", "3.00"))))
}

func TestConfig_ReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := reporting.New(nil, reporting.Config{Publication: "Not Good", StatementTimeout: -1})
	require.ErrorContains(t, err, "publication")
	require.ErrorContains(t, err, "statement timeout")
}
