package verify_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/verify"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// empty is a source that has written nothing: database, topics, no mapping.
func empty(t *testing.T) (*pgxpool.Pool, verify.Config) {
	t.Helper()
	db, err := pgxpool.New(t.Context(), testenv.Postgres(t))
	require.NoError(t, err)
	t.Cleanup(db.Close)
	conn := stdlib.OpenDBFromPool(db)
	defer conn.Close()
	for _, kind := range migrations.Kinds() {
		_, err := migrations.Up(t.Context(), conn, kind)
		require.NoError(t, err)
	}
	kafka := []kgo.Opt{kgo.SeedBrokers(testenv.Fake(t)...)}
	c := verify.Config{
		Source: "shop", Entities: []string{"invoice"}, Outbox: db, Reporting: db, Kafka: kafka, PublishGroup: "reporting",
		Normalize: verify.Stage{Group: "normalize", Handler: processors.HandlerFunc(func(_ context.Context, m []processors.Message) []processors.Result {
			return make([]processors.Result, len(m))
		})},
		ContentHash: func([]byte) (h [16]byte) { return h },
	}
	catalogue, err := topics.Catalogue(topics.Spec{Sources: []topics.SourceSpec{{System: c.Source, Entities: c.Entities}}, Partitions: 1})
	require.NoError(t, err)
	client, err := kgo.NewClient(kafka...)
	require.NoError(t, err)
	defer client.Close()
	for _, topic := range catalogue {
		_, err := kadm.NewClient(client).CreateTopic(t.Context(), topic.Partitions, 1, nil, topic.Name)
		require.NoError(t, err)
	}
	return db, c
}

// TestSchedule_OneOfTwoVerifies runs two schedules on one database: one verification is made, both tell of it, and it is kept and filed.
func TestSchedule_OneOfTwoVerifies(t *testing.T) {
	t.Parallel()
	db, c := empty(t)
	var made atomic.Int32
	dir := t.TempDir()
	schedule := func(reg prometheus.Registerer) verify.Schedule {
		return verify.Schedule{
			DB: db, Sources: []string{c.Source}, Every: time.Hour, Window: time.Hour, Keep: time.Hour, Directory: dir, Registerer: reg,
			Connect: func(context.Context, string) (verify.Config, func(), error) {
				made.Add(1)
				return c, func() {}, nil
			},
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	registries := []*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	for _, reg := range registries {
		r, err := verify.NewRunner(schedule(reg))
		require.NoError(t, err)
		go func() { ended <- r.Run(ctx) }()
	}
	require.Eventually(t, func() bool {
		for _, reg := range registries {
			if n, err := testutil.GatherAndCount(reg, "leat_verify_agrees", "leat_verify_age_seconds"); err != nil || n != 2 {
				return false
			}
		}
		return true
	}, time.Minute, 20*time.Millisecond)
	stop()
	require.NoError(t, errors.Join(<-ended, <-ended))
	require.Equal(t, int32(1), made.Load())

	kept, err := verify.List(t.Context(), db, "", 10)
	require.NoError(t, err)
	require.Len(t, kept, 1)
	require.True(t, kept[0].Agrees)
	doc, err := verify.Load(t.Context(), db, kept[0].ID)
	require.NoError(t, err)
	report, err := doc.Read()
	require.NoError(t, err)
	require.Equal(t, kept[0].ID, report.ID)
	require.Equal(t, []string{"The window holds no changes."}, report.Statement)
	files, err := filepath.Glob(filepath.Join(dir, "shop-*"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, f := range files {
		info, err := os.Stat(f)
		require.NoError(t, err)
		require.Positive(t, info.Size())
	}
	_, err = verify.Load(t.Context(), db, "0199c1d2-0000-7000-8000-00000000dead")
	require.ErrorContains(t, err, "there is no report")
}

// TestVerify_NamesWhatItNeeds: a missing topic and a wrong window are errors, not verdicts.
func TestVerify_NamesWhatItNeeds(t *testing.T) {
	t.Parallel()
	_, c := empty(t)
	wrong := c
	wrong.Entities = []string{"invoice", "order"}
	_, err := verify.Verify(t.Context(), wrong, verify.Window{})
	require.ErrorContains(t, err, "topic source.shop.order does not exist: make it with `leat topics apply`")
	_, err = verify.Verify(t.Context(), c, verify.Window{FromID: 4, ToID: 3})
	require.ErrorContains(t, err, "before it begins")
	_, err = verify.Verify(t.Context(), verify.Config{}, verify.Window{})
	require.ErrorContains(t, err, "the source's database is missing")
}
