package reporting

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// Outcomes of a message that was handled; see processors.Result.
const (
	OutcomeApplied    = "applied"    // the tables now show this record
	OutcomeDeleted    = "deleted"    // the record is now marked as deleted
	OutcomeUnchanged  = "unchanged"  // the tables already showed this version with this content
	OutcomeSuperseded = "superseded" // a newer version stands in the tables, or later in the same batch
)

// DB is what the publisher needs of a connection pool; *pgxpool.Pool is one. Its role needs what
// reporting.grant_publisher gives, no more.
type DB interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Config of the publisher.
type Config struct {
	// Publication names this set of tables in the link rows. Changing it makes the publisher forget what it has applied,
	// so that everything is applied again. One database holds the tables of one publication. Default "reporting".
	Publication string
	// StatementTimeout bounds each statement, in the database; a transaction that takes over twice as long and 10 s loses its
	// connection. When it strikes, the target counts as down. Default 30 s.
	StatementTimeout time.Duration
	// DryRun rolls every transaction back: the handler says what would become of each record, and changes nothing. It takes the
	// same locks as a real run, for as long as a batch takes.
	DryRun bool
}

// Validate reports every problem of c.
func (c Config) Validate() error {
	var errs []error
	if c.Publication != "" && !topics.ValidName(c.Publication) {
		errs = append(errs, fmt.Errorf("publication %.80q: want 1 to 63 lower-case letters, digits, '-' and '_'", c.Publication))
	}
	if c.StatementTimeout < 0 || c.StatementTimeout > 0 && c.StatementTimeout < time.Millisecond {
		errs = append(errs, fmt.Errorf("statement timeout %v: want at least 1ms", c.StatementTimeout))
	}
	return errors.Join(errs...)
}

// New returns the handler that publishes contacts, invoices and payments to db. It starts nothing. Batches of several
// partitions may be handled at once, each in a transaction of its own.
func New(db DB, config Config) (processors.Handler, error) { return newHandler(db, config) }

func newHandler(db DB, config Config) (*handler, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configuring the reporting tables: %w", err)
	}
	h := &handler{
		db:          db,
		publication: cmp.Or(config.Publication, "reporting"),
		timeout:     cmp.Or(config.StatementTimeout, 30*time.Second),
		dryRun:      config.DryRun,
		byKind:      map[string]*entity{},
	}
	for _, e := range []*entity{contacts(), invoices(), payments()} {
		contract, err := topics.ContractFor(e.name, 1)
		if err != nil {
			return nil, fmt.Errorf("configuring the reporting tables: %w", err)
		}
		e.contract = contract
		h.entities = append(h.entities, e)
		h.byKind[topics.FinanceKind(e.name, 1)] = e
	}
	return h, nil
}

// Inputs are the topics that a publisher of reporting tables reads.
func Inputs() []string {
	return []string{topics.Finance("contact", 1), topics.Finance("invoice", 1), topics.Finance("payment", 1)}
}

type handler struct {
	db          DB
	publication string
	timeout     time.Duration
	dryRun      bool
	entities    []*entity
	byKind      map[string]*entity
}

// Handle implements processors.Handler: the batch is written in one transaction for each entity in it, which on a topic of
// one entity means one. A record that the database refuses fails alone.
func (h *handler) Handle(ctx context.Context, batch []processors.Message) []processors.Result {
	results := make([]processors.Result, len(batch))
	keys := make(map[identity]*chain, len(batch))
	chains := make(map[*entity][]*chain, 1)
	for i := range batch {
		r, err := h.decode(&batch[i])
		if err != nil {
			results[i].Err = err
			continue
		}
		r.result = &results[i]
		c := keys[r.identity]
		if c == nil {
			c = new(chain)
			keys[r.identity] = c
			chains[r.entity] = append(chains[r.entity], c)
		}
		c.records = append(c.records, r)
	}
	for _, e := range h.entities {
		h.publish(ctx, e, chains[e])
	}
	return results
}

// publish writes the newest version of each key. Where the database refuses that very record for good, the next newest
// takes its place, as if the refused one had never come: it goes to the dead letters, and its predecessor must not be lost.
func (h *handler) publish(ctx context.Context, e *entity, chains []*chain) {
	// All publishers lock link rows in the order of their keys, so that none waits for another in a circle.
	slices.SortFunc(chains, func(a, b *chain) int { return a.records[0].identity.compare(b.records[0].identity) })
	for len(chains) > 0 {
		winners := make([]*record, len(chains))
		for i, c := range chains {
			winners[i] = c.newest()
		}
		h.write(ctx, e, winners)
		left := chains[:0]
		for i, c := range chains {
			if w := winners[i]; w.refused && len(c.records) > 1 {
				c.records = slices.DeleteFunc(c.records, func(r *record) bool { return r == w })
				left = append(left, c)
			} else {
				c.settle(w)
			}
		}
		chains = left
	}
}

// chain holds the records of one key in one batch, in the order of their offsets.
type chain struct{ records []*record }

// newest is the record that would stand at the end if all were applied one after the other by the rule of the guard.
func (c *chain) newest() *record {
	w := c.records[0]
	for _, r := range c.records[1:] {
		if n := r.version.compare(w.version); n > 0 || n == 0 && r.hash != w.hash {
			w = r
		}
	}
	return w
}

// settle gives the records other than the winner their results.
func (c *chain) settle(w *record) {
	for _, r := range c.records {
		switch {
		case r == w:
		case w.result.Err != nil:
			r.result.Err = w.result.Err
		case r.version == w.version && r.hash == w.hash:
			r.result.Outcome = OutcomeUnchanged
		default:
			r.result.Outcome = OutcomeSuperseded
		}
	}
}
