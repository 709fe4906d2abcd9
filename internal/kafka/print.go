package kafka

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes the plan as a table for people.
func (p Plan) WriteText(w io.Writer) error {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(p.Changes) > 0 {
		t.row("TOPIC", "ACTION", "SETTING", "FROM", "TO", "NOTE")
	}
	for _, c := range p.Changes {
		t.row(c.Topic, string(c.Action), c.Setting, c.From, c.To, note(c))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing plan: %w", err)
	}
	if _, err := io.WriteString(w, p.summary()); err != nil {
		return fmt.Errorf("writing plan: %w", err)
	}
	return nil
}

func (p Plan) summary() string {
	n := map[Action]int{}
	for _, c := range p.Changes {
		n[c.Action]++
	}
	s := "The cluster is as the catalogue says.\n"
	if !p.Empty() {
		s = fmt.Sprintf("%d to create, %d settings to change, %d to get more partitions, %d refused.\n",
			n[Create], n[SetConfig], n[Partitions], n[Refused])
	}
	if len(p.Unknown) > 0 {
		s += "Not in the catalogue, left alone:\n  " + strings.Join(p.Unknown, "\n  ") + "\n"
	}
	return s
}

func note(c Change) string {
	if c.Remedy != "" {
		return c.Note + "; " + c.Remedy
	}
	return c.Note
}

// WriteText writes the report as a table for people.
func (r Report) WriteText(w io.Writer) error {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	for _, res := range r.Results {
		outcome := "done"
		if !res.Done {
			outcome = res.Error
		}
		t.row(res.Topic, string(res.Action), res.Setting, res.From, res.To, outcome)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing report: %w", err)
	}
	return nil
}

type table struct{ *tabwriter.Writer }

// row needs no error: Flush returns the first one.
func (t table) row(cells ...string) {
	for i, c := range cells {
		if i > 0 {
			c = "\t" + c
		}
		_, _ = io.WriteString(t, c)
	}
	_, _ = io.WriteString(t, "\n")
}
