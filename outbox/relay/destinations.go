package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// destination is the topic of one entity and what the cluster says about it.
type destination struct {
	entity     string
	topic      string
	typeUpsert []byte // values of ce_type
	typeDelete []byte

	expected bool // the configuration names it: if the topic is missing, that is to be waited out
	valid    bool // can be a topic of ours at all
	exists   bool
	maxBytes int // max.message.bytes
	checked  time.Time
}

// destinations are the topics of one source. Its owner's reader uses them, the clients ask for limits.
type destinations struct {
	system string
	closed bool // only expected entities have a topic
	admin  *kadm.Client
	byName map[string]*destination
	dlq    *destination
	cursor *destination

	mu     sync.Mutex
	limits map[string]int // what a client was told
}

// Errors of destinations.
var (
	errTopicMissing  = errors.New("topic is missing")
	errLimitsChanged = errors.New("limits of a topic have changed")
	errPayloadCut    = errors.New("payload was not read, but its topic takes it")
)

// recheck is how old a bad answer about a topic must be before it is asked for again.
const recheck = 2 * time.Second

func newDestinations(system string, entities []string, admin *kadm.Client) *destinations {
	d := &destinations{
		system: system, closed: len(entities) > 0, admin: admin, byName: map[string]*destination{}, limits: map[string]int{},
		dlq:    &destination{topic: topics.RelayDLQ, expected: true, valid: true},
		cursor: &destination{topic: topics.Cursors, expected: true, valid: true},
	}
	for _, e := range entities {
		d.of([]byte(e)).expected = true
	}
	return d
}

// of returns the destination of an entity. It does not ask the cluster.
func (d *destinations) of(entity []byte) *destination {
	if t, ok := d.byName[string(entity)]; ok {
		return t
	}
	if len(d.byName) > 10_000 { // entities are a handful; what a broken writer makes up is not kept for ever
		maps.DeleteFunc(d.byName, func(_ string, t *destination) bool { return !t.expected })
	}
	name := string(entity)
	kind := topics.SourceKind(name)
	t := &destination{
		entity: name, topic: topics.Source(d.system, name), valid: topics.ValidName(name),
		typeUpsert: []byte(kind + "." + string(topics.Upsert)), typeDelete: []byte(kind + "." + string(topics.Delete)),
	}
	d.byName[name] = t
	return t
}

// open asks for every topic that is known beforehand. The error wraps errTopicMissing if one is missing.
func (d *destinations) open(ctx context.Context) error {
	all := append(slices.Collect(maps.Values(d.byName)), d.dlq, d.cursor)
	if err := d.refresh(ctx, slices.DeleteFunc(all, func(t *destination) bool { return !t.valid })); err != nil {
		return err
	}
	return d.missing(all)
}

func (d *destinations) missing(all []*destination) error {
	var names []string
	for _, t := range all {
		if t.expected && !t.exists {
			names = append(names, t.topic)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("%w: %s; create it with: leat topics apply", errTopicMissing, strings.Join(names, ", "))
}

// largest is the largest limit of any topic that is known.
func (d *destinations) largest() int {
	n := max(d.dlq.maxBytes, topics.DefaultMaxMessageBytes)
	for _, t := range d.byName {
		n = max(n, t.maxBytes)
	}
	return n
}

// limit tells a client how large a batch of topic may be.
func (d *destinations) limit(topic string) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int32(min(max(cmp.Or(d.limits[topic], 1_000_000), 512), 1<<30))
}

// refresh asks the cluster about ts. It returns errLimitsChanged if the clients work with other limits than the cluster.
func (d *destinations) refresh(ctx context.Context, ts []*destination) error {
	if len(ts) == 0 {
		return nil
	}
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = t.topic
	}
	listed, err := d.admin.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("listing destination topics: %w", err)
	}
	var there []string
	for _, t := range ts {
		err := listed[t.topic].Err
		if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.InvalidTopicException) {
			return fmt.Errorf("looking at topic %s: %w", t.topic, err)
		}
		t.exists = listed.Has(t.topic) && err == nil
		if t.exists {
			there = append(there, t.topic)
		}
	}
	limits, err := d.maxMessageBytes(ctx, there)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := false
	for _, t := range ts {
		t.checked, t.maxBytes = time.Now(), limits[t.topic]
		if !t.exists {
			continue
		}
		old, told := d.limits[t.topic]
		changed = changed || told && old != t.maxBytes
		d.limits[t.topic] = t.maxBytes
	}
	if changed {
		return errLimitsChanged
	}
	return nil
}

func (d *destinations) maxMessageBytes(ctx context.Context, names []string) (map[string]int, error) {
	limits := map[string]int{}
	if len(names) == 0 {
		return limits, nil
	}
	configs, err := d.admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("reading limits of destination topics: %w", err)
	}
	for _, c := range configs {
		if c.Err != nil {
			return nil, fmt.Errorf("reading limits of topic %s: %w", c.Name, c.Err)
		}
		limits[c.Name] = 1_000_000
		for _, entry := range c.Configs {
			if n, err := strconv.Atoi(entry.MaybeValue()); entry.Key == "max.message.bytes" && err == nil {
				limits[c.Name] = n
			}
		}
	}
	return limits, nil
}

// settle decides for every row of b whether its topic takes it, and turns those that it does not take into dead letters.
// The cluster is asked about topics seen for the first time, and again before a row is refused for what was heard earlier.
func (d *destinations) settle(ctx context.Context, b *batch) error {
	var ask []*destination
	for i := range b.rows {
		if r := &b.rows[i]; r.refused == nil && d.doubtful(r, &b.recs[i]) && !slices.Contains(ask, r.dest) {
			ask = append(ask, r.dest)
		}
	}
	if err := d.refresh(ctx, ask); err != nil {
		return err
	}
	for i := range b.rows {
		r := &b.rows[i]
		if err := d.judge(r, &b.recs[i]); err != nil {
			return err
		}
		if r.refused != nil {
			bury(b, i, d.dlq.maxBytes)
		}
	}
	return nil
}

// doubtful reports whether the cluster must be asked before r is judged.
func (d *destinations) doubtful(r *row, rec *kgo.Record) bool {
	t := r.dest
	switch {
	case !t.valid || (d.closed && !t.expected):
		return false
	case t.checked.IsZero():
		return true
	default:
		return (!t.exists || tooLarge(r, rec)) && time.Since(t.checked) > recheck
	}
}

// judge refuses r if its topic does not take it. The error says why it cannot be judged now.
func (d *destinations) judge(r *row, rec *kgo.Record) error {
	t := r.dest
	switch {
	case r.refused != nil:
	case !t.valid:
		r.refuse(codeUnknownEntity, "entity %.80q is not a valid name", t.entity)
	case d.closed && !t.expected:
		r.refuse(codeUnknownEntity, "entity %s is not one of the source's entities", t.entity)
	case !t.exists && t.expected:
		return d.missing([]*destination{t})
	case !t.exists:
		r.refuse(codeUnknownEntity, "topic %s does not exist", t.topic)
	case r.cut && t.maxBytes > r.payloadSize:
		return errPayloadCut
	case tooLarge(r, rec):
		r.refuse(codeTooLarge, "the payload has %d bytes, topic %s takes records of up to %d bytes in all",
			r.payloadSize, t.topic, t.maxBytes)
	}
	return nil
}

func tooLarge(r *row, rec *kgo.Record) bool {
	return r.cut || r.bound > r.dest.maxBytes && wireSize(rec) > r.dest.maxBytes
}
