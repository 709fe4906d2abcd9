package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// write commits n rows over a while, one transaction each.
func (r *rig) write(n int) {
	r.t.Helper()
	for i := range n {
		r.insert("invoice", strconv.Itoa(i%10), fmt.Appendf(nil, `{"n":%d}`, i))
	}
}

func TestRelay_HandsOverToAnotherInstance(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		topic := topics.Source(r.system, "invoice")
		first, stopFirst := r.start(r.config())
		r.write(100)
		r.await(topic, 100)
		second, stopSecond := r.start(r.config())
		r.eventually("the second to join", func() bool { return second.Ready() == nil })
		r.write(100)
		stopFirst()
		r.write(100)
		r.await(topic, 300)
		require.NoError(t, second.Ready())
		require.Empty(t, first.owner.all())
		stopSecond()
		r.count(r.read(topic))
	})
}

// gate lets a client's connections through, or cuts them and refuses new ones.
type gate struct {
	closed atomic.Bool
}

func (g *gate) dial(ctx context.Context, network, host string) (net.Conn, error) {
	if g.closed.Load() {
		return nil, errors.New("the gate is closed")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return &gatedConn{c, g}, nil
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if c.gate.closed.Load() {
		_ = c.Close()
		return 0, errors.New("the gate is closed")
	}
	return c.Conn.Write(b)
}

// TestRelay_AnOwnerThatWasCutOffDoesNotReturn cuts one instance off from Kafka in the middle of its work. The other takes over.
// When the first can reach Kafka again, it must not deliver what it had begun, nor take the source back.
func TestRelay_AnOwnerThatWasCutOffDoesNotReturn(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		topic := topics.Source(r.system, "invoice")
		var g gate
		c := r.config()
		c.Kafka = append(c.Kafka, kgo.Dialer(g.dial))
		first, _ := r.start(c)
		r.write(50)
		r.await(topic, 50)
		second, stopSecond := r.start(r.config())
		r.eventually("the second to join", func() bool { return second.Ready() == nil })
		g.closed.Store(true)
		r.write(50)
		r.await(topic, 100)
		g.closed.Store(false)
		r.eventually("the first to come back as a spare", func() bool { return first.Ready() == nil })
		r.write(50)
		r.await(topic, 150)
		require.Len(t, append(first.owner.all(), second.owner.all()...), 1, "owners")
		stopSecond()
		r.count(r.read(topic))
	})
}

// TestRelay_AStaticMemberHasItsSourcesBackAtOnce cuts a static member off for good. The next of its name does not wait for the end of
// its session, which this test would not live to see.
func TestRelay_AStaticMemberHasItsSourcesBackAtOnce(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		topic := topics.Source(r.system, "invoice")
		var g gate
		c := r.config()
		c.Instance, c.SessionTimeout, c.Grace = "one", 4*time.Minute, 4*time.Minute // a rebalance waits for the grace period too
		dead := c
		dead.Kafka = append(slices.Clone(c.Kafka), kgo.Dialer(g.dial))
		r.start(dead)
		r.write(50)
		r.await(topic, 50)
		g.closed.Store(true)
		r.write(50)
		_, stop := r.start(c)
		r.await(topic, 100)
		g.closed.Store(false)
		stop()
		r.count(r.read(topic))
	})
}

// TestRelay_TwoThatBothBelieve: two groups own the same source, so that neither ever learns of the other but by fencing.
func TestRelay_TwoThatBothBelieve(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		other := r.config()
		other.Group = testenv.Name("other")
		_, stopFirst := r.start(r.config())
		_, stopSecond := r.start(other)
		r.write(300)
		topic := topics.Source(r.system, "invoice")
		r.await(topic, 300)
		stopFirst()
		stopSecond()
		r.count(r.read(topic))
	})
}

func TestRelay_GoesOnWhenTheDatabaseEndsItsConnections(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		r.start(r.config())
		for range 10 {
			r.write(30)
			r.exec("select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", "leat-relay-"+r.system)
		}
		topic := topics.Source(r.system, "invoice")
		r.await(topic, 300)
		r.count(r.read(topic))
	})
}

