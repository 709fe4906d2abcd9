package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// markdown is the page, with the scenarios in the order given. plots are the names of those that were drawn.
func (r *report) markdown(all []scenario, plots []chart) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Performance\n\nWritten by `go run ./bench`; `performance.json` beside this page has every single value. Source, Postgres, Kafka, what is\n"+
		"measured and the consumer share the machine: %s;\n%s, PostgreSQL %s, Apache Kafka %s with one broker.\n\n"+
		"A backlog is %s records of about 500 bytes, unless it says otherwise. Median and range over %d rounds at most, interleaved. Processor time is\n"+
		"of what is measured; that of the servers beside it stands under its own name. Compare ratios within this page; other machines give other figures.\n",
		r.Machine, r.Go, r.PG, r.Kafka, human(float64(r.Rows)), r.Rounds)
	if len(r.Failed) > 0 {
		fmt.Fprintf(&b, "\nNot measured, because it failed: %s.\n", strings.Join(r.Failed, ", "))
	}
	r.ratioTable(&b)
	for _, c := range plots {
		fmt.Fprintf(&b, "\n![%s](%s)\n", c.title, c.file())
	}
	for _, g := range []struct{ group, title string }{
		{groupLimits, "Limits: the bare client calls"}, {groupLeat, "Leat"}, {groupScaling, "Leat, as the load grows"}, {groupPeers, "Peers on the same work"},
	} {
		r.resultTable(&b, g.title, slices.DeleteFunc(slices.Clone(all), func(s scenario) bool { return s.group != g.group }))
	}
	if len(r.Settings) > 0 {
		fmt.Fprintf(&b, "\n## Settings\n\n")
		for _, s := range r.Settings {
			fmt.Fprintf(&b, "- %s\n", s)
		}
	}
	return b.Bytes()
}

func (c chart) file() string { return "performance-" + c.name + ".svg" }

func (r *report) ratioTable(b *bytes.Buffer) {
	if len(r.Ratios) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Ratios\n\n| | value | wanted | holds | limit |\n| --- | ---: | ---: | --- | --- |\n")
	for _, x := range r.Ratios {
		holds := "yes"
		if !x.Holds {
			holds = "**no**"
		}
		fmt.Fprintf(b, "| %s | %.2f | %s | %s | %s |\n", x.Name, x.Value, x.Wanted, holds, x.Limit)
	}
}

// resultTable has what was measured by some scenarios; without any it is left out.
func (r *report) resultTable(b *bytes.Buffer, title string, some []scenario) {
	var rows bytes.Buffer
	for _, s := range some {
		about := s.about
		for _, x := range r.Results {
			if x.Scenario == s.name {
				fmt.Fprintf(&rows, "| %s | %s | %s | %s – %s |\n", about, x.label(), human(x.median()), human(slices.Min(x.Values)), human(slices.Max(x.Values)))
				about = ""
			}
		}
	}
	if rows.Len() > 0 {
		fmt.Fprintf(b, "\n## %s\n\n| | | median | range |\n| --- | --- | ---: | ---: |\n%s", title, rows.Bytes())
	}
}

// label is the measure, with its unit where the name does not say it.
func (r *result) label() string {
	if r.Unit == "" || strings.Contains(r.Measure, r.Unit) {
		return r.Measure
	}
	return r.Measure + ", " + r.Unit
}

func human(v float64) string {
	switch {
	case v >= 1000:
		s := fmt.Sprintf("%.0f", v)
		var parts []string
		for len(s) > 3 {
			parts = append([]string{s[len(s)-3:]}, parts...)
			s = s[:len(s)-3]
		}
		return strings.Join(append([]string{s}, parts...), ",")
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
