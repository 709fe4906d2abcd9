package testenv

import (
	"context"
	"errors"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/broker"
	"github.com/leat-io/leat/internal/devstack"
)

const brokerTimeout = 2 * time.Minute

// Listener is a further way into a broker, with demands of its own.
type Listener = broker.Listener

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
type OwnKafka struct{ broker *broker.Broker }

// KafkaServer starts a broker of the test's own, as a process of this machine: it needs Java 17. It ends with the test.
// Besides the listener of Brokers, which asks for nothing, it has those given.
func KafkaServer(tb testing.TB, listeners ...Listener) *OwnKafka {
	tb.Helper()
	return kafkaServer(tb, nil, listeners)
}

// AuthorizingKafka is a KafkaServer that refuses whoever has no right by its ACLs. Whoever comes by the listener of Brokers may do
// everything.
func AuthorizingKafka(tb testing.TB, listeners ...Listener) *OwnKafka {
	tb.Helper()
	return kafkaServer(tb, map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":           "User:ANONYMOUS", // also the broker itself
	}, listeners)
}

func kafkaServer(tb testing.TB, more map[string]string, listeners []Listener) *OwnKafka {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	libs, err := broker.Libs(ctx)
	if err != nil {
		missing(tb, "a Kafka process", err)
	}
	scratch, err := devstack.NewScratch()
	require.NoError(tb, err)
	settings := brokerSettings()
	settings["broker.session.timeout.ms"] = "3000" // a killed broker may register again after this
	settings["broker.heartbeat.interval.ms"] = "500"
	maps.Copy(settings, more)
	k := &OwnKafka{broker: broker.New(broker.Options{Libs: libs, Dir: scratch.Dir(), Listeners: listeners, Settings: settings})}
	tb.Cleanup(func() {
		k.broker.Kill()
		if err := scratch.Remove(); err != nil {
			tb.Logf("removing the data of Kafka: %v", err)
		}
	})
	require.NoError(tb, k.broker.Start(ctx))
	return k
}

// Brokers are the addresses; they stay the same over restarts.
func (k *OwnKafka) Brokers() []string { return k.broker.Addresses() }

// Listener returns the addresses of one of the listeners that KafkaServer was given, by its name.
func (k *OwnKafka) Listener(name string) []string {
	return []string{k.broker.Listener(name)}
}

// Kill ends the broker as a crash does.
func (k *OwnKafka) Kill() { k.broker.Kill() }

// Stop ends the broker in good order.
func (k *OwnKafka) Stop(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, k.broker.Process().Stop(syscall.SIGTERM, time.Minute))
}

// Start starts a broker that was stopped or killed, with the same port and data, and waits until it answers.
func (k *OwnKafka) Start(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	require.NoError(tb, k.broker.Start(ctx))
}

// Freeze stops the broker as SIGSTOP does: connections stay open and nothing is answered.
func (k *OwnKafka) Freeze(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, k.broker.Process().Signal(syscall.SIGSTOP))
}

// Thaw ends a Freeze.
func (k *OwnKafka) Thaw(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, k.broker.Process().Signal(syscall.SIGCONT))
}

// brokerSettings are those of a broker that is small, and quick to notice what tests wait for.
func brokerSettings() map[string]string {
	settings := broker.Settings()
	maps.Copy(settings, map[string]string{
		// Members come and go in tests: the group must not wait for more of them, nor long for the dead.
		"group.initial.rebalance.delay.ms":                            "0",
		"group.min.session.timeout.ms":                                "1000",
		"group.consumer.min.session.timeout.ms":                       "1000",
		"group.consumer.session.timeout.ms":                           "6000",
		"group.consumer.min.heartbeat.interval.ms":                    "500",
		"group.consumer.heartbeat.interval.ms":                        "500",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		"log.cleaner.dedupe.buffer.size":                              "16777216",
		"log.cleaner.backoff.ms":                                      "1000",
	})
	return settings
}
