package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tells Prometheus how often each action was taken: leat_audit_actions_total. The commands that people run end too soon to be
// scraped, so the numbers come from the audit log itself; it is for a process that runs on, and one is enough.
type Metrics struct {
	db    Queryer
	log   *slog.Logger
	total *prometheus.Desc
}

// NewMetrics returns the metrics, for a registry. They ask db at each scrape, for two seconds at most.
func NewMetrics(db Queryer, log *slog.Logger) *Metrics {
	return &Metrics{db, log, prometheus.NewDesc("leat_audit_actions_total",
		"Entries of the audit log, by action. An action in Kafka has two: one when it starts and one when it ends.", []string{"action"}, nil)}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.total }

const countActions = `select action, count(*) from leat_control.audit_log group by action`

// Collect implements prometheus.Collector. While the database does not answer, nothing is told.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// What alerts look at begins at 0: a series that first appears as 1 has not increased, for Prometheus.
	counts := map[string]int64{"offsets apply": 0, "offsets undo": 0, "dlq redrive": 0, "dlq discard": 0, "pause": 0, "resume": 0}
	rows, err := m.db.Query(ctx, countActions)
	if err == nil {
		var action string
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&action, &n}, func() error { counts[action] = n; return nil })
	}
	if err != nil {
		m.log.Warn("counting the entries of the audit log", "error", err)
		return
	}
	for action, n := range counts {
		ch <- prometheus.MustNewConstMetric(m.total, prometheus.CounterValue, float64(n), action)
	}
}
