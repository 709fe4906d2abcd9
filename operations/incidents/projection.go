package incidents

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// MaxKeys is how many keys of an incident are kept, and so counted exactly.
const MaxKeys = 1000

// Projection makes the facts of incidents from the records of retry and dead-letter topics, for the index. Counting only what was
// committed, it misses what Kafka has compacted away before it is read: attempts of records that have succeeded since.
type Projection struct{}

// Name implements index.Projection.
func (Projection) Name() string { return "incidents" }

// Reads implements index.Projection.
func (Projection) Reads(topic string) bool {
	return strings.HasSuffix(topic, ".retry") || strings.HasSuffix(topic, ".dlq")
}

// group is what a batch says about one fingerprint.
type group struct {
	Facts
	hours   map[time.Time]*Hour
	tenants map[string]*Tenant
	keys    map[string]string // key → tenant
	order   []string          // keys, in the order of the records
}

// Apply implements index.Projection.
func (Projection) Apply(ctx context.Context, tx pgx.Tx, recs []*kgo.Record) error {
	groups := map[string]*group{}
	for _, rec := range recs {
		if f, ok := failureOf(rec); ok {
			g := groups[f.Fingerprint]
			if g == nil {
				g = newGroup(&f)
				groups[f.Fingerprint] = g
			}
			g.add(rec, &f)
		}
	}
	if len(groups) == 0 {
		return nil
	}
	var batch pgx.Batch
	for _, fp := range slices.Sorted(maps.Keys(groups)) { // in one order: who else writes incidents waits, and does not deadlock
		groups[fp].queue(&batch)
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("writing %d incidents: %w", len(groups), err)
	}
	return nil
}

// failureOf reads the headers of a failed attempt. Records that only wait (behind another one, for an operator's redrive), tombstones,
// and dead letters of other tools are none.
func failureOf(rec *kgo.Record) (topics.Failure, bool) {
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header(h)
	}
	f, err := topics.DecodeFailure(hs)
	if err != nil || f.Fingerprint == "" {
		return f, false // what is wrong with the record is told by the index of dead letters
	}
	if !topics.ValidFingerprint(f.Fingerprint) {
		f.Fingerprint = topics.Fingerprint(f.Handler, f.Class, f.Code, f.Message, "") // as the index of dead letters does
	}
	switch f.Disposition {
	case topics.DispositionRetry, topics.DispositionPermanent, topics.DispositionExhausted:
		return f, true
	}
	return f, false
}

func newGroup(f *topics.Failure) *group {
	return &group{
		Facts: Facts{
			Fingerprint: clean(f.Fingerprint), Stage: clean(f.Handler), Class: clean(f.Class), Code: clean(f.Code),
			Message: clean(topics.Parameterize(f.Message)), Groups: []string{},
		},
		hours: map[time.Time]*Hour{}, tenants: map[string]*Tenant{}, keys: map[string]string{},
	}
}

func (g *group) add(rec *kgo.Record, f *topics.Failure) {
	at := f.LastFailedAt
	if at.IsZero() {
		at = rec.Timestamp
	}
	dead := int64(0)
	if f.Disposition != topics.DispositionRetry {
		dead = 1
	}
	key, tenant := keyOf(rec, f), tenantOf(rec)
	if g.First.IsZero() || at.Before(g.First) {
		g.First = at
	}
	if !at.Before(g.Last) {
		g.Last = at
		g.Example = Example{
			Event: clean(headerOf(rec, topics.HeaderID)), Tenant: tenant, Topic: clean(f.Topic), Partition: f.Partition, Offset: f.Offset,
		}
	}
	if f.Group != "" && !slices.Contains(g.Groups, clean(f.Group)) {
		g.Groups = append(g.Groups, clean(f.Group))
	}
	hour := at.UTC().Truncate(time.Hour)
	if g.hours[hour] == nil {
		g.hours[hour] = &Hour{Hour: hour}
	}
	if g.tenants[tenant] == nil {
		g.tenants[tenant] = &Tenant{Tenant: tenant}
	}
	h, t := g.hours[hour], g.tenants[tenant]
	g.Failures, h.Failures, t.Failures = g.Failures+1, h.Failures+1, t.Failures+1
	g.Dead, h.Dead, t.Dead = g.Dead+dead, h.Dead+dead, t.Dead+dead
	if at.After(t.Last) {
		t.Last = at
	}
	if _, known := g.keys[key]; !known && len(g.order) <= MaxKeys { // one more than is kept tells that there are more
		g.keys[key] = tenant
		g.order = append(g.order, key)
	}
}

// keyOf names the business record that failed. A record without a key is one by itself.
func keyOf(rec *kgo.Record, f *topics.Failure) string {
	key := rec.Key
	if strings.HasSuffix(rec.Topic, ".retry") {
		key = f.Key // the record's own key is the parked id
	}
	switch {
	case len(key) == 0:
		return fmt.Sprintf("%s/%d@%d", clean(f.Topic), f.Partition, f.Offset)
	case len(key) > 512:
		return clean(string(key[:400])) + "…" + topics.KeyHash(key)
	}
	return clean(string(key))
}

