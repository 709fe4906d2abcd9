package deadletters

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// DryRun says what a redrive of now would come to.
type DryRun struct {
	Letters     int64         `json:"letters"` // that were tried
	Succeed     int64         `json:"succeed"`
	Fail        int64         `json:"fail"`
	Missing     int64         `json:"missing"`  // whose record the topic no longer has
	Outcomes    []TriedGroup  `json:"outcomes"` // of those that succeed
	Failures    []TriedFailed `json:"failures"`
	NotRedriven []Refusal     `json:"not_redriven"` // selected, but a redrive would leave them
	Notes       []string      `json:"notes"`
}

// TriedGroup counts letters that would succeed by what would become of them.
type TriedGroup struct {
	Group   string      `json:"group"`
	Outcome string      `json:"outcome"`
	Letters int64       `json:"letters"`
	Then    []TriedThen `json:"then,omitempty"` // what would become of the outputs in the next stage
}

// TriedThen counts outputs by what the next stage would do with them.
type TriedThen struct {
	Outcome string `json:"outcome"`
	Records int64  `json:"records"`
}

// TriedFailed counts letters that would fail, by their cause.
type TriedFailed struct {
	Group       string `json:"group"`
	Class       string `json:"class"`
	Code        string `json:"code"`
	Fingerprint string `json:"fingerprint"`
	Letters     int64  `json:"letters"`
	Message     string `json:"message"` // of the first one
	Examples    []ID   `json:"examples"`
}

// maxExamples bounds the examples of a cause.
const maxExamples = 3

// DryRun reads what a redrive would move, at most limit letters (0: all), and hands it to the handlers of now. Nothing is written
// anywhere. Each batch is tried by itself, against the targets as they are.
func (o *Office) DryRun(ctx context.Context, s Selection, force bool, limit int) (DryRun, error) {
	c, err := o.claimable(ctx, s, force)
	if err != nil {
		return DryRun{}, err
	}
	rows, err := o.DB.Query(ctx, selectLetters+fromOrigins+c.where+
		` order by d.group_name, d.original_topic, d.original_partition, d.original_offset`+limitTo(limit), c.args...)
	if err != nil {
		return DryRun{}, fmt.Errorf("selecting dead letters: %w", err)
	}
	all, err := collectLetters(rows)
	if err != nil {
		return DryRun{}, fmt.Errorf("selecting dead letters: %w", err)
	}
	t := newTrial(o, c.refusals)
	start, tried := time.Now(), int64(0)
	err = chunks(all, func(part []Letter) error {
		recs, err := o.fetch(ctx, idsOf(part))
		if err != nil {
			return err
		}
		for len(part) > 0 { // one partition of one group at a time, as a handler gets it
			n := 1
			for n < len(part) && sameSource(&part[0], &part[n]) {
				n++
			}
			if err := t.try(ctx, part[:n], recs); err != nil {
				return err
			}
			part, tried = part[n:], tried+int64(n)
		}
		o.progress(Progress{Done: tried, Total: int64(len(all)), Elapsed: time.Since(start)})
		return nil
	})
	return t.report(), err
}

func limitTo(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" limit %d", n)
}

func sameSource(a, b *Letter) bool {
	return a.Group == b.Group && a.OriginalTopic == b.OriginalTopic && *a.OriginalPartition == *b.OriginalPartition
}

// trial collects the results of a dry run.
type trial struct {
	o        *Office
	stages   map[string]*Stage // by group; nil: it has none here
	result   DryRun
	outcomes map[[2]string]*TriedGroup
	failures map[[2]string]*TriedFailed
}

func newTrial(o *Office, refusals []Refusal) *trial {
	return &trial{
		o: o, stages: map[string]*Stage{}, outcomes: map[[2]string]*TriedGroup{}, failures: map[[2]string]*TriedFailed{},
		result: DryRun{NotRedriven: append([]Refusal{}, refusals...), Notes: []string{}},
	}
}

func (t *trial) stage(ctx context.Context, group string) *Stage {
	if s, known := t.stages[group]; known {
		return s
	}
	t.stages[group] = nil
	if s, err := t.o.Stage(ctx, group); err != nil {
		t.result.Notes = append(t.result.Notes, fmt.Sprintf("the letters of group %s were not tried: %v", group, err))
	} else {
		t.stages[group] = &s
	}
	return t.stages[group]
}

