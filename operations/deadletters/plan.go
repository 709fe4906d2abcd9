package deadletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Refusal is a number of selected letters that cannot be redriven, and why.
type Refusal struct {
	Reason  string `json:"reason"`
	Remedy  string `json:"remedy"`
	Letters int64  `json:"letters"`
	Example ID     `json:"example"`
}

// origin is where letters come from: the topic that the record came from and the group that gave it up.
type origin struct{ topic, group string }

// claimable is what a redrive, or its dry run, does with a selection.
type claimable struct {
	where    string // selects the letters that can be redriven, of dead_letters d, dead_letter_notes n and origins g
	args     []any
	refusals []Refusal
}

// fromOrigins joins the retry topics that exist to lettersAndNotes.
const fromOrigins = ` from leat_control.dead_letters d
  join unnest($1::text[], $2::text[], $3::text[]) as g(original_topic, group_name, retry_topic)
    on g.original_topic = d.original_topic and g.group_name = d.group_name
  left join leat_control.dead_letter_notes n
	on n.topic = d.topic and n.partition = d.partition and n."offset" = d."offset" and n.at = d.at where `

// An example is the newest: of the oldest, the topic may no longer have the record.
const groupSelected = `select d.format, d.original_topic, d.group_name, d.state, d.replay_count >= $1, count(*),
  (array_agg(d.topic order by d.at desc))[1], (array_agg(d.partition order by d.at desc))[1], (array_agg(d."offset" order by d.at desc))[1]`

// claimable finds out which of the selected letters can be redriven. Without states, open ones are meant.
func (o *Office) claimable(ctx context.Context, s Selection, force bool) (c claimable, err error) {
	if err := s.Validate(); err != nil {
		return c, err
	}
	if len(s.States) == 0 {
		s.States = []State{Open}
	}
	limit := cmp.Or(o.MaxReplays, 3)
	where, args := s.where([]any{limit})
	rows, err := o.DB.Query(ctx, groupSelected+lettersAndNotes+where+` group by 1, 2, 3, 4, 5 order by 6 desc`, args...)
	if err != nil {
		return c, fmt.Errorf("selecting dead letters: %w", err)
	}
	defer rows.Close()
	groups := map[origin]bool{}
	type selected struct {
		origin
		format  Format
		state   State
		looping bool
		Refusal
	}
	var all []selected
	for rows.Next() {
		var g selected
		err := rows.Scan(&g.format, &g.topic, &g.group, &g.state, &g.looping, &g.Letters, &g.Example.Topic, &g.Example.Partition, &g.Example.Offset)
		if err != nil {
			return c, fmt.Errorf("selecting dead letters: %w", err)
		}
		groups[g.origin] = g.format == Leat
		all = append(all, g)
	}
	if err := rows.Err(); err != nil {
		return c, fmt.Errorf("selecting dead letters: %w", err)
	}
	if len(all) == 0 {
		return c, fmt.Errorf("%w: %s", ErrNothing, cmp.Or(s.String(), "none is open"))
	}
	retry, err := o.retryTopics(ctx, groups)
	if err != nil {
		return c, err
	}
	for _, g := range all {
		if g.refuse(g.origin, g.format, g.state, g.looping && !force, retry[g.origin] == "", limit) {
			c.refusals = append(c.refusals, g.Refusal)
		}
	}
	c.refusals = mergeRefusals(c.refusals)
	var originals, names, retries []string
	for from, topic := range retry {
		originals, names, retries = append(originals, from.topic), append(names, from.group), append(retries, topic)
	}
	c.where, c.args = s.where([]any{originals, names, retries})
	c.where += ` and d.format = 'leat' and d.state = 'open'`
	if !force {
		c.where += fmt.Sprintf(` and d.replay_count < %d`, limit)
	}
	return c, nil
}

// refuse says why letters cannot be redriven; false if they can.
func (r *Refusal) refuse(from origin, format Format, state State, looping, noTopic bool, limit int) bool {
	switch {
	case format == Relay:
		r.Reason = "the relay wrote it: a row of an outbox that Kafka refused, which no group has read"
		r.Remedy = "correct the cause, and let the source write the event again"
	case format != Leat:
		r.Reason = fmt.Sprintf("%s wrote it: its reader is none of Leat's groups", format)
		r.Remedy = "`leat dlq export` it, and send it back with the tool that wrote it"
	case state == Discarded:
		r.Reason, r.Remedy = "it was discarded", "`leat dlq discard --undo` makes it open again"
	case state == FailedAgain:
		r.Reason, r.Remedy = "it failed again: another letter stands for it now", "redrive its successor, which `leat dlq show` names"
	case state != Open:
		r.Reason, r.Remedy = fmt.Sprintf("it is %s", state), "nothing is to be done; `leat dlq show` tells what became of it"
	case noTopic:
		r.Reason = fmt.Sprintf("group %s has no retry topic %s", from.group, topics.Retry(from.topic, from.group))
		r.Remedy = "if there still is such a group, `leat topics apply` makes the topic"
	case looping:
		r.Reason = fmt.Sprintf("it was redriven %d times and failed each time: the cause is not gone", limit)
		r.Remedy = "look with --dry-run whether it would succeed now; --force redrives it all the same"
	default:
		return false
	}
	return true
}

func mergeRefusals(all []Refusal) []Refusal {
	var merged []Refusal
	for _, r := range all {
		i := slices.IndexFunc(merged, func(m Refusal) bool { return m.Reason == r.Reason })
		if i < 0 {
			merged = append(merged, r)
			continue
		}
		merged[i].Letters += r.Letters
	}
	return merged
}

// retryTopics names the retry topic of each origin that is wanted and has one.
func (o *Office) retryTopics(ctx context.Context, from map[origin]bool) (map[origin]string, error) {
	retry := map[origin]string{}
	var names []string
	for g, wanted := range from {
		if wanted && g.topic != "" && g.group != "" {
			names = append(names, topics.Retry(g.topic, g.group))
		}
	}
	if len(names) == 0 {
		return retry, nil
	}
	client, err := kgo.NewClient(o.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	details, err := kadm.NewClient(client).ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("looking for retry topics: %w", err)
	}
	for g := range from {
		if name := topics.Retry(g.topic, g.group); details.Has(name) && details[name].Err == nil {
			retry[g] = name
		}
	}
	return retry, nil
}

// all reports that nothing of the selection can be redriven, with the reasons.
func (c *claimable) nothing() error {
	errs := []error{fmt.Errorf("%w that can be redriven", ErrNothing)}
	for _, r := range c.refusals {
		errs = append(errs, fmt.Errorf("%d letters, such as %s: %s (%s)", r.Letters, r.Example, r.Reason, r.Remedy))
	}
	return errors.Join(errs...)
}
