package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/kafka"
	"github.com/leat-io/leat/topics"
)

// KafkaOptions are what every Kafka client of this process begins with. All of them share one set of metrics.
func (a *App) KafkaOptions() ([]kgo.Opt, error) { return a.kafka() }

func (a *App) makeKafkaOptions() ([]kgo.Opt, error) {
	if err := a.cfg.Require(config.NeedKafka); err != nil {
		return nil, err
	}
	k := a.cfg.Kafka
	log := a.log.With("part", "kafka")
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		log = slog.New(quiet{log.Handler()})
	}
	return kafka.Options(kafka.Config{
		Brokers: k.Brokers, ClientID: k.ClientID,
		TLS: kafka.TLS{
			Enabled: k.TLS.Enabled, CAFile: k.TLS.CAFile, CertFile: k.TLS.CertFile, KeyFile: k.TLS.KeyFile,
			ServerName: k.TLS.ServerName, Insecure: k.TLS.Insecure,
		},
		SASL: kafka.SASL{Mechanism: k.SASL.Mechanism, Username: k.SASL.Username, Password: k.SASL.Password.Reveal()},
	}, log, a.reg)
}

// withKafka calls do with a client for administration.
func (a *App) withKafka(do func(*kgo.Client) error) error {
	opts, err := a.KafkaOptions()
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("making a Kafka client: %w", err)
	}
	defer cl.Close()
	return kafka.Explain(do(cl))
}

// catalogue lists every topic of this installation.
func (a *App) catalogue() ([]topics.Topic, error) {
	i := a.installation()
	return topics.Catalogue(topics.Spec{
		Partitions: int32(a.cfg.Kafka.Partitions), Replication: int16(a.cfg.Kafka.Replication),
		Sources: i.Sources, Groups: []topics.GroupSpec{i.Normalize, i.Publish},
	})
}

// installation names the sources and groups. The normalize group has retry and dead-letter topics for every source topic, so that
// a mapping can be added later without a change of topics or of rights.
func (a *App) installation() kafka.Installation {
	i := kafka.Installation{
		RelayGroup: a.cfg.Relay.Group, Foreign: a.cfg.Index.DeadLetterTopics,
		Normalize: topics.GroupSpec{Group: a.cfg.Normalize.Group},
		Publish:   topics.GroupSpec{Group: a.cfg.Publish.Group, Reads: financeTopics()},
	}
	for _, s := range a.cfg.Sources {
		i.Sources = append(i.Sources, topics.SourceSpec{System: s.Name, Entities: s.Entities, Retention: s.Retention})
		for _, e := range s.Entities {
			i.Normalize.Reads = append(i.Normalize.Reads, topics.Source(s.Name, e))
		}
	}
	return i
}

// TopicsACLs are what the principals of this installation need of Kafka: of all roles, or of the one that is named, for its
// default principal or for the one given. It opens no connection.
func (a *App) TopicsACLs(role, principal string) (kafka.ACLs, error) {
	if err := a.cfg.Require(config.NeedSources); err != nil {
		return nil, err
	}
	acls := kafka.NewACLs(a.installation())
	if role == "" {
		return acls, nil
	}
	return acls.As(kafka.Role(role), principal)
}

func financeTopics() []string {
	var names []string
	for _, e := range topics.Entities() {
		names = append(names, topics.Finance(e, 1))
	}
	return names
}

// TopicNames lists every topic of this installation.
func (a *App) TopicNames() ([]string, error) {
	catalogue, err := a.catalogue()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(catalogue))
	for i, t := range catalogue {
		names[i] = t.Name
	}
	return names, nil
}

// TopicsPlan compares the cluster with the catalogue. It changes nothing.
func (a *App) TopicsPlan(ctx context.Context) (plan kafka.Plan, err error) {
	if err := a.cfg.Require(config.NeedKafka, config.NeedSources); err != nil {
		return plan, err
	}
	catalogue, err := a.catalogue()
	if err != nil {
		return plan, err
	}
	err = a.withKafka(func(cl *kgo.Client) (err error) {
		plan, err = kafka.ReadPlan(ctx, cl, catalogue)
		return err
	})
	return plan, err
}

// TopicsApply makes the cluster's topics those of the catalogue, as far as that loses nothing; the report says what it
// refused.
func (a *App) TopicsApply(ctx context.Context) (report kafka.Report, err error) {
	plan, err := a.TopicsPlan(ctx)
	if err != nil {
		return report, err
	}
	err = a.withKafka(func(cl *kgo.Client) (err error) {
		report, err = plan.Apply(ctx, cl)
		return err
	})
	return report, err
}
