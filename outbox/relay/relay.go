// Package relay brings committed outbox rows to Kafka: each exactly once, and those of one key in the order in which their
// writers held the lock of the business record.
//
// It reads leat.outbox of each source (see package outbox) in the order of ids against the snapshot of the last batch, and
// writes records and the new position in one Kafka transaction. The database is only read. Several processes share the
// sources through a consumer group; each source has one owner at a time, and Kafka fences a former one.
// docs/relay.md says why the cursor misses nothing and what must stay true.
//
// It does not look into payloads, does not create topics, and does not decide about a cursor that does not fit its
// database: it says so and waits for Adopt.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/topics"
)

// Source is one outbox: a database with the leat schema.
type Source struct {
	// Name is the name of the system, as it stands in the names of its topics.
	Name string
	// URL of the database's primary. The connection must keep its session: no transaction pooler in between.
	URL string
	// Entities that have a topic. A row of another entity goes to the dead letters; a topic that is missing for one of
	// these is waited for. If empty, the topics that exist decide.
	Entities []string
	// Retention is for how long delivered rows stay in the outbox; default 7 days, negative for ever.
	Retention time.Duration
}

// Config of a Relay. Zero values mean the default.
type Config struct {
	Sources []Source
	Kafka   []kgo.Opt // addresses, security, logging: what every client begins with

	// Group is the consumer group that spreads the sources over processes; default leat-relay. All its members must
	// have the same sources.
	Group string
	// Instance makes this process a static member of the group, by this name. One of the same name that is started after it died takes its
	// sources at once, and not when the session has timed out; but then others take them no sooner either when it ends in good order.
	// Two processes must never have the same. Default: none, a member like any other.
	Instance string

	Logger     *slog.Logger          // default: discards
	Registerer prometheus.Registerer // default: a registry of its own
	Tracer     trace.Tracer          // makes a span of each row whose trace is sampled, and begins traces by its sampler; default: none

	BatchRows  int           // most rows of a transaction; default 8,000
	BatchBytes int           // bytes after which a transaction takes no more rows; default 8 MiB
	PollBusy   time.Duration // shortest time between polls that find nothing; default 2 ms
	PollIdle   time.Duration // longest time between polls; default 20 ms
	Gather     time.Duration // under load: time between reads; default 4 ms

	Compression []kgo.CompressionCodec // default: none

	// AwaitOrders: take up no source before Obey was called once, so that a pause survives a restart.
	AwaitOrders bool

	// Grace is how long what is under way may take when the relay ends or hands a source over; default 5 s.
	Grace time.Duration
	// SessionTimeout is how long the group waits for a member that died; default 6 s.
	SessionTimeout time.Duration
	// TransactionTimeout is after which Kafka aborts a transaction whose owner died, if no new owner does so earlier; default 60 s.
	TransactionTimeout time.Duration
}

func (c Config) withDefaults() Config {
	c.Group = cmp.Or(c.Group, "leat-relay")
	c.Sources = slices.Clone(c.Sources)
	for i := range c.Sources {
		c.Sources[i].Retention = cmp.Or(c.Sources[i].Retention, 7*24*time.Hour)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	c.BatchRows = cmp.Or(c.BatchRows, 8_000)
	c.BatchBytes = cmp.Or(c.BatchBytes, 8<<20)
	c.PollBusy = cmp.Or(c.PollBusy, 2*time.Millisecond)
	c.PollIdle = max(cmp.Or(c.PollIdle, 20*time.Millisecond), c.PollBusy)
	c.Gather = cmp.Or(c.Gather, 4*time.Millisecond)
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	c.SessionTimeout = cmp.Or(c.SessionTimeout, 6*time.Second)
	c.TransactionTimeout = cmp.Or(c.TransactionTimeout, time.Minute)
	if len(c.Compression) == 0 {
		c.Compression = []kgo.CompressionCodec{kgo.NoCompression()}
	}
	return c
}

// Validate joins every problem of the configuration. It opens no connection.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Sources) == 0 {
		bad("sources: none given")
	}
	seen := map[string]bool{}
	for _, s := range c.Sources {
		if !topics.ValidName(s.Name) {
			bad("source %.80q: want 1 to 63 lower-case letters, digits, '-' and '_'", s.Name)
		}
		if seen[s.Name] {
			bad("source %s: occurs twice", s.Name)
		}
		seen[s.Name] = true
		if _, err := url.Parse(s.URL); err != nil || s.URL == "" {
			bad("source %s: has no valid database URL", s.Name) // the URL may hold a password: it is not shown
		}
		for _, e := range s.Entities {
			if !topics.ValidName(e) {
				bad("source %s: entity %.80q: want 1 to 63 lower-case letters, digits, '-' and '_'", s.Name, e)
			}
		}
	}
	for name, n := range map[string]int64{
		"batch rows": int64(c.BatchRows), "batch bytes": int64(c.BatchBytes), "poll busy": int64(c.PollBusy), "poll idle": int64(c.PollIdle),
		"gather": int64(c.Gather), "grace": int64(c.Grace), "session timeout": int64(c.SessionTimeout),
		"transaction timeout": int64(c.TransactionTimeout),
	} {
		if n < 0 {
			bad("%s: is negative", name)
		}
	}
	return errors.Join(errs...)
}

// Relay relays the sources that its group assigns to it.
type Relay struct {
	cfg     Config
	metrics *metrics
	owner   *owner
}

// New makes a Relay. It opens no connection.
func New(c Config) (*Relay, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("relay configuration: %w", err)
	}
	r := &Relay{cfg: c.withDefaults()}
	r.metrics = newMetrics(r.cfg.Registerer)
	r.metrics.begin(r.cfg.Sources)
	r.owner = newOwner(&r.cfg, r.metrics)
	if err := r.cfg.Registerer.Register(newAges(r.owner.pending)); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return r, nil
}

// Run relays until ctx is done. Then it finishes the transactions under way, for at most the grace period, leaves the
// group, so that another process takes over at once (a static member does not leave), and returns nil. Outages of Kafka or of a database are waited out;
// Ready tells of them. It does what Obey says.
func (r *Relay) Run(ctx context.Context) error {
	return r.owner.run(ctx)
}

// Ready returns nil if rows flow from every source that this process owns, if it owns any, and otherwise says why not.
func (r *Relay) Ready() error {
	return r.owner.ready()
}
