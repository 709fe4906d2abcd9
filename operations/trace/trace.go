// Package trace tells the way of one event: the outbox row it was, where it stands on Kafka, which attempts failed, which finance
// records were made of it, how far the groups have come that read them, and what stands in the target now.
//
// It looks everything up in tables with indexes, the journal of the index first, and never reads a topic. It changes nothing, and shows
// no payload: of the target only status and amounts.
package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/topics"
)

// DB is a pgxpool.Pool or a pgx.Conn.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Config says where to look.
type Config struct {
	Control     DB
	Reporting   DB     // nil if there is no such target
	Publication string // name of the copy of the books in the target
	Kafka       []kgo.Opt
	Groups      []Group
	Systems     []string // the source systems
	// Source connects to the database of a source system; the caller of Source closes the connection.
	Source func(ctx context.Context, system string) (*pgx.Conn, error)
	// Index says how far the index has read, for when something is not found.
	Index func(ctx context.Context) ([]index.Status, error)
}

// Group is a consumer group of ours.
type Group struct {
	Name  string
	Reads func(topic string) bool
}

// Options narrow a search for a record's key.
type Options struct {
	Entity string // a source entity or a finance entity: keys of different entities may be equal
	Limit  int    // versions listed; default 10
}

// Report is what was found.
type Report struct {
	Query    string    `json:"query"`
	Journey  Journey   `json:"journey"`            // of the event, or of the newest version
	Versions []Version `json:"versions,omitempty"` // newest first, if a key was asked for, or if the event's id was used more than once
	Waiting  *Outbox   `json:"waiting,omitempty"`  // a change of the record that is newer than all versions, if a key was asked for
}

// Version is one source event: what is known of it without following it.
type Version struct {
	System    string    `json:"system"`
	Epoch     int64     `json:"epoch"`
	Sequence  int64     `json:"sequence"` // the id of its outbox row
	Topic     string    `json:"topic"`    // the topic it was found on
	EventID   string    `json:"event_id"` // on that topic
	ChangedAt time.Time `json:"changed_at"`
	Deletion  bool      `json:"deletion"`
}

// Journey is the way of one source event.
type Journey struct {
	State       string       `json:"state"`                  // waiting_in_outbox, waiting, parked, dead_letter, ended, published, superseded, on_kafka or unknown
	Meaning     string       `json:"meaning"`                // of the state, in a sentence
	Took        *float64     `json:"took_seconds,omitempty"` // from the change to the target, if it has come there
	Version     *Version     `json:"version"`                // nil: it is not on a source topic
	Outbox      Outbox       `json:"outbox"`
	Places      []Place      `json:"places"` // on source and finance topics, by time
	Attempts    []Attempt    `json:"attempts"`
	DeadLetters []DeadLetter `json:"dead_letters"`
	Links       []Link       `json:"links"`
	Targets     []Target     `json:"targets"`
	Problems    []string     `json:"problems"` // what could not be asked
}

// Place is a record on a topic.
type Place struct {
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Offset    int64      `json:"offset"`
	At        time.Time  `json:"at"` // the record's own time: when it was written
	ChangedAt time.Time  `json:"changed_at"`
	EventID   string     `json:"event_id"`
	Key       string     `json:"key"`
	Deletion  bool       `json:"deletion"`
	Former    bool       `json:"former"` // the topic has been deleted and made anew since: the offset means another record now
	Groups    []Progress `json:"groups"`
}

// Progress is how far a group is that reads the topic of a place.
type Progress struct {
	Group     string `json:"group"`
	Committed int64  `json:"committed"` // the next offset it will handle; -1 if it has never committed one
	Past      bool   `json:"past"`      // it has settled this record: handled it, parked it or given it up
}

// NotFoundError says where was looked in vain, and how far the index has read.
type NotFoundError struct {
	Query  string
	Looked []string
	Lag    string
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("nothing is known of %s: looked in %s; %s", e.Query, strings.Join(e.Looked, ", "), e.Lag)
}

// Find follows what names: the id of an event on a source or finance topic, or a record as tenant/system/source id. It returns a
// NotFoundError if nothing is known of it. A database or a broker that does not answer is a problem in the report, but for the
// control database, without which nothing can be said.
func Find(ctx context.Context, c Config, what string, o Options) (Report, error) {
	what = strings.TrimSpace(what)
	id, err := uuid.Parse(what)
	if err == nil {
		return c.findEvent(ctx, id)
	}
	tenant, system, sourceID, err := topics.SplitKey([]byte(what))
	if err != nil {
		return Report{}, fmt.Errorf("%q is neither the id of an event (a UUID) nor a record as tenant/system/source id", what)
	}
	return c.findRecord(ctx, record{what, tenant, system, sourceID}, o)
}

// record is a business record.
type record struct{ key, tenant, system, id string }

