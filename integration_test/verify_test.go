package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/verify"
	"github.com/leat-io/leat/topics"
)

// verify runs `leat verify` and returns its report. The exit code must say what the report says.
func (r *rig) verify(args ...string) *verify.Report {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "report.json")
	out, err := r.try(append([]string{"verify", "--json", file}, args...)...)
	text, readErr := os.ReadFile(file)
	require.NoError(r.t, readErr, "leat verify %v: %v\n%s", args, err, out)
	var doc verify.Document
	require.NoError(r.t, json.Unmarshal(text, &doc))
	report, readErr := doc.Read()
	require.NoError(r.t, readErr)
	require.Equal(r.t, report.Agrees, err == nil, "exit code and report: %v\n%s", err, out)
	return report
}

// complete demands that everything has arrived and nothing differs.
func complete(t *testing.T, rep *verify.Report, changes, invoices int) {
	t.Helper()
	require.Empty(t, rep.Listed, "differences")
	require.True(t, rep.Agrees)
	require.Zero(t, rep.Waiting, "%+v", rep.Layers)
	require.Equal(t, int64(changes), rep.Rows)
	for i, want := range []int{changes, changes, invoices} {
		require.Equal(t, int64(want), rep.Layers[i].Expected, "layer %s", rep.Layers[i].Name)
		require.Equal(t, int64(want), rep.Layers[i].Matched, "layer %s", rep.Layers[i].Name)
	}
	for _, g := range rep.Groups {
		require.True(t, g.Equal, "%+v", g)
	}
	records := int64(0)
	for _, total := range rep.Totals {
		require.True(t, total.Equal, "%+v", total)
		records += total.Records.Records
	}
	require.Equal(t, int64(invoices), records)
}

// plant is one thing that is made wrong, and how verify must find it.
type plant struct {
	name            string
	do              func()
	layer, kind, id string
	fields          []verify.Field
	unequalTotals   bool
	foundAs         int // how many differences; default 1
}

