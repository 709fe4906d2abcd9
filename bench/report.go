package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report collects results. A result is found by its scenario and measure: those names are stable.
type report struct {
	Rows     int                `json:"rows"`
	Rounds   int                `json:"rounds"`
	Machine  string             `json:"machine"`
	Kafka    string             `json:"kafka"`
	PG       string             `json:"postgres"`
	Go       string             `json:"go"`
	CPUs     int                `json:"cpus"`
	Settings []string           `json:"settings"`
	Failed   []string           `json:"failed,omitempty"`
	Ratios   []ratio            `json:"ratios"`
	Results  []*result          `json:"results"`
	Seconds  map[string]float64 `json:"seconds"` // that each scenario has taken, with its preparation
}

// result is what was measured of one thing, a value for each round.
type result struct {
	Scenario string    `json:"scenario"`
	Measure  string    `json:"measure"`
	Unit     string    `json:"unit"`
	Values   []float64 `json:"values"`
}

func (r *report) add(scenario, measure, unit string, value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) { // nothing was there to divide by: no result, and JSON has no word for it
		r.Failed = append(r.Failed, scenario+": "+measure)
		return
	}
	x := r.find(scenario, measure)
	if x == nil {
		x = &result{Scenario: scenario, Measure: measure, Unit: unit}
		r.Results = append(r.Results, x)
	}
	x.Values = append(x.Values, value)
}

// find returns nil for what was not measured.
func (r *report) find(scenario, measure string) *result {
	i := slices.IndexFunc(r.Results, func(x *result) bool { return x.Scenario == scenario && x.Measure == measure })
	if i < 0 {
		return nil
	}
	return r.Results[i]
}

func (r *report) took(scenario string, d time.Duration) {
	if r.Seconds == nil {
		r.Seconds = map[string]float64{}
	}
	r.Seconds[scenario] += d.Seconds()
}

func (r *result) median() float64 {
	v := slices.Sorted(slices.Values(r.Values))
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

// describe notes what does not change over the run.
func (r *report) describe(o options, s *servers) {
	r.Rows, r.Rounds = o.rows, o.rounds
	for _, text := range s.settings {
		r.setting(text)
	}
	r.Go, r.CPUs, r.Machine = runtime.Version(), runtime.NumCPU(), machine()
}

// machine says in words what this runs on, as far as Linux tells.
func machine() string {
	field := func(file, name string) string {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var kb float64
	_, _ = fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%f kB", &kb)
	return fmt.Sprintf("%s, %d cores, %.0f GiB of memory, %s %s", field("/proc/cpuinfo", "model name"), runtime.NumCPU(), kb/(1<<20),
		runtime.GOOS, strings.TrimSpace(string(kernel)))
}

// write prints the page, and puts it with its plots and all values into the directory out, unless that is "".
func (r *report) write(stdout, stderr io.Writer, out string, all []scenario) error {
	if missing := r.rate(wantedRatios(), limits()); len(missing) > 0 {
		_, _ = fmt.Fprintf(stderr, "ratios left out, as not all they need was measured in this run:\n  %s\n", strings.Join(missing, "\n  "))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Seconds)) {
		_, _ = fmt.Fprintf(stderr, "%-24s took %.0f s\n", name, r.Seconds[name])
	}
	var drawn []chart
	files := map[string][]byte{}
	for _, c := range charts() {
		if svg := c.svg(r); svg != nil {
			drawn, files[c.file()] = append(drawn, c), svg
		}
	}
	if out == "" {
		drawn = nil // a page that is only printed has none beside it
	}
	page := r.markdown(all, drawn)
	if _, err := stdout.Write(page); err != nil || out == "" {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files["performance.md"], files["performance.json"] = page, append(data, '\n')
	var errs []error
	for name, content := range files {
		errs = append(errs, os.WriteFile(filepath.Join(out, name), content, 0o644))
	}
	return errors.Join(errs...)
}
