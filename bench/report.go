package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// report collects results. A result is a number of one round; its name is unique within a scenario.
type report struct {
	Rows    int       `json:"rows"`
	Kafka   string    `json:"kafka"`
	PG      string    `json:"postgres"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	Results []*result `json:"results"`
}

type result struct {
	Scenario string    `json:"scenario"`
	Name     string    `json:"name"`
	Unit     string    `json:"unit"`
	Values   []float64 `json:"values"`
}

func (r *report) add(scenario, name, unit string, value float64) {
	i := slices.IndexFunc(r.Results, func(x *result) bool { return x.Scenario == scenario && x.Name == name })
	if i < 0 {
		i = len(r.Results)
		r.Results = append(r.Results, &result{Scenario: scenario, Name: name, Unit: unit})
	}
	r.Results[i].Values = append(r.Results[i].Values, value)
}

func (r *result) median() float64 {
	v := slices.Sorted(slices.Values(r.Values))
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

func (r *report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Performance\n\nWritten by `go run ./bench -out docs`; `performance.json` beside this page has every single value. Source, Postgres, Kafka, Leat and\n"+
		"the consumer share the machine: %d cores, %s, PostgreSQL %s, Apache Kafka %s with one broker. %d records each, of about 500 bytes.\n"+
		"Median and range over the rounds. Compare ratios within this page; other machines give other figures.\n\n", r.CPUs, r.Go, r.PG, r.Kafka, r.Rows)
	fmt.Fprintf(&b, "| | | median | range |\n| --- | --- | ---: | ---: |\n")
	about := map[string]string{}
	for _, s := range scenarios() {
		about[s.name] = s.about
	}
	last := ""
	for _, x := range r.Results {
		title := ""
		if x.Scenario != last {
			title, last = about[x.Scenario], x.Scenario
		}
		fmt.Fprintf(&b, "| %s | %s, %s | %s | %s – %s |\n", title, x.Name, x.Unit,
			human(x.median()), human(slices.Min(x.Values)), human(slices.Max(x.Values)))
	}
	return b.Bytes()
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

func (r *report) write(w io.Writer, o options) error {
	r.Rows, r.Go, r.CPUs = o.rows, runtime.Version(), runtime.NumCPU()
	page := r.markdown()
	if _, err := w.Write(page); err != nil {
		return err
	}
	if o.out == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "performance.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "performance.md"), page, 0o644)
}
