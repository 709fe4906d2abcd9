package trace

import (
	"fmt"
	"slices"
	"strings"
)

// The states of a journey.
const (
	StateWaitingInOutbox = "waiting_in_outbox" // its row has not been delivered, or the index has not read it
	StateWaiting         = "waiting"           // a group has not come to it
	StateParked          = "parked"            // it waits for another attempt
	StateDeadLetter      = "dead_letter"       // a group has given it up, and nobody has decided about it
	StateDiscarded       = "discarded"         // a person has decided against it
	StateEnded           = "ended"             // it was handled, and no finance record came of it
	StatePublished       = "published"         // the target has it
	StateSuperseded      = "superseded"        // the target has a newer version
	StateOnKafka         = "on_kafka"          // it is on finance topics, and no target takes it
	StateUnknown         = "unknown"
)

// judge says where the event is now. What needs a person comes first, then what is farthest behind.
func (j *Journey) judge() {
	for _, rule := range []func() bool{j.isDead, j.isParked, j.isDiscarded, j.isInOutbox, j.isWaiting, j.isEnded, j.isInTarget} {
		if rule() {
			return
		}
	}
	j.is(StateUnknown, "where it is now cannot be said")
	if slices.ContainsFunc(j.Places, onFinance) {
		j.is(StateOnKafka, "it is on finance topics; no target of Leat has it")
	}
}

func (j *Journey) is(state, format string, args ...any) {
	j.State, j.Meaning = state, fmt.Sprintf(format, args...)
}

func onFinance(p Place) bool { return strings.HasPrefix(p.Topic, "finance.") }

func (j *Journey) isDead() bool {
	for _, d := range slices.Backward(j.DeadLetters) {
		if d.State == "open" || d.State == "redriving" {
			j.is(StateDeadLetter, "group %s has given it up (%s): `leat dlq show %s/%d/%d`", d.Group, d.State, d.Topic, d.Partition, d.Offset)
			return true
		}
	}
	// The dead letters may be read later than the attempts, or not at all.
	if n := len(j.Attempts); len(j.DeadLetters) == 0 && n > 0 && j.Attempts[n-1].Disposition != "retry" {
		a := j.Attempts[n-1]
		j.is(StateDeadLetter, "%s has given it up", orUnknown(a.Group, a.Stage))
		return true
	}
	return false
}

func orUnknown(names ...string) string {
	for _, n := range names {
		if n != "" {
			return n
		}
	}
	return "unknown"
}

func (j *Journey) isParked() bool {
	for _, a := range slices.Backward(j.Attempts) {
		if a.Disposition == "retry" {
			if a.SettledAt == nil {
				j.is(StateParked, "group %s tries it again after attempt %d failed: %s", a.Group, a.Attempt, a.Message)
			}
			return a.SettledAt == nil
		}
	}
	return false
}

func (j *Journey) isDiscarded() bool {
	n := len(j.DeadLetters)
	if n == 0 || j.DeadLetters[n-1].State != "discarded" {
		return false
	}
	d := j.DeadLetters[n-1]
	j.is(StateDiscarded, "its dead letter was discarded: `leat dlq show %s/%d/%d`", d.Topic, d.Partition, d.Offset)
	return true
}

func (j *Journey) isInOutbox() bool {
	if len(j.Places) > 0 || !j.Outbox.Found || len(j.Attempts) > 0 {
		return false
	}
	j.is(StateWaitingInOutbox, "its row is not on Kafka yet, or the index has not read it: `leat relay status`, `leat index status`")
	return true
}

// isWaiting looks at the newest place on each topic: older ones are of a replay.
func (j *Journey) isWaiting() bool {
	newest := map[string]Place{}
	for _, p := range j.Places {
		newest[p.Topic+" "+p.EventID] = p
	}
	for _, p := range j.Places {
		if newest[p.Topic+" "+p.EventID].Offset != p.Offset || p.Former {
			continue
		}
		for _, g := range p.Groups {
			switch {
			case g.Committed < 0:
				j.is(StateWaiting, "group %s has never come to %s/%d: it does not run, or has nothing to do with this topic", g.Group, p.Topic, p.Partition)
				return true
			case !g.Past:
				j.is(StateWaiting, "group %s has not come to %s/%d at %d", g.Group, p.Topic, p.Partition, p.Offset)
				return true
			}
		}
	}
	return false
}

func (j *Journey) isEnded() bool {
	if i := sourcePlace(j.Places); i < 0 || len(j.Places[i].Groups) == 0 || slices.ContainsFunc(j.Places, onFinance) {
		return false
	}
	j.is(StateEnded, "it was handled, and no finance record came of it: the mapping filters it, or there is none")
	return true
}

func (j *Journey) isInTarget() bool {
	if len(j.Links) == 0 {
		return false
	}
	newer := 0
	for _, l := range j.Links {
		switch l.Compared {
		case "older":
			return false
		case "newer":
			newer++
		}
	}
	if newer == len(j.Links) {
		j.is(StateSuperseded, "the target has a newer version")
		return true
	}
	j.is(StatePublished, "the target has it")
	if i := sourcePlace(j.Places); i >= 0 {
		last := j.Links[0].PublishedAt
		for _, l := range j.Links {
			if l.Compared == "this" && l.PublishedAt.After(last) {
				last = l.PublishedAt
			}
		}
		took := last.Sub(j.Places[i].ChangedAt).Seconds()
		j.Took = &took
	}
	return true
}
