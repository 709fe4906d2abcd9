package devstack_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/devstack"
)

// asParent makes this test binary a process that starts PostgreSQL and waits to be killed.
const asParent = "LEAT_DEVSTACK_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) != "" {
		p, err := devstack.StartPostgres(context.Background(), devstack.PostgresOptions{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(p.PID())
		select {}
	}
	os.Exit(m.Run())
}

func TestKafka_TransactionsAndMissingTopics(t *testing.T) {
	t.Parallel()
	k, err := devstack.StartKafka(t.Context(), devstack.KafkaOptions{Partitions: 3})
	require.NoError(t, err)
	t.Cleanup(k.Stop)

	admin, err := kadm.NewOptClient(kgo.SeedBrokers(k.Brokers()...))
	require.NoError(t, err)
	defer admin.Close()
	_, err = admin.CreateTopic(t.Context(), -1, 1, nil, "made")
	require.NoError(t, err)
	topics, err := admin.ListTopics(t.Context(), "made")
	require.NoError(t, err)
	require.Len(t, topics["made"].Partitions, 3)

	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers()...), kgo.TransactionalID("a"), kgo.AllowAutoTopicCreation(),
		kgo.UnknownTopicRetries(1), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeTopics("made"))
	require.NoError(t, err)
	defer client.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		require.NoError(t, client.BeginTransaction())
		value := []byte(strconv.FormatBool(bool(commit)))
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: "made", Value: value}).FirstErr())
		require.NoError(t, client.EndTransaction(t.Context(), commit))
	}
	fetches := client.PollFetches(t.Context())
	require.NoError(t, fetches.Err())
	require.Equal(t, "true", string(fetches.Records()[0].Value))

	require.NoError(t, client.BeginTransaction())
	err = client.ProduceSync(t.Context(), &kgo.Record{Topic: "not-made"}).FirstErr()
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
}

func TestPostgres_MakesFreshDatabasesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	p, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Settings: map[string]string{"work_mem": "5MB"}})
	require.NoError(t, err)

	address, err := p.Database(t.Context(), "shop")
	require.NoError(t, err)
	require.Equal(t, "leat_dev_shop 5MB", query(t, address, `select current_database() || ' ' || current_setting('work_mem')`))
	query(t, address, `create table t (); select 'made'`)

	address, err = p.Database(t.Context(), "shop")
	require.NoError(t, err)
	require.Equal(t, "0", query(t, address, `select count(*)::text from pg_class where relname = 't'`))

	data := query(t, address, `show data_directory`)
	require.DirExists(t, data)
	require.NoError(t, p.Stop(context.Background()))
	require.NoDirExists(t, data)
	require.Equal(t, syscall.ESRCH, syscall.Kill(p.PID(), 0))
}

func TestPostgres_UsesTheServerOfTheAddress(t *testing.T) {
	t.Parallel()
	own, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, own.Stop(context.Background())) })
	address, err := own.Database(t.Context(), "given")
	require.NoError(t, err)

	first, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{DatabaseURL: address})
	require.NoError(t, err)
	shop, err := first.Database(t.Context(), "shop")
	require.NoError(t, err)

	_, err = devstack.StartPostgres(t.Context(), devstack.PostgresOptions{DatabaseURL: address})
	require.ErrorIs(t, err, devstack.ErrInUse)

	require.NoError(t, first.Stop(context.Background()))
	require.Equal(t, "leat_dev_leat_dev_given_shop", query(t, shop, `select current_database()::text`),
		"still there to be looked at")
}

func TestPostgres_KeepsDataOfItsOwnDirectoryThroughACrash(t *testing.T) {
	t.Parallel()
	scratch, err := devstack.NewScratch()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, scratch.Remove()) })
	port, err := devstack.FreePort()
	require.NoError(t, err)
	o := devstack.PostgresOptions{Dir: scratch.Dir(), Port: port}

	p, err := devstack.StartPostgres(t.Context(), o)
	require.NoError(t, err)
	query(t, p.URL(), `create table kept as select 'row' as v; select 'made'`)
	p.Kill()

	require.Eventually(t, func() bool { // the crashed server's backends take a moment to notice
		p, err = devstack.StartPostgres(t.Context(), o)
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	require.Equal(t, "row", query(t, p.URL(), `select v from kept`))
	require.NoError(t, p.Stop(context.Background()))
}

func TestPostgres_EndsWhenItsParentIsKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	parent := exec.CommandContext(t.Context(), self)
	parent.Env = append(os.Environ(), asParent+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	data, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		t.Skip("needs Linux: elsewhere a parent's death is not told to its children")
	}
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()

	require.Eventually(t, func() bool { return ended(pid) }, 20*time.Second, 20*time.Millisecond)

	next, err := devstack.NewScratch()
	require.NoError(t, err)
	require.NoDirExists(t, data, "the next run removes what the killed one left")
	require.NoError(t, next.Remove())
}

// ended is true for a zombie too: whoever inherits it may take its time.
func ended(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func query(t *testing.T, address, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
	return string(results[len(results)-1].Rows[0][0])
}

// StartKafka tries another port when one that was free is taken before the broker listens: it must know that error.
func TestStartKafka_SaysThatAPortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = devstack.StartKafka(t.Context(), devstack.KafkaOptions{Port: l.Addr().(*net.TCPAddr).Port})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}