// TestRelay_SurvivesBrokerFaults injects what a broker can answer, and demands that each row still arrives once.
func TestRelay_SurvivesBrokerFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]kfake.Fault{
		"not leader":                 {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 3},
		"not enough replicas":        {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: 3},
		"out of order sequence":      {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.OutOfOrderSequenceNumber, Count: 1},
		"produce fenced":             {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidProducerEpoch, Count: 1},
		"concurrent transactions":    {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ConcurrentTransactions, Count: 2, TopLevel: true},
		"end fenced":                 {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: 1, TopLevel: true},
		"end of unknown outcome":     {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, Count: 1, TopLevel: true},
		"transaction timed out":      {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidTxnState, Count: 1, TopLevel: true},
		"coordinator is loading":     {Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.CoordinatorLoadInProgress, Count: 2, TopLevel: true},
		"topic not authorized":       {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: 1},
		"policy refuses the records": {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.PolicyViolation, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := testenv.FakeCluster(t)
			r := newRig(t, k.Brokers(), "invoice")
			topic := topics.Source(r.system, "invoice")
			r.write(20)
			var handle *kfake.FaultHandle
			if slices.Contains(fault.Keys, kmsg.InitProducerID) {
				handle = k.Cluster().Fault(fault)
			}
			r.start(r.config())
			r.await(topic, 20)
			if handle == nil {
				handle = k.Cluster().Fault(fault)
			}
			r.eventually("the fault to strike", func() bool {
				r.write(1)
				return handle.Hits() > 0
			})
			r.write(20)
			var n int
			require.NoError(t, r.db.QueryRow(t.Context(), "select count(*) from leat.outbox").Scan(&n))
			r.await(topic, n)
			r.count(r.read(topic))
			require.Empty(t, r.deadLetters())
		})
	}
}

func TestRelay_BuriesWhatKafkaDoesNotTake(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		topic := topics.Source(r.system, "invoice")
		big, huge := bytes.Repeat([]byte("b"), 1<<20), bytes.Repeat([]byte("h"), 3<<20)
		// A table that another hand made may lack the check.
		r.exec("alter table leat.outbox drop constraint if exists headers_are_strings")
		r.insert("invoice", "1", []byte("before"))
		r.insert("invoice", "1", big)
		r.insert("invoice", "1", huge)
		r.insert("nonesuch", "1", []byte("{}"))
		r.exec(`insert into leat.outbox (event_id, tenant, entity, key, operation, payload, headers)
			values (gen_random_uuid(), 'acme', 'invoice', '1', 'upsert', '{}', '{"ce_id": "forged"}'),
				(gen_random_uuid(), 'acme', 'invoice', '1', 'upsert', '{}', '{"deep": {"a": "b:c"}}'),
				(gen_random_uuid(), 'acme', 'invoice', '2', 'upsert', '{}', '{"traceparent": "00-ab-cd-01", "note": "a: \"b\""}')`)
		r.exec(`insert into leat.outbox (event_id, tenant, entity, key, operation, payload, occurred_at)
			values (gen_random_uuid(), 'acme', 'invoice', '1', 'delete', null, 'infinity')`)
		r.insert("invoice", "1", []byte("after"))
		r.start(r.config())
		recs := r.await(topic, 3)
		var one []string
		for _, rec := range recs {
			if string(rec.Key) == "acme/"+r.system+"/1" {
				one = append(one, string(rec.Value))
				continue
			}
			require.Equal(t, "00-ab-cd-01", envelope(t, rec).TraceParent)
			require.Equal(t, `a: "b"`, header(rec, "note"))
		}
		require.Equal(t, []string{"before", "after"}, one)
		dead := r.deadLetters()
		require.Len(t, dead, 6)
		codes := map[string]*kgo.Record{}
		for _, rec := range dead {
			codes[header(rec, topics.HeaderOutboxID)] = rec
			require.Equal(t, "acme/"+r.system+"/1", string(rec.Key))
			require.Equal(t, "permanent", header(rec, topics.HeaderDisposition))
			envelope(t, rec)
		}
		for id, code := range map[string]string{
			"2": codeTooLarge, "3": codeTooLarge, "4": codeUnknownEntity, "5": codeHeaders, "6": codeHeaders, "8": codeRow,
		} {
			require.Equal(t, code, header(codes[id], topics.HeaderErrorCode), "row %s", id)
		}
		require.Equal(t, big, codes["2"].Value)
		require.Empty(t, codes["3"].Value)
		require.Equal(t, strconv.Itoa(len(huge)), header(codes["3"], topics.HeaderValueOmitted))
		require.EqualValues(t, 9, r.cursor().Rows)
	})
}

