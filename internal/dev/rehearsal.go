package dev

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/examples/chinook"
	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/topics"
)

// rehearsal is one run: servers with schemas, topics and an idle shop on them.
type rehearsal struct {
	Options
	begin    time.Time
	servers  *servers
	cfg      *config.Config
	app      *app.App
	desk     *desk
	shop     *chinook.Shop
	source   *pgxpool.Pool
	books    *pgxpool.Pool
	kafka    *kgo.Client
	opts     []kgo.Opt
	topics   []string
	baseline marks // where the topics ended before this run: brokers that were given may have seen others
}

func newRehearsal(ctx context.Context, o Options, s *servers, begin time.Time) (*rehearsal, error) {
	r := &rehearsal{Options: o, begin: begin, servers: s, cfg: configure(o, s)}
	o.App.Mappings = chinook.Mappings()
	r.app = app.New(r.cfg, o.App)
	if err := r.prepare(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func configure(o Options, s *servers) *config.Config {
	cfg := config.Default()
	cfg.Kafka.Brokers = s.brokers
	cfg.Kafka.ClientID = "leat-dev"
	cfg.Kafka.Partitions = 4
	cfg.Sources = []config.Source{{
		Name: chinook.System, URL: config.NewDatabaseURL(s.source), Entities: chinook.Entities(),
		Retention: 24 * time.Hour, OutboxRetention: 24 * time.Hour,
	}}
	cfg.Control.URL = config.NewDatabaseURL(s.control)
	cfg.Publish.Reporting.URL = config.NewDatabaseURL(s.reporting)
	cfg.HTTP.Listen = o.Listen
	cfg.Log.Format = "text"
	return cfg
}

func (r *rehearsal) prepare(ctx context.Context) (err error) {
	if r.desk, err = newDesk(r.servers, r.cfg); err != nil {
		return err
	}
	if _, err := r.app.Migrate(ctx, app.MigrateOptions{Action: "up"}); err != nil {
		return err
	}
	if r.source, err = pgxpool.New(ctx, r.servers.source); err != nil {
		return fmt.Errorf("connecting to the shop's database: %w", err)
	}
	if r.books, err = pgxpool.New(ctx, r.servers.reporting); err != nil {
		return fmt.Errorf("connecting to the reporting database: %w", err)
	}
	if err := chinook.Migrate(ctx, r.source); err != nil {
		return err
	}
	r.shop, err = chinook.New(chinook.Options{DB: r.source, Seed: r.Seed, Rate: r.Rate})
	if err != nil {
		return err
	}
	if _, err := r.app.TopicsApply(ctx); err != nil {
		return err
	}
	if r.topics, err = r.app.TopicNames(); err != nil {
		return err
	}
	if r.opts, err = r.app.KafkaOptions(); err != nil {
		return err
	}
	if r.kafka, err = kgo.NewClient(r.opts...); err != nil {
		return fmt.Errorf("connecting to Kafka: %w", err)
	}
	if err := r.adopt(ctx); err != nil {
		return err
	}
	r.baseline, err = committedEnds(ctx, kadm.NewClient(r.kafka), r.topics)
	return err
}

const raiseEpochSQL = `select leat.raise_epoch($1)`

// adopt tells the relay that the shop's database has been made anew. Brokers that were given may have the position of an
// earlier rehearsal, with which the relay rightly refuses to go on.
func (r *rehearsal) adopt(ctx context.Context) error {
	status, err := r.app.RelayStatus(ctx, chinook.System)
	if err != nil {
		return err
	}
	p := status[0].Position
	if p == nil {
		return nil
	}
	if _, err := r.source.Exec(ctx, raiseEpochSQL, p.Epoch+1); err != nil {
		return fmt.Errorf("raising the epoch of the shop's outbox: %w", err)
	}
	_, err = r.app.RelayAdopt(ctx, app.Adoption{
		Source: chinook.System, From: "beginning", Reason: "leat dev made the database anew",
	})
	return err
}

func (r *rehearsal) close() error {
	if r.kafka != nil {
		r.kafka.Close()
	}
	for _, db := range []*pgxpool.Pool{r.source, r.books} {
		if db != nil {
			db.Close()
		}
	}
	if r.desk == nil {
		return nil
	}
	return r.desk.close()
}

// settled reports whether nothing moves any more: every outbox row is on Kafka, and no group has anything left to read or
// to try again.
func (r *rehearsal) settled(ctx context.Context) (bool, error) {
	rows, err := outboxRows(ctx, r.source)
	if err != nil {
		return false, err
	}
	adm := kadm.NewClient(r.kafka)
	ends, err := committedEnds(ctx, adm, r.topics)
	if err != nil {
		return false, err
	}
	counts, err := countRecords(ctx, r.opts, r.baseline, ends)
	if err != nil {
		return false, err
	}
	if int64(sumTopics(counts, isSource)+counts[topics.RelayDLQ]) < rows {
		return false, nil
	}
	for group, reads := range r.reads() {
		done, err := r.hasRead(ctx, adm, group, ends.only(reads))
		if err != nil || !done {
			return false, err
		}
	}
	n, err := readCounts(r.app.Metrics())
	return n.Parked == 0, err
}

// reads are the topics of each consumer group.
func (r *rehearsal) reads() map[string]func(topic string) bool {
	return map[string]func(string) bool{r.cfg.Normalize.Group: isSource, r.cfg.Publish.Group: isFinance}
}

func (r *rehearsal) hasRead(ctx context.Context, adm *kadm.Client, group string, ends marks) (bool, error) {
	committed, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return false, fmt.Errorf("fetching the offsets of group %s: %w", group, err)
	}
	from := marks{}
	committed.Each(func(o kadm.OffsetResponse) { from.set(o.Topic, o.Partition, o.At) })
	left, err := countRecords(ctx, r.opts, from, ends)
	return sumTopics(left, func(string) bool { return true }) == 0, err
}

func isSource(topic string) bool { return strings.HasPrefix(topic, "source.") && !isFailure(topic) }

func isFinance(topic string) bool { return strings.HasPrefix(topic, "finance.") && !isFailure(topic) }
func isDLQ(topic string) bool     { return strings.HasSuffix(topic, ".dlq") }
func isFailure(topic string) bool { return isDLQ(topic) || strings.HasSuffix(topic, ".retry") }

func sumTopics(counts map[string]int, which func(string) bool) (n int) {
	for topic, c := range counts {
		if which(topic) {
			n += c
		}
	}
	return n
}

var errDisagree = errors.New("the books do not agree with the shop")
