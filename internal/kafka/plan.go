package kafka

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Action is what a Change does.
type Action string

// The actions.
const (
	Create     Action = "create"
	SetConfig  Action = "config"
	Partitions Action = "partitions"
	Refused    Action = "refused" // never applied; Remedy says what to do
)

// Change is one difference between the catalogue and the cluster.
type Change struct {
	Topic   string        `json:"topic"`
	Action  Action        `json:"action"`
	Setting string        `json:"setting,omitempty"` // partitions, replication, or a topic setting of Kafka
	From    string        `json:"from,omitempty"`
	To      string        `json:"to,omitempty"`
	Note    string        `json:"note,omitempty"`   // what it brings with it, or why it is refused
	Remedy  string        `json:"remedy,omitempty"` // of a refused change
	Create  *topics.Topic `json:"create,omitempty"` // of Create
}

// Plan is how a cluster differs from a catalogue.
type Plan struct {
	Changes []Change `json:"changes"` // by topic
	// Unknown lists topics of the cluster with our prefixes that the catalogue does not have. They are never touched.
	Unknown []string `json:"not_in_catalogue"`

	catalogue []topics.Topic
}

// Empty reports whether there is nothing to apply and nothing refused.
func (p Plan) Empty() bool { return len(p.Changes) == 0 }

// Refused lists the changes that Apply leaves out.
func (p Plan) Refused() []Change {
	var refused []Change
	for _, c := range p.Changes {
		if c.Action == Refused {
			refused = append(refused, c)
		}
	}
	return refused
}

// ReadPlan compares the cluster that cl talks to with the catalogue. It changes nothing. Where the partition count of a
// topic is to change, it reads the topic's retry topics, to see whether keys are parked; for that it makes a short-lived
// client with the options of cl, which must not be in a consumer group or transactional.
func ReadPlan(ctx context.Context, cl *kgo.Client, catalogue []topics.Topic) (Plan, error) {
	adm := kadm.NewClient(cl)
	// Asking for authorized operations makes kadm go to a broker: else it answers from a cache that may be seconds old,
	// and a plan would miss what was changed just before.
	details, err := adm.ListTopics(kadm.WithAuthorizedOps(ctx))
	if err != nil {
		return Plan{}, fmt.Errorf("listing topics: %w", err)
	}
	r := planner{cl: cl, details: details, plan: Plan{catalogue: catalogue, Changes: []Change{}, Unknown: []string{}}}
	if err := r.readConfigs(ctx, adm); err != nil {
		return Plan{}, err
	}
	for _, want := range catalogue {
		if err := r.topic(ctx, want); err != nil {
			return Plan{}, err
		}
	}
	r.unknown()
	slices.SortStableFunc(r.plan.Changes, func(a, b Change) int { return cmp.Compare(a.Topic, b.Topic) })
	return r.plan, nil
}

type planner struct {
	cl      *kgo.Client
	details kadm.TopicDetails
	configs map[string]map[string]string // topic, setting
	parked  map[string]int               // retry topic to live records, as far as looked
	plan    Plan
}

func (r *planner) add(c Change) { r.plan.Changes = append(r.plan.Changes, c) }

func (r *planner) exists(topic string) bool {
	d, ok := r.details[topic]
	return ok && d.Err == nil
}

func (r *planner) readConfigs(ctx context.Context, adm *kadm.Client) error {
	var names []string
	for _, t := range r.plan.catalogue {
		if d, ok := r.details[t.Name]; ok && d.Err != nil {
			return fmt.Errorf("listing topic %s: %w", t.Name, d.Err)
		}
		if r.exists(t.Name) {
			names = append(names, t.Name)
		}
	}
	r.configs = map[string]map[string]string{}
	described, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("reading topic settings: %w", err)
	}
	for _, d := range described {
		if d.Err != nil {
			return fmt.Errorf("reading settings of topic %s: %w", d.Name, d.Err)
		}
		settings := map[string]string{}
		for _, c := range d.Configs {
			settings[c.Key] = c.MaybeValue()
		}
		r.configs[d.Name] = settings
	}
	return nil
}