// TestRelay_DoesNotReadWhatNoRecordCanHold: nothing in a row makes the relay hold more than a bound of it, and the rows around it go on.
func TestRelay_DoesNotReadWhatNoRecordCanHold(t *testing.T) { //nolint:paralleltest // what other tests allocate would be counted
	r := newRig(t, testenv.Kafka(t), "invoice")
	r.insert("invoice", "1", []byte("before"))
	long := bytes.Repeat([]byte("x"), 20<<20)
	for column, value := range map[string]string{
		"payload": "$1::bytea", "content_type": "convert_from($1::bytea, 'UTF8')", "schema_version": "convert_from($1::bytea, 'UTF8')",
		"headers": "(select jsonb_object_agg('h' || g, md5(g::text)) from generate_series(1, length($1::bytea) / 64) g)",
	} {
		payload := "'{}', "
		if column == "payload" {
			payload = ""
		}
		r.exec(`insert into leat.outbox (event_id, tenant, entity, key, operation, `+map[bool]string{true: "", false: "payload, "}[payload == ""]+column+`)
			values (gen_random_uuid(), 'acme', 'invoice', $2, 'upsert', `+payload+value+`)`, long, column)
	}
	r.insert("invoice", "1", []byte("after"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.start(r.config())
	require.Len(t, r.await(topics.Source(r.system, "invoice"), 2), 2)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "bytes allocated")
	want := map[string]string{
		"payload": codeTooLarge, "content_type": codeRow, "schema_version": codeRow, "headers": codeHeaders,
	}
	dead := r.deadLetters()
	require.Len(t, dead, len(want))
	for _, rec := range dead {
		column := strings.TrimPrefix(string(rec.Key), "acme/"+r.system+"/")
		require.Equal(t, want[column], header(rec, topics.HeaderErrorCode))
		require.Contains(t, header(rec, topics.HeaderErrorMessage), column)
		require.Contains(t, header(rec, topics.HeaderErrorMessage), "bytes")
	}
}

// TestRelay_IsolatesARecordThatTheBrokerRefuses lowers the limit of the topic behind the relay's back.
func TestRelay_IsolatesARecordThatTheBrokerRefuses(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		topic := topics.Source(r.system, "invoice")
		r.start(r.config())
		r.insert("invoice", "1", []byte("first"))
		r.await(topic, 1)
		limit := "3000"
		altered, err := r.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, topic)
		require.NoError(t, err)
		require.NoError(t, altered[0].Err)
		r.exec(`insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
			select gen_random_uuid(), 'acme', 'invoice', (g % 3)::text, 'upsert',
				convert_to(repeat('x', case when g in (5, 17) then 4000 else 100 end), 'UTF8') from generate_series(1, 30) g`)
		recs := r.await(topic, 29)
		dead := r.deadLetters()
		require.Len(t, dead, 2)
		for _, rec := range dead {
			require.Equal(t, codeRefused, header(rec, topics.HeaderErrorCode))
			require.Len(t, rec.Value, 4000)
		}
		r.exec("delete from leat.outbox where length(payload) = 4000")
		r.count(recs)
	})
}

func TestRelay_WaitsForTopics(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		c := r.config()
		c.Sources[0].Entities = []string{"invoice"}
		relay, _ := r.start(c)
		r.insert("invoice", "1", []byte("{}"))
		r.eventually("the relay to say what is missing", func() bool {
			err := relay.Ready()
			return err != nil && strings.Contains(err.Error(), "leat topics apply") && strings.Contains(err.Error(), "invoice")
		})
		topic := topics.Source(r.system, "invoice")
		r.create(topic, 2, nil)
		r.await(topic, 1)
		r.eventually("the relay to be ready", func() bool { return relay.Ready() == nil })
		require.Empty(t, r.deadLetters())
	})
}