func tenantOf(rec *kgo.Record) string {
	if t := headerOf(rec, topics.HeaderTenant); topics.ValidName(t) {
		return t
	}
	return "" // a record that says no tenant, or a wrong one, which may be why it failed
}

func headerOf(rec *kgo.Record, name string) string {
	for _, h := range rec.Headers {
		if h.Key == name {
			return string(h.Value[:min(len(h.Value), 128)])
		}
	}
	return ""
}

// clean makes text that Postgres takes, on one line: what a stranger wrote into a header ends up in messages to people.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

const upsertIncident = `insert into leat_control.incidents as i (fingerprint, stage, group_names, class, code, message, first_seen, last_seen,
  failures, dead, example) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict (fingerprint) do update set
  group_names = (select coalesce(array_agg(distinct g order by g), '{}') from unnest(i.group_names || excluded.group_names) g),
  first_seen = least(i.first_seen, excluded.first_seen), last_seen = greatest(i.last_seen, excluded.last_seen),
  failures = i.failures + excluded.failures, dead = i.dead + excluded.dead,
  example = case when excluded.last_seen >= i.last_seen then excluded.example else i.example end`

const upsertHour = `insert into leat_control.incident_hours as h (fingerprint, hour, failures, dead) values ($1, $2, $3, $4)
on conflict (fingerprint, hour) do update set failures = h.failures + excluded.failures, dead = h.dead + excluded.dead`

const upsertTenant = `insert into leat_control.incident_tenants as t (fingerprint, tenant, failures, dead, last_seen) values ($1, $2, $3, $4, $5)
on conflict (fingerprint, tenant) do update set failures = t.failures + excluded.failures, dead = t.dead + excluded.dead,
  last_seen = greatest(t.last_seen, excluded.last_seen)`

// The incident's row is locked by the upsert before this in the transaction, so nobody else fills the room that is counted here.
const addKeys = `with fresh as (
  select key, tenant, n from unnest($2::text[], $3::text[]) with ordinality as k(key, tenant, n)
  where not exists (select from leat_control.incident_keys o where o.fingerprint = $1 and o.key = k.key)),
room as (select greatest(0, $4 - count(*)) as n from leat_control.incident_keys where fingerprint = $1),
added as (insert into leat_control.incident_keys (fingerprint, key, tenant)
  select $1, key, tenant from fresh order by n limit (select n from room) returning tenant),
by_tenant as (update leat_control.incident_tenants t set keys = t.keys + a.n
  from (select tenant, count(*) as n from added group by tenant) a where t.fingerprint = $1 and t.tenant = a.tenant)
update leat_control.incidents set keys = keys + (select count(*) from added),
  more_keys = more_keys or (select count(*) from fresh) > (select n from room)
where fingerprint = $1`

func (g *group) queue(b *pgx.Batch) {
	b.Queue(upsertIncident, g.Fingerprint, g.Stage, g.Groups, g.Class, g.Code, g.Message, g.First, g.Last, g.Failures, g.Dead, g.Example)
	for _, h := range slices.SortedFunc(maps.Values(g.hours), func(a, b *Hour) int { return a.Hour.Compare(b.Hour) }) {
		b.Queue(upsertHour, g.Fingerprint, h.Hour, h.Failures, h.Dead)
	}
	for _, t := range slices.SortedFunc(maps.Values(g.tenants), func(a, b *Tenant) int { return cmp.Compare(a.Tenant, b.Tenant) }) {
		b.Queue(upsertTenant, g.Fingerprint, t.Tenant, t.Failures, t.Dead, t.Last)
	}
	tenants := make([]string, len(g.order))
	for i, key := range g.order {
		tenants[i] = g.keys[key]
	}
	b.Queue(addKeys, g.Fingerprint, g.order, tenants, MaxKeys)
}

// Systemic incidents stay: they are not made from topics. What was decided stays too.
const resetFacts = `delete from leat_control.incident_hours h using leat_control.incidents i where i.fingerprint = h.fingerprint and not i.systemic;
delete from leat_control.incident_tenants t using leat_control.incidents i where i.fingerprint = t.fingerprint and not i.systemic;
delete from leat_control.incident_keys k using leat_control.incidents i where i.fingerprint = k.fingerprint and not i.systemic;
delete from leat_control.incidents where not systemic`

// Reset implements index.Projection.
func (Projection) Reset(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, resetFacts); err != nil {
		return fmt.Errorf("removing the facts of incidents: %w", err)
	}
	return nil
}

// Hours are for judging what is usual and for showing the last weeks; the sums stay.
const dropHours = `delete from leat_control.incident_hours where hour < now() - interval '90 days'`

// Upkeep implements index.Keeper.
func (Projection) Upkeep(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, dropHours); err != nil {
		return fmt.Errorf("removing old hours of incidents: %w", err)
	}
	return nil
}
