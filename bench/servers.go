package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/broker"
	"github.com/leat-io/leat/internal/devstack"
)

// servers are the Kafka and the Postgres that everything is measured on: started here, or given by flags.
type servers struct {
	brokers     []string
	postgresURL string
	kafkaPID    int // 0 for one that was given
	postgresPID int
	kafkaLibs   string // directory of the jars; "" with a Kafka that was given
	dir         string // holds the data of what was started; "" when nothing was
	settings    []string
	closing     []func() error
}

// start uses the servers of the flags, and starts those that are not given. What was started is ended by close, also after an error.
func (s *servers) start(ctx context.Context, o options) error {
	s.brokers, s.postgresURL = strings.Split(o.kafka, ","), o.postgres
	if o.kafka == "" {
		if err := s.startKafka(ctx); err != nil {
			return err
		}
	}
	if o.postgres == "" {
		return s.startPostgres(ctx)
	}
	return nil
}

// kafkaJVM is what bin/kafka-server-start.sh gives a broker.
func kafkaJVM() []string {
	return []string{"-Xms1G", "-Xmx1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"}
}

func (s *servers) startKafka(ctx context.Context) (err error) {
	if s.kafkaLibs, err = broker.Libs(ctx); err != nil {
		return err
	}
	scratch, err := devstack.NewScratch()
	if err != nil {
		return err
	}
	s.closing, s.dir = append(s.closing, scratch.Remove), scratch.Dir()
	// All else is Kafka's default. The delay is for many members that start at once; here one starts, and every first start would wait.
	settings := map[string]string{"group.initial.rebalance.delay.ms": "0"}
	k := broker.New(broker.Options{Libs: s.kafkaLibs, Dir: scratch.Dir(), JVM: kafkaJVM(), Settings: settings})
	s.closing = append(s.closing, func() error { k.Kill(); return nil }) // its data is thrown away: no need for good order
	if err := k.Start(ctx); err != nil {
		return err
	}
	s.brokers, s.kafkaPID = k.Addresses(), k.Process().PID()
	s.settings = append(s.settings, "Kafka: one broker, replication factor 1, "+strings.Join(kafkaJVM(), " ")+", "+list(settings))
	return nil
}

func (s *servers) startPostgres(ctx context.Context) error {
	settings := map[string]string{
		"fsync": "on", "synchronous_commit": "on", "wal_level": "logical", "shared_buffers": "512MB", "max_wal_size": "4GB",
		"max_connections": "300",
	}
	p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Settings: settings})
	if err != nil {
		return err
	}
	s.closing = append(s.closing, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return p.Stop(ctx)
	})
	s.postgresURL, s.postgresPID = p.URL(), p.PID()
	s.settings = append(s.settings, "PostgreSQL: "+list(settings))
	return nil
}

// needDisk is an error when servers that were started here have less room than that.
func (s *servers) needDisk(bytes uint64) error {
	var fs syscall.Statfs_t
	if s.dir == "" {
		return nil
	}
	if err := syscall.Statfs(s.dir, &fs); err != nil {
		return fmt.Errorf("looking for free disk under %s: %w", s.dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < bytes { //nolint:gosec // a size of a block
		return fmt.Errorf("needs %d GB of disk under %s and finds %d: choose fewer -rows, or another TMPDIR", bytes>>30, s.dir, free>>30)
	}
	return nil
}

func list(settings map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		all = append(all, name+"="+settings[name])
	}
	return strings.Join(all, " ")
}

func (s *servers) close() error {
	var errs []error
	for _, f := range slices.Backward(s.closing) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
