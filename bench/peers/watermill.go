package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	watermillsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx of database/sql
)

const (
	watermillBatch = 10_000
	forwarderTopic = "forwarder"
	keyMetadata    = "key"
)

func watermillSchema() watermillsql.DefaultPostgreSQLSchema {
	return watermillsql.DefaultPostgreSQLSchema{SubscribeBatchSize: watermillBatch}
}

func watermillLogger() watermill.LoggerAdapter {
	return watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
}

// watermillRun forwards from the table to Kafka.
func watermillRun(ctx context.Context, s setup) error {
	db, err := sql.Open("pgx", s.postgres)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	from, err := watermillsql.NewSubscriber(db, watermillsql.SubscriberConfig{
		SchemaAdapter: watermillSchema(), OffsetsAdapter: watermillsql.DefaultPostgreSQLOffsetsAdapter{}, PollInterval: 10 * time.Millisecond,
		InitializeSchema: true,
	}, watermillLogger())
	if err != nil {
		return err
	}
	config := kafka.DefaultSaramaSyncPublisherConfig()
	config.Producer.RequiredAcks = sarama.WaitForAll // as everybody else here
	to, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: s.brokers, OverwriteSaramaConfig: config,
		Marshaler: kafka.NewWithPartitioningMarshaler(func(_ string, msg *message.Message) (string, error) {
			return msg.Metadata.Get(keyMetadata), nil
		}),
	}, watermillLogger())
	if err != nil {
		return err
	}
	f, err := forwarder.NewForwarder(from, to, watermillLogger(), forwarder.Config{ForwarderTopic: forwarderTopic})
	if err != nil {
		return err
	}
	return f.Run(ctx)
}

// watermillFill publishes each row of the outbox to the forwarder, 100 in a transaction.
func watermillFill(ctx context.Context, s setup) error {
	pool, err := pgxpool.New(ctx, s.postgres)
	if err != nil {
		return err
	}
	defer pool.Close()
	db, err := sql.Open("pgx", s.postgres)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	to, err := watermillsql.NewPublisher(db, watermillsql.PublisherConfig{SchemaAdapter: watermillSchema(), AutoInitializeSchema: true}, watermillLogger())
	if err != nil {
		return err
	}
	pub := forwarder.NewPublisher(to, forwarder.PublisherConfig{ForwarderTopic: forwarderTopic})
	err = eachBatch(ctx, pool, 100, func(rows []row) error {
		messages := make([]*message.Message, len(rows))
		for i, r := range rows {
			messages[i] = message.NewMessage(watermill.NewUUID(), r.payload)
			messages[i].Metadata.Set(keyMetadata, r.key)
		}
		return pub.Publish(rows[0].destination, messages...)
	})
	if err != nil {
		return fmt.Errorf("publishing to the forwarder: %w", err)
	}
	return nil
}