// TestVerify_FindsEachPlantedDifference makes one thing wrong after the other, and demands that exactly that is found.
func TestVerify_FindsEachPlantedDifference(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{ownKafka: true})
	l := newLedger()
	stages := []*process{r.start("one", "relay", "run"), r.start("one", "normalize", "run"), r.start("one", "publish", "run")}
	l.write(t, r, 4, 400, 60)
	l.settled(t, r)
	for _, p := range stages {
		p.stop()
	}
	before := r.verify()
	complete(t, before, l.count(), len(l.latest))
	ids := make([]string, 0, len(l.latest))
	for id := range l.latest {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	total := func(id string) string {
		c := l.latest[id].cents
		return trimmed(fmt.Sprintf("%d.%02d", c/100, c%100))
	}
	exec := func(sql string, args ...any) func() {
		return func() {
			tag, err := r.reporting.Exec(t.Context(), sql, append([]any{r.system}, args...)...)
			require.NoError(t, err)
			require.Positive(t, tag.RowsAffected(), sql)
		}
	}
	finance := topics.Finance("invoice", 1)
	for _, p := range []plant{
		{
			name: "deleted row in the target", layer: "tables", kind: verify.Missing, id: ids[0], unequalTotals: true,
			do: exec(`delete from reporting.invoices where system = $1 and source_id = $2`, ids[0]),
		},
		{
			name: "changed amount of a document", layer: "tables", kind: verify.Different, id: ids[1], unequalTotals: true,
			do:     exec(`update reporting.invoices set total = total + 0.01 where system = $1 and source_id = $2`, ids[1]),
			fields: []verify.Field{{Name: "total", Expected: total(ids[1]), Found: added(t, total(ids[1]), 1)}},
		},
		{
			name: "changed amount of a line", layer: "tables", kind: verify.Different, id: ids[2], unequalTotals: true,
			do:     exec(`update reporting.invoice_lines set total = total + 1 where system = $1 and invoice_id = $2`, ids[2]),
			fields: []verify.Field{{Name: "line 1 total", Expected: total(ids[2]), Found: added(t, total(ids[2]), 100)}},
		},
		{
			name: "record dropped from the tables and their links", layer: "tables", kind: verify.Missing, id: ids[3], unequalTotals: true,
			do: exec(`with l as (delete from reporting.links where system = $1 and source_id = $2),
				n as (delete from reporting.invoice_lines where system = $1 and invoice_id = $2)
				delete from reporting.invoices where system = $1 and source_id = $2`, ids[3]),
		},
		{
			name: "row that nobody published", layer: "tables", kind: verify.Extra, id: "forged", unequalTotals: true,
			do: exec(`insert into reporting.invoices (tenant, system, source_id, type, contact_id, issue_date, status, currency, total,
				source_changed_at, source_epoch, sequence) select tenant, system, 'forged', type, contact_id, issue_date, status, currency, total,
				source_changed_at, source_epoch, sequence from reporting.invoices where system = $1 and source_id = $2`, ids[4]),
		},
		{
			name: "changed status", layer: "tables", kind: verify.Different, id: ids[5], unequalTotals: true,
			do:     exec(`update reporting.invoices set status = 'void' where system = $1 and source_id = $2`, ids[5]),
			fields: []verify.Field{{Name: "status", Expected: "open", Found: "void"}},
		},
		{
			name: "duplicated record", layer: "finance", kind: verify.Duplicate, id: ids[6],
			do: func() { r.produce(r.last(finance, ids[6])) },
		},
		{
			name: "record altered on its topic", layer: "finance", kind: verify.Different, id: ids[7], foundAs: 2,
			do: func() {
				rec := r.last(finance, ids[7])
				rec.Value = bytes.Replace(rec.Value, []byte(`"currency":"USD"`), []byte(`"currency":"BRL"`), 1)
				r.produce(rec)
			},
		},
		{
			name: "finance record that no change explains", layer: "finance", kind: verify.Extra, id: ids[8],
			do: func() {
				rec := r.last(finance, ids[8])
				for i := range rec.Headers {
					if rec.Headers[i].Key == topics.HeaderID {
						rec.Headers[i].Value = []byte("0199c1d2-0000-7000-8000-000000000001")
					}
				}
				r.produce(rec)
			},
		},
		{
			name: "record forged on the source topic", layer: "source", kind: verify.Extra, id: ids[9],
			do: func() {
				rec := r.last(topics.Source(r.system, "invoice"), ids[9])
				r.produce(withSequence(rec, "999999"))
			},
		},
	} {
		p.do()
		after := r.verify()
		p.check(t, r, before, after)
		before = after
	}
	dropped := r.adoptPast(t, l)
	after := r.verify()
	require.Equal(t, int64(dropped), after.Layers[0].Missing, "changes that the relay was made to skip")
	require.Equal(t, int64(l.count()-dropped), after.Layers[0].Matched)
}

// check demands that after differs from before by what was planted, and by nothing else.
func (p plant) check(t *testing.T, r *rig, before, after *verify.Report) {
	t.Helper()
	known := map[string]bool{}
	name := func(d verify.Difference) string { return d.Layer + " " + d.Kind + " " + d.SourceID }
	for _, d := range before.Listed {
		known[name(d)] = true
	}
	var found []verify.Difference
	for _, d := range after.Listed {
		if !known[name(d)] {
			found = append(found, d)
		}
	}
	require.Len(t, found, max(p.foundAs, 1), "%s: new differences %+v", p.name, found)
	require.Equal(t, before.Differences+int64(max(p.foundAs, 1)), after.Differences, p.name)
	d := found[0]
	require.Equal(t, []string{p.layer, p.kind, p.id}, []string{d.Layer, d.Kind, d.SourceID}, "%s: %+v", p.name, d)
	require.Equal(t, "leat trace "+r.tenant+"/"+r.system+"/"+p.id, d.Trace, p.name)
	require.NotEmpty(t, d.What)
	if p.fields != nil {
		require.Equal(t, p.fields, d.Fields, p.name)
	}
	unequal := func(rep *verify.Report) string {
		var out strings.Builder
		for _, total := range rep.Totals {
			if !total.Equal {
				fmt.Fprintf(&out, "%+v\n", total)
			}
		}
		return out.String()
	}
	require.Equal(t, p.unequalTotals, unequal(before) != unequal(after), "%s: totals were\n%s and are\n%s", p.name, unequal(before), unequal(after))
	require.False(t, after.Agrees)
}

