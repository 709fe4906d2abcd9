package topics

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits and fixed settings of the catalogue.
const (
	// MaxNameLength is Kafka's limit for a topic's name.
	MaxNameLength = 249
	// CursorPartitions is the partition count of Cursors. It never changes: a source's cursor lives in the partition that a
	// hash of its name modulo this count gives.
	CursorPartitions = 16
	// FailureHeadroom is by how much more retry and dead-letter topics accept than the topics they serve, so that a record
	// always fits together with its failure headers.
	FailureHeadroom = 64 << 10
	// DefaultMaxMessageBytes is the default of Spec.MaxMessageBytes.
	DefaultMaxMessageBytes = 1 << 20
	// DefaultSourceRetention is the default of Spec.SourceRetention.
	DefaultSourceRetention = 90 * 24 * time.Hour
)

// Topic is one topic as it should be on a cluster.
type Topic struct {
	Name        string            `json:"name"`
	Partitions  int32             `json:"partitions"`
	Replication int16             `json:"replication"` // -1 is the broker's default
	Config      map[string]string `json:"config"`      // Kafka's own names; what is not listed is not ours to set
}

// Spec says which systems and groups there are. Zero values mean the default.
type Spec struct {
	Sources []SourceSpec
	Groups  []GroupSpec

	Partitions      int32         // of source and finance topics; default 8
	Replication     int16         // default 1, which survives no broker: production wants 3; -1 is the broker's default
	SourceRetention time.Duration // of source topics by record time; default 90 days, negative is unlimited
	MaxMessageBytes int           // of source and finance topics, as Kafka counts a batch; default 1 MiB
}

// SourceSpec is one source system and the entities it emits.
type SourceSpec struct {
	System    string
	Entities  []string
	Retention time.Duration // of its topics; default Spec.SourceRetention
}

// GroupSpec is one consumer group of ours and the topics it reads: each gets a retry and a dead-letter topic.
type GroupSpec struct {
	Group string
	Reads []string // names of source or finance topics of the catalogue
}

// Catalogue lists every topic that an installation needs, by name: source topics, a finance topic for each contract, retry
// and dead-letter topics, the relay's cursors and dead letters. The error joins every problem of the spec.
func Catalogue(spec Spec) ([]Topic, error) {
	b := builder{Spec: spec, errs: spec.validate()}
	b.Partitions = cmp.Or(spec.Partitions, 8)
	b.Replication = cmp.Or(spec.Replication, 1)
	b.SourceRetention = cmp.Or(spec.SourceRetention, DefaultSourceRetention)
	b.MaxMessageBytes = cmp.Or(spec.MaxMessageBytes, DefaultMaxMessageBytes)

	for _, s := range spec.Sources {
		retention := "-1"
		if d := cmp.Or(s.Retention, b.SourceRetention); d > 0 {
			retention = strconv.FormatInt(d.Milliseconds(), 10)
		}
		for _, entity := range s.Entities {
			b.add(Source(s.System, entity), b.Partitions, b.MaxMessageBytes, kept(retention))
		}
	}
	for _, entity := range Entities() {
		b.add(Finance(entity, 1), b.Partitions, b.MaxMessageBytes, kept("-1"))
	}
	read := len(b.topics) // groups read what stands before
	for _, g := range spec.Groups {
		for _, topic := range g.Reads {
			if !slices.ContainsFunc(b.topics[:read], func(t Topic) bool { return t.Name == topic }) {
				b.bad("group %s reads %.300q, which is not a source or finance topic of the catalogue", g.Group, topic)
				continue
			}
			b.add(Retry(topic, g.Group), b.Partitions, b.MaxMessageBytes+FailureHeadroom, changelog())
			b.add(DLQ(topic, g.Group), b.Partitions, b.MaxMessageBytes+FailureHeadroom, kept("-1"))
		}
	}
	b.add(Cursors, CursorPartitions, DefaultMaxMessageBytes, changelog())
	b.add(RelayDLQ, b.Partitions, b.MaxMessageBytes+FailureHeadroom, kept("-1"))
	b.collisions()
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	slices.SortFunc(b.topics, func(x, y Topic) int { return cmp.Compare(x.Name, y.Name) })
	return b.topics, nil
}

