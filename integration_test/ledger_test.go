package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// ledger knows every event that was committed to an outbox, and what the books must say in the end.
type ledger struct {
	mu     sync.Mutex
	events map[string]string // event id → invoice id
	latest map[string]state  // invoice id → state
}

type state struct {
	version int   // grows with each change of the invoice
	cents   int64 // total
}

func newLedger() *ledger { return &ledger{events: map[string]string{}, latest: map[string]state{}} }

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// write commits n changes of invoices from several concurrent writers, each in a transaction of its own that locks the invoice
// before it writes the event, and now and then rolls back or begins with an early transaction id. It returns when all
// are committed.
func (l *ledger) write(t *testing.T, r *rig, writers, n, invoices int) {
	t.Helper()
	require.NoError(t, l.tryWrite(t.Context(), r, writers, n, invoices))
}

func (l *ledger) tryWrite(ctx context.Context, r *rig, writers, n, invoices int) error {
	const tables = `create table if not exists invoice (id text primary key, version int not null, cents bigint not null);
		create table if not exists noise (n int)`
	if _, err := r.source.Exec(ctx, tables); err != nil {
		return err
	}
	const rows = `insert into invoice select g::text, 0, 0 from generate_series(1, $1) g on conflict do nothing`
	if _, err := r.source.Exec(ctx, rows, invoices); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		g.Go(func() error {
			rnd := rand.New(rand.NewPCG(uint64(w), uint64(l.count())))
			for range n / writers {
				if err := l.change(ctx, r, rnd, invoices); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (l *ledger) change(ctx context.Context, r *rig, rnd *rand.Rand, invoices int) error {
	tx, err := r.source.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if rnd.IntN(4) == 0 { // an early transaction id: other transactions overtake this one
		if _, err := tx.Exec(ctx, "insert into noise values (1)"); err != nil {
			return err
		}
	}
	id := strconv.Itoa(1 + rnd.IntN(invoices))
	cents := int64(rnd.IntN(100_000))
	s := state{cents: cents}
	const lock = `update invoice set version = version + 1, cents = $2 where id = $1 returning version`
	if err := tx.QueryRow(ctx, lock, id, cents).Scan(&s.version); err != nil {
		return err
	}
	event := outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: id, Operation: topics.Upsert,
		Payload: invoicePayload(id, s),
	}
	if err := outbox.Write(ctx, tx, event); err != nil {
		return err
	}
	if rnd.IntN(10) == 0 {
		return tx.Rollback(ctx)
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[event.ID.String()] = id
	if s.version > l.latest[id].version {
		l.latest[id] = s
	}
	return nil
}

// keepWriting writes until stop is called, which waits for what is under way: a commit that is cut off would leave the ledger in doubt.
func (l *ledger) keepWriting(t *testing.T, r *rig) (stop func()) {
	t.Helper()
	enough, stopped := make(chan struct{}), make(chan error, 1)
	ctx := t.Context()
	go func() {
		for {
			select {
			case <-enough:
				stopped <- nil
				return
			default:
			}
			if err := l.tryWrite(ctx, r, 8, 80, 50); err != nil {
				stopped <- err
				return
			}
		}
	}()
	return func() {
		t.Helper()
		close(enough)
		require.NoError(t, <-stopped)
	}
}

// invoicePayload is an invoice as the sample source writes it; its version stands in the customer, so that it can be found again.
func invoicePayload(id string, s state) []byte {
	total := fmt.Sprintf("%d.%02d", s.cents/100, s.cents%100)
	b, err := json.Marshal(map[string]any{
		"invoice_id": id, "customer_id": s.version, "invoice_date": "2026-11-23 00:00:00", "status": "open", "currency": "USD", "total": total,
		"billing_country": "Brazil",
		"lines":           []map[string]any{{"invoice_line_id": 1, "invoice_id": id, "track_id": 2, "unit_price": total, "quantity": 1}},
	})
	if err != nil {
		panic(err)
	}
	return b
}

// check accounts for every event: on the source topic, on the finance topic, in the books.
func (l *ledger) check(t *testing.T, r *rig) {
	t.Helper()
	l.checkSourceTopic(t, r)
	l.checkFinanceTopic(t, r)
	l.checkReporting(t, r)
}

// checkSourceTopic demands that the source topic holds every committed event once, and the events of an invoice in the order of its versions.
func (l *ledger) checkSourceTopic(t *testing.T, r *rig) {
	t.Helper()
	seen := map[string]bool{}
	last := map[string]int{}
	for _, rec := range r.read(topics.Source(r.system, "invoice")) {
		e := envelope(t, rec)
		require.False(t, seen[e.ID], "event %s stands twice on the source topic", e.ID)
		require.Contains(t, l.events, e.ID, "an event that was never committed")
		seen[e.ID] = true
		var p struct {
			Version int `json:"customer_id"`
		}
		require.NoError(t, json.Unmarshal(rec.Value, &p))
		require.Greater(t, p.Version, last[e.Subject], "the events of invoice %s are out of order", e.Subject)
		last[e.Subject] = p.Version
	}
	require.Len(t, seen, len(l.events), "events on the source topic")
}

// checkFinanceTopic demands one finance record for each event, the one that is derived from it, and order within an invoice.
func (l *ledger) checkFinanceTopic(t *testing.T, r *rig) {
	t.Helper()
	seen := map[string]bool{}
	last := map[string]int64{}
	for _, rec := range r.read(topics.Finance("invoice", 1)) {
		e := envelope(t, rec)
		if e.System != r.system {
			continue
		}
		require.False(t, seen[e.ID], "record %s stands twice on the finance topic", e.ID)
		seen[e.ID] = true
		require.Greater(t, e.Sequence, last[e.Subject], "the records of invoice %s are out of order", e.Subject)
		last[e.Subject] = e.Sequence
	}
	require.Len(t, seen, len(l.events), "records on the finance topic")
	for event := range l.events {
		require.Contains(t, seen, topics.OutputID(event, 0), "the record of event %s", event)
	}
}

// checkReporting demands that the reporting tables say exactly what the source's own table says.
func (l *ledger) checkReporting(t *testing.T, r *rig) {
	t.Helper()
	got := r.booked()
	require.Len(t, got, len(l.latest), "invoices in the reporting tables")
	for id, want := range l.latest {
		require.Equal(t, want, got[id], "invoice %s", id)
	}
}

// booked reads the invoices of the reporting tables as states.
func (r *rig) booked() map[string]state {
	r.t.Helper()
	rows, err := r.reporting.Query(r.t.Context(), `select source_id, contact_id::int, (total * 100)::bigint from reporting.invoices
		where system = $1 and deleted_at is null`, r.system)
	require.NoError(r.t, err)
	got := map[string]state{}
	var id string
	var s state
	_, err = pgx.ForEachRow(rows, []any{&id, &s.version, &s.cents}, func() error { got[id] = s; return nil })
	require.NoError(r.t, err)
	return got
}

// settled waits until the reporting tables hold the last state of every invoice.
func (l *ledger) settled(t *testing.T, r *rig) {
	t.Helper()
	eventually(t, "the last change of every invoice in the reporting tables", func() bool {
		got := r.booked()
		for id, want := range l.latest {
			if got[id] != want {
				return false
			}
		}
		return len(got) == len(l.latest)
	})
}

// read returns every committed record of a topic, in the order of its partitions.
func (r *rig) read(topic string) []*kgo.Record {
	r.t.Helper()
	return testenv.ReadCommitted(r.t, r.brokers, topic)
}

func envelope(t *testing.T, rec *kgo.Record) topics.Envelope {
	t.Helper()
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header{Key: h.Key, Value: h.Value}
	}
	e, err := topics.DecodeEnvelope(hs)
	require.NoError(t, err, "%s/%d@%d", rec.Topic, rec.Partition, rec.Offset)
	return e
}
