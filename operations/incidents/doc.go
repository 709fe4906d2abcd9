// Package incidents turns failures into patterns: all failures with one fingerprint (topics.Fingerprint) are one incident, with when
// it began, how often it happens, whom it hits, and a state that people and rules move.
//
// The facts are a projection of the failure headers on retry and dead-letter topics (Projection), which the index keeps. What was
// decided about them is the standing, which no rebuild touches. Policy.Next moves it:
//
//	new         the first episode has begun
//	ongoing     it has lasted for Policy.OngoingAfter
//	escalating  more failures in this hour than EscalationFactor times what is usual, and than EscalationFloor
//	resolved    by a person, or after Policy.Quiet without a failure
//	regressed   it has failed again after it was resolved: the next episode
//	muted       by a person: until a time, until it escalates, or for good
//
//	(first failure) → new → ongoing ⇄ escalating
//	new, ongoing, escalating, regressed → resolved → regressed → ongoing
//	new, ongoing, escalating, regressed, resolved ⇄ muted
//
// It sends nothing: package notify tells people, and moves the standings in the same transaction. It decides nothing about records;
// those wait on their topics whatever the incident's state is.
package incidents

import (
	"errors"
	"time"
)

// State is where an incident stands.
type State string

// The states.
const (
	New        State = "new"
	Ongoing    State = "ongoing"
	Escalating State = "escalating"
	Regressed  State = "regressed"
	Resolved   State = "resolved"
	Muted      State = "muted"
)

// States are all of them, in the order in which they deserve attention.
func States() []State { return []State{Escalating, Regressed, New, Ongoing, Muted, Resolved} }

// Severity says how bad an episode is. It never falls within one.
type Severity string

// The severities.
const (
	Warning  Severity = "warning"  // attempts have failed and will be made again
	Error    Severity = "error"    // records were given up
	Critical Severity = "critical" // it escalates, or a target is down
)

// Rank orders severities: a higher one is worse. It is 0 for anything else.
func (s Severity) Rank() int {
	switch s {
	case Warning:
		return 1
	case Error:
		return 2
	case Critical:
		return 3
	}
	return 0
}

// ErrNotFound is returned for a fingerprint that no failure has.
var ErrNotFound = errors.New("there is no such incident; `leat incidents list --all` shows all of them")

// Facts are what the topics say about an incident.
type Facts struct {
	Fingerprint string    `json:"fingerprint"`
	Systemic    bool      `json:"systemic"` // not records failed, but a target or a dependency is down
	Stage       string    `json:"stage"`
	Groups      []string  `json:"groups"`
	Class       string    `json:"class"`
	Code        string    `json:"code"`
	Message     string    `json:"message"` // parameterized: no value of any record
	First       time.Time `json:"first_seen"`
	Last        time.Time `json:"last_seen"`
	Failures    int64     `json:"failures"`     // attempts that failed
	Dead        int64     `json:"dead_letters"` // records that were given up
	Keys        int64     `json:"keys"`         // distinct keys hit
	MoreKeys    bool      `json:"more_keys"`    // there are more than Keys
	Example     Example   `json:"example"`
	Hours       []Hour    `json:"hours"` // those of the last days that have failures, oldest first
}

// Example is where the last failed record was read first.
type Example struct {
	Event     string `json:"event_id,omitempty"`
	Tenant    string `json:"tenant,omitempty"`
	Topic     string `json:"topic,omitempty"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Hour counts the failures of one hour.
type Hour struct {
	Hour     time.Time `json:"hour"`
	Failures int64     `json:"failures"`
	Dead     int64     `json:"dead_letters"`
}

// Tenant counts the failures of one tenant.
type Tenant struct {
	Tenant   string    `json:"tenant"`
	Failures int64     `json:"failures"`
	Dead     int64     `json:"dead_letters"`
	Keys     int64     `json:"keys"`
	Last     time.Time `json:"last_seen"`
}

// Standing is what was decided about an incident. The zero value belongs to one that nobody has looked at yet.
type Standing struct {
	State       State     `json:"state"`
	Since       time.Time `json:"since"` // of the state
	Why         string    `json:"why"`   // the rule that moved it, with its numbers, or the person's reason
	Episode     int       `json:"episode"`
	Opened      time.Time `json:"opened_at"`   // of the episode
	Escalations int       `json:"escalations"` // of the episode
	Severity    Severity  `json:"severity"`    // the worst of the episode

	ResolvedAt   time.Time `json:"resolved_at,omitzero"` // a failure after it is a regression
	BaseFailures int64     `json:"-"`                    // failures at the end of the episode before
	BaseDead     int64     `json:"-"`
	Seen         time.Time `json:"-"` // the last failure that was known at the last look

	MutedUntil           time.Time `json:"muted_until,omitzero"`
	MutedUntilEscalating bool      `json:"muted_until_escalating,omitempty"`

	Owner string `json:"owner,omitempty"`
	Note  string `json:"note,omitempty"`

	version int64
	told    bool
}

// Incident is both.
type Incident struct {
	Facts
	Standing
	NotifyFailed bool `json:"notify_failed"` // a notification of this episode could not be delivered
}
