package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

const (
	keysPerTenant = 30
	probes        = 12 // keys of probe events: enough to meet every partition
	writers       = 4
)

// tenants of the load, and the one of the probes.
func tenants() []string { return []string{"acme", "beta", "chi", probeTenant} }

const probeTenant = "probe"

// record names a business record.
type record struct{ tenant, key string }

// change is one event: the version of a record that it made.
type change struct {
	record

	version int64
	cents   int64
}

// ledger is what the load generator knows about each event that it has written. A commit whose answer was lost is in doubt until the
// database has been looked into.
type ledger struct {
	mu        sync.Mutex
	committed map[string]change // by event id
	doubtful  map[string]change
	undone    map[string]change // rolled back
	tried     atomic.Int64
	shape     atomic.Int64 // of payloads: how many fields were added to the entity
}

func newLedger() *ledger {
	return &ledger{committed: map[string]change{}, doubtful: map[string]change{}, undone: map[string]change{}}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.committed)
}

func (l *ledger) note(to map[string]change, events map[string]change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.Copy(to, events)
}

// The tables of the source's business. noise gives a transaction its id early.
const businessTables = `
create table business_invoice (tenant text, id text, version bigint not null, cents bigint not null, primary key (tenant, id));
create table noise (n int)`

// write changes records until ctx ends, each writer in one transaction after the other, whatever happens to the database in between.
func (l *ledger) write(ctx context.Context, seed uint64, url string) error {
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		g.Go(func() error {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			c := &writer{ledger: l, url: url, rnd: rnd}
			defer c.disconnect()
			for ctx.Err() == nil {
				c.transaction(ctx)
				select { // four writers of one machine: 100 to 200 transactions a second
				case <-ctx.Done():
				case <-time.After(time.Duration(10+rnd.IntN(30)) * time.Millisecond):
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// writer is one client of the source.
type writer struct {
	ledger *ledger
	url    string
	rnd    *rand.Rand
	conn   *pgx.Conn
}

func (w *writer) disconnect() {
	if w.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.conn.Close(ctx)
		w.conn = nil
	}
}

// transaction is one try at a transaction of one to three changes. Errors are what chaos is about: they end the connection, and the
// ledger says what is known about the events.
func (w *writer) transaction(ctx context.Context) {
	// An answer that does not come is given up after a while, as applications do.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	records := make([]record, 1+w.rnd.IntN(3))
	for i := range records {
		records[i] = record{tenants()[w.rnd.IntN(3)], fmt.Sprintf("inv-%02d", w.rnd.IntN(keysPerTenant))}
	}
	_ = w.change(ctx, records)
}

// change changes records in one transaction. It returns nil only for one that is known to be committed.
func (w *writer) change(ctx context.Context, records []record) (err error) {
	w.ledger.tried.Add(1)
	defer func() {
		if err != nil {
			w.disconnect()
		}
	}()
	if w.conn == nil {
		if w.conn, err = pgx.Connect(ctx, w.url); err != nil {
			return err
		}
	}
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	events := map[string]change{}
	if err := w.fill(ctx, tx, records, events); err != nil {
		w.ledger.note(w.ledger.undone, events) // never asked to commit: gone with its connection
		return err
	}
	if w.rnd.IntN(12) == 0 && records[0].tenant != probeTenant {
		w.ledger.note(w.ledger.undone, events)
		return tx.Rollback(ctx)
	}
	if err := tx.Commit(ctx); err != nil {
		w.ledger.note(w.ledger.doubtful, events)
		return err
	}
	w.ledger.note(w.ledger.committed, events)
	return nil
}

// fill does the work of a transaction. It takes row locks in the order of keys, or writers would lock each other out.
func (w *writer) fill(ctx context.Context, tx pgx.Tx, records []record, events map[string]change) error {
	if w.rnd.IntN(4) == 0 { // an early transaction id: other transactions overtake this one
		if _, err := tx.Exec(ctx, "insert into noise values (1)"); err != nil {
			return err
		}
	}
	for _, r := range sorted(records) {
		if w.rnd.IntN(6) == 0 { // a change that is taken back
			sub, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			id, c, err := w.emit(ctx, sub, r)
			if err != nil {
				return err
			}
			if err := sub.Rollback(ctx); err != nil {
				return err
			}
			w.ledger.note(w.ledger.undone, map[string]change{id: c})
		}
		sub, err := tx.Begin(ctx) // a savepoint that stays
		if err != nil {
			return err
		}
		id, c, err := w.emit(ctx, sub, r)
		if err != nil {
			return err
		}
		events[id] = c
		if err := sub.Commit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// emit changes one record and writes its event, in this order: the lock of the row is what orders the events of a record.
func (w *writer) emit(ctx context.Context, tx pgx.Tx, r record) (string, change, error) {
	const lock = `insert into business_invoice values ($1, $2, 1, $3)
		on conflict (tenant, id) do update set version = business_invoice.version + 1, cents = excluded.cents returning version`
	c := change{record: r, cents: w.rnd.Int64N(100_000)}
	id := uuid.Must(uuid.NewV7())
	if err := tx.QueryRow(ctx, lock, r.tenant, r.key, c.cents).Scan(&c.version); err != nil {
		return "", c, err
	}
	err := outbox.Write(ctx, tx, outbox.Event{
		ID: id, Tenant: r.tenant, Entity: "invoice", Key: r.key, Operation: topics.Upsert, Payload: w.ledger.payload(c),
	})
	return id.String(), c, err
}

// payload is an invoice as the sample source writes it. Its version stands in the customer, so that it can be found again.
func (l *ledger) payload(c change) []byte {
	total := fmt.Sprintf("%d.%02d", c.cents/100, c.cents%100)
	doc := map[string]any{
		"invoice_id": c.key, "customer_id": c.version, "invoice_date": "2026-11-23 00:00:00", "status": "open", "currency": "USD",
		"total": total, "billing_country": "Brazil",
		"lines": []map[string]any{{"invoice_line_id": 1, "invoice_id": c.key, "track_id": 2, "unit_price": total, "quantity": 1}},
	}
	for n := range l.shape.Load() {
		doc[fmt.Sprintf("added_%d", n)] = n
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return b
}

// probe commits a change of every probe record, however often it must try, and returns the versions that have to arrive.
func (l *ledger) probe(ctx context.Context, url string) (map[record]int64, error) {
	w := &writer{ledger: l, url: url, rnd: rand.New(rand.NewPCG(1, 1))}
	defer w.disconnect()
	var records []record
	for n := range probes {
		records = append(records, record{probeTenant, fmt.Sprintf("probe-%02d", n)})
	}
	for {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := w.change(try, records)
		cancel()
		if err == nil {
			return l.versions(records), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("writing a probe: %w: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// versions are the highest ones that are known to be committed.
func (l *ledger) versions(records []record) map[record]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	highest := map[record]int64{}
	for _, r := range records {
		highest[r] = 0
	}
	for _, c := range l.committed {
		if v, ok := highest[c.record]; ok && c.version > v {
			highest[c.record] = c.version
		}
	}
	return highest
}
