package dev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/internal/devstack"
)

// servers are the Kafka and the Postgres of a rehearsal, and its databases.
type servers struct {
	brokers                    []string
	embedded                   *devstack.Kafka // nil for brokers that were given
	postgres                   *devstack.Postgres
	source, control, reporting string // URLs
}

func startServers(ctx context.Context, o Options) (*servers, error) {
	s := &servers{}
	var g errgroup.Group
	g.Go(func() error { return s.startKafka(ctx, cmp.Or(o.Kafka, o.App.Getenv("LEAT_KAFKA_BROKERS"))) })
	g.Go(func() error { return s.startPostgres(ctx, cmp.Or(o.Postgres, o.App.Getenv("DATABASE_URL"))) })
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *servers) startKafka(ctx context.Context, given string) error {
	if given != "" {
		s.brokers = strings.Split(given, ",")
		return nil
	}
	k, err := devstack.StartKafka(ctx, devstack.KafkaOptions{})
	if err != nil {
		return fmt.Errorf("%w; name brokers with --kafka to use other ones", err)
	}
	s.embedded, s.brokers = k, k.Brokers()
	return nil
}

func (s *servers) startPostgres(ctx context.Context, given string) error {
	p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{DatabaseURL: given})
	if err != nil {
		return err
	}
	s.postgres = p
	for name, url := range map[string]*string{chinookDB: &s.source, controlDB: &s.control, reportingDB: &s.reporting} {
		if *url, err = p.Database(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

const (
	chinookDB   = "chinook"
	controlDB   = "control"
	reportingDB = "reporting"
)

// stop ends the servers that were started. It has its own time: the context of the run is over by then.
func (s *servers) stop() error {
	if s.embedded != nil {
		s.embedded.Stop()
	}
	if s.postgres == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return s.postgres.Stop(ctx)
}

func (s *servers) kafkaOrigin() string {
	if s.embedded != nil {
		return "embedded, in this process's memory"
	}
	return "the brokers that were given"
}
