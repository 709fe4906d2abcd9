// Package broker runs nodes of a real Apache Kafka as processes of this machine, with the jars that Maven fetched. Tests and
// measurements use it; it is not part of the leat binary, and no way to run Kafka in production.
package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/devstack"
)

const startTimeout = 2 * time.Minute

// ClusterID is that of every broker here.
const ClusterID = "bGVhdC10ZXN0LWNsdXN0ZQ"

// Options say how a broker runs. Libs and Dir are needed.
type Options struct {
	Libs      string            // directory of the jars, as Libs returns it
	Dir       string            // configuration, data and log
	Settings  map[string]string // of server.properties, over those of Settings
	Listeners []Listener
	JVM       []string // default: a small heap, and a JVM that starts quickly
}

// Broker is one Kafka. It is not safe for concurrent use.
type Broker struct {
	o                Options
	port, controller int // taken on the first start, or when Controller is asked
	formatted        bool
	advertised       map[string]string // addresses of the further listeners, by name
	process          *devstack.Process
}

// Listener is a further way into a broker, with demands of its own.
type Listener struct {
	Name     string            // lower-case letters and digits
	Protocol string            // PLAINTEXT, SSL, SASL_SSL or SASL_PLAINTEXT
	Settings map[string]string // as ssl.keystore.location: without the prefix of the listener
	// Front returns the address that clients are told to use, of a proxy in front of the listener's own; nil tells them its own.
	Front func(address string) (string, error)
}

// New is a broker that does not run yet.
func New(o Options) *Broker {
	if len(o.JVM) == 0 {
		o.JVM = []string{"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"}
	}
	return &Broker{o: o}
}

// Start starts a broker that does not run, and waits until it answers, two minutes at most. Address and data stay the same over
// restarts. It does not outlive this process.
func (b *Broker) Start(ctx context.Context) error {
	if !b.formatted {
		if err := b.format(ctx); err != nil {
			return err
		}
		b.formatted = true
	}
	logFile, err := os.OpenFile(b.logName(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of Kafka: %w", err)
	}
	defer func() { _ = logFile.Close() }() // the child has its own descriptor
	// The broker ends with Kill or Stop, not with the context that was given for starting it.
	cmd := java(context.WithoutCancel(ctx), b.o.Libs, b.o.JVM, "kafka.Kafka", b.configName())
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.o.Dir, logFile, logFile
	if b.process, err = devstack.Start(cmd, syscall.SIGKILL); err != nil {
		return err
	}
	if err := b.waitReady(ctx); err != nil {
		b.Kill()
		return fmt.Errorf("starting Kafka: %w: %s", err, b.logTail())
	}
	return nil
}

func (b *Broker) format(ctx context.Context) (err error) {
	if err := b.takePorts(); err != nil {
		return err
	}
	settings := Settings()
	settings["controller.quorum.voters"] = fmt.Sprintf("1@127.0.0.1:%d", b.controller)
	maps.Copy(settings, b.o.Settings)
	settings["listeners"] = fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", b.port, b.controller)
	settings["advertised.listeners"] = fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", b.port)
	settings["log.dirs"] = filepath.Join(b.o.Dir, "data")
	if err := b.addListeners(settings); err != nil {
		return err
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		lines = append(lines, name+"="+settings[name])
	}
	if err := os.WriteFile(b.configName(), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing the configuration of Kafka: %w", err)
	}
	cmd := Java(ctx, b.o.Libs, "-Xmx128m", "kafka.tools.StorageTool", "format", "-t", ClusterID, "-c", b.configName())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("formatting the storage of Kafka: %w: %s", err, out)
	}
	return nil
}

// Controller is the address at which the other nodes of a cluster find this one's controller. A cluster's nodes have the setting
// controller.quorum.voters of all of them.
func (b *Broker) Controller() (string, error) {
	err := b.takePorts()
	return b.address(b.controller), err
}

func (b *Broker) takePorts() (err error) {
	if b.port != 0 {
		return nil
	}
	if b.port, err = devstack.FreePort(); err != nil {
		return err
	}
	b.controller, err = devstack.FreePort()
	return err
}

func (b *Broker) addListeners(settings map[string]string) error {
	b.advertised = map[string]string{}
	for _, l := range b.o.Listeners {
		port, err := devstack.FreePort()
		if err != nil {
			return err
		}
		name, address := strings.ToUpper(l.Name), b.address(port)
		settings["listeners"] += "," + name + "://" + address
		if l.Front != nil {
			if address, err = l.Front(address); err != nil {
				return fmt.Errorf("putting a proxy in front of listener %s: %w", l.Name, err)
			}
		}
		b.advertised[l.Name] = address
		settings["advertised.listeners"] += "," + name + "://" + address
		settings["listener.security.protocol.map"] += "," + name + ":" + l.Protocol
		for setting, value := range l.Settings {
			settings["listener.name."+l.Name+"."+setting] = value
		}
	}
	return nil
}

func (b *Broker) waitReady(ctx context.Context) error {
	answered := make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	go func() { answered <- Wait(ctx, b.Addresses()) }()
	select {
	case err := <-answered:
		return err
	case <-b.process.Done():
		return errors.New("it ended")
	}
}

// Wait waits until a broker answers, or ctx ends.
func Wait(ctx context.Context, addresses []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addresses...), kgo.RetryTimeout(time.Second),
		kgo.DialTimeout(time.Second), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		err := client.Ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Kill ends the broker as a crash does.
func (b *Broker) Kill() {
	if b.process != nil {
		b.process.Kill()
	}
}

// Process is the broker's, nil before its first start.
func (b *Broker) Process() *devstack.Process { return b.process }

// Addresses are those of the listener that asks for nothing.
func (b *Broker) Addresses() []string { return []string{b.address(b.port)} }

// Listener is the address of one of the further listeners, by its name, as clients are told it.
func (b *Broker) Listener(name string) string { return b.advertised[name] }

func (b *Broker) address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (b *Broker) configName() string { return filepath.Join(b.o.Dir, "server.properties") }
func (b *Broker) logName() string    { return filepath.Join(b.o.Dir, "kafka.log") }

// Settings are those of a single node that do not depend on where it runs. All else is Kafka's default.
func Settings() map[string]string {
	return map[string]string{
		"node.id":                                          "1",
		"process.roles":                                    "broker,controller",
		"controller.listener.names":                        "CONTROLLER",
		"listener.security.protocol.map":                   "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"auto.create.topics.enable":                        "false",
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "1",
	}
}

func (b *Broker) logTail() string {
	const limit = 3000
	text, err := os.ReadFile(b.logName())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-limit):]))
}
