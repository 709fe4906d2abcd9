package testenv_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
)

func TestPostgres_GivesEachTestADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	var first string
	t.Run("first", func(t *testing.T) {
		first = testenv.Postgres(t)
		execute(t, first, "create table t ()")
		execute(t, testenv.Postgres(t), "create table t ()")
		execute(t, first, "begin; create table u (); prepare transaction 'left behind'")
	})
	_, err := pgx.Connect(t.Context(), first)
	require.ErrorContains(t, err, "does not exist", "dropped with its test")
}

func TestPostgresServer_KeepsItsDataOverACrash(t *testing.T) {
	t.Parallel()
	server := testenv.PostgresServer(t)
	address := server.Database(t)
	execute(t, address, "create table kept ()")

	server.Kill()
	_, err := pgx.Connect(t.Context(), address)
	require.Error(t, err)
	server.Start(t)
	execute(t, address, "table kept")

	server.Freeze(t)
	server.Thaw(t)
	execute(t, address, "table kept")

	server.Stop(t)
	server.Start(t)
	execute(t, address, "table kept")
}

func TestEachKafka_TransactionsAndJavaTools(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		t.Parallel()
		topic, group := testenv.Name("things"), testenv.Name("readers")
		produce(t, brokers, topic)

		require.Equal(t, "committed\n", testenv.JavaTool(t, "org.apache.kafka.tools.consumer.ConsoleConsumer",
			"--bootstrap-server", brokers[0], "--topic", topic, "--group", group, "--from-beginning",
			"--isolation-level", "read_committed", "--max-messages", "1", "--timeout-ms", "60000"))
		require.Contains(t, testenv.JavaTool(t, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
			"--bootstrap-server", brokers[0], "--describe", "--group", group), topic)
	})
}

func TestKafkaServer_KeepsItsDataOverACrash(t *testing.T) {
	t.Parallel()
	server := testenv.KafkaServer(t)
	topic := testenv.Name("things")
	produce(t, server.Brokers(), topic)

	server.Kill()
	server.Start(t)
	require.Equal(t, "committed", first(t, server.Brokers(), topic))

	server.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(server.Brokers()...))
	require.NoError(t, err)
	defer client.Close()
	require.Error(t, client.Ping(ctx))
	server.Thaw(t)
	require.Equal(t, "committed", first(t, server.Brokers(), topic))

	server.Stop(t)
	server.Start(t)
	require.Equal(t, "committed", first(t, server.Brokers(), topic))
}

// TestShared_EndsWithTheCommandThatRanTheTests runs `go test` on one test of this package and looks for what is left.
func TestShared_EndsWithTheCommandThatRanTheTests(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^TestPostgres_Gives", ".")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LEAT_TEST_") && !strings.HasPrefix(kv, "TMPDIR=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	// The keeper's directory is made there, and is removed last of all.
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp, "LEAT_TEST_DOCKER=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Eventually(t, func() bool {
		left, err := filepath.Glob(filepath.Join(tmp, "leat-testenv-*"+strconv.Itoa(cmd.Process.Pid)+"*"))
		return err == nil && len(left) == 0
	}, time.Minute, 50*time.Millisecond)
}

// produce makes a topic with an aborted record and then a committed one.
func produce(t *testing.T, brokers []string, topic string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(topic))
	require.NoError(t, err)
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, topic)
	require.NoError(t, err)
	for value, end := range map[string]kgo.TransactionEndTry{"aborted": kgo.TryAbort, "committed": kgo.TryCommit} {
		require.NoError(t, client.BeginTransaction())
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr())
		require.NoError(t, client.EndTransaction(t.Context(), end))
	}
}

func first(t *testing.T, brokers []string, topic string) string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fetches := client.PollFetches(ctx)
	require.NoError(t, fetches.Err())
	return string(fetches.Records()[0].Value)
}

func execute(t *testing.T, address, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	_, err = conn.PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
}
