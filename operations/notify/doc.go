// Package notify tells people about incidents: one message when an incident opens, escalates, comes back or closes, to each receiver
// that wants to hear of it.
//
// A Notifier looks at the incidents every few seconds, moves them by the rules (incidents.Policy), and puts what is to be told into an
// outbox in the same database transaction. From there each receiver is served in order, a message at a time, by whichever
// notifier holds its lock: any number may run. A row is sent while it is locked and marked in the same transaction, so it is sent
// at least once, with an id that stays the same; it comes twice only if the notifier dies between the receiver's answer and its own
// commit. What a receiver does not take is tried again with a growing pause, and in the end given up visibly: in the log, in
// leat_notify_failed_total and in the incident.
//
// A receiver gets at most so many messages a minute. When more is waiting, all of it goes into one digest, so that a storm is no
// flood; nothing is left out.
//
// Addresses of receivers are secrets: no log, no error and no answer that is shown has them. The package needs only the control
// database, so it tells of a Kafka that is down too.
package notify

import (
	"time"

	"github.com/leat-io/leat/operations/incidents"
)

// Schema names the form of a Message. A later form that is not a superset gets another name.
const Schema = "leat.notification/1"

// Kind says what has happened to an incident.
type Kind string

// The kinds.
const (
	Opened    Kind = "opened"
	Escalated Kind = "escalated"
	Regressed Kind = "regressed" // it has come back after it was resolved
	Closed    Kind = "closed"
	Test      Kind = "test" // a person tries the receiver out
)

// Message is what a receiver gets: one notification, or a digest of several. Receivers of kind webhook get it as JSON.
type Message struct {
	Schema        string         `json:"schema"` // Schema
	ID            string         `json:"id"`     // of the notification; of a digest, its own
	Digest        bool           `json:"digest"`
	Notifications []Notification `json:"notifications"`
}

// Notification is one thing that has happened.
type Notification struct {
	ID       string             `json:"id"` // the same each time it is sent
	Kind     Kind               `json:"kind"`
	At       time.Time          `json:"at"`
	Severity incidents.Severity `json:"severity"`
	Why      string             `json:"why"` // the rule that fired, with its numbers
	Incident Subject            `json:"incident"`
	Commands []string           `json:"commands"` // that show more
	Link     string             `json:"link,omitempty"`
}

// Subject is the incident as it stood when the notification was made. Of a receiver that is only for some tenants, it holds
// their numbers and names only.
type Subject struct {
	Fingerprint     string             `json:"fingerprint"`
	Systemic        bool               `json:"systemic"`
	Stage           string             `json:"stage"`
	Groups          []string           `json:"groups"`
	Class           string             `json:"class"`
	Code            string             `json:"code"`
	Message         string             `json:"message"` // no value of any record
	State           incidents.State    `json:"state"`
	Episode         int                `json:"episode"`
	OpenedAt        time.Time          `json:"opened_at"`
	FirstSeen       time.Time          `json:"first_seen"`
	LastSeen        time.Time          `json:"last_seen"`
	Failures        int64              `json:"failures"`
	DeadLetters     int64              `json:"dead_letters"`
	OpenDeadLetters int64              `json:"open_dead_letters"` // of all tenants, that nobody has decided about
	Keys            int64              `json:"keys"`
	MoreKeys        bool               `json:"more_keys"`
	Tenants         []incidents.Tenant `json:"tenants"` // those hit most, up to 10
	MoreTenants     int                `json:"more_tenants"`
	Example         incidents.Example  `json:"example"`
	Owner           string             `json:"owner,omitempty"`
}
