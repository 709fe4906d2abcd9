package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// account is what became of the events of a run.
type account struct {
	Events     int // committed in the source
	Doubtful   int // of them, commits whose answer was lost
	Lost       int // missing on a topic or in the tables
	Duplicated int // more than once on a topic
	Inverted   int // before an earlier one of its key
	Unexpected []string
}

func (a *account) unexpected(format string, args ...any) {
	if len(a.Unexpected) < 50 {
		a.Unexpected = append(a.Unexpected, fmt.Sprintf(format, args...))
	}
}

func sorted(records []record) []record {
	s := slices.Clone(records)
	slices.SortFunc(s, func(a, b record) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), strings.Compare(a.key, b.key))
	})
	return slices.Compact(s)
}

// resolve looks into the outbox for every event. What was acknowledged must be there, what was rolled back must not, and what was in
// doubt is what the outbox says. It must run when no writer's transaction is left. Then the ledger holds exactly the committed events.
func (l *ledger) resolve(ctx context.Context, db *pgx.Conn, a *account) error {
	rows, err := db.Query(ctx, "select event_id::text from leat.outbox")
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	stands := map[string]bool{}
	for _, id := range ids {
		stands[id] = true
		switch {
		case has(l.committed, id):
		case has(l.doubtful, id):
			l.committed[id] = l.doubtful[id]
			a.Doubtful++
		case has(l.undone, id):
			a.unexpected("event %s was rolled back and is in the outbox", id)
		default:
			a.unexpected("event %s in the outbox is nobody's", id)
		}
	}
	for id := range l.committed {
		if !stands[id] { // the fault of the database, or of this test; never of Leat
			a.unexpected("the database has lost event %s, whose commit it had acknowledged", id)
		}
	}
	a.Events = len(l.committed)
	return nil
}

func has(m map[string]change, id string) bool {
	_, ok := m[id]
	return ok
}

// account reads every topic and table to its end.
func (w *world) account(ctx context.Context, a *account) error {
	db, err := w.source.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(ctx) }()
	if err := w.ledger.resolve(ctx, db, a); err != nil {
		return fmt.Errorf("resolving commits in doubt: %w", err)
	}
	w.accountSourceTopic(a)
	w.accountFinanceTopic(a)
	w.accountLeftovers(ctx, a)
	return w.accountTables(ctx, db, a)
}

// delivered is what a committed reader found on a topic.
type delivered struct {
	id        string // of the event
	partition int32
	version   int64 // in the payload; 0 where it holds none
}

func (w *world) accountSourceTopic(a *account) {
	w.t.Helper()
	var got []delivered
	for _, rec := range w.read(topics.Source(system, "invoice")) {
		var payload struct {
			Version int64 `json:"customer_id"`
		}
		require.NoError(w.t, json.Unmarshal(rec.Value, &payload))
		got = append(got, delivered{w.envelope(rec).ID, rec.Partition, payload.Version})
	}
	a.topic("source topic", w.ledger.committed, got)
}

func (w *world) accountFinanceTopic(a *account) {
	w.t.Helper()
	want := map[string]change{}
	for id, c := range w.ledger.committed {
		want[topics.OutputID(id, 0)] = c
	}
	var got []delivered
	for _, rec := range w.read(topics.Finance("invoice", 1)) {
		got = append(got, delivered{id: w.envelope(rec).ID, partition: rec.Partition})
	}
	a.topic("finance topic", want, got)
}

// topic compares what a topic holds, each partition in order, with the events that it must hold.
func (a *account) topic(name string, want map[string]change, got []delivered) {
	seen, last, partitions := map[string]bool{}, map[record]int64{}, map[record]int32{}
	for _, d := range got {
		c, ok := want[d.id]
		switch {
		case !ok:
			a.unexpected("event %s on the %s was never committed", d.id, name)
			continue
		case seen[d.id]:
			a.Duplicated++
			continue
		}
		seen[d.id] = true
		if p, ok := partitions[c.record]; ok && p != d.partition {
			a.unexpected("record %s is on two partitions of the %s", c.key, name)
		}
		partitions[c.record] = d.partition
		if c.version <= last[c.record] {
			a.Inverted++
		}
		last[c.record] = c.version
		if d.version != 0 && d.version != c.version {
			a.unexpected("event %s on the %s holds version %d, not %d", d.id, name, d.version, c.version)
		}
	}
	a.Lost += len(want) - len(seen)
}

