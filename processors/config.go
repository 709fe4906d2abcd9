package processors

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/topics"
)

// Config describes a Runner. The zero value of every field that says so means its default.
type Config struct {
	Name     string   // of the stage: label of its metrics, header of its dead letters
	Group    string   // consumer group
	Topics   []string // topics it reads
	Instance string   // stable name of this slot of the group ("0", a pod's name); no two living processes share one
	Handler  Handler

	// Kafka has the addresses and credentials. It is used for several clients, again and again: it must not hold a hook
	// that registers metrics for each client, as kprom's does.
	Kafka []kgo.Opt

	Hide       func(string) string   // takes secrets out of the text of errors; default: leaves it as it is
	AppVersion string                // header of dead letters; optional
	Logger     *slog.Logger          // default: discards
	Registerer prometheus.Registerer // default: none
	Tracer     trace.Tracer          // makes a span of each attempt of a record whose traceparent is sampled; default: none
	Observe    func([]Outcome)       // is told what each committed transaction has done, and must not block; default: none

	Retry    RetryPolicy
	Systemic SystemicPolicy

	// AwaitOrders: take up no work before Obey was called once, so that a pause survives a restart.
	AwaitOrders bool

	MaxRecords       int // of one transaction; default 10,000
	MaxBytes         int // of one transaction, about; default 16 MiB
	MaxParkedRecords int // of one partition; past it the partition is not read until it is below again; default 100,000
	MaxParkedBytes   int // the same in bytes; default 64 MiB

	// MaxRecordBytes is the largest record to be produced; default 1,040,000: just below the brokers' default, above that
	// of most producers, so that a record as large as allowed fits with its failure headers.
	MaxRecordBytes int

	StaticMember       bool          // keep partitions over a restart within SessionTimeout: fast restart, slow fail-over
	TransactionTimeout time.Duration // default 40 s; the watchdog trips after twice as long
	SessionTimeout     time.Duration // default 10 s: how long the partitions of a killed member wait
	RebalanceTimeout   time.Duration // default 60 s
	HeartbeatInterval  time.Duration // default 3 s
	ShutdownGrace      time.Duration // how long a batch may go on after Run's context has ended; default 10 s
}

// SystemicPolicy guesses that the target is down when a handler does not say so: when in one batch more than Ratio of the
// distinct keys of new records fail transiently, at least MinKeys of them with one code. The zero value means the defaults.
type SystemicPolicy struct {
	Off      bool
	Ratio    float64       // default 0.5
	MinKeys  int           // default 20
	MaxPause time.Duration // after so long the failures are taken for what the handler says they are; default 15 min
}