func (c Config) findEvent(ctx context.Context, id uuid.UUID) (Report, error) {
	r := Report{Query: id.String()}
	versions, err := c.versionsOfEvent(ctx, id)
	if err != nil {
		return r, err
	}
	if len(versions) > 0 {
		if len(versions) > 1 {
			r.Versions = versions
		}
		r.Journey, err = c.follow(ctx, versions[0])
		return r, err
	}
	// Not on a topic: it failed in the relay, or waits in an outbox.
	j := newJourney()
	if err := c.failures(ctx, &j, []string{id.String()}, nil); err != nil {
		return r, err
	}
	if len(j.Attempts)+len(j.DeadLetters) == 0 {
		c.searchOutboxes(ctx, &j, wanted{event: &id})
	} else {
		c.outboxOfFailure(ctx, &j, id)
	}
	if len(j.Attempts)+len(j.DeadLetters) == 0 && !j.Outbox.Found {
		return r, c.notFound(ctx, "event "+id.String(), j.Problems)
	}
	j.judge()
	r.Journey = j
	return r, nil
}

func (c Config) findRecord(ctx context.Context, rec record, o Options) (Report, error) {
	r := Report{Query: rec.key}
	var err error
	if r.Versions, err = c.versionsOfKey(ctx, rec.key, o.Entity, cmp.Or(max(o.Limit, 0), 10)); err != nil {
		return r, err
	}
	waiting, searchErr := c.searchOutbox(ctx, rec.system, wanted{record: &rec, entity: o.Entity})
	if len(r.Versions) > 0 {
		if waiting.Found && waiting.ID > r.Versions[0].Sequence {
			r.Waiting = &waiting
		}
		r.Journey, err = c.follow(ctx, r.Versions[0])
		r.Journey.note(searchErr)
		return r, err
	}
	j := newJourney()
	j.Outbox = waiting
	j.note(searchErr)
	if err := c.failures(ctx, &j, nil, &rec); err != nil {
		return r, err
	}
	if len(j.Attempts)+len(j.DeadLetters) == 0 && !j.Outbox.Found {
		what := "record " + rec.key
		if o.Entity != "" {
			what += " of entity " + o.Entity
		}
		return r, c.notFound(ctx, what, j.Problems)
	}
	j.judge()
	r.Journey = j
	return r, nil
}

func newJourney() Journey {
	return Journey{
		Places: []Place{}, Attempts: []Attempt{}, DeadLetters: []DeadLetter{}, Links: []Link{}, Targets: []Target{}, Problems: []string{},
	}
}

// follow tells the journey of a source event. What does not depend on each other is asked at the same time.
func (c Config) follow(ctx context.Context, v Version) (Journey, error) {
	j := newJourney()
	j.Version = &v
	var err error
	if j.Places, err = c.places(ctx, v); err != nil {
		return j, err
	}
	if i := sourcePlace(j.Places); i >= 0 {
		p := j.Places[i]
		j.Version = &Version{v.System, v.Epoch, v.Sequence, p.Topic, p.EventID, p.ChangedAt, p.Deletion}
	}
	var ids []string
	for _, p := range j.Places {
		ids = append(ids, p.EventID)
	}
	var failures, target Journey // each goroutine writes a journey of its own
	var row Outbox
	var rowErr, groupErr, targetErr error
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.failures(gctx, &failures, ids, nil) })
	g.Go(func() error { row, rowErr = c.outboxRow(gctx, v); return nil })
	g.Go(func() error { groupErr = c.progress(gctx, j.Places); return nil })
	g.Go(func() error { targetErr = c.target(gctx, &target, v, j.Places); return nil })
	if err := g.Wait(); err != nil {
		return j, err
	}
	j.Outbox = row
	if failures.Attempts != nil {
		j.Attempts = failures.Attempts
	}
	if failures.DeadLetters != nil {
		j.DeadLetters = failures.DeadLetters
	}
	if target.Links != nil {
		j.Links = target.Links
	}
	if target.Targets != nil {
		j.Targets = target.Targets
	}
	for _, err := range []error{rowErr, groupErr, targetErr} {
		j.note(err)
	}
	j.judge()
	return j, nil
}

func (j *Journey) note(err error) {
	if err != nil {
		j.Problems = append(j.Problems, err.Error())
	}
}

// notFound says where was looked, and whether the index may only be late.
func (c Config) notFound(ctx context.Context, what string, problems []string) error {
	e := &NotFoundError{Query: what, Looked: []string{"the journal", "failed attempts", "dead letters"}}
	for _, s := range c.Systems {
		e.Looked = append(e.Looked, "undelivered rows of outbox "+s)
	}
	status, err := c.Index(ctx)
	if err != nil {
		e.Lag = "how far the index has read is not known: " + err.Error()
	}
	for _, s := range status {
		switch {
		case s.Projection != "journal":
		case !s.Working:
			e.Lag = fmt.Sprintf("no index runs, and %d records are not in it: start `leat index run`", s.Behind)
		case s.Behind > 0:
			e.Lag = fmt.Sprintf("the index is %d records behind: try again when it has read them (`leat index status`)", s.Behind)
		default:
			e.Lag = "the index has read everything; what is older than index.journal_retention is forgotten"
		}
	}
	if len(problems) > 0 {
		return errors.Join(e, errors.New(strings.Join(problems, "; ")))
	}
	return e
}
