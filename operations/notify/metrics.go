package notify

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leat-io/leat/operations/incidents"
)

type metrics struct {
	incidents *prometheus.GaugeVec
	moves     *prometheus.CounterVec
	sent      *prometheus.CounterVec
	attempts  *prometheus.CounterVec
	failed    *prometheus.CounterVec
	pending   *prometheus.GaugeVec
}

// newMetrics begins every series at 0, or Prometheus would miss the first of what should not happen.
func newMetrics(reg prometheus.Registerer, receivers []Receiver) *metrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		incidents: gauge("leat_incidents", "Incidents by state, but for resolved ones.", "state"),
		moves:     counter("leat_incident_moves_total", "Incidents that came to a state.", "state"),
		sent:      counter("leat_notify_sent_total", "Messages that a receiver has taken.", "receiver"),
		attempts:  counter("leat_notify_errors_total", "Attempts to send a message that have failed.", "receiver"),
		failed:    counter("leat_notify_failed_total", "Notifications that were given up: nobody was told.", "receiver"),
		pending:   gauge("leat_notify_pending", "Notifications that wait to be sent.", "receiver"),
	}
	for _, s := range incidents.States() {
		m.moves.WithLabelValues(string(s))
	}
	for _, r := range receivers {
		m.sent.WithLabelValues(r.Name)
		m.attempts.WithLabelValues(r.Name)
		m.failed.WithLabelValues(r.Name)
		m.pending.WithLabelValues(r.Name)
	}
	reg.MustRegister(m.incidents, m.moves, m.sent, m.attempts, m.failed, m.pending)
	m.states(nil)
	return m
}

func (m *metrics) states(counts map[incidents.State]int) {
	for _, s := range incidents.States() {
		if s != incidents.Resolved {
			m.incidents.WithLabelValues(string(s)).Set(float64(counts[s]))
		}
	}
}

const countPending = `select receiver, count(*) from leat_control.notifications where state = 'pending' group by receiver`

func (n *Notifier) countPending(ctx context.Context) error {
	rows, err := n.cfg.DB.Query(ctx, countPending)
	if err != nil {
		return fmt.Errorf("counting notifications: %w", err)
	}
	counts := map[string]int{}
	var receiver string
	var count int
	if _, err := pgx.ForEachRow(rows, []any{&receiver, &count}, func() error { counts[receiver] = count; return nil }); err != nil {
		return fmt.Errorf("counting notifications: %w", err)
	}
	for _, s := range n.senders { // those of a receiver that is configured no more wait for its return
		n.metrics.pending.WithLabelValues(s.Name).Set(float64(counts[s.Name]))
	}
	return nil
}
