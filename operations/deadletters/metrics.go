package deadletters

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// maxGroups bounds the values of the label group: what is beyond counts as "other". Groups of foreign dead letters are whatever their
// headers say.
const maxGroups = 50

// Metrics tells Prometheus how many dead letters wait for somebody: leat_dlq_open, leat_dlq_oldest_seconds and leat_dlq_expires_seconds,
// by group. It asks the index every 15 seconds while Run runs; it is for the process that runs the index.
type Metrics struct {
	db    queryer
	admin *kadm.Client
	log   *slog.Logger

	mu     sync.Mutex
	groups []waiting
	read   time.Time
}

// waiting are the open letters of a group.
type waiting struct {
	group  string
	open   int64
	oldest time.Time
	first  map[string]time.Time // the oldest in each dead-letter topic
	expiry time.Time            // when the first one is deleted by retention; zero: never
}

// NewMetrics returns the metrics, registered with reg. admin asks the brokers for the retention of the topics.
func NewMetrics(db queryer, admin *kgo.Client, reg prometheus.Registerer, log *slog.Logger) (*Metrics, error) {
	m := &Metrics{db: db, admin: kadm.NewClient(admin), log: log}
	if err := reg.Register(m); err != nil {
		return nil, fmt.Errorf("registering the metrics of dead letters: %w", err)
	}
	return m, nil
}

// Run keeps the metrics current until ctx ends.
func (m *Metrics) Run(ctx context.Context) error {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		if err := m.refresh(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("counting open dead letters", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// A group whose letters have all been dealt with tells 0: a series that ends says nothing.
const countWaiting = `select group_name, format, topic, count(*) filter (where state = 'open'), min(at) filter (where state = 'open')
  from leat_control.dead_letters group by group_name, format, topic order by 4 desc, 1, 3`

func (m *Metrics) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	rows, err := m.db.Query(ctx, countWaiting)
	if err != nil {
		return fmt.Errorf("reading the index: %w", err)
	}
	var groups []waiting
	at := map[string]int{}
	var group, format, topic string
	var open int64
	var oldest *time.Time
	_, err = pgx.ForEachRow(rows, []any{&group, &format, &topic, &open, &oldest}, func() error {
		name := label(group, Format(format))
		i, known := at[name]
		if !known && len(groups) >= maxGroups {
			name = "other"
			i, known = at[name]
		}
		if !known {
			i = len(groups)
			at[name], groups = i, append(groups, waiting{group: name, first: map[string]time.Time{}})
		}
		g := &groups[i]
		g.open += open
		if oldest == nil {
			return nil
		}
		if g.oldest.IsZero() || oldest.Before(g.oldest) {
			g.oldest = *oldest
		}
		if t, ok := g.first[topic]; !ok || oldest.Before(t) {
			g.first[topic] = *oldest
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the index: %w", err)
	}
	err = m.expire(ctx, groups)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.groups, m.read = groups, time.Now()
	return err
}

func label(group string, f Format) string {
	switch {
	case group != "":
		return group
	case f == Leat:
		return string(Unknown)
	}
	return string(f)
}

// expire finds out when the first open letter of each group is lost.
func (m *Metrics) expire(ctx context.Context, groups []waiting) error {
	var names []string
	for _, g := range groups {
		for topic := range g.first {
			names = append(names, topic)
		}
	}
	if len(names) == 0 {
		return nil
	}
	configs, err := m.admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("reading the retention of dead-letter topics: %w", err)
	}
	retention := map[string]time.Duration{}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if ms, err := strconv.ParseInt(kv.MaybeValue(), 10, 64); kv.Key == "retention.ms" && err == nil && ms >= 0 && ms < 1<<43 {
				retention[c.Name] = time.Duration(ms) * time.Millisecond
			}
		}
	}
	for i := range groups {
		g := &groups[i]
		for topic, first := range g.first {
			if keep, limited := retention[topic]; limited && (g.expiry.IsZero() || first.Add(keep).Before(g.expiry)) {
				g.expiry = first.Add(keep)
			}
		}
	}
	return nil
}

type descriptions struct{ open, oldest, expires *prometheus.Desc }

func (m *Metrics) descriptions() descriptions {
	groups := []string{"group"}
	return descriptions{
		prometheus.NewDesc("leat_dlq_open", "Dead letters about which nobody has decided yet.", groups, nil),
		prometheus.NewDesc("leat_dlq_oldest_seconds", "Age of the oldest open dead letter.", groups, nil),
		prometheus.NewDesc("leat_dlq_expires_seconds", "Time until retention deletes the first open dead letter. Absent where letters are kept for ever.", groups, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	d := m.descriptions()
	ch <- d.open
	ch <- d.oldest
	ch <- d.expires
}

// Collect implements prometheus.Collector. What is older than two minutes is not told: a number that stands still would look well.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.read) > 2*time.Minute {
		return
	}
	d := m.descriptions()
	gauge := func(desc *prometheus.Desc, v float64, group string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, group)
	}
	for _, g := range m.groups {
		gauge(d.open, float64(g.open), g.group)
		age := 0.0
		if !g.oldest.IsZero() {
			age = now.Sub(g.oldest).Seconds()
		}
		gauge(d.oldest, age, g.group)
		if !g.expiry.IsZero() {
			gauge(d.expires, g.expiry.Sub(now).Seconds(), g.group)
		}
	}
}