func (s Spec) validate() (errs []error) {
	name := func(what, v string) {
		if !ValidName(v) {
			errs = append(errs, fmt.Errorf("%s %.80q: want 1 to 63 lower-case letters, digits, '-' and '_'", what, v))
		}
	}
	for _, src := range s.Sources {
		name("system", src.System)
		for _, e := range src.Entities {
			name("entity of system "+src.System, e)
		}
		if len(src.Entities) == 0 {
			errs = append(errs, fmt.Errorf("system %s: no entities", src.System))
		}
	}
	for _, g := range s.Groups {
		name("group", g.Group)
	}
	if s.Partitions < 0 {
		errs = append(errs, fmt.Errorf("partitions: %d is negative", s.Partitions))
	}
	if s.Replication < -1 {
		errs = append(errs, fmt.Errorf("replication: %d, want a number of replicas, or -1 for the broker's default", s.Replication))
	}
	if m := s.MaxMessageBytes; m != 0 && (m < 1<<10 || m > 512<<20) {
		errs = append(errs, fmt.Errorf("max message bytes: %d, want 1 KiB to 512 MiB", m))
	}
	retention := func(of string, d time.Duration) {
		if d > 0 && d < time.Hour {
			errs = append(errs, fmt.Errorf("source retention%s: %s, want at least an hour", of, d))
		}
	}
	retention("", s.SourceRetention)
	for _, src := range s.Sources {
		retention(" of system "+src.System, src.Retention)
	}
	return errs
}

type builder struct {
	Spec
	topics []Topic
	errs   []error
}

func (b *builder) bad(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

func (b *builder) add(name string, partitions int32, maxBytes int, config map[string]string) {
	if len(name) > MaxNameLength {
		b.bad("topic %s: its name has %d characters, Kafka allows %d", name, len(name), MaxNameLength)
	}
	config["max.message.bytes"] = strconv.Itoa(maxBytes)
	config["message.timestamp.type"] = "CreateTime" // the time in the record is the writer's: retention and lag count from it
	if b.Replication > 0 {
		// One replica may be away: with 3, two must have a record before it is acknowledged.
		config["min.insync.replicas"] = strconv.Itoa(max(1, int(b.Replication)-1))
	}
	b.topics = append(b.topics, Topic{name, partitions, b.Replication, config})
}

// collisions finds names that Kafka refuses beside each other: in its metrics '.' and '_' are the same character.
func (b *builder) collisions() {
	seen := map[string]string{}
	for _, t := range b.topics {
		flat := strings.ReplaceAll(t.Name, ".", "_")
		switch other, ok := seen[flat]; {
		case ok && other == t.Name:
			b.bad("topic %s occurs twice", t.Name)
		case ok:
			b.bad("topics %s and %s differ only in '.' and '_': Kafka refuses the second", other, t.Name)
		default:
			seen[flat] = t.Name
		}
	}
}

// kept are the settings of a topic that keeps every record for a time (-1: for ever).
func kept(retentionMS string) map[string]string {
	return map[string]string{"cleanup.policy": "delete", "retention.ms": retentionMS, "retention.bytes": "-1"}
}

// changelog are the settings of a compacted topic that is read from its beginning whenever a partition is taken over: small
// segments that are cleaned early keep that reading short. A tombstone outlives a day, longer than any such reading takes.
func changelog() map[string]string {
	return map[string]string{
		"cleanup.policy":            "compact",
		"segment.bytes":             strconv.Itoa(16 << 20),
		"segment.ms":                strconv.FormatInt((10 * time.Minute).Milliseconds(), 10),
		"min.cleanable.dirty.ratio": "0.1",
		"max.compaction.lag.ms":     strconv.FormatInt(time.Hour.Milliseconds(), 10),
		"delete.retention.ms":       strconv.FormatInt((24 * time.Hour).Milliseconds(), 10),
	}
}
