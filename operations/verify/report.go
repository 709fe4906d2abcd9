package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Format names the shape of a report; it changes when a field changes its meaning.
const Format = "leat.verify/1"

const timeFormat = time.RFC3339

// Kinds of differences.
const (
	Missing    = "missing"      // it must be there, and is not
	Extra      = "extra"        // it is there, and nothing explains it
	Different  = "different"    // it is there with other content
	Duplicate  = "duplicate"    // it stands more often than it may
	OutOfOrder = "out_of_order" // it stands behind a newer change of the same record
)

// Report is the result of a verification.
type Report struct {
	Format  string `json:"format"`
	ID      string `json:"id"`
	Source  string `json:"source"`
	By      string `json:"by"`
	Version string `json:"version"`

	StartedAt time.Time `json:"started_at"`
	Seconds   float64   `json:"seconds"`

	Window  Window  `json:"window"` // as asked for
	Rows    int64   `json:"rows"`   // of the outbox in it
	FirstID int64   `json:"first_id"`
	LastID  int64   `json:"last_id"`
	Looked  Moments `json:"looked"`

	Agrees    bool     `json:"agrees"`
	Statement []string `json:"statement"` // the verdict in words, one sentence each
	Waiting   int64    `json:"waiting"`   // records that are accounted for, but not where they will be in the end

	Layers      []Layer      `json:"layers"`
	Groups      []Group      `json:"groups"`
	Totals      []Total      `json:"totals"`
	Differences int64        `json:"differences"` // exact
	Listed      []Difference `json:"listed"`      // of each kind in each layer the first so many
	Open        []Open       `json:"open"`        // what waits; the first so many
	Notes       []string     `json:"notes"`
}

// Moments say when and where the layers were looked at.
type Moments struct {
	At             time.Time `json:"at"` // of the outbox, by the clock of its database
	OutboxSnapshot string    `json:"outbox_snapshot"`
	TablesSnapshot string    `json:"tables_snapshot,omitempty"`
	SourceEpoch    int64     `json:"source_epoch"`
	RelayID        int64     `json:"relay_id"` // the outbox id up to which the relay had delivered
}

// Layer compares one step on the way with the next.
type Layer struct {
	Name string `json:"name"` // source, finance, tables

	Expected int64 `json:"expected"` // changes of the outbox; finance records; records in the tables
	Matched  int64 `json:"matched"`
	Pending  int64 `json:"pending"`  // on its way: the stage has not come so far
	Parked   int64 `json:"parked"`   // waits for a retry
	Dead     int64 `json:"dead"`     // is a dead letter
	Filtered int64 `json:"filtered"` // the mapping makes nothing of the change
	Unmapped int64 `json:"unmapped"` // no mapping reads its topic

	Missing    int64 `json:"missing"`
	Extra      int64 `json:"extra"`
	Different  int64 `json:"different"`
	Duplicates int64 `json:"duplicates"`
	OutOfOrder int64 `json:"out_of_order"`
}

func layerNames() [3]string { return [...]string{"source", "finance", "tables"} }

// Group compares the changes of one entity of one company in the outbox with those on its source topic: count, and order-independent
// hash of ids and payloads.
type Group struct {
	Tenant        string `json:"tenant"`
	Entity        string `json:"entity"`
	OutboxRecords int64  `json:"outbox_records"`
	OutboxHash    string `json:"outbox_hash"`
	TopicRecords  int64  `json:"topic_records"`
	TopicHash     string `json:"topic_hash"`
	Equal         bool   `json:"equal"`
}

// Difference is one record that is not as it must be.
type Difference struct {
	Layer    string  `json:"layer"`
	Kind     string  `json:"kind"`
	Tenant   string  `json:"tenant,omitempty"`
	Entity   string  `json:"entity,omitempty"`
	SourceID string  `json:"source_id,omitempty"`
	EventID  string  `json:"event_id,omitempty"`
	Sequence int64   `json:"sequence,omitempty"` // outbox id of the change
	What     string  `json:"what"`
	Fields   []Field `json:"fields,omitempty"` // that differ, where that is known
	Trace    string  `json:"trace,omitempty"`  // the command that shows its way

	want *shown
	book int
	at   *place
}