// TestRelay_RefusesARestoredDatabase restores the source to an earlier state, and adopts it.
func TestRelay_RefusesARestoredDatabase(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		topic := topics.Source(r.system, "invoice")
		r.write(10)
		r.db.Close()
		backup := r.copyDatabase()
		r.connect(r.url)
		r.write(10)
		_, stop := r.start(r.config())
		r.await(topic, 20)
		stop()

		r.url = backup
		r.connect(backup)
		relay, _ := r.start(r.config())
		r.eventually("the cursor to be refused", func() bool { return errors.Is(relay.Ready(), ErrRefused) })
		require.ErrorContains(t, relay.Ready(), "leat relay adopt --source "+r.system)
		status, err := ReadStatus(t.Context(), StatusConfig{Sources: r.config().Sources, Kafka: r.config().Kafka, Group: r.group})
		require.NoError(t, err)
		require.Contains(t, strings.Join(status[0].Problem, "\n"), "leat relay adopt")

		a := Adoption{Source: r.config().Sources[0], Kafka: r.config().Kafka, From: "end", Reason: "restored on purpose"}
		_, err = Adopt(t.Context(), a)
		require.ErrorContains(t, err, "raise_epoch(2)")
		r.exec("select leat.raise_epoch(2)")
		report, err := Adopt(t.Context(), a)
		require.NoError(t, err)
		require.EqualValues(t, 20, *report.Before)
		require.EqualValues(t, 10, report.After)
		require.NotEmpty(t, report.Refusal)
		r.insert("invoice", "1", []byte("after the restore"))
		recs := r.await(topic, 21)
		r.eventually("the relay to be ready", func() bool { return relay.Ready() == nil })
		for _, rec := range recs {
			if string(rec.Value) == "after the restore" {
				require.EqualValues(t, 2, envelope(t, rec).Epoch)
			}
		}
		require.Equal(t, "restored on purpose", r.cursor().Adopted.Reason)
	})
}

func (r *rig) connect(url string) {
	r.t.Helper()
	pool, err := pgxpool.New(r.t.Context(), url)
	require.NoError(r.t, err)
	r.t.Cleanup(pool.Close)
	r.db = pool
}

// copyDatabase copies the rig's database, which nobody may be connected to, and returns the URL of the copy.
func (r *rig) copyDatabase() string {
	r.t.Helper()
	target := testenv.Postgres(r.t) // its name is used for the copy
	name := func(url string) string {
		url, _, _ = strings.Cut(url, "?")
		return url[strings.LastIndexByte(url, '/')+1:]
	}
	admin, err := pgxpool.New(r.t.Context(), strings.Replace(target, "/"+name(target), "/postgres", 1))
	require.NoError(r.t, err)
	defer admin.Close()
	for _, sql := range []string{
		"select pg_terminate_backend(pid) from pg_stat_activity where datname = '" + name(r.url) + "'",
		"drop database " + name(target),
		"create database " + name(target) + " template " + name(r.url),
	} {
		_, err := admin.Exec(r.t.Context(), sql)
		require.NoError(r.t, err)
	}
	return target
}

func TestRelay_SpreadsSourcesOverInstances(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		var rigs []*rig
		var sources []Source
		for range 4 {
			r := newRig(t, brokers, "invoice")
			rigs = append(rigs, r)
			sources = append(sources, r.config().Sources...)
		}
		c := rigs[0].config()
		c.Sources = sources
		rigs[0].start(c)
		for _, r := range rigs {
			r.write(20)
		}
		c = rigs[0].config()
		c.Sources = sources
		second, _ := rigs[0].start(c)
		rigs[0].eventually("the second to join", func() bool { return second.Ready() == nil })
		for _, r := range rigs {
			r.write(20)
		}
		for _, r := range rigs {
			topic := topics.Source(r.system, "invoice")
			r.await(topic, 40)
			r.count(r.read(topic))
		}
	})
}

