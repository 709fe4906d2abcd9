package testenv

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/internal/broker"
	"github.com/leat-io/leat/internal/devstack"
)

// OwnCluster is an Apache Kafka of several nodes that only one test uses. Topics are made with three replicas of which two must be in
// step, and so are the offsets of groups and the state of transactions: any one node may be down.
//
// Its methods return errors instead of failing the test, so that they can be used beside the test's own goroutine.
type OwnCluster struct{ brokers []*broker.Broker }

// ClusterOptions say what a cluster's nodes are reached by.
type ClusterOptions struct {
	Nodes int // at least 3
	// Listeners of a node, counted from 0, besides the one of Brokers, which asks for nothing.
	Listeners func(node int) []Listener
	// Between is the name of the listener by which the nodes copy from each other; default: the one of Brokers.
	Between string
}

// KafkaCluster starts a cluster as processes of this machine: it needs Java 17. It ends with the test.
func KafkaCluster(tb testing.TB, o ClusterOptions) *OwnCluster {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	libs, err := broker.Libs(ctx)
	if err != nil {
		missing(tb, "a Kafka process", err)
	}
	c := &OwnCluster{}
	var voters []string
	var settings []map[string]string
	for node := range o.Nodes {
		scratch, err := devstack.NewScratch()
		require.NoError(tb, err)
		s := clusterSettings(node+1, o.Between)
		b := broker.New(broker.Options{Libs: libs, Dir: scratch.Dir(), Listeners: o.Listeners(node), Settings: s})
		tb.Cleanup(func() {
			b.Kill()
			if err := scratch.Remove(); err != nil {
				tb.Logf("removing the data of Kafka: %v", err)
			}
		})
		controller, err := b.Controller()
		require.NoError(tb, err)
		voters = append(voters, fmt.Sprintf("%d@%s", node+1, controller))
		c.brokers, settings = append(c.brokers, b), append(settings, s)
	}
	var g errgroup.Group
	for node, b := range c.brokers {
		settings[node]["controller.quorum.voters"] = strings.Join(voters, ",")
		g.Go(func() error { return b.Start(ctx) })
	}
	require.NoError(tb, g.Wait())
	return c
}

func clusterSettings(id int, between string) map[string]string {
	s := brokerSettings()
	maps.Copy(s, map[string]string{
		"node.id":                                          strconv.Itoa(id),
		"default.replication.factor":                       "3",
		"min.insync.replicas":                              "2",
		"offsets.topic.replication.factor":                 "3",
		"transaction.state.log.replication.factor":         "3",
		"transaction.state.log.min.isr":                    "2",
		"share.coordinator.state.topic.replication.factor": "3",
		"share.coordinator.state.topic.min.isr":            "2",
		"broker.session.timeout.ms":                        "3000", // a killed broker loses its leaderships after this
		"broker.heartbeat.interval.ms":                     "500",
	})
	if between != "" {
		s["inter.broker.listener.name"] = strings.ToUpper(between)
	}
	return s
}

// Brokers are the addresses; they stay the same over restarts.
func (c *OwnCluster) Brokers() []string {
	var all []string
	for _, b := range c.brokers {
		all = append(all, b.Addresses()...)
	}
	return all
}

// Listener returns the addresses of one of the listeners, by its name, as clients are told them.
func (c *OwnCluster) Listener(name string) []string {
	var all []string
	for _, b := range c.brokers {
		all = append(all, b.Listener(name))
	}
	return all
}

// Kill ends a node, counted from 0, as a crash does.
func (c *OwnCluster) Kill(node int) { c.brokers[node].Kill() }

// Stop ends a node in good order: it hands its leaderships over first.
func (c *OwnCluster) Stop(node int) error {
	return c.brokers[node].Process().Stop(syscall.SIGTERM, time.Minute)
}

// Start starts a node that was stopped or killed, with the same ports and data, and waits until it answers.
func (c *OwnCluster) Start(ctx context.Context, node int) error { return c.brokers[node].Start(ctx) }

// Signal sends sig to a node.
func (c *OwnCluster) Signal(node int, sig syscall.Signal) error {
	return c.brokers[node].Process().Signal(sig)
}
