package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func reportOf(results ...*result) *report { return &report{Rows: 100, Rounds: 1, Results: results} }

func TestRatios(t *testing.T) {
	t.Parallel()
	fast := atLeast(0.8, "drain / the lower limit", resultKey{"relay", perSecond}, resultKey{"read", perSecond}, resultKey{"produce", perSecond})
	cheap := atMost(0.1, "time / peer's", resultKey{"relay", cpuTime}, resultKey{"peer", cpuTime})
	limits := map[string]func(*report) string{fast.name: func(r *report) string {
		return r.times("the disk: bare reading is %s of bare producing", resultKey{"read", perSecond}, resultKey{"produce", perSecond})
	}}
	cpu := []*result{{Scenario: "relay", Measure: cpuTime, Values: []float64{1}}, {Scenario: "peer", Measure: cpuTime, Values: []float64{20}}}
	rates := func(relay float64) *report {
		return reportOf(append(cpu,
			&result{Scenario: "relay", Measure: perSecond, Values: []float64{relay - 30, relay, relay + 10}},
			&result{Scenario: "read", Measure: perSecond, Values: []float64{900}},
			&result{Scenario: "produce", Measure: perSecond, Values: []float64{500, 300}})...)
	}

	r := rates(320)
	require.Empty(t, r.rate([]wanted{fast, cheap}, limits))
	require.Equal(t, []ratio{
		{Name: fast.name, Value: 0.8, Wanted: ">= 0.80", Holds: true},
		{Name: cheap.name, Value: 0.05, Wanted: "<= 0.10", Holds: true},
	}, r.Ratios)

	r = rates(319)
	require.Empty(t, r.rate([]wanted{fast}, limits))
	require.False(t, r.Ratios[0].Holds)
	require.Equal(t, "the disk: bare reading is 2.25 of bare producing", r.Ratios[0].Limit)

	r = reportOf(rates(320).Results[2:]...)
	require.Equal(t, []string{cheap.name}, r.rate([]wanted{fast, cheap}, limits), "a ratio without its inputs is named")
	require.Len(t, r.Ratios, 1)
}

// What a ratio or a plot reads has to be the result of a scenario: a name that was changed on one side only would leave it out for ever.
func TestNamesAreThoseOfScenarios(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range scenarios() {
		require.False(t, known[s.name], "scenario %s is there twice", s.name)
		known[s.name] = true
	}
	ratios := map[string]bool{}
	for _, w := range wantedRatios() {
		require.False(t, ratios[w.name], "ratio %q is there twice", w.name)
		ratios[w.name] = true
		for _, k := range append(w.by, w.of) {
			require.True(t, known[k.scenario], "ratio %q reads scenario %s", w.name, k.scenario)
		}
	}
	for name := range limits() {
		require.True(t, ratios[name], "a limit is given for %q", name)
	}
	for _, c := range charts() {
		for _, b := range c.bars {
			require.True(t, known[b.key.scenario], "plot %s reads scenario %s", c.name, b.key.scenario)
		}
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	t.Parallel()
	c := chart{"x", `less < "more" & more`, "ms", []bar{
		{"<script>", resultKey{"a", p50}, ours}, {"not measured", resultKey{"b", p50}, theirs}, {"zero", resultKey{"c", p50}, bare},
	}}
	svg := c.svg(reportOf(&result{Scenario: "a", Measure: p50, Values: []float64{1, 3, 2}}, &result{Scenario: "c", Measure: p50, Values: []float64{0}}))
	d := xml.NewDecoder(strings.NewReader(string(svg)))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	require.Equal(t, 2, bars)
	require.NotContains(t, string(svg), "<script>")
	require.Nil(t, c.svg(reportOf()), "nothing was measured")
}

func TestWriteReport(t *testing.T) {
	t.Parallel()
	r := reportOf()
	for _, v := range []float64{1000, 3000, 2000} {
		r.add("relay", perSecond, perSecond, v)
	}
	r.add("relay", cpuTime, "s", math.Inf(-1))
	r.add("read", perSecond, perSecond, 4000)
	r.add("produce", perSecond, perSecond, 2500)
	out := t.TempDir()
	var page, log strings.Builder
	require.NoError(t, r.write(&page, &log, out, scenarios()))
	require.Contains(t, page.String(), "| records/s | 2,000 | 1,000 – 3,000 |")
	require.Contains(t, page.String(), "| 0.80 | >= 0.80 | yes |")
	require.Contains(t, page.String(), "(performance-relay.svg)")
	require.Contains(t, page.String(), "failed: relay: cpu s/100k.")
	require.Contains(t, log.String(), "normalize / Kafka Streams at its defaults")

	written, err := os.ReadFile(filepath.Join(out, "performance.md"))
	require.NoError(t, err)
	require.Equal(t, page.String(), string(written))
	require.FileExists(t, filepath.Join(out, "performance-relay.svg"))
	require.NoFileExists(t, filepath.Join(out, "performance-publish.svg"))
	data, err := os.ReadFile(filepath.Join(out, "performance.json"))
	require.NoError(t, err)
	var back report
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, []float64{1000, 3000, 2000}, back.find("relay", perSecond).Values)
	require.Equal(t, ratio{Name: wantedRatios()[0].name, Value: 0.8, Wanted: ">= 0.80", Holds: true}, back.Ratios[0])
}
