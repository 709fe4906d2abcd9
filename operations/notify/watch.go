package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/incidents"
)

// lookLimit bounds a look, in which a storm of causes may have thousands of transactions.
const lookLimit = 2 * time.Minute

// look takes the breakers in, moves every incident by the rules, and enqueues what is to be told.
func (n *Notifier) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	if err := n.breakers(ctx); err != nil {
		return err
	}
	list, err := incidents.Candidates(ctx, n.cfg.DB, n.cfg.Policy)
	if err != nil {
		return err
	}
	for i := range list {
		if err := n.move(ctx, &list[i]); err != nil {
			return err
		}
	}
	counts, err := incidents.Count(ctx, n.cfg.DB)
	if err != nil {
		return err
	}
	n.metrics.states(counts)
	return n.countPending(ctx)
}

// move moves one incident and enqueues what follows from it, in one transaction. A standing that somebody else has changed since it was
// read is left for the next look: whoever saves it first tells of it.
func (n *Notifier) move(ctx context.Context, c *incidents.Candidate) error {
	before := c.State
	c.Standing = n.cfg.Policy.Next(c.Standing, &c.Facts, c.Now)
	due := n.due(c)
	if c.State == before && len(due) == 0 && !c.Untold() {
		return nil
	}
	c.MarkTold()
	err := pgx.BeginFunc(ctx, n.cfg.DB, func(tx pgx.Tx) error {
		if err := incidents.Save(ctx, tx, &c.Incident); err != nil {
			return err
		}
		return n.enqueue(ctx, tx, c, due)
	})
	switch {
	case errors.Is(err, incidents.ErrStale):
		return nil
	case err != nil:
		return err
	}
	if c.State != before {
		n.metrics.moves.WithLabelValues(string(c.State)).Inc()
		n.cfg.Logger.InfoContext(ctx, "incident moved", "fingerprint", c.Fingerprint, "from", string(before), "to", string(c.State), "why", c.Why,
			"stage", c.Stage, "class", c.Class, "code", c.Code, "failures", c.Failures, "dead_letters", c.Dead)
	}
	return nil
}

// notice is one row to be made in the outbox.
type notice struct {
	receiver *Receiver
	kind     Kind
	number   int // of escalations that are told of
	why      string
}

// due lists what is to be told now. That an episode has begun is told to a receiver once, as soon as it is worth it and of
// interest to it; what comes after only to those that know of the episode.
func (n *Notifier) due(c *incidents.Candidate) []notice {
	opening, why := Opened, n.cfg.Policy.Tell(c.Standing, &c.Facts, c.Now)
	if c.Episode > 1 {
		opening = Regressed
		if why != "" && c.State == incidents.Regressed {
			why = c.Why + "; " + why
		}
	}
	var out []notice
	for i := range n.senders {
		r := &n.senders[i].Receiver
		told := func(k Kind, number int) bool {
			return slices.Contains(c.Told, fmt.Sprintf("%s %s %d", r.Name, k, number))
		}
		knows := slices.ContainsFunc(c.Told, func(t string) bool { return strings.HasPrefix(t, r.Name+" "+string(opening)+" ") })
		switch {
		case !knows && why != "" && r.wants(c.Severity, c.Tenants):
			out = append(out, notice{r, opening, c.Escalations, why}) // tells of an escalation too
		case knows && c.State == incidents.Escalating && !told(Escalated, c.Escalations) && !told(opening, c.Escalations):
			out = append(out, notice{r, Escalated, c.Escalations, c.Why})
		case knows && c.State == incidents.Resolved && !told(Closed, 0):
			out = append(out, notice{r, Closed, 0, c.Why})
		}
	}
	return out
}

// What one look finds is due together, a moment later, so that a storm becomes one digest and not as many messages as may be sent.
const insertNotification = `insert into leat_control.notifications (id, receiver, fingerprint, episode, kind, number, document, due)
values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8)) on conflict (fingerprint, episode, receiver, kind, number) do nothing`

func (n *Notifier) enqueue(ctx context.Context, tx pgx.Tx, c *incidents.Candidate, due []notice) error {
	if len(due) == 0 {
		return nil
	}
	tenants, err := incidents.Tenants(ctx, tx, c.Fingerprint)
	if err != nil {
		return err
	}
	open, err := incidents.OpenDeadLetters(ctx, tx, c.Fingerprint)
	if err != nil {
		return err
	}
	for _, d := range due {
		doc := n.document(c, d, tenants, open)
		text, err := json.Marshal(doc)
		if err != nil {
			return fmt.Errorf("making a notification: %w", err)
		}
		if _, err := tx.Exec(ctx, insertNotification, doc.ID, d.receiver.Name, c.Fingerprint, c.Episode, d.kind, d.number, text,
			n.cfg.Interval.Seconds()); err != nil {
			return fmt.Errorf("enqueuing a notification: %w", err)
		}
	}
	return nil
}

// shownTenants bounds the list of tenants in a notification.
const shownTenants = 10

// document makes what is told to one receiver.
func (n *Notifier) document(c *incidents.Candidate, d notice, tenants []incidents.Tenant, open int64) Notification {
	id, err := uuid.NewV7()
	if err != nil {
		id = uuid.New()
	}
	s := Subject{
		Fingerprint: c.Fingerprint, Systemic: c.Systemic, Stage: c.Stage, Groups: c.Groups, Class: c.Class, Code: c.Code, Message: c.Message,
		State: c.State, Episode: c.Episode, OpenedAt: c.Opened, FirstSeen: c.First, LastSeen: c.Last, Failures: c.Failures, DeadLetters: c.Dead,
		OpenDeadLetters: open, Keys: c.Keys, MoreKeys: c.MoreKeys, Tenants: tenants, Example: c.Example, Owner: c.Owner,
	}
	if len(d.receiver.Tenants) > 0 {
		s.restrict(d.receiver.Tenants)
		if d.kind == Opened || d.kind == Regressed {
			d.why = fmt.Sprintf("%d attempts have failed and %d records were given up, of the tenants of this receiver", s.Failures, s.DeadLetters)
		}
	}
	if more := len(s.Tenants) - shownTenants; more > 0 {
		s.Tenants, s.MoreTenants = s.Tenants[:shownTenants], more
	}
	return Notification{
		ID: id.String(), Kind: d.kind, At: c.Now.UTC(), Severity: c.Severity, Why: d.why, Incident: s,
		Commands: commands(c.Fingerprint, c.Systemic), Link: strings.ReplaceAll(n.cfg.Link, "{fingerprint}", c.Fingerprint),
	}
}

// restrict leaves in s what concerns these tenants: one tenant's receiver is not told of the others.
func (s *Subject) restrict(tenants []string) {
	s.Tenants = slices.DeleteFunc(slices.Clone(s.Tenants), func(t incidents.Tenant) bool { return !slices.Contains(tenants, t.Tenant) })
	s.Failures, s.DeadLetters, s.Keys, s.MoreKeys = 0, 0, 0, false
	for _, t := range s.Tenants {
		s.Failures, s.DeadLetters, s.Keys = s.Failures+t.Failures, s.DeadLetters+t.Dead, s.Keys+t.Keys
	}
	if !slices.Contains(tenants, s.Example.Tenant) {
		s.Example = incidents.Example{}
	}
}
