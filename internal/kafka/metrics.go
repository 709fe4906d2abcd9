package kafka

import (
	"fmt"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

// metrics are kprom's, added up over all clients that one set of options makes. On its own kprom registers its metrics
// anew with every client, which panics at the second one, and takes them away when any is closed: but the relay and the
// runner replace their clients after a fatal error.
type metrics struct {
	*kprom.Metrics
	once sync.Once

	mu      sync.Mutex
	clients map[*kgo.Client]struct{}
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		Metrics: kprom.NewMetrics("leat_kafka", kprom.Registerer(unbuffered{reg})),
		clients: map[*kgo.Client]struct{}{},
	}
	gauge := func(name, help string, value func(*kgo.Client) int64) error {
		return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			var n int64
			for c := range m.clients {
				n += value(c)
			}
			return float64(n)
		}))
	}
	err := gauge("leat_kafka_buffered_produce_records", "Records that wait in clients to be produced.",
		(*kgo.Client).BufferedProduceRecords)
	if err == nil {
		err = gauge("leat_kafka_buffered_fetch_records", "Fetched records that wait in clients to be polled.",
			(*kgo.Client).BufferedFetchRecords)
	}
	if err != nil {
		return nil, fmt.Errorf("registering kafka metrics (options are made once for a registerer): %w", err)
	}
	return m, nil
}

// OnNewClient is a hook of kgo.
func (m *metrics) OnNewClient(c *kgo.Client) {
	m.once.Do(func() { m.Metrics.OnNewClient(c) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients[c] = struct{}{}
}

// OnClientClosed is a hook of kgo.
func (m *metrics) OnClientClosed(c *kgo.Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.clients, c)
}

// unbuffered leaves out kprom's gauges of what a client buffers: they would show the first client only.
type unbuffered struct{ prometheus.Registerer }

func (r unbuffered) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 8)
	c.Describe(descs)
	if strings.Contains((<-descs).String(), "_buffered_") {
		return nil
	}
	return r.Registerer.Register(c)
}

func (r unbuffered) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}
