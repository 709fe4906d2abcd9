// Package index keeps tables of the control database like the topics that they are made from: a Projection turns records into
// rows, and the index reads the topics for it, without a consumer group, from positions that stand beside the rows and move in the
// same database transaction. So each record is in the rows exactly once, whatever is killed.
//
// It is a cache for operators: everything in it can be made again from the topics (Rebuild), no stage waits for it, and it waits for
// as long as Kafka or the database is away. It decides nothing and writes nothing to Kafka.
package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Projection turns records of topics into rows of the control database.
type Projection interface {
	// Name names its positions, and it for operators. It never changes.
	Name() string
	// Reads reports whether it is made from this topic.
	Reads(topic string) bool
	// Apply writes what recs mean, in tx, in which the positions move too: each record is applied exactly once. Records of one
	// partition come in order; those of aborted transactions never come. A record that cannot be understood is no error: an error
	// is tried again for ever, and nothing behind it is read. TopicID tells the id of a record's topic.
	Apply(ctx context.Context, tx pgx.Tx, recs []*kgo.Record) error
	// Reset removes every row of the projection, for a rebuild.
	Reset(ctx context.Context, tx pgx.Tx) error
}

// Forgetter is a Projection whose rows are keyed by topic, partition and offset without the topic's id. Forget removes those of a
// topic that was deleted and made anew, before records of the new one are applied: they have the same offsets.
type Forgetter interface {
	Forget(ctx context.Context, tx pgx.Tx, topic string) error
}

// Keeper is a Projection whose rows grow old. Upkeep is called before the first record is read and every few minutes, in a
// transaction of its own; its error is told, and holds up nothing.
type Keeper interface {
	Upkeep(ctx context.Context, tx pgx.Tx) error
}

// Config says what an Index reads, and for whom. Zero values of the lower half mean the default.
type Config struct {
	DB          *pgxpool.Pool // the control database. Each projection has a connection of its own beside the pool
	Kafka       []kgo.Opt
	Topics      func(ctx context.Context) ([]string, error) // every topic of the installation; those that do not exist yet are waited for
	Projections []Projection
	Logger      *slog.Logger
	Registerer  prometheus.Registerer

	Batch    int           // records of one database transaction at most; default 20,000
	Linger   time.Duration // how long a small batch waits for more; default 50 ms
	Refresh  time.Duration // how often topics are listed anew, and a standby looks whether it is needed; default 5 s
	Upkeep   time.Duration // how often old rows are removed; default 10 min
	Patience time.Duration // after which one batch counts as failed; default 5 min
}

func (c Config) withDefaults() Config {
	c.Batch = cmp.Or(c.Batch, 20_000)
	c.Linger = cmp.Or(c.Linger, 50*time.Millisecond)
	c.Refresh = cmp.Or(c.Refresh, 5*time.Second)
	c.Upkeep = cmp.Or(c.Upkeep, 10*time.Minute)
	c.Patience = cmp.Or(c.Patience, 5*time.Minute)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

func (c *Config) validate() error {
	var errs []error
	if c.DB == nil {
		errs = append(errs, errors.New("no database"))
	}
	if c.Topics == nil {
		errs = append(errs, errors.New("no list of topics"))
	}
	if len(c.Projections) == 0 {
		errs = append(errs, errors.New("no projections"))
	}
	var names []string
	for _, p := range c.Projections {
		if name := p.Name(); name == "" || slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("projection %q: want a name that no other has", name))
		}
		names = append(names, p.Name())
	}
	if c.Batch < 0 || c.Linger < 0 || c.Refresh < 0 || c.Upkeep < 0 || c.Patience < 0 {
		errs = append(errs, errors.New("batch, linger, refresh, upkeep or patience is negative"))
	}
	return errors.Join(errs...)
}

// Index reads topics for projections. Any number may run at once: for each projection one works and the others stand by.
type Index struct {
	cfg     Config
	readers []*reader
	metrics *metrics
}

// New makes an Index. It opens no connection.
func New(c Config) (*Index, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("configuring the index: %w", err)
	}
	x := &Index{cfg: c.withDefaults()}
	x.metrics = newMetrics(x.cfg.Registerer)
	for _, p := range x.cfg.Projections {
		x.readers = append(x.readers, newReader(&x.cfg, p, x.metrics))
	}
	return x, nil
}

// Run reads until ctx ends, and returns nil then. Whatever fails is told (Ready, log, leat_index_errors_total) and tried again;
// a projection that fails holds up no other.
func (x *Index) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, r := range x.readers {
		wg.Go(func() { r.run(ctx) })
	}
	wg.Go(func() { x.watchLag(ctx) })
	return nil
}

// Ready returns why a projection does not go on, or nil. One that stands by is ready.
func (x *Index) Ready() error {
	var errs []error
	for _, r := range x.readers {
		if problem := r.problem(); problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s", r.name, problem))
		}
	}
	return errors.Join(errs...)
}

// topicIDs is the key of the ids of the topics in the context of Apply.
type topicIDs struct{}

// TopicID returns the id that Kafka has given to a topic whose records are being applied; zero outside of Apply. A topic that is
// deleted and made anew has another id, and offsets that begin anew.
func TopicID(ctx context.Context, topic string) [16]byte {
	ids, _ := ctx.Value(topicIDs{}).(map[string][16]byte)
	return ids[topic]
}

// WithTopicIDs is ctx as Apply gets it, for tests of projections.
func WithTopicIDs(ctx context.Context, ids map[string][16]byte) context.Context {
	return context.WithValue(ctx, topicIDs{}, ids)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
