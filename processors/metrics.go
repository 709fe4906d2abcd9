package processors

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leat-io/leat/topics"
)

// metrics counts committed work only: an aborted transaction leaves no trace but in leat_txn_*.
type metrics struct {
	records    *prometheus.CounterVec
	txns       *prometheus.CounterVec
	aborts     *prometheus.CounterVec
	retries    prometheus.Counter
	retryLate  prometheus.Histogram
	deadLetter *prometheus.CounterVec
	endToEnd   prometheus.Histogram
	rebalances prometheus.Counter
	watchdog   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, stage string, status prometheus.Collector) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		records:    vec("leat_records_total", "Input records settled, by outcome.", "outcome"),
		txns:       vec("leat_txn_total", "Transactions ended, by result.", "result"),
		aborts:     vec("leat_txn_abort_total", "Transactions aborted, by reason.", "reason"),
		retries:    counter("leat_retry_scheduled_total", "Retries scheduled."),
		retryLate:  histogram("leat_retry_late_seconds", "Delay of retries after their due time.", prometheus.ExponentialBuckets(0.001, 4, 10)),
		deadLetter: vec("leat_dlq_total", "Dead letters written.", "disposition", "error_class"),
		// With a bound at 60: the freshness objective of deploy/prometheus counts by it.
		endToEnd: histogram("leat_end_to_end_seconds", "Time from the change at the source (ce_time) to the commit of this stage.",
			[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600}),
		rebalances: counter("leat_rebalance_total", "Times partitions were taken away."),
		watchdog:   counter("leat_watchdog_trips_total", "Batches cancelled for lack of progress."),
	}
	m.begin()
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"stage": stage}, reg)
	for _, c := range []prometheus.Collector{
		m.records, m.txns, m.aborts, m.retries, m.retryLate, m.deadLetter, m.endToEnd, m.rebalances, m.watchdog, status,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// begin makes the counters of what should never happen 0: one that first appears as 1 has not increased, for Prometheus.
func (m *metrics) begin() {
	for _, outcome := range []string{"parked", "retry", "dead_letter"} {
		m.records.WithLabelValues(outcome)
	}
	for _, result := range []string{"committed", "aborted", "error"} {
		m.txns.WithLabelValues(result)
	}
	for _, reason := range []string{"handler", "systemic", "watchdog", "interrupted", "refused", "produce", "rebalance", "end"} {
		m.aborts.WithLabelValues(reason)
	}
	m.deadLetter.WithLabelValues(string(topics.DispositionPermanent), string(permanent))
	m.deadLetter.WithLabelValues(string(topics.DispositionExhausted), string(transient))
}

// statusCollector turns a Status into gauges at the time of a scrape.
type statusCollector struct {
	status                            func() Status
	breaker, parkedKeys, parkedOldest *prometheus.Desc
	paused, pausedTenants             *prometheus.Desc
	lag, lagSeconds                   *prometheus.Desc
	settled, margin, stuck            *prometheus.Desc
}

func newStatusCollector(status func() Status) *statusCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &statusCollector{
		status:        status,
		breaker:       desc("leat_breaker_state", "0 closed, 1 half-open, 2 open."),
		paused:        desc("leat_paused", "1 while nothing is handled, by order; also while the orders are not known."),
		pausedTenants: desc("leat_paused_tenants", "Tenants whose records wait, by order."),
		parkedKeys:    desc("leat_parked_keys", "Keys that wait for a retry, of the partitions owned here."),
		parkedOldest:  desc("leat_parked_oldest_seconds", "Time since the first failure of the key parked longest."),
		lag:           desc("leat_lag_records", "Records up to the last stable offset that are not settled.", "topic", "partition"),
		lagSeconds:    desc("leat_lag_seconds", "How far behind the partition is; 0 when all is settled.", "topic", "partition"),
		settled:       desc("leat_settled_offset", "The next offset to be settled: what the group has committed.", "topic", "partition"),
		margin: desc("leat_retention_margin_records",
			"Records from the start of the log to the settled offset. Below 0, Kafka has deleted records before they were read.",
			"topic", "partition"),
		stuck: desc("leat_lso_stuck_seconds",
			"For how long an open transaction has kept the last stable offset where it is; 0 if none does.", "topic", "partition"),
	}
}

// Describe implements prometheus.Collector.
func (c *statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.breaker, c.paused, c.pausedTenants, c.parkedKeys, c.parkedOldest, c.lag, c.lagSeconds, c.settled, c.margin, c.stuck,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	states := map[BreakerState]float64{BreakerHalfOpen: 1, BreakerOpen: 2}
	gauge(c.breaker, states[s.Breaker.State])
	var paused float64
	if s.Paused != "" {
		paused = 1
	}
	gauge(c.paused, paused)
	gauge(c.pausedTenants, float64(len(s.Tenants)))
	var keys int
	var oldest time.Duration
	for _, p := range s.Partitions {
		keys += p.ParkedKeys
		if !p.ParkedSince.IsZero() {
			oldest = max(oldest, s.Time.Sub(p.ParkedSince))
		}
		partition := itoa(p.Partition)
		gauge(c.lag, float64(p.Lag), p.Topic, partition)
		gauge(c.lagSeconds, p.LagTime.Seconds(), p.Topic, partition)
		gauge(c.settled, float64(p.Offset), p.Topic, partition)
		gauge(c.stuck, p.StuckTime.Seconds(), p.Topic, partition)
		if p.LogStart >= 0 {
			gauge(c.margin, float64(p.Offset-p.LogStart), p.Topic, partition)
		}
	}
	gauge(c.parkedKeys, float64(keys))
	gauge(c.parkedOldest, oldest.Seconds())
}