// try hands letters of one partition to the handler of their group.
func (t *trial) try(ctx context.Context, part []Letter, recs map[ID]*kgo.Record) error {
	stage := t.stage(ctx, part[0].Group)
	if stage == nil {
		return nil
	}
	var msgs []processors.Message
	var tried []*Letter
	for i := range part {
		rec := recs[part[i].ID]
		if rec == nil {
			t.result.Missing++
			continue
		}
		msg, err := message(rec)
		if err != nil {
			return fmt.Errorf("reading %s: %w", part[i].ID, err)
		}
		msgs, tried = append(msgs, msg), append(tried, &part[i])
	}
	results, err := handle(ctx, stage.Handler, msgs)
	if err != nil {
		return fmt.Errorf("trying the letters of group %s: %w", part[0].Group, err)
	}
	for i, l := range tried {
		t.result.Letters++
		if res := results[i]; res.Err != nil {
			t.failed(l, res.Err)
		} else if err := t.succeeded(ctx, l, stage, res); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) failed(l *Letter, err error) {
	t.result.Fail++
	class, code, text := processors.Class(err), processors.Code(err), clean(err.Error(), maxMessage)
	print := topics.Fingerprint(l.Stage, class, code, text, "")
	f := t.failures[[2]string{l.Group, print}]
	if f == nil {
		f = &TriedFailed{Group: l.Group, Class: class, Code: code, Fingerprint: print, Message: text}
		t.failures[[2]string{l.Group, print}] = f
	}
	if f.Letters++; len(f.Examples) < maxExamples {
		f.Examples = append(f.Examples, l.ID)
	}
}

func (t *trial) succeeded(ctx context.Context, l *Letter, stage *Stage, res processors.Result) error {
	t.result.Succeed++
	outcome := cmp.Or(res.Outcome, "done")
	if res.Detail != "" {
		outcome += " (" + res.Detail + ")"
	}
	g := t.outcomes[[2]string{l.Group, outcome}]
	if g == nil {
		g = &TriedGroup{Group: l.Group, Outcome: outcome}
		t.outcomes[[2]string{l.Group, outcome}] = g
	}
	g.Letters++
	if stage.Next == nil || len(res.Outputs) == 0 {
		return nil
	}
	next, err := handle(ctx, stage.Next, res.Outputs)
	if err != nil {
		return fmt.Errorf("trying what the letters of group %s become in the next stage: %w", l.Group, err)
	}
	for _, r := range next {
		then := cmp.Or(r.Outcome, "done")
		if r.Err != nil {
			then = "failed: " + processors.Code(r.Err)
		}
		i := slices.IndexFunc(g.Then, func(n TriedThen) bool { return n.Outcome == then })
		if i < 0 {
			g.Then, i = append(g.Then, TriedThen{Outcome: then}), len(g.Then)
		}
		g.Then[i].Records++
	}
	return nil
}

func (t *trial) report() DryRun {
	d := t.result
	d.Outcomes, d.Failures = []TriedGroup{}, []TriedFailed{}
	for _, g := range t.outcomes {
		d.Outcomes = append(d.Outcomes, *g)
	}
	for _, f := range slices.Collect(maps.Values(t.failures)) {
		d.Failures = append(d.Failures, *f)
	}
	slices.SortFunc(d.Outcomes, func(a, b TriedGroup) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Outcome, b.Outcome))
	})
	slices.SortFunc(d.Failures, func(a, b TriedFailed) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return d
}

// message is a dead letter as the handler of its group would see it after a redrive.
func message(rec *kgo.Record) (processors.Message, error) {
	own := ownHeaders(rec.Headers)
	f, err := topics.DecodeFailure(own)
	if err != nil {
		return processors.Message{}, err
	}
	return processors.Message{
		Topic: f.Topic, Partition: f.Partition, Offset: f.Offset, Time: f.Time, Key: rec.Key, Value: rec.Value, Headers: kept(own), Attempt: 1,
	}, nil
}

// handle calls a handler as the runtime does: after a panic again for each record alone. An error says that the target or a dependency
// is down, so that nothing can be said about the records.
func handle(ctx context.Context, h processors.Handler, msgs []processors.Message) ([]processors.Result, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	results, err := call(ctx, h, msgs)
	if err != nil {
		results = make([]processors.Result, 0, len(msgs))
		for i := range msgs {
			one, err := call(ctx, h, msgs[i:i+1])
			if err != nil {
				one = []processors.Result{{Err: processors.Transient("panic", err)}}
			}
			results = append(results, one...)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(results) != len(msgs) {
		return nil, fmt.Errorf("the handler returned %d results for %d messages", len(results), len(msgs))
	}
	for _, r := range results {
		if processors.Class(r.Err) == "systemic" {
			return nil, r.Err
		}
	}
	return results, nil
}

func call(ctx context.Context, h processors.Handler, msgs []processors.Message) (results []processors.Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			results, err = nil, fmt.Errorf("panic: %v", v)
		}
	}()
	return h.Handle(ctx, msgs), nil
}
