package testenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/devstack"
)

const (
	brokerTimeout = 2 * time.Minute
	clusterID     = "bGVhdC10ZXN0LWNsdXN0ZQ"
)

// broker is an Apache Kafka of one node, as a process of this machine.
type broker struct {
	libs             string // directory of the jars
	dir              string // configuration, data and log
	port, controller int    // taken on the first start
	settings         map[string]string
	listeners        []Listener
	listenerPorts    map[string]int // by name
	process          *devstack.Process
}

// Listener is a further way into a broker, with demands of its own.
type Listener struct {
	Name     string            // lower-case letters and digits
	Protocol string            // SSL, SASL_SSL or SASL_PLAINTEXT
	Settings map[string]string // as ssl.keystore.location: without the prefix of the listener
}

func (b *broker) start(ctx context.Context) error {
	if b.port == 0 {
		if err := b.format(ctx); err != nil {
			return err
		}
	}
	logFile, err := os.OpenFile(b.logName(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of Kafka: %w", err)
	}
	defer func() { _ = logFile.Close() }() // the child has its own descriptor
	// The broker ends with kill or Stop, not with the context that was given for starting it.
	cmd := java(context.WithoutCancel(ctx), b.libs, "-Xmx512m", "kafka.Kafka", b.configName())
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, logFile, logFile
	if b.process, err = devstack.Start(cmd, syscall.SIGKILL); err != nil {
		return err
	}
	if err := b.waitReady(ctx); err != nil {
		b.kill()
		return fmt.Errorf("starting Kafka: %w: %s", err, tail(b.logName()))
	}
	return nil
}

func (b *broker) format(ctx context.Context) (err error) {
	if b.port, err = devstack.FreePort(); err != nil {
		return err
	}
	if b.controller, err = devstack.FreePort(); err != nil {
		return err
	}
	settings := brokerSettings()
	settings["listeners"] = fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", b.port, b.controller)
	settings["advertised.listeners"] = fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", b.port)
	settings["controller.quorum.voters"] = fmt.Sprintf("1@127.0.0.1:%d", b.controller)
	settings["log.dirs"] = filepath.Join(b.dir, "data")
	if err := b.addListeners(settings); err != nil {
		return err
	}
	maps.Copy(settings, b.settings)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		lines = append(lines, name+"="+settings[name])
	}
	if err := os.WriteFile(b.configName(), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing the configuration of Kafka: %w", err)
	}
	cmd := java(ctx, b.libs, "-Xmx128m", "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", b.configName())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("formatting the storage of Kafka: %w: %s", err, out)
	}
	return nil
}

func (b *broker) addListeners(settings map[string]string) error {
	b.listenerPorts = map[string]int{}
	for _, l := range b.listeners {
		port, err := devstack.FreePort()
		if err != nil {
			return err
		}
		b.listenerPorts[l.Name] = port
		name, address := strings.ToUpper(l.Name), b.address(port)
		settings["listeners"] += "," + name + "://" + address
		settings["advertised.listeners"] += "," + name + "://" + address
		settings["listener.security.protocol.map"] += "," + name + ":" + l.Protocol
		for setting, value := range l.Settings {
			settings["listener.name."+l.Name+"."+setting] = value
		}
	}
	return nil
}

func (b *broker) waitReady(ctx context.Context) error {
	answered := make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	go func() { answered <- waitKafka(ctx, b.addresses()) }()
	select {
	case err := <-answered:
		return err
	case <-b.process.Done():
		return errors.New("it ended")
	}
}

// waitKafka waits until a broker answers.
func waitKafka(ctx context.Context, addresses []string) error {
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

func (b *broker) kill() {
	if b.process != nil {
		b.process.Kill()
	}
}

func (b *broker) addresses() []string { return []string{b.address(b.port)} }

func (b *broker) address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (b *broker) configName() string { return filepath.Join(b.dir, "server.properties") }
func (b *broker) logName() string    { return filepath.Join(b.dir, "kafka.log") }

// brokerSettings are those that do not depend on where the broker runs: small, and quick to notice what tests wait for.
func brokerSettings() map[string]string {
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
		// Members come and go in tests: the group must not wait for more of them, nor long for the dead.
		"group.initial.rebalance.delay.ms":                            "0",
		"group.min.session.timeout.ms":                                "1000",
		"group.consumer.min.session.timeout.ms":                       "1000",
		"group.consumer.session.timeout.ms":                           "6000",
		"group.consumer.min.heartbeat.interval.ms":                    "500",
		"group.consumer.heartbeat.interval.ms":                        "500",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		"log.cleaner.dedupe.buffer.size":                              "16777216",
		"log.cleaner.backoff.ms":                                      "1000",
	}
}

func tail(name string) string {
	const limit = 3000
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-limit):]))
}

// java runs a class of Kafka's jars in a JVM that starts quickly.
func java(ctx context.Context, libs, heap, class string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, javaProgram(), append([]string{
		heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dlog4j2.configurationFile=" + filepath.Join(libs, log4jName),
		"-cp", filepath.Join(libs, "*"), class,
	}, args...)...)
}