// adoptPast lets the relay skip changes, as an operator can by mistake, and returns how many.
func (r *rig) adoptPast(t *testing.T, l *ledger) int {
	t.Helper()
	before := l.count()
	l.write(t, r, 1, 7, 60)
	r.run("relay", "adopt", "--source", r.system, "--from", "end", "--reason", "a mistake")
	return l.count() - before
}

// last returns the newest record of an invoice on a topic.
func (r *rig) last(topic, id string) *kgo.Record {
	r.t.Helper()
	var last *kgo.Record
	for _, rec := range r.read(topic) {
		if string(rec.Key) == string(topics.Key(r.tenant, r.system, id)) {
			last = rec
		}
	}
	require.NotNil(r.t, last, "record of invoice %s on %s", id, topic)
	return last
}

// produce writes a copy of a record to its own partition, with its own timestamp.
func (r *rig) produce(rec *kgo.Record) {
	r.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(r.t, err)
	defer client.Close()
	duplicate := kgo.Record{
		Topic: rec.Topic, Partition: rec.Partition, Key: rec.Key, Value: rec.Value, Headers: rec.Headers, Timestamp: rec.Timestamp,
	}
	require.NoError(r.t, client.ProduceSync(r.t.Context(), &duplicate).FirstErr())
}

func withSequence(rec *kgo.Record, sequence string) *kgo.Record {
	c := *rec
	c.Headers = slices.Clone(rec.Headers)
	for i := range c.Headers {
		if c.Headers[i].Key == topics.HeaderSequence {
			c.Headers[i].Value = []byte(sequence)
		}
	}
	return &c
}

// trimmed is an amount without zeros at its end, as reports name it.
func trimmed(amount string) string {
	return string(bytes.TrimRight(bytes.TrimRight([]byte(amount), "0"), "."))
}

// added is an amount and some cents.
func added(t *testing.T, amount string, cents int64) string {
	t.Helper()
	var whole, frac int64
	n, err := fmt.Sscanf(amount+"00", "%d.%d", &whole, &frac)
	if n < 2 { // no point: 300 became 30000
		_, err = fmt.Sscanf(amount, "%d", &whole)
		frac = 0
	} else {
		for frac >= 100 {
			frac /= 10
		}
	}
	require.NoError(t, err)
	c := whole*100 + frac + cents
	return trimmed(fmt.Sprintf("%d.%02d", c/100, c%100))
}

// obstruct lets the target refuse changes of two invoices now and then, which parks them and what stands beside them.
const obstruct = `
create function obstruct() returns trigger language plpgsql as $$
begin
  if new.source_id in ('7', '13') and random() < 0.1 then
    raise exception 'in the way' using errcode = 'serialization_failure';
  end if;
  return new;
end $$;
create trigger obstruct before insert or update on reporting.invoices for each row execute function obstruct()`

