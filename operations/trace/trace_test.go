package trace_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of goose
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/operations/trace"
)

// rig is one database with all schemas, and nothing running. integration_test traces events of a running pipeline.
type rig struct {
	trace.Config
	t  *testing.T
	db *pgxpool.Pool
}

func newRig(t *testing.T) *rig {
	t.Helper()
	url := testenv.Postgres(t)
	std, err := sql.Open("pgx", url)
	require.NoError(t, err)
	for _, kind := range migrations.Kinds() {
		_, err = migrations.Up(t.Context(), std, kind)
		require.NoError(t, err)
	}
	require.NoError(t, std.Close())
	db, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	r := &rig{t: t, db: db, Config: trace.Config{
		Control: db, Reporting: db, Publication: "reporting", Kafka: []kgo.Opt{kgo.SeedBrokers(testenv.Kafka(t)...)}, Systems: []string{"shop"},
		Source: func(ctx context.Context, system string) (*pgx.Conn, error) {
			if system != "shop" {
				return nil, errors.New("there is no source " + system)
			}
			return pgx.Connect(ctx, url)
		},
		Index: func(context.Context) ([]index.Status, error) {
			return []index.Status{{Projection: "journal", Working: true, Behind: 12}}, nil
		},
	}}
	r.exec(`select leat_control.journal_upkeep('90 days')`)
	r.exec(`insert into leat_control.journal_systems (system) values ('shop'), ('zoho')`)
	r.exec(`insert into leat_control.journal_topics (topic, topic_id) values ('source.shop.invoice', gen_random_uuid()), ('finance.invoice.v1', gen_random_uuid())`)
	return r
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.db.Exec(r.t.Context(), sql, args...)
	require.NoError(r.t, err)
}

// journal puts an event on the source topic (1) or the finance topic (2).
func (r *rig) journal(topic int, id uuid.UUID, epoch, sequence int64, key string) {
	r.t.Helper()
	r.exec(`insert into leat_control.journal (at, changed_at, event_id, sequence, epoch, "offset", topic, partition, system, deletion, key)
		values (clock_timestamp(), clock_timestamp(), $1, $2, $3, $2, $4, 0, 1, false, $5)`, id, sequence, epoch, topic, key)
}

// emit writes a row of the outbox.
func (r *rig) emit(key string) (id uuid.UUID) {
	r.t.Helper()
	require.NoError(r.t, r.db.QueryRow(r.t.Context(), `select leat.emit('acme', 'invoice', $1, 'upsert', '{}')`, key).Scan(&id))
	return id
}

func (r *rig) find(what string) trace.Report {
	r.t.Helper()
	report, err := trace.Find(r.t.Context(), r.Config, what, trace.Options{})
	require.NoError(r.t, err)
	return report
}

func TestFind_TheRowOfAFormerDatabaseIsNotTheEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old, restored := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	now := r.emit("1")
	r.journal(1, old, 1, 1, "acme/shop/1")
	r.exec(`select leat.raise_epoch(2)`)
	r.journal(1, restored, 2, 1, "acme/shop/1") // the database was made anew without a new epoch since
	o := r.find(old.String()).Journey.Outbox
	require.False(t, o.Found)
	require.Contains(t, o.Note, "former database")
	o = r.find(restored.String()).Journey.Outbox
	require.False(t, o.Found)
	require.Contains(t, o.Note, "is now another event")
	r.exec(`delete from leat_control.journal where event_id = $1`, restored)
	r.journal(1, now, 2, 1, "acme/shop/1")
	report := r.find("acme/shop/1")
	require.True(t, report.Journey.Outbox.Found)
	require.Len(t, report.Versions, 2)
	require.Equal(t, now.String(), report.Versions[0].EventID, "the epoch counts before the outbox id")
}

func TestFind_ATopicThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := uuid.Must(uuid.NewV7())
	r.journal(1, id, 1, 5, "acme/shop/1")
	require.False(t, r.find(id.String()).Journey.Places[0].Former)
	r.exec(`insert into leat_control.journal_topics (topic, topic_id) values ('source.shop.invoice', gen_random_uuid())`)
	require.True(t, r.find(id.String()).Journey.Places[0].Former)
}

func TestFind_InALongBacklogOfTheOutbox(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`insert into leat.outbox (event_id, tenant, entity, key, operation, payload, occurred_at)
		select gen_random_uuid(), 'acme', 'invoice', 'bulk', 'upsert', '\x7b7d', now() - interval '10 days' + g * interval '2 seconds'
		from generate_series(1, 400000) g`)
	r.exec(`analyze leat.outbox`)
	first := r.emit("last") // behind more rows than are looked through
	require.Equal(t, first.String(), r.find(first.String()).Journey.Outbox.EventID)
	for range 3 {
		r.emit("after")
	}
	require.Equal(t, trace.StateWaitingInOutbox, r.find(first.String()).Journey.State)
	_, err := trace.Find(t.Context(), r.Config, "acme/shop/nobody", trace.Options{})
	var missing *trace.NotFoundError
	require.ErrorAs(t, err, &missing)
	require.EqualError(t, err, "nothing is known of record acme/shop/nobody: looked in the journal, failed attempts, dead letters, undelivered rows "+
		"of outbox shop; the index is 12 records behind: try again when it has read them (`leat index status`)")
}

func TestFind_ANewerChangeWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	one := r.emit("1")
	r.journal(1, one, 1, 1, "acme/shop/1")
	require.Nil(t, r.find("acme/shop/1").Waiting)
	two := r.emit("1")
	report := r.find("acme/shop/1")
	require.NotNil(t, report.Waiting)
	require.Equal(t, two.String(), report.Waiting.EventID)
	require.Equal(t, one.String(), report.Journey.Version.EventID)
}

// TestFind_TellsWhatDidNotAnswer: at three in the morning half an answer is better than none.
func TestFind_TellsWhatDidNotAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := uuid.Must(uuid.NewV7())
	r.journal(1, id, 1, 5, "acme/shop/1")
	r.journal(2, uuid.New(), 1, 5, "acme/shop/1")
	r.Groups = []trace.Group{{Name: "g", Reads: func(string) bool { return true }}}
	r.Kafka = []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1"), kgo.RetryTimeout(time.Second)}
	r.Source = func(context.Context, string) (*pgx.Conn, error) { return nil, errors.New("no route to host") }
	r.exec(`drop schema reporting cascade`)
	j := r.find(id.String()).Journey
	require.Len(t, j.Places, 2)
	require.Len(t, j.Problems, 3, j.Problems)
	require.Contains(t, fmt.Sprint(j.Problems), "connecting to the database of source shop: no route to host")
	require.Contains(t, fmt.Sprint(j.Problems), "asking for the offsets of group g")
	require.Contains(t, fmt.Sprint(j.Problems), "looking in the reporting tables")
}

func TestFind_SaysWhatItTakes(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"", "42", "acme/shop", "ACME/shop/1"} {
		_, err := trace.Find(t.Context(), trace.Config{}, what, trace.Options{})
		require.EqualError(t, err, fmt.Sprintf("%q is neither the id of an event (a UUID) nor a record as tenant/system/source id", what))
	}
}