func (c Config) withDefaults() Config {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Hide == nil {
		c.Hide = func(s string) string { return s }
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	c.Retry = c.Retry.withDefaults()
	c.Systemic.Ratio = cmp.Or(c.Systemic.Ratio, 0.5)
	c.Systemic.MinKeys = cmp.Or(c.Systemic.MinKeys, 20)
	c.Systemic.MaxPause = cmp.Or(c.Systemic.MaxPause, 15*time.Minute)
	c.MaxRecords = cmp.Or(c.MaxRecords, 10_000)
	c.MaxBytes = cmp.Or(c.MaxBytes, 16<<20)
	c.MaxParkedRecords = cmp.Or(c.MaxParkedRecords, 100_000)
	c.MaxParkedBytes = cmp.Or(c.MaxParkedBytes, 64<<20)
	c.MaxRecordBytes = cmp.Or(c.MaxRecordBytes, 1_040_000)
	c.TransactionTimeout = cmp.Or(c.TransactionTimeout, 40*time.Second)
	c.SessionTimeout = cmp.Or(c.SessionTimeout, 10*time.Second)
	c.RebalanceTimeout = cmp.Or(c.RebalanceTimeout, 60*time.Second)
	c.HeartbeatInterval = cmp.Or(c.HeartbeatInterval, 3*time.Second)
	c.ShutdownGrace = cmp.Or(c.ShutdownGrace, 10*time.Second)
	return c
}

// Validate reports every problem of c.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(topics.ValidName(c.Name), "name %q is not a valid name", c.Name)
	bad(topics.ValidName(c.Group), "group %q is not a valid name", c.Group)
	bad(len(c.Topics) > 0, "no topics to read")
	bad(c.Instance != "", "instance is empty: name this slot of the group, the same at every start")
	bad(c.Handler != nil, "no handler")
	bad(len(c.Kafka) > 0, "no Kafka options")
	for _, n := range []int{c.MaxRecords, c.MaxBytes, c.MaxParkedRecords, c.MaxParkedBytes, c.MaxRecordBytes} {
		bad(n > 0, "a bound of %d is below 1", n)
	}
	for _, d := range []time.Duration{
		c.TransactionTimeout, c.SessionTimeout, c.RebalanceTimeout, c.HeartbeatInterval, c.ShutdownGrace, c.Systemic.MaxPause,
	} {
		bad(d > 0, "a duration of %s is not positive", d)
	}
	bad(c.Systemic.Ratio > 0 && c.Systemic.Ratio <= 1, "systemic ratio %g is not in (0, 1]", c.Systemic.Ratio)
	errs = append(errs, c.Retry.validate())
	return errors.Join(errs...)
}

// transactionalID is the same at every start of a slot: a new process fences the one before it at once, and its open
// transaction does not hold up readers until it times out.
func (c *Config) transactionalID() string { return "leat." + c.Group + "." + c.Instance }

func (c *Config) clientOptions(s *session) []kgo.Opt {
	opts := append(append([]kgo.Opt(nil), c.Kafka...),
		kgo.ConsumerGroup(c.Group),
		kgo.ConsumeTopics(c.Topics...),
		kgo.TransactionalID(c.transactionalID()),
		kgo.TransactionTimeout(c.TransactionTimeout),
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.RebalanceTimeout(c.RebalanceTimeout),
		kgo.HeartbeatInterval(c.HeartbeatInterval),
		// Also with several topics: a partition and its retry partition are joined by the session, not by the assignor, and
		// another assignor for a group of two topics would make adding the second one a change of protocol.
		kgo.Balancers(trackingBalancer{kgo.CooperativeStickyBalancer(), s.retain}),
		kgo.BlockRebalanceOnPoll(),
		kgo.AdjustFetchOffsetsFn(s.assign),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.lost),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Commit markers move the committed offset, so that lag is 0 when all is read, for every tool.
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(int32(c.MaxBytes)),
		kgo.FetchMaxPartitionBytes(int32(max(c.MaxBytes/4, 1<<20))),
		kgo.RecordPartitioner(newPartitioner(c.Topics, c.Group)),
		kgo.ProducerBatchMaxBytes(int32(c.MaxRecordBytes)),
		kgo.MaxBufferedRecords(1<<20),
	)
	if c.StaticMember {
		opts = append(opts, kgo.InstanceID(c.Instance))
	}
	return opts
}

// partitioner puts retry and dead-letter records into the partition they name and outputs by key, as Kafka's Java client does.
type partitioner struct {
	manual map[string]bool
	byHand kgo.Partitioner
	byKey  kgo.Partitioner
}

func newPartitioner(read []string, group string) *partitioner {
	p := &partitioner{map[string]bool{}, kgo.ManualPartitioner(), kgo.StickyKeyPartitioner(nil)}
	for _, t := range read {
		p.manual[topics.Retry(t, group)] = true
		p.manual[topics.DLQ(t, group)] = true
	}
	return p
}

// ForTopic implements kgo.Partitioner.
func (p *partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	if p.manual[topic] {
		return p.byHand.ForTopic(topic)
	}
	return p.byKey.ForTopic(topic)
}
