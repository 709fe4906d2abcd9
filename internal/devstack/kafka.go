// Package devstack starts the servers that `leat dev` needs where nothing is installed: a Kafka that lives in this
// process's memory, and a PostgreSQL server as a child process. They hold data for one run and nobody else's: neither
// is a way to run Leat in production, and nothing here configures servers that others have started.
package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// KafkaOptions says how to start the embedded Kafka. The zero value is ready to use.
type KafkaOptions struct {
	Port       int          // of 127.0.0.1; 0 takes a free one
	Partitions int          // of topics made without a number of partitions; default 4
	Logger     *slog.Logger // default: none
}

// Kafka is an in-memory broker of this process: its topics are gone when it stops.
// Topics are not made by using them, as in production.
type Kafka struct{ cluster *kfake.Cluster }

// StartKafka starts a single broker on 127.0.0.1.
func StartKafka(_ context.Context, o KafkaOptions) (*Kafka, error) {
	if o.Port != 0 {
		return startKafka(o, o.Port)
	}
	const tries = 10 // another process can take a free port before the broker does
	for try := 1; ; try++ {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		k, err := startKafka(o, port)
		if !errors.Is(err, syscall.EADDRINUSE) || try == tries {
			return k, err
		}
	}
}

func startKafka(o KafkaOptions, port int) (*Kafka, error) {
	// Kafka's Java tools fail on newer answers of these two requests, which kfake leaves partly empty.
	// Stable, not Tip: with the versions of Tip kfake refuses every transactional record (INVALID_TXN_STATE).
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.CreateTopics), 4)
	versions.SetMaxKeyVersion(int16(kmsg.DescribeTopicPartitions), -1)
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(port),
		kfake.DefaultNumPartitions(cmp.Or(o.Partitions, 4)),
		kfake.MaxVersions(versions),
		kfake.BrokerConfigs(map[string]string{
			// A member that was killed holds its partitions for this long; the default is 45 s.
			"group.consumer.session.timeout.ms":    "6000",
			"group.consumer.heartbeat.interval.ms": "500",
			// Everything is kept in memory: compact and expire every minute, not every hour.
			"log.cleaner.backoff.ms": "60000",
		}),
		kfake.WithLogger(kafkaLogger{cmp.Or(o.Logger, slog.New(slog.DiscardHandler))}),
	)
	if err != nil {
		return nil, fmt.Errorf("starting the embedded Kafka on %s: %w", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err)
	}
	return &Kafka{cluster: cluster}, nil
}

// Brokers returns the addresses to connect to.
func (k *Kafka) Brokers() []string { return k.cluster.ListenAddrs() }

// Cluster is the broker itself, for tests that inject faults.
func (k *Kafka) Cluster() *kfake.Cluster { return k.cluster }

// Stop ends the broker and drops its topics. Clients should be closed first.
func (k *Kafka) Stop() { k.cluster.Close() }

type kafkaLogger struct{ log *slog.Logger }

func (l kafkaLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	case kfake.LogLevelNone, kfake.LogLevelInfo, kfake.LogLevelDebug:
	}
	ctx := context.Background()
	if l.log.Enabled(ctx, to) {
		l.log.Log(ctx, to, "embedded kafka", "detail", fmt.Sprintf(format, args...))
	}
}
