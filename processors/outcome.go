package processors

import (
	"github.com/leat-io/leat/topics"
)

// Outcome counts the records of one tenant and entity that a committed transaction has settled in one way.
type Outcome struct {
	Tenant  string // nothing if a record does not say, or not in the form of a name
	Entity  string // of the topic that was read
	Outcome string // as of Result, or "dead_letter"
	Detail  string // as of Result; of a dead letter the error's code
	Count   int64
}

// observed counts the outcomes of one partition's work. Mostly a record is of the same kind as the one before it.
type observed struct {
	counts map[outcomeKey]*int64
	last   outcomeKey
	count  *int64 // of last
}

type outcomeKey struct{ tenant, outcome, detail string }

// observe counts a settled record. It costs nothing if nobody wants to know.
func (w *work) observe(msg *Message, outcome, detail string) {
	if w.s.r.cfg.Observe == nil {
		return
	}
	var tenant []byte
	for i := range msg.Headers {
		if msg.Headers[i].Key == topics.HeaderTenant {
			tenant = msg.Headers[i].Value
			break
		}
	}
	o := &w.tally.observed
	if o.count == nil || o.last.tenant != string(tenant) || o.last.outcome != outcome || o.last.detail != detail {
		o.turn(outcomeKey{string(tenant), outcome, detail})
	}
	*o.count++
}

func (o *observed) turn(k outcomeKey) {
	if o.counts == nil {
		o.counts = map[outcomeKey]*int64{}
	}
	if o.counts[k] == nil {
		o.counts[k] = new(int64)
	}
	o.last, o.count = k, o.counts[k]
}

// tell reports what the works of a committed transaction have done.
func (s *session) tell(works []*work) {
	if s.r.cfg.Observe == nil {
		return
	}
	var list []Outcome
	for _, w := range works {
		entity := topics.EntityOf(w.p.topic)
		for k, n := range w.tally.observed.counts {
			tenant := k.tenant
			if !topics.ValidName(tenant) {
				tenant = ""
			}
			list = append(list, Outcome{tenant, entity, k.outcome, k.detail, *n})
		}
	}
	if len(list) > 0 {
		s.r.cfg.Observe(list)
	}
}
