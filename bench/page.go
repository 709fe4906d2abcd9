package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// markdown is the page, with the scenarios in the order given.
func (r *report) markdown(all []scenario) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Performance\n\nWritten by `go run ./bench`; `performance.json` beside this page has every single value. Source, Postgres, Kafka, what is\n"+
		"measured and the consumer share the machine: %s; %s, PostgreSQL %s, Apache Kafka %s with one broker.\n"+
		"A backlog is %s records of about 500 bytes, unless it says otherwise. Median and range over %d rounds at most. Compare ratios within\n"+
		"this page; other machines give other figures.\n", r.Machine, r.Go, r.PG, r.Kafka, human(float64(r.Rows)), r.Rounds)
	r.ratioTable(&b)
	r.resultTable(&b, all)
	if len(r.Settings) > 0 {
		fmt.Fprintf(&b, "\n## Settings\n\n")
		for _, s := range r.Settings {
			fmt.Fprintf(&b, "- %s\n", s)
		}
	}
	return b.Bytes()
}

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

func (r *report) resultTable(b *bytes.Buffer, all []scenario) {
	fmt.Fprintf(b, "\n## Results\n\n| | | median | range |\n| --- | --- | ---: | ---: |\n")
	about := map[string]string{}
	order := map[string]int{}
	for i, s := range all {
		about[s.name], order[s.name] = s.about, i
	}
	sorted := slices.Clone(r.Results)
	slices.SortStableFunc(sorted, func(x, y *result) int { return order[x.Scenario] - order[y.Scenario] })
	last := ""
	for _, x := range sorted {
		title := ""
		if x.Scenario != last {
			title, last = about[x.Scenario], x.Scenario
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s – %s |\n", title, x.label(), human(x.median()), human(slices.Min(x.Values)), human(slices.Max(x.Values)))
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
