package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// Config says what is verified and against what.
type Config struct {
	Source   string        // the system, as in topic names
	Entities []string      // of its outbox: a source topic each
	Outbox   *pgxpool.Pool // the source's database; the role of the relay suffices
	Kafka    []kgo.Opt     // what every client begins with

	Normalize    Stage
	PublishGroup string

	Reporting   *pgxpool.Pool                   // the reporting tables; nil leaves them out
	Publication string                          // of the link rows; default reporting
	ContentHash func(value []byte) (h [16]byte) // what a link row keeps of a finance value

	// Replays is how often normalize was made to read its input again since a moment, by the audit log; nil: never. Each time may write
	// each finance record once more, which is then no duplicate.
	Replays func(ctx context.Context, since time.Time) (int, error)

	By      string // who asks, for the report
	Version string // of Leat, for the report
	List    int    // how many differences are listed, of each kind in each layer; all are counted. Default 50
	MaxRows int    // a window with more is refused; default 10 million, which need some 10 GB of memory

	Progress func(step string, done, total int64) // called now and then; nil is silent
}

// Stage is the normalize stage.
type Stage struct {
	Group   string
	Reads   []string           // topics that it has mappings for
	Handler processors.Handler // with the mappings of now
}

func (c Config) withDefaults() Config {
	c.Publication = cmp.Or(c.Publication, "reporting")
	c.List = cmp.Or(c.List, 50)
	c.MaxRows = cmp.Or(c.MaxRows, 10_000_000)
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	if c.Replays == nil {
		c.Replays = func(context.Context, time.Time) (int, error) { return 0, nil }
	}
	return c
}

// Validate reports every problem of c.
func (c Config) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what+" is missing"))
		}
	}
	need(topics.ValidName(c.Source), "the source")
	need(len(c.Entities) > 0, "the list of entities")
	need(c.Outbox != nil, "the source's database")
	need(len(c.Kafka) > 0, "Kafka")
	need(c.Normalize.Group != "" && c.Normalize.Handler != nil, "the normalize stage")
	need(c.PublishGroup != "", "the publish group")
	need(c.Reporting == nil || c.ContentHash != nil, "the hash of contents")
	return errors.Join(errs...)
}

// run is one verification.
type run struct {
	c      Config
	window Window
	bounds
	boundaries
	admin *kadm.Client

	sourceTopics, financeTopics, retryTopics, deadTopics []string
	normalizeFailures, publishFailures                   []string
	financeEntity                                        map[string]int // by topic: index in topics.Entities
	reads                                                map[string]bool

	// What is known of the window. Rows are sorted by id.
	mu       sync.Mutex
	rows     []row
	groups   []group
	groupOf  map[string]uint16
	oldest   int64 // occurred_at of the oldest row, in microseconds
	complete bool  // topics are read from their beginning
	partial  bool  // some topic was not
	replays  int   // of normalize, since the window began

	seed  maphash.Seed
	outs  []out
	keys  map[uint64]int32
	state []keyState
	order map[uint64]int64 // last sequence of a key on its source topic

	stalls map[int64]*waiting // rows without output, by id, while it is looked for why
	held   map[place]*waiting // the same for records that are not in the tables

	layers      [3]Layer
	differences differences
	totals      totals
	notes       []string
}

// Verify compares. The error is for what could not be looked at; what was found is in the report, also where nothing agrees.
func Verify(ctx context.Context, c Config, w Window) (*Report, error) {
	if err := errors.Join(c.Validate(), w.Validate()); err != nil {
		return nil, fmt.Errorf("verifying: %w", err)
	}
	c = c.withDefaults()
	client, err := kgo.NewClient(c.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	started := time.Now()
	v := &run{
		c: c, window: w, bounds: w.bounds(), admin: kadm.NewClient(client), financeEntity: map[string]int{}, reads: map[string]bool{},
		seed: maphash.MakeSeed(),
	}
	for _, t := range c.Normalize.Reads {
		v.reads[t] = true
	}
	v.topicNames()
	defer v.close()
	if err := v.observe(ctx); err != nil {
		return nil, err
	}
	if err := v.readOutbox(ctx); err != nil {
		return nil, err
	}
	if v.replays, err = c.Replays(ctx, v.begin()); err != nil {
		return nil, err
	}
	if err := v.compare(ctx); err != nil {
		return nil, err
	}
	if v.partial && v.differences.total() > 0 {
		// Before anything is called missing, every record is looked at: clocks may be wrong by more than the margin.
		v.complete = true
		if err := v.compare(ctx); err != nil {
			return nil, err
		}
	}
	if err := v.describe(ctx); err != nil {
		return nil, err
	}
	return v.report(started), nil
}

// begin is when the window begins.
func (v *run) begin() time.Time {
	if len(v.rows) == 0 {
		return v.window.Since
	}
	return time.UnixMicro(v.oldest)
}

// compare goes through the layers from the first to the last.
func (v *run) compare(ctx context.Context) error {
	v.reset()
	for _, step := range []func(context.Context) error{
		v.scanSource, v.explainRows, v.scanFinance, v.explainOutputs, v.readTables, v.explainTables, v.checkTables,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (v *run) reset() {
	for i := range v.rows {
		v.rows[i].found()
	}
	for i := range v.groups {
		v.groups[i].topics = Sum{}
	}
	v.outs, v.keys, v.state, v.order = make([]out, 0, len(v.rows)+len(v.rows)/16), nil, nil, map[uint64]int64{}
	v.layers, v.totals = [3]Layer{}, totals{}
	v.differences = differences{limit: v.c.List}
}

func (v *run) note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	if !slices.Contains(v.notes, n) {
		v.notes = append(v.notes, n)
	}
}

func (v *run) scan(ctx context.Context, step string, names []string, each func(context.Context, []*kgo.Record) error) error {
	starts, err := v.starts(ctx, names)
	if err != nil {
		return err
	}
	s := &scanner{kafka: v.c.Kafka, each: each, tell: func(done, total int64) { v.c.Progress(step, done, total) }}
	return s.run(ctx, starts, v.ends.only(names))
}
