package processors

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
		endToEnd: histogram("leat_end_to_end_seconds", "Time from the change at the source (ce_time) to the commit of this stage.",
			prometheus.ExponentialBuckets(0.005, 2.5, 16)),
		rebalances: counter("leat_rebalance_total", "Times partitions were taken away."),
		watchdog:   counter("leat_watchdog_trips_total", "Batches cancelled for lack of progress."),
	}
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

// statusCollector turns a Status into gauges at the time of a scrape.
type statusCollector struct {
	status                                             func() Status
	breaker, parkedKeys, parkedOldest, lag, lagSeconds *prometheus.Desc
}

func newStatusCollector(status func() Status) *statusCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &statusCollector{
		status:       status,
		breaker:      desc("leat_breaker_state", "0 closed, 1 half-open, 2 open."),
		parkedKeys:   desc("leat_parked_keys", "Keys that wait for a retry, of the partitions owned here."),
		parkedOldest: desc("leat_parked_oldest_seconds", "Time since the first failure of the key parked longest."),
		lag:          desc("leat_lag_records", "Records up to the last stable offset that are not settled.", "topic", "partition"),
		lagSeconds:   desc("leat_lag_seconds", "How far behind the partition is; 0 when all is settled.", "topic", "partition"),
	}
}

// Describe implements prometheus.Collector.
func (c *statusCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	states := map[BreakerState]float64{BreakerHalfOpen: 1, BreakerOpen: 2}
	gauge(c.breaker, states[s.Breaker.State])
	var keys int
	var oldest time.Duration
	for _, p := range s.Partitions {
		keys += p.ParkedKeys
		if !p.ParkedSince.IsZero() {
			oldest = max(oldest, s.Time.Sub(p.ParkedSince))
		}
		gauge(c.lag, float64(p.Lag), p.Topic, itoa(p.Partition))
		gauge(c.lagSeconds, p.LagTime.Seconds(), p.Topic, itoa(p.Partition))
	}
	gauge(c.parkedKeys, float64(keys))
	gauge(c.parkedOldest, oldest.Seconds())
}
