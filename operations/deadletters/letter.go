package deadletters

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ID says where a dead letter stands. Its text is <topic>/<partition>/<offset>.
type ID struct {
	Topic     string
	Partition int32
	Offset    int64
}

func (id ID) String() string {
	return id.Topic + "/" + strconv.Itoa(int(id.Partition)) + "/" + strconv.FormatInt(id.Offset, 10)
}

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// ParseID undoes String.
func ParseID(s string) (ID, error) {
	bad := fmt.Errorf("%.300q is not the id of a dead letter: write <topic>/<partition>/<offset>, as `leat dlq list` shows it", s)
	parts := strings.Split(s, "/")
	if len(parts) != 3 || parts[0] == "" {
		return ID{}, bad
	}
	p, err1 := strconv.ParseUint(parts[1], 10, 31)
	o, err2 := strconv.ParseUint(parts[2], 10, 63)
	if err1 != nil || err2 != nil {
		return ID{}, bad
	}
	return ID{parts[0], int32(p), int64(o)}, nil
}

func (id ID) compare(b ID) int {
	switch {
	case id.Topic != b.Topic:
		return strings.Compare(id.Topic, b.Topic)
	case id.Partition != b.Partition:
		return int(id.Partition - b.Partition)
	case id.Offset < b.Offset:
		return -1
	case id.Offset > b.Offset:
		return 1
	}
	return 0
}

// State is what has become of a dead letter.
type State string

// The states.
const (
	Open        State = "open"         // nobody has decided
	Redriving   State = "redriving"    // claimed by a redrive that has not moved it yet
	Redriven    State = "redriven"     // handed to its group again
	Resolved    State = "resolved"     // its group has handled it
	FailedAgain State = "failed_again" // it has become another dead letter, its successor
	Discarded   State = "discarded"    // put aside by a person
)

// States are all of them, in the order of a letter's life.
func States() []State { return []State{Open, Redriving, Redriven, Resolved, FailedAgain, Discarded} }

// Format says who wrote a dead letter, and so what its headers mean.
type Format string

// The formats.
const (
	Leat    Format = "leat"    // a stage of ours
	Relay   Format = "relay"   // our relay: a row of an outbox that Kafka refused
	Spring  Format = "spring"  // Spring for Apache Kafka, blocking or with retry topics
	Connect Format = "connect" // a sink connector of Kafka Connect
	Streams Format = "streams" // Kafka Streams
	Unknown Format = "unknown"
)

// Letter is what the index knows of a dead letter. Texts are as the record has them, cut to bounds; times are UTC.
type Letter struct {
	ID       ID        `json:"id"`
	At       time.Time `json:"at"` // when it was given up
	Format   Format    `json:"format"`
	Key      []byte    `json:"key,omitempty"` // of the record, base64 in JSON; nil if it has none
	Tenant   string    `json:"tenant,omitempty"`
	System   string    `json:"system,omitempty"`
	SourceID string    `json:"source_id,omitempty"`
	EventID  string    `json:"event_id,omitempty"`
	Group    string    `json:"group,omitempty"`
	Stage    string    `json:"stage,omitempty"`

	OriginalTopic     string     `json:"original_topic,omitempty"`
	OriginalPartition *int32     `json:"original_partition,omitempty"`
	OriginalOffset    *int64     `json:"original_offset,omitempty"`
	OriginalAt        *time.Time `json:"original_at,omitempty"`

	Class         string     `json:"class,omitempty"`
	Code          string     `json:"code,omitempty"`
	Disposition   string     `json:"disposition,omitempty"`
	Fingerprint   string     `json:"fingerprint,omitempty"`
	Message       string     `json:"message,omitempty"`
	Attempts      int        `json:"attempts,omitempty"`
	FirstFailedAt *time.Time `json:"first_failed_at,omitempty"`
	LastFailedAt  *time.Time `json:"last_failed_at,omitempty"`
	ReplayCount   int        `json:"replay_count"` // how often it was redriven before it became this letter
	ReplayID      string     `json:"replay_id,omitempty"`
	Bytes         int        `json:"bytes"` // of key, value and headers

	State     State     `json:"state"`
	StateAt   time.Time `json:"state_at"`
	Job       string    `json:"job,omitempty"`       // the redrive that has or had it
	Successor *ID       `json:"successor,omitempty"` // of one that failed again
	Owner     string    `json:"owner,omitempty"`
	Note      string    `json:"note,omitempty"`
}

// KeyText is the record's key as people read it, "-" if it has none.
func (l *Letter) KeyText() string {
	if l.Key == nil {
		return "-"
	}
	return strings.Trim(strconv.Quote(string(l.Key)), `"`)
}
