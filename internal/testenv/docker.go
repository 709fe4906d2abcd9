package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/leat-io/leat/internal/broker"
	"github.com/leat-io/leat/internal/devstack"
)

const (
	kafkaImage    = "apache/kafka:4.1.1"
	postgresImage = "postgres:17-alpine"
	reaperOff     = "TESTCONTAINERS_RYUK_DISABLED"
	imageTimeout  = 3 * time.Minute // a first start pulls the image
)

// dockerAnswers asks whether there is a Docker daemon that may be used.
func dockerAnswers(ctx context.Context) (ok bool) {
	if use, err := strconv.ParseBool(os.Getenv("LEAT_TEST_DOCKER")); err == nil && !use {
		return false
	}
	defer func() { // testcontainers panics where it finds no trace of a daemon
		if recover() != nil {
			ok = false
		}
	}()
	provider, err := testcontainers.ProviderDefault.GetProvider()
	if err != nil {
		return false
	}
	defer func() { _ = provider.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return provider.Health(ctx) == nil
}

// withoutReaper runs this program anew without testcontainers' reaper, unless it runs without it already. The reaper
// removes the containers of a keeper that was killed; it needs an image of its own, which may be what cannot be had.
// testcontainers reads the setting once per process.
func withoutReaper() error {
	if _, set := os.LookupEnv(reaperOff); set {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(program, os.Args, append(os.Environ(), reaperOff+"=true"))
}

func dockerPostgres(ctx context.Context) (kept, error) {
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	args := []string{"-c", "fsync=off"}
	for name, value := range postgresSettings() {
		args = append(args, "-c", name+"="+value)
	}
	c, err := postgres.Run(ctx, postgresImage, postgres.WithPassword("leat"),
		testcontainers.WithCmdArgs(args...), publish("5432/tcp", ""),
		// The server starts twice on an empty directory.
		testcontainers.WithWaitStrategy(wait.ForLog("database system is ready to accept connections").WithOccurrence(2)))
	k := kept{origin: postgresImage + " in Docker", stop: terminator(c)}
	if err != nil {
		return kept{}, errors.Join(err, k.close())
	}
	// Not the container's own word for its host: seen from inside a container that is an address nothing is published on.
	port, err := c.MappedPort(ctx, "5432/tcp")
	if err != nil {
		return kept{}, errors.Join(err, k.close())
	}
	k.addresses = []string{fmt.Sprintf("postgres://postgres:leat@127.0.0.1:%d/postgres?sslmode=disable", port.Num())}
	if err := waitPostgres(ctx, k.addresses[0]); err != nil {
		return kept{}, errors.Join(err, k.close())
	}
	return k, nil
}

func dockerKafka(ctx context.Context) (kept, error) {
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	// The broker must know the port it is reached at before it starts, so Docker does not choose it.
	port, err := devstack.FreePort()
	if err != nil {
		return kept{}, err
	}
	inside := strconv.Itoa(port) + "/tcp"
	settings := brokerSettings()
	settings["listeners"] = fmt.Sprintf("PLAINTEXT://:%d,CONTROLLER://:9093", port)
	settings["advertised.listeners"] = fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", port)
	settings["controller.quorum.voters"] = "1@localhost:9093"
	env := map[string]string{"CLUSTER_ID": broker.ClusterID, "KAFKA_HEAP_OPTS": "-Xmx512m"}
	for name, value := range settings {
		env["KAFKA_"+strings.ToUpper(strings.ReplaceAll(name, ".", "_"))] = value
	}
	c, err := testcontainers.Run(ctx, kafkaImage, testcontainers.WithEnv(env),
		testcontainers.WithExposedPorts(inside),
		publish(inside, strconv.Itoa(port)))
	k := kept{origin: kafkaImage + " in Docker", stop: terminator(c)}
	if err != nil {
		return kept{}, errors.Join(err, k.close())
	}
	k.addresses = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if err := broker.Wait(ctx, k.addresses); err != nil {
		return kept{}, errors.Join(err, k.close())
	}
	return k, nil
}

// publish makes a container's port reachable from this machine only; without a host port Docker chooses one.
func publish(inside, hostPort string) testcontainers.CustomizeRequestOption {
	return testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
		h.PortBindings = network.PortMap{network.MustParsePort(inside): {{
			HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: hostPort,
		}}}
	})
}

func terminator(c testcontainers.Container) func(context.Context) error {
	return func(ctx context.Context) error {
		return testcontainers.TerminateContainer(c, testcontainers.StopContext(ctx), testcontainers.StopTimeout(0))
	}
}

func waitPostgres(ctx context.Context, address string) error {
	for {
		conn, err := pgx.Connect(ctx, address)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