// TestVerify_RaisesNoFalseAlarmWhileRecordsFlow verifies again and again under load, with records that fail, wait and are freed in between:
// what is in flight is pending or parked, what is given up is dead, and nothing is missing.
func TestVerify_RaisesNoFalseAlarmWhileRecordsFlow(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{ownKafka: true})
	_, err := r.reporting.Exec(t.Context(), obstruct)
	require.NoError(t, err)
	l := newLedger()
	stages := []*process{r.start("one", "relay", "run"), r.start("one", "normalize", "run"), r.start("one", "publish", "run")}
	stopWriting := l.keepWriting(t, r)
	eventually(t, "the first rows in the books", func() bool { return len(r.booked()) > 0 })
	waiting := 0
	const rounds = 8
	for n := range rounds {
		_, err := r.source.Exec(t.Context(), `select leat.emit($1, 'invoice', 'broken-' || $2::int, 'upsert', '{"invoice_id": "none"}')`, r.tenant, n)
		require.NoError(t, err)
		more := l.count() + 100
		eventually(t, "more committed rows", func() bool { return l.count() > more })
		rep := r.verify()
		require.Empty(t, rep.Listed, "differences while records flow")
		require.True(t, rep.Agrees)
		for _, total := range rep.Totals {
			require.True(t, total.Equal, "%+v", total)
		}
		t.Logf("layers %+v", rep.Layers)
		if rep.Waiting > 0 {
			waiting++
		}
	}
	require.Positive(t, waiting, "nothing was ever in flight: the test says nothing")
	stopWriting()
	_, err = r.reporting.Exec(t.Context(), "drop trigger obstruct on reporting.invoices")
	require.NoError(t, err)
	l.settled(t, r)
	for _, p := range stages {
		p.stop()
	}
	rep := r.verify()
	require.Empty(t, rep.Listed)
	require.Equal(t, int64(rounds), rep.Waiting, "%+v", rep.Layers)
	require.Equal(t, int64(rounds), rep.Layers[1].Dead)
	require.Equal(t, int64(l.count()), rep.Layers[1].Matched)
	require.Len(t, rep.Open, rounds)
	require.Equal(t, "dead", rep.Open[0].State)
	require.Equal(t, "leat trace "+r.tenant+"/"+r.system+"/broken-0", rep.Open[0].Trace)
}

// TestVerify_IsCleanAfterAHundredKills kills relay, normalize and publish a hundred times with SIGKILL while rows are written.
func TestVerify_IsCleanAfterAHundredKills(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{ownKafka: true})
	l := newLedger()
	const kills = 100
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	commands := [][]string{{"relay", "run"}, {"normalize", "run"}, {"publish", "run"}}
	procs := make([]*process, len(commands))
	for i, args := range commands {
		procs[i] = r.start("one", args...)
	}
	stopWriting := l.keepWriting(t, r)
	eventually(t, "the first rows in the books", func() bool { return len(r.booked()) > 0 })
	killed := [3]int{}
	for n := range kills {
		i := rnd.IntN(len(commands))
		if n%10 == 9 { // now and then let all of them come to their work
			before, at := l.count(), r.published()
			eventually(t, "progress between kills", func() bool { return l.count() > before+50 && r.published() > at })
		} else {
			pause(t.Context(), time.Duration(rnd.IntN(600))*time.Millisecond)
		}
		select {
		case <-procs[i].done:
			require.Fail(t, "a process ended by itself", "%v: %s", commands[i], procs[i].log.Tail(2000))
		default:
		}
		procs[i].kill()
		killed[i]++
		procs[i] = r.start("one", commands[i]...)
	}
	t.Logf("kills of relay, normalize, publish: %v; %d changes", killed, l.count())
	require.Equal(t, kills, killed[0]+killed[1]+killed[2])
	rep := r.verify() // while they recover
	require.Empty(t, rep.Listed)
	stopWriting()
	l.settled(t, r)
	eventually(t, "everything to have arrived", func() bool { return r.verify().Waiting == 0 })
	complete(t, r.verify(), l.count(), len(l.latest))
	for _, p := range procs {
		p.stop()
	}
}

// published is the sum of the offsets that publish has committed.
func (r *rig) published() int64 {
	r.t.Helper()
	got, err := r.adm.FetchOffsetsForTopics(r.t.Context(), r.publishGroup, topics.Finance("invoice", 1))
	require.NoError(r.t, err)
	n := int64(0)
	for _, o := range got[topics.Finance("invoice", 1)] {
		n += max(o.At, 0)
	}
	return n
}

// pause is the random time between two kills, not a wait for anything.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
