package journal_test

import (
	"context"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/operations/journal"
	"github.com/leat-io/leat/topics"
)

// as is a pool of a fresh role with the rights that grant gives.
func as(t *testing.T, owner *pgxpool.Pool, grant string) *pgxpool.Pool {
	t.Helper()
	role := testenv.Name("leat-role")
	exec := func(sql string) {
		_, err := owner.Exec(context.Background(), sql)
		require.NoError(t, err, sql)
	}
	exec(`create role "` + role + `" login password 'p'`)
	t.Cleanup(func() { exec(`drop owned by "` + role + `"`); exec(`drop role "` + role + `"`) })
	exec(`select leat_control.` + grant + `('` + role + `')`)
	u, err := url.Parse(owner.Config().ConnString())
	require.NoError(t, err)
	u.User = url.UserPassword(role, "p")
	db, err := pgxpool.New(t.Context(), u.String())
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db
}

// TestRoles_DoWhatTheyNeedAndNoMore runs the index as a process and rebuilds it as an operator.
func TestRoles_DoWhatTheyNeedAndNoMore(t *testing.T) {
	t.Parallel()
	owner := database(t)
	process, operator := as(t, owner, "grant_index"), as(t, owner, "grant_operator")
	brokers, system := testenv.Kafka(t), testenv.Name("shop")
	source := topics.Source(system, "invoice")
	dlq := topics.DLQ(source, "normalize")
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	defer cl.Close()
	_, err = kadm.NewClient(cl).CreateTopics(t.Context(), 1, 1, nil, source, dlq)
	require.NoError(t, err)
	c := index.Config{
		DB: process, Kafka: []kgo.Opt{kgo.SeedBrokers(brokers...)}, Projections: []index.Projection{journal.New(0), journal.NewAttempts(0)},
		Topics:  func(context.Context) ([]string, error) { return []string{source, dlq}, nil },
		Refresh: 200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	x, err := index.New(c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	rec := event(source, 0, time.Now(), topics.Envelope{ID: uuid.NewString(), Subject: "1", Sequence: 1})
	require.NoError(t, cl.ProduceSync(t.Context(), rec, failed(rec, dlq, topics.Failure{Attempt: 1, Disposition: topics.DispositionPermanent})).FirstErr())
	full := func(what string) {
		deadline := time.Now().Add(time.Minute)
		for len(dump(t, operator, journalText)) != 1 || len(dump(t, operator, attemptsText)) != 1 {
			require.False(t, time.Now().After(deadline), "%s: %v", what, x.Ready())
			<-time.After(20 * time.Millisecond)
		}
	}
	full("the first reading")
	require.NoError(t, index.Rebuild(t.Context(), operator, audit.Operator{Name: "ana", Reason: "a test"}, c.Projections...))
	full("the second reading")
	cancel()
	require.NoError(t, <-done)
	for _, sql := range []string{
		"delete from leat_control.journal", "truncate leat_control.journal", "update leat_control.journal set epoch = 2",
		"update leat_control.positions set next_offset = 0", "select leat_control.journal_upkeep('1 day')",
	} {
		_, err := operator.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "permission denied", sql)
	}
	for _, sql := range []string{"delete from leat_control.journal", "select leat_control.journal_reset()", "delete from leat_control.positions"} {
		_, err := process.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "permission denied", sql)
	}
}