// accountLeftovers demands that dead-letter topics are empty and that nothing is parked.
func (w *world) accountLeftovers(ctx context.Context, a *account) {
	w.t.Helper()
	all, err := w.admin.ListTopics(ctx)
	require.NoError(w.t, err)
	for _, topic := range all.Names() {
		switch {
		case strings.HasSuffix(topic, "dlq"):
			for _, rec := range w.read(topic) {
				a.unexpected("a dead letter: %s/%d@%d %s", rec.Topic, rec.Partition, rec.Offset, headers(rec))
			}
		case strings.HasSuffix(topic, ".retry"):
			parked := map[string]*kgo.Record{}
			for _, rec := range w.read(topic) {
				parked[string(rec.Key)] = rec
			}
			for _, rec := range parked {
				if rec.Value != nil {
					a.unexpected("still parked: %s/%d@%d %s", rec.Topic, rec.Partition, rec.Offset, headers(rec))
				}
			}
		}
	}
}

func headers(rec *kgo.Record) string {
	var b strings.Builder
	for _, h := range rec.Headers {
		fmt.Fprintf(&b, " %s=%.200s", h.Key, h.Value)
	}
	return b.String()
}

// accountTables compares every row of the reporting table with the source's own, and the totals by tenant.
func (w *world) accountTables(ctx context.Context, source *pgx.Conn, a *account) error {
	want, err := states(ctx, source, `select tenant, id, version, cents from business_invoice`)
	if err != nil {
		return err
	}
	target, err := w.reporting.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = target.Close(ctx) }()
	got, err := states(ctx, target, bookedInvoices)
	if err != nil {
		return err
	}
	a.tables(want, got)
	return nil
}

// tables compares what stands in the tables with what the source says.
func (a *account) tables(want, got map[record]change) {
	for r, c := range want {
		if got[r] != c {
			a.Lost++
			a.unexpected("invoice %s of %s is %d/%d in the tables, %d/%d in the source", r.key, r.tenant, got[r].version, got[r].cents, c.version, c.cents)
		}
	}
	for r := range got {
		if _, ok := want[r]; !ok {
			a.unexpected("invoice %s of %s is in the tables only", r.key, r.tenant)
		}
	}
	for _, tenant := range tenants() {
		if s, b := total(want, tenant), total(got, tenant); s != b {
			a.unexpected("the total of %s is %d cents in the tables, %d in the source", tenant, b, s)
		}
	}
}

const bookedInvoices = `select tenant, source_id, contact_id::bigint, (total * 100)::bigint from reporting.invoices where deleted_at is null`

func states(ctx context.Context, db *pgx.Conn, sql string) (map[record]change, error) {
	rows, err := db.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	all := map[record]change{}
	var c change
	_, err = pgx.ForEachRow(rows, []any{&c.tenant, &c.key, &c.version, &c.cents}, func() error { all[c.record] = c; return nil })
	return all, err
}

func total(states map[record]change, tenant string) (cents int64) {
	for r, c := range states {
		if r.tenant == tenant {
			cents += c.cents
		}
	}
	return cents
}

func (w *world) read(topic string) []*kgo.Record {
	w.t.Helper()
	return testenv.ReadCommitted(w.t, w.kafka.Brokers(), topic)
}

func (w *world) envelope(rec *kgo.Record) topics.Envelope {
	w.t.Helper()
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header{Key: h.Key, Value: h.Value}
	}
	e, err := topics.DecodeEnvelope(hs)
	require.NoError(w.t, err, "%s/%d@%d", rec.Topic, rec.Partition, rec.Offset)
	return e
}

// TestAccount_SeesEachDifference plants one difference of each kind.
func TestAccount_SeesEachDifference(t *testing.T) {
	t.Parallel()
	r := record{"acme", "inv-01"}
	want := map[string]change{"a": {r, 1, 10}, "b": {r, 2, 20}}
	first, second := delivered{"a", 0, 1}, delivered{"b", 0, 2}
	for name, c := range map[string]struct {
		got  []delivered
		want account
	}{
		"all is well": {[]delivered{first, second}, account{}},
		"lost":        {[]delivered{first}, account{Lost: 1}},
		"duplicated":  {[]delivered{first, first, second}, account{Duplicated: 1}},
		"inverted":    {[]delivered{second, first}, account{Inverted: 1}},
		"foreign": {[]delivered{first, second, {"c", 0, 3}}, account{
			Unexpected: []string{"event c on the topic was never committed"},
		}},
		"moved": {[]delivered{first, {"b", 1, 2}}, account{
			Unexpected: []string{"record inv-01 is on two partitions of the topic"},
		}},
		"altered": {[]delivered{first, {"b", 0, 1}}, account{
			Unexpected: []string{"event b on the topic holds version 1, not 2"},
		}},
	} {
		var a account
		a.topic("topic", want, c.got)
		require.Equal(t, c.want, a, name)
	}

	var a account
	a.tables(map[record]change{r: want["b"]}, map[record]change{r: want["a"], {"acme", "x"}: {record{"acme", "x"}, 1, 5}})
	require.Equal(t, 1, a.Lost)
	require.Len(t, a.Unexpected, 3, "the row, the row that nobody wrote, the total: %v", a.Unexpected)
}
