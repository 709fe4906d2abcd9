package dev

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Counts are what relay and stages have counted since the start.
type Counts struct {
	Relayed     int64 `json:"relayed"`
	Normalized  int64 `json:"normalized"`
	Filtered    int64 `json:"filtered"`
	Applied     int64 `json:"applied"`
	Unchanged   int64 `json:"unchanged"`
	Superseded  int64 `json:"superseded"`
	DeadLetters int64 `json:"dead_letters"`
	Parked      int64 `json:"parked"` // keys that wait now
}

// String is one line.
func (c Counts) String() string {
	return fmt.Sprintf("%d relayed, %d normalized, %d published (%d unchanged, %d superseded), %d dead letters, %d parked",
		c.Relayed, c.Normalized, c.Applied, c.Unchanged, c.Superseded, c.DeadLetters, c.Parked)
}

// sumMetric adds up the samples of a counter or gauge whose labels are all of want.
func sumMetric(families map[string]*dto.MetricFamily, name string, want map[string]string) int64 {
	var sum float64
	for _, m := range families[name].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		keys := slices.Collect(maps.Keys(want))
		if slices.ContainsFunc(keys, func(k string) bool { return labels[k] != want[k] }) {
			continue
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return int64(sum)
}

func gather(g prometheus.Gatherer) (map[string]*dto.MetricFamily, error) {
	families, err := g.Gather()
	if err != nil {
		return nil, fmt.Errorf("gathering metrics: %w", err)
	}
	byName := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName, nil
}

// readCounts reads the metrics of relay and stages.
func readCounts(g prometheus.Gatherer) (c Counts, err error) {
	families, err := gather(g)
	if err != nil {
		return c, err
	}
	records := func(stage string, outcomes ...string) (n int64) {
		for _, o := range outcomes {
			n += sumMetric(families, "leat_records_total", map[string]string{"stage": stage, "outcome": o})
		}
		return n
	}
	return Counts{
		Relayed:    sumMetric(families, "leat_relay_rows_total", nil),
		Normalized: records("normalize", "normalized", "deleted"),
		Filtered:   records("normalize", "filtered"),
		Applied:    records("publish", "applied", "deleted"),
		Unchanged:  records("publish", "unchanged"),
		Superseded: records("publish", "superseded"),
		DeadLetters: sumMetric(families, "leat_dlq_total", nil) +
			sumMetric(families, "leat_relay_dead_letters_total", nil),
		Parked: sumMetric(families, "leat_parked_keys", nil),
	}, nil
}