func (r *planner) topic(ctx context.Context, want topics.Topic) error {
	if !r.exists(want.Name) {
		r.add(Change{
			Topic: want.Name, Action: Create, Create: &want,
			To: fmt.Sprintf("%d partitions, %s", want.Partitions, replicas(want.Replication)),
		})
		return nil
	}
	have := r.details[want.Name].Partitions
	if err := r.partitions(ctx, want, int32(len(have))); err != nil {
		return err
	}
	replication := int16(have.NumReplicas())
	same := want.Replication < 0 || replication == want.Replication
	if !same {
		r.add(Change{
			Topic: want.Name, Action: Refused, Setting: "replication",
			From: strconv.Itoa(int(replication)), To: strconv.Itoa(int(want.Replication)),
			Note:   "moving replicas loads the brokers",
			Remedy: "change it with kafka-reassign-partitions.sh at a time of your choice, or set replication to what the topic has",
		})
	}
	for _, key := range slices.Sorted(maps.Keys(want.Config)) {
		// Without the replicas for it, a higher minimum would stop every writer.
		if from, to := r.configs[want.Name][key], want.Config[key]; from != to && (same || key != "min.insync.replicas") {
			r.add(Change{Topic: want.Name, Action: SetConfig, Setting: key, From: from, To: to, Note: loses(key, from, to)})
		}
	}
	return nil
}

func replicas(n int16) string {
	if n < 0 {
		return "the broker's default of replicas"
	}
	return fmt.Sprintf("%d replicas", n)
}

// loses warns of settings that make Kafka delete records.
func loses(key, from, to string) string {
	switch key {
	case "retention.ms", "retention.bytes":
		f, err1 := strconv.ParseInt(from, 10, 64)
		t, err2 := strconv.ParseInt(to, 10, 64)
		if err1 == nil && err2 == nil && t >= 0 && (f < 0 || t < f) {
			return "shortens retention: older records are deleted"
		}
	case "cleanup.policy":
		return "records are deleted by another rule than before"
	}
	return ""
}

// partitions plans a change of the partition count, which moves keys to other partitions.
func (r *planner) partitions(ctx context.Context, want topics.Topic, have int32) error {
	if have == want.Partitions {
		return nil
	}
	c := Change{
		Topic: want.Name, Action: Partitions, Setting: "partitions",
		From: strconv.Itoa(int(have)), To: strconv.Itoa(int(want.Partitions)),
		Note: "keys move to other partitions: order of a key holds only if its readers have caught up before",
	}
	refuse := func(note, remedy string) { c.Action, c.Note, c.Remedy = Refused, note, remedy }
	switch {
	case want.Name == topics.Cursors:
		refuse("a source's cursor lives in a fixed partition",
			"leave the count; if the topic was made by hand, and no relay ever ran, delete it")
	case have > want.Partitions:
		refuse("Kafka cannot take partitions away", "set partitions to at least "+c.From)
	default:
		for _, retry := range r.retryTopics(served(want.Name)) {
			n, err := r.parkedIn(ctx, retry)
			if err != nil {
				return err
			}
			if n > 0 {
				refuse(fmt.Sprintf("%d records are parked in %s, which holds them by partition", n, retry),
					"let them be retried, redriven or discarded, then plan again")
				break
			}
		}
	}
	r.add(c)
	return nil
}

// served returns the topic that a retry or dead-letter topic serves, or the topic itself.
func served(topic string) string {
	for _, suffix := range [...]string{".retry", ".dlq"} {
		if rest, ok := strings.CutSuffix(topic, suffix); ok && topic != topics.RelayDLQ {
			if i := strings.LastIndexByte(rest, '.'); i > 0 {
				return rest[:i]
			}
		}
	}
	return topic
}

// retryTopics lists the retry topics of topic on the cluster, also those of groups that the catalogue does not know.
func (r *planner) retryTopics(topic string) []string {
	var found []string
	for _, name := range r.details.Names() {
		if strings.HasSuffix(name, ".retry") && served(name) == topic && r.exists(name) {
			found = append(found, name)
		}
	}
	return found
}

func (r *planner) parkedIn(ctx context.Context, retry string) (int, error) {
	if n, ok := r.parked[retry]; ok {
		return n, nil
	}
	n, err := liveRecords(ctx, r.cl, retry)
	if err != nil {
		return 0, fmt.Errorf("reading parked records of %s: %w", retry, err)
	}
	if r.parked == nil {
		r.parked = map[string]int{}
	}
	r.parked[retry] = n
	return n, nil
}

func (r *planner) unknown() {
	ours := map[string]bool{}
	for _, t := range r.plan.catalogue {
		ours[t.Name] = true
	}
	for _, name := range r.details.Names() {
		prefix, _, _ := strings.Cut(name, ".")
		if !ours[name] && (prefix == "source" || prefix == "finance" || prefix == "leat") {
			r.plan.Unknown = append(r.plan.Unknown, name)
		}
	}
}
