package app

import (
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/outbox/relay"
)

func (a *App) newRelay() (*relay.Relay, error) {
	if err := a.cfg.Require(config.NeedKafka, config.NeedSources, config.NeedSourceURL); err != nil {
		return nil, err
	}
	kafka, err := a.KafkaOptions()
	if err != nil {
		return nil, err
	}
	c := relay.Config{Kafka: kafka, Group: a.cfg.Relay.Group, Logger: a.log.With("stage", "relay"), Registerer: a.reg}
	for _, s := range a.cfg.Sources {
		c.Sources = append(c.Sources, relay.Source{Name: s.Name, URL: s.URL.Reveal(), Entities: s.Entities})
	}
	return relay.New(c)
}
