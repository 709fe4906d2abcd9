package relay

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of Kafka transactions, as labels.
const (
	resultCommitted = "committed"
	resultAborted   = "aborted" // by us, and done again
	resultFailed    = "failed"  // the outcome is read back from the cursor
)

type metrics struct {
	rows         *prometheus.CounterVec
	lateRows     *prometheus.CounterVec
	deadLetters  *prometheus.CounterVec
	transactions *prometheus.CounterVec
	fenced       *prometheus.CounterVec
	lag          *prometheus.GaugeVec
	running      *prometheus.GaugeVec
	refused      *prometheus.GaugeVec
	paused       *prometheus.GaugeVec
	owned        prometheus.Gauge
	batchRows    prometheus.Histogram
	readSeconds  prometheus.Histogram
	sendSeconds  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		rows: counter("leat_relay_rows_total", "Outbox rows delivered, dead letters among them.", "source"),
		lateRows: counter("leat_relay_late_rows_total",
			"Rows delivered that were committed after rows with higher ids had been.", "source"),
		deadLetters: counter("leat_relay_dead_letters_total", "Rows that Kafka does not take.", "source", "reason"),
		transactions: counter("leat_relay_transactions_total",
			"Kafka transactions by result: committed, aborted (done again), failed (read back from the cursor).", "source", "result"),
		fenced: counter("leat_relay_fenced_total", "Times that another owner took the source over while this one held it.", "source"),
		lag: gauge("leat_relay_lag_rows",
			"Difference between the highest id in the outbox and the last one delivered: rows waiting, and gaps of rollbacks.", "source"),
		running: gauge("leat_relay_running", "1 while the owned source can be relayed, 0 while it waits for something.", "source"),
		refused: gauge("leat_relay_refused",
			"1 while the cursor is refused, because it does not belong to the database as it is, and an operator must decide.", "source"),
		paused: gauge("leat_relay_paused", "1 while the source is paused by order, or the orders are not known.", "source"),
		owned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "leat_relay_owned_sources", Help: "Sources that the group has assigned to this process.",
		}),
		batchRows: histogram("leat_relay_batch_rows", "Rows of a transaction.", []float64{1, 3, 10, 30, 100, 300, 1000, 3000, 10000}),
		readSeconds: histogram("leat_relay_read_seconds", "Time to read a batch from the outbox.",
			prometheus.ExponentialBuckets(0.0005, 2, 14)),
		sendSeconds: histogram("leat_relay_transaction_seconds", "Time from the first record to the commit of a transaction.",
			prometheus.ExponentialBuckets(0.001, 2, 16)),
	}
	reg.MustRegister(m.rows, m.lateRows, m.deadLetters, m.transactions, m.fenced, m.lag, m.running, m.refused, m.paused, m.owned, m.batchRows, m.readSeconds,
		m.sendSeconds)
	return m
}

// begin makes counters 0: one that first appears as 1 has not increased, for Prometheus.
func (m *metrics) begin(sources []Source) {
	for _, s := range sources {
		m.fenced.WithLabelValues(s.Name)
		m.rows.WithLabelValues(s.Name)
		m.lateRows.WithLabelValues(s.Name)
		for _, result := range []string{resultCommitted, resultAborted, resultFailed} {
			m.transactions.WithLabelValues(s.Name, result)
		}
		for _, code := range []string{codeRow, codeHeaders, codeUnknownEntity, codeTooLarge, codeRefused} {
			m.deadLetters.WithLabelValues(s.Name, code)
		}
	}
}

// ages exports the age of the oldest row that is read and not delivered, at the time of scraping: it grows while Kafka is
// down and nothing else moves.
type ages struct {
	oldest *prometheus.Desc
	read   *prometheus.Desc
	of     func(yield func(source string, p *pending))
}

func newAges(of func(yield func(string, *pending))) *ages {
	return &ages{
		oldest: prometheus.NewDesc("leat_outbox_oldest_unpublished_seconds",
			"Age of the oldest row known to wait for delivery; 0 if none does.", []string{"source"}, nil),
		read: prometheus.NewDesc("leat_relay_last_read_age_seconds",
			"Time since the outbox was last read with success.", []string{"source"}, nil),
		of: of,
	}
}

func (a *ages) Describe(ch chan<- *prometheus.Desc) { ch <- a.oldest; ch <- a.read }

func (a *ages) Collect(ch chan<- prometheus.Metric) {
	a.of(func(source string, p *pending) {
		oldest, read := p.ages(time.Now())
		ch <- prometheus.MustNewConstMetric(a.oldest, prometheus.GaugeValue, oldest.Seconds(), source)
		if read >= 0 {
			ch <- prometheus.MustNewConstMetric(a.read, prometheus.GaugeValue, read.Seconds(), source)
		}
	})
}

// pending remembers what is read and not delivered.
type pending struct {
	mu       sync.Mutex
	oldest   []time.Time // of each batch in flight
	sent     time.Time   // of the oldest batch in flight
	lastRead time.Time
}

func (p *pending) read(rows int, oldest time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.lastRead = now
	if rows > 0 {
		if len(p.oldest) == 0 {
			p.sent = now
		}
		p.oldest = append(p.oldest, oldest)
	}
}

func (p *pending) delivered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.oldest) > 0 {
		p.oldest = append(p.oldest[:0], p.oldest[1:]...)
	}
	p.sent = time.Now()
}

// forget is called when what is in flight will be read again.
func (p *pending) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.oldest = p.oldest[:0]
}

// stuck is for how long the oldest batch in flight has made no progress; 0 if none is.
func (p *pending) stuck(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.oldest) == 0 {
		return 0
	}
	return now.Sub(p.sent)
}

func (p *pending) ages(now time.Time) (oldest, read time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.oldest {
		oldest = max(oldest, now.Sub(t))
	}
	if p.lastRead.IsZero() {
		return oldest, -1
	}
	return oldest, now.Sub(p.lastRead)
}
