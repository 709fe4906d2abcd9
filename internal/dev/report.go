package dev

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/examples/chinook"
)

// Report is the result of a run with Once.
type Report struct {
	Agree         bool           `json:"agree"`
	Differences   []string       `json:"differences"`
	Source        chinook.Totals `json:"source"` // of the shop's tables
	Target        chinook.Totals `json:"target"` // of reporting.control_totals
	OutboxRows    int64          `json:"outbox_rows"`
	SourceRecords map[string]int `json:"source_records"`  // on Kafka, as committed readers see them
	Finance       map[string]int `json:"finance_records"` // on Kafka
	DeadLetters   map[string]int `json:"dead_letters"`    // on Kafka
	Counts        Counts         `json:"counts"`          // of the stages' metrics
	Seconds       float64        `json:"seconds"`         // from the start of the program to the last record published
}

func (r *rehearsal) report(ctx context.Context, reason error) (*Report, error) {
	out := &Report{Differences: []string{}, Seconds: time.Since(r.begin).Seconds()}
	var err error
	if out.Source, err = chinook.ReadTotals(ctx, r.source); err != nil {
		return nil, err
	}
	if out.Target, err = reportingTotals(ctx, r.books); err != nil {
		return nil, err
	}
	if out.OutboxRows, err = outboxRows(ctx, r.source); err != nil {
		return nil, err
	}
	ends, err := committedEnds(ctx, kadm.NewClient(r.kafka), r.topics)
	if err != nil {
		return nil, err
	}
	counts, err := countRecords(ctx, r.opts, r.baseline, ends)
	if err != nil {
		return nil, err
	}
	out.SourceRecords, out.Finance, out.DeadLetters = pickTopics(counts, isSource), pickTopics(counts, isFinance), pickTopics(counts, isDLQ)
	if out.Counts, err = readCounts(r.app.Metrics()); err != nil {
		return nil, err
	}
	out.compare(reason)
	return out, nil
}

func pickTopics(counts map[string]int, which func(string) bool) map[string]int {
	picked := maps.Clone(counts)
	maps.DeleteFunc(picked, func(topic string, _ int) bool { return !which(topic) })
	return picked
}

// compare fills Differences and Agree.
func (r *Report) compare(reason error) {
	differ := func(what string, source, target any) {
		if source != target {
			r.Differences = append(r.Differences, fmt.Sprintf("%s: %v in the source, %v in the target", what, source, target))
		}
	}
	if reason != nil {
		r.Differences = append(r.Differences, reason.Error())
	}
	differ("customers", r.Source.Customers, r.Target.Customers)
	differ("invoices", r.Source.Invoices, r.Target.Invoices)
	differ("lines", r.Source.Lines, r.Target.Lines)
	differ("payments", r.Source.Payments, r.Target.Payments)
	differ("invoiced", r.Source.Invoiced, r.Target.Invoiced)
	differ("paid", r.Source.Paid, r.Target.Paid)
	relayed := 0
	for _, n := range r.SourceRecords {
		relayed += n
	}
	differ("outbox rows and records on source topics", r.OutboxRows, int64(relayed))
	for topic, n := range r.DeadLetters {
		if n > 0 {
			r.Differences = append(r.Differences, fmt.Sprintf("%d dead letters on %s", n, topic))
		}
	}
	r.Agree = len(r.Differences) == 0
}

// Err is nil if both sides agree.
func (r *Report) Err() error {
	if r.Agree {
		return nil
	}
	return fmt.Errorf("%w: %s", errDisagree, strings.Join(r.Differences, "; "))
}

// WriteText prints both sides beside each other, then every count.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	row := func(what string, source, target any) { fmt.Fprintf(&b, "%-10s %12v %12v\n", what, source, target) }
	row("", "source", "target")
	row("customers", r.Source.Customers, r.Target.Customers)
	row("invoices", r.Source.Invoices, r.Target.Invoices)
	row("lines", r.Source.Lines, r.Target.Lines)
	row("payments", r.Source.Payments, r.Target.Payments)
	row("invoiced", r.Source.Invoiced, r.Target.Invoiced)
	row("paid", r.Source.Paid, r.Target.Paid)
	fmt.Fprintf(&b, "\n%d outbox rows", r.OutboxRows)
	for _, counts := range []map[string]int{r.SourceRecords, r.Finance, r.DeadLetters} {
		b.WriteString("\n")
		for _, topic := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(&b, "%6d %s\n", counts[topic], topic)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.Counts)
	if r.Agree {
		fmt.Fprintf(&b, "source and target agree, %.1f s after the start\n", r.Seconds)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
