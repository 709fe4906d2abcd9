package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Result is what became of one Change.
type Result struct {
	Change
	Done  bool   `json:"done"`            // applied and read back
	Error string `json:"error,omitempty"` // why not
}

// Report is what Apply did, change by change in the plan's order, and how the cluster differs afterwards.
type Report struct {
	Results   []Result `json:"results"`
	Remaining Plan     `json:"remaining"`
}

// Apply makes the changes of the plan that are not refused, each on its own, then reads the cluster back until it shows them
// (for up to 15 seconds: brokers learn of a new topic one after the other). The error joins the changes that failed or
// did not show; refused ones are no error. A plan may be applied again.
func (p Plan) Apply(ctx context.Context, cl *kgo.Client) (Report, error) {
	adm := kadm.NewClient(cl)
	rep := Report{Results: make([]Result, len(p.Changes))}
	var errs []error
	for i, c := range p.Changes {
		rep.Results[i] = Result{Change: c}
		if c.Action == Refused {
			rep.Results[i].Error = "refused: " + c.Note
			continue
		}
		if err := apply(ctx, adm, c); err != nil {
			rep.Results[i].Error = err.Error()
			errs = append(errs, fmt.Errorf("topic %s: %w", c.Topic, err))
		}
	}
	var err error
	if rep.Remaining, err = p.readBack(ctx, cl, rep.Results); err != nil {
		return rep, errors.Join(append(errs, fmt.Errorf("reading the topics back: %w", err))...)
	}
	for i := range rep.Results {
		r := &rep.Results[i]
		if r.Error != "" {
			continue
		}
		if r.Done = !pending(rep.Remaining, r.Change); !r.Done {
			r.Error = "applied, but the cluster does not show it"
			errs = append(errs, fmt.Errorf("topic %s: %s %s: %s", r.Topic, r.Action, r.Setting, r.Error))
		}
	}
	return rep, errors.Join(errs...)
}

func apply(ctx context.Context, adm *kadm.Client, c Change) error {
	switch c.Action {
	case Create:
		config := map[string]*string{}
		for k, v := range c.Create.Config {
			config[k] = new(v)
		}
		res, err := adm.CreateTopic(ctx, c.Create.Partitions, c.Create.Replication, config, c.Topic)
		if errors.Is(err, kerr.TopicAlreadyExists) {
			return nil // somebody was faster; reading back compares the settings
		}
		return explain("creating", err, res.ErrMessage)
	case Partitions:
		n, err := strconv.Atoi(c.To)
		if err != nil {
			return fmt.Errorf("reading the partition count of the plan: %w", err)
		}
		all, err := adm.UpdatePartitions(ctx, n, c.Topic)
		if err != nil {
			return fmt.Errorf("adding partitions: %w", err)
		}
		res, err := all.On(c.Topic, func(r *kadm.CreatePartitionsResponse) error { return r.Err })
		return explain("adding partitions", err, res.ErrMessage)
	case SetConfig:
		all, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: c.Setting, Value: &c.To}}, c.Topic)
		if err != nil {
			return fmt.Errorf("setting %s: %w", c.Setting, err)
		}
		res, err := all.On(c.Topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
		return explain("setting "+c.Setting, err, res.ErrMessage)
	default:
		return fmt.Errorf("unknown action %q", c.Action)
	}
}

// explain adds the broker's own words, which say more than its error code.
func explain(doing string, err error, message string) error {
	switch {
	case err == nil:
		return nil
	case message == "":
		return fmt.Errorf("%s: %w", doing, err)
	default:
		return fmt.Errorf("%s: %w: %s", doing, err, message)
	}
}

func (p Plan) readBack(ctx context.Context, cl *kgo.Client, results []Result) (Plan, error) {
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		now, err := ReadPlan(ctx, cl, p.catalogue)
		// One broker has listed a new topic, the one that was asked for its settings had not heard of it yet.
		unheard := errors.Is(err, kerr.UnknownTopicOrPartition)
		if err != nil && !unheard {
			return Plan{}, err
		}
		if !unheard && !slices.ContainsFunc(results, func(r Result) bool { return r.Error == "" && pending(now, r.Change) }) {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-deadline.C:
			return now, err
		case <-again.C:
		}
	}
}

// pending reports whether a change is still to be made.
func pending(now Plan, c Change) bool {
	return slices.ContainsFunc(now.Changes, func(left Change) bool {
		return left.Topic == c.Topic && left.Setting == c.Setting && (left.Action == c.Action || c.Action == Create)
	})
}