func TestReadStatus_ShowsWhatIsBehindAndWhoHoldsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Fake(t), "invoice")
	_, stop := r.start(r.config())
	r.write(5)
	r.await(topics.Source(r.system, "invoice"), 5)
	holder, err := r.db.Begin(t.Context())
	require.NoError(t, err)
	defer holder.Rollback(context.Background())
	_, err = holder.Exec(t.Context(), "set local application_name = 'slow import'")
	require.NoError(t, err)
	_, err = holder.Exec(t.Context(), insert, "invoice", "9", []byte("{}"))
	require.NoError(t, err)
	r.write(1)
	r.await(topics.Source(r.system, "invoice"), 6)
	stop()
	r.write(3)
	look := func() Status {
		all, err := ReadStatus(t.Context(), StatusConfig{Sources: r.config().Sources, Kafka: r.config().Kafka, Group: r.group})
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.Empty(t, all[0].Problem)
		return all[0]
	}
	s := look()
	require.EqualValues(t, 7, s.Position.LastID)
	require.EqualValues(t, 3, s.RowsBehind)
	require.Zero(t, s.LateRows)
	require.NotNil(t, s.OldestUndelivered)
	require.Positive(t, s.SecondsBehind)
	require.NotEmpty(t, s.Partitions)
	require.Len(t, s.Transactions, 1)
	require.Equal(t, "slow import", s.Transactions[0].Application)
	require.True(t, s.Transactions[0].HoldsOutbox)
	require.NoError(t, holder.Commit(t.Context()))
	s = look()
	require.EqualValues(t, 4, s.RowsBehind)
	require.EqualValues(t, 1, s.LateRows)
	require.Less(t, s.SecondsBehind, time.Hour.Seconds())
}

func TestRelay_LearnsThatATopicTakesMore(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		topic := topics.Source(r.system, "invoice")
		r.create(topic, 1, map[string]string{"max.message.bytes": "3000"})
		r.start(r.config())
		payload := bytes.Repeat([]byte("x"), 4000)
		r.insert("invoice", "1", payload)
		r.eventually("the dead letter", func() bool { return len(r.deadLetters()) == 1 })
		limit := "1000000"
		_, err := r.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, topic)
		require.NoError(t, err)
		r.eventually("a larger record to be delivered", func() bool {
			r.insert("invoice", "1", payload)
			return len(r.read(topic)) > 0
		})
		r.eventually("every row to be somewhere", func() bool {
			var rows int
			require.NoError(t, r.db.QueryRow(t.Context(), "select count(*) from leat.outbox").Scan(&rows))
			return rows == len(r.read(topic))+len(r.deadLetters())
		})
	})
}

// TestRelay_WaitsOutABroker stops a broker of its own in the middle of work.
func TestRelay_WaitsOutABroker(t *testing.T) {
	t.Parallel()
	server := testenv.KafkaServer(t)
	r := newRig(t, server.Brokers(), "invoice")
	topic := topics.Source(r.system, "invoice")
	relay, _ := r.start(r.config())
	r.write(50)
	r.await(topic, 50)
	server.Kill()
	r.write(50)
	r.eventually("the relay to say that nothing flows", func() bool { return relay.Ready() != nil })
	server.Start(t)
	r.write(50)
	r.await(topic, 150)
	r.count(r.read(topic))
	r.eventually("the relay to be ready", func() bool { return relay.Ready() == nil })
	require.Empty(t, r.deadLetters())
}

// TestRelay_WaitsOutADatabase kills the source's server in the middle of work, twice.
func TestRelay_WaitsOutADatabase(t *testing.T) {
	t.Parallel()
	server := testenv.PostgresServer(t)
	r := newDatabaseAt(t, server.Database(t)).with(testenv.Kafka(t), "invoice")
	topic := topics.Source(r.system, "invoice")
	relay, _ := r.start(r.config())
	r.write(50)
	for range 2 {
		r.fill("invoice", 5_000, 100, 10)
		server.Kill()
		r.eventually("the relay to say that nothing flows", func() bool { return relay.Ready() != nil })
		server.Start(t)
		r.db.Reset() // its connections ended with the server
		r.write(50)
	}
	r.await(topic, 10_150)
	r.count(r.read(topic))
	r.eventually("the relay to be ready", func() bool { return relay.Ready() == nil })
	require.Empty(t, r.deadLetters())
}
