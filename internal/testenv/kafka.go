package testenv

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/devstack"
)

// Kafka returns the addresses of a real broker, or of an in-process one where no real one can be had. Topics are made
// with one replica, and never by using them. Other tests use it at the same time: topics, groups and transactional
// ids need names of their own.
func Kafka(tb testing.TB) []string {
	tb.Helper()
	brokers, err := realKafka(tb)
	if err == nil {
		return brokers
	}
	if ci() {
		tb.Fatalf("a real Kafka is demanded with CI=true: %v", err)
	}
	tb.Logf("NOTICE: an in-process Kafka stands in for a real one: %v", err)
	return Fake(tb)
}

// Fake returns the addresses of an in-process Kafka of the test's own, the one that leat dev uses.
func Fake(tb testing.TB) []string {
	tb.Helper()
	return FakeCluster(tb).Brokers()
}

// FakeCluster is Fake, for tests that inject faults.
func FakeCluster(tb testing.TB) *devstack.Kafka {
	tb.Helper()
	k, err := devstack.StartKafka(context.Background(), devstack.KafkaOptions{})
	require.NoError(tb, err)
	tb.Cleanup(k.Stop)
	return k
}

// EachKafka runs a scenario as two subtests, on a real broker and on an in-process one. Without a real broker that
// subtest is skipped; with CI=true it fails.
func EachKafka(t *testing.T, scenario func(t *testing.T, brokers []string)) {
	t.Helper()
	t.Run("kafka", func(t *testing.T) {
		brokers, err := realKafka(t)
		if err != nil {
			missing(t, "a real Kafka", err)
		}
		scenario(t, brokers)
	})
	t.Run("kfake", func(t *testing.T) { scenario(t, Fake(t)) })
}

func realKafka(tb testing.TB) ([]string, error) {
	tb.Helper()
	if s := os.Getenv("LEAT_TEST_KAFKA_BROKERS"); s != "" {
		return strings.Split(s, ","), nil
	}
	s := sharedServer(tb, kafkaKind)
	if s.Error != "" {
		return nil, errors.New(s.Error)
	}
	return s.Addresses, nil
}

// OwnKafka is a broker that only one test uses, so that the test may stop, kill or freeze it.
type OwnKafka struct{ broker *broker }

// KafkaServer starts a broker of the test's own, as a process of this machine: it needs Java 17. It ends with the test.
// Besides the listener of Brokers, which asks for nothing, it has those given.
func KafkaServer(tb testing.TB, listeners ...Listener) *OwnKafka {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	libs, err := kafkaLibs(ctx)
	if err != nil {
		missing(tb, "a Kafka process", err)
	}
	scratch, err := devstack.NewScratch()
	require.NoError(tb, err)
	k := &OwnKafka{broker: &broker{libs: libs, dir: scratch.Dir(), listeners: listeners, settings: map[string]string{
		"broker.session.timeout.ms":    "3000", // a killed broker may register again after this
		"broker.heartbeat.interval.ms": "500",
	}}}
	tb.Cleanup(func() {
		k.broker.kill()
		if err := scratch.Remove(); err != nil {
			tb.Logf("removing the data of Kafka: %v", err)
		}
	})
	require.NoError(tb, k.broker.start(ctx))
	return k
}

// Brokers are the addresses; they stay the same over restarts.
func (k *OwnKafka) Brokers() []string { return k.broker.addresses() }

// Listener returns the addresses of one of the listeners that KafkaServer was given, by its name.
func (k *OwnKafka) Listener(name string) []string {
	return []string{k.broker.address(k.broker.listenerPorts[name])}
}

// Kill ends the broker as a crash does.
func (k *OwnKafka) Kill() { k.broker.kill() }

// Stop ends the broker in good order.
func (k *OwnKafka) Stop(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, k.broker.process.Stop(syscall.SIGTERM, time.Minute))
}

// Start starts a broker that was stopped or killed, with the same port and data, and waits until it answers.
func (k *OwnKafka) Start(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	require.NoError(tb, k.broker.start(ctx))
}

// Freeze stops the broker as SIGSTOP does: connections stay open and nothing is answered.
func (k *OwnKafka) Freeze(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, k.broker.process.Signal(syscall.SIGSTOP))
}

// Thaw ends a Freeze.
func (k *OwnKafka) Thaw(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, k.broker.process.Signal(syscall.SIGCONT))
}
