package index

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

type metrics struct {
	records *prometheus.CounterVec
	errors  *prometheus.CounterVec
	skipped *prometheus.CounterVec
	working *prometheus.GaugeVec
	lag     *prometheus.GaugeVec
	seconds *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"projection"})
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"projection"})
	}
	m := &metrics{
		records: counter("leat_index_records_total", "Records that the index has taken in."),
		errors:  counter("leat_index_errors_total", "Times that the index had to stop and try again, or could not remove old rows."),
		skipped: counter("leat_index_lost_records_total", "Offsets that topics removed before the index had read them."),
		working: gauge("leat_index_working", "1 if this process reads for the projection, 0 if it stands by or waits."),
		lag:     gauge("leat_index_lag_records", "Offsets between the position of the index and the last stable offset."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "leat_index_transaction_seconds", Help: "Time to write the rows of a batch.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}, []string{"projection"}),
	}
	reg.MustRegister(m.records, m.errors, m.skipped, m.working, m.lag, m.seconds)
	return m
}

// watchLag sets leat_index_lag_records until ctx ends, also while another process works.
func (x *Index) watchLag(ctx context.Context) {
	client, err := kgo.NewClient(x.cfg.Kafka...)
	if err != nil {
		return // the readers tell the same
	}
	defer client.Close()
	for ctx.Err() == nil {
		report, err := readStatus(ctx, x.cfg, client)
		if err == nil {
			for _, s := range report {
				x.metrics.lag.WithLabelValues(s.Projection).Set(float64(s.Behind))
			}
		}
		sleep(ctx, 2*x.cfg.Refresh)
	}
}