// Field is a value that differs.
type Field struct {
	Name     string `json:"name"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

// Open is a record that waits.
type Open struct {
	Layer    string `json:"layer"`
	State    string `json:"state"` // parked, dead
	Tenant   string `json:"tenant,omitempty"`
	Entity   string `json:"entity,omitempty"`
	SourceID string `json:"source_id,omitempty"`
	Sequence int64  `json:"sequence"`
	What     string `json:"what"`
	Trace    string `json:"trace,omitempty"`
}

// differences are counted exactly and listed up to a limit for each kind in each layer, lest one kind hides the others.
type differences struct {
	limit  int
	listed []Difference
	seen   map[string]int
	count  int64
	open   []Open
}

func (d *differences) total() int64 { return d.count }

func (d *differences) room(what string) bool {
	if d.seen == nil {
		d.seen = map[string]int{}
	}
	d.seen[what]++
	return d.seen[what] <= d.limit
}

// differ enters a difference.
func (v *run) differ(layer int, diff Difference) {
	l := &v.layers[layer]
	switch diff.Kind {
	case Missing:
		l.Missing++
	case Extra:
		l.Extra++
	case Different:
		l.Different++
	case Duplicate:
		l.Duplicates++
	case OutOfOrder:
		l.OutOfOrder++
	}
	v.differences.count++
	if diff.Layer = layerNames()[layer]; v.differences.room(diff.Layer + " " + diff.Kind) {
		v.differences.listed = append(v.differences.listed, diff)
	}
}

// open enters a record that waits.
func (v *run) open(layer int, state string, id int64, what string) {
	name := layerNames()[layer]
	if v.differences.room(name + " " + state) {
		v.differences.open = append(v.differences.open, Open{Layer: name, State: state, Sequence: id, What: what})
	}
}

func (v *run) report(started time.Time) *Report {
	r := &Report{
		Format: Format, ID: uuid.Must(uuid.NewV7()).String(), Source: v.c.Source, By: v.c.By, Version: v.c.Version,
		StartedAt: started.UTC().Truncate(time.Millisecond), Seconds: time.Since(started).Round(time.Millisecond).Seconds(), Window: v.window,
		Rows: int64(len(v.rows)), Totals: v.totals.public(), Differences: v.differences.count, Agrees: v.differences.count == 0,
		Listed: append([]Difference{}, v.differences.listed...), Open: append([]Open{}, v.differences.open...), Groups: []Group{},
		Looked: Moments{At: v.at.UTC(), OutboxSnapshot: v.outbox.name, SourceEpoch: v.epoch},
	}
	if v.tables != nil {
		r.Looked.TablesSnapshot = v.tables.name
	} else {
		v.note("the reporting tables were left out: publish.reporting.url is not configured")
	}
	if p := v.delivered.Position; p != nil {
		r.Looked.RelayID = p.LastID
	}
	if n := len(v.rows); n > 0 {
		r.FirstID, r.LastID = v.rows[0].id, v.rows[n-1].id
	}
	for i, name := range layerNames() {
		l := v.layers[i]
		l.Name = name
		if i == 2 && v.tables == nil {
			continue
		}
		r.Layers = append(r.Layers, l)
		r.Waiting += l.Pending + l.Parked + l.Dead
	}
	for _, g := range v.groups {
		if g.outbox.Records == 0 {
			continue
		}
		r.Groups = append(r.Groups, Group{
			Tenant: g.tenant, Entity: g.entity, OutboxRecords: g.outbox.Records, OutboxHash: g.outbox.Hash(), TopicRecords: g.topics.Records,
			TopicHash: g.topics.Hash(), Equal: g.outbox == g.topics,
		})
	}
	slices.SortFunc(r.Groups, func(a, b Group) int { return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Entity, b.Entity)) })
	slices.SortStableFunc(r.Listed, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(rank(a.Layer), rank(b.Layer)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Sequence, b.Sequence))
	})
	slices.SortStableFunc(r.Open, func(a, b Open) int {
		return cmp.Or(cmp.Compare(rank(a.Layer), rank(b.Layer)), cmp.Compare(a.Sequence, b.Sequence))
	})
	r.Notes = append([]string{}, v.notes...)
	r.Statement = r.words()
	return r
}

func rank(layer string) int {
	names := layerNames()
	return slices.Index(names[:], layer)
}

// words say what the numbers mean.
func (r *Report) words() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if r.Rows == 0 {
		say("The window holds no changes.")
	}
	waiting := r.waiting()
	switch {
	case !r.Agrees:
		say("The records do NOT agree: %s found.", plural(r.Differences, "difference was", "differences were"))
	case r.Rows == 0:
	case r.Waiting == 0:
		say("Everything agrees: every one of the %s that the source wrote in this window has arrived, once and unchanged.", plural(r.Rows, "change", "changes"))
	default:
		say("Nothing was lost, altered or counted twice: each of the %s that the source wrote in this window is accounted for.",
			plural(r.Rows, "change", "changes"))
	}
	if waiting != "" {
		say("Not everything has arrived: %s. None of these is lost, but they are not in the books yet.", waiting)
	}
	unequal := 0
	for _, t := range r.Totals {
		if !t.Equal {
			unequal++
		}
	}
	switch {
	case unequal > 0:
		say("Of %s, %d not equal.", plural(int64(len(r.Totals)), "control total", "control totals"), unequal)
	case len(r.Totals) > 0:
		say("Of %s, all are equal to the last digit.", plural(int64(len(r.Totals)), "control total", "control totals"))
	}
	return out
}

func (r *Report) waiting() string {
	var sum Layer
	for _, l := range r.Layers {
		sum.Pending, sum.Parked, sum.Dead = sum.Pending+l.Pending, sum.Parked+l.Parked, sum.Dead+l.Dead
	}
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{sum.Pending, "on the way"}, {sum.Parked, "waiting for a retry"}, {sum.Dead, "given up, for a person to look at"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
