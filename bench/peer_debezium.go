package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
)

// debeziumHow is what the report says of the settings.
const debeziumHow = "Debezium 3.7.0 with its outbox event router, on one distributed Kafka Connect 4.3.1 worker with the JVM options of Kafka's start " +
	"script (2 GB of heap, G1). Payload jsonb with StringConverter, its cheapest way; `snapshot.mode=no_data`, metrics of statistics off, " +
	"`producer.override`: lz4, `linger.ms=10`, `batch.size=262144`. For latency instead `poll.interval.ms=5`, `linger.ms=0`, no compression. " +
	"Exactly once is `exactly.once.source.support=enabled`, at least once has `offset.flush.interval.ms=5000` (default 60000). " +
	"The slot is made first, then the connector is stopped, the backlog written in transactions of 100 rows, and the connector resumed; " +
	"a smaller backlog warms the JVM up first. Larger batches and queues were tried and were no faster."

// debezium is a worker with the connector on the rig's outbox.
type debezium struct {
	*rig
	*worker
}

func (b *bench) newDebezium(ctx context.Context, exactlyOnce bool, over map[string]string) (*debezium, error) {
	b.report.setting(debeziumHow)
	r, err := b.newPeerRig(ctx)
	if err != nil {
		return nil, err
	}
	d := &debezium{rig: r}
	if err := d.run(ctx, exactlyOnce, over); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *debezium) run(ctx context.Context, exactlyOnce bool, over map[string]string) error {
	var level string
	if err := d.source.QueryRow(ctx, "show wal_level").Scan(&level); err != nil {
		return err
	}
	if level != "logical" {
		return errors.New("debezium needs a Postgres with wal_level=logical")
	}
	if err := d.makePeerOutbox(ctx, "jsonb"); err != nil {
		return err
	}
	settings := map[string]string{"exactly.once.source.support": "disabled", "offset.flush.interval.ms": "5000"}
	if exactlyOnce {
		settings["exactly.once.source.support"] = "enabled"
	}
	var err error
	if d.worker, err = d.newWorker(ctx, "debezium", settings); err != nil {
		return err
	}
	config := d.connector()
	maps.Copy(config, over)
	return d.connect(ctx, d.system, config)
}

func (d *debezium) connector() map[string]string {
	at := d.source.Config().ConnConfig
	return map[string]string{
		"connector.class":                             "io.debezium.connector.postgresql.PostgresConnector",
		"tasks.max":                                   "1",
		"database.hostname":                           at.Host,
		"database.port":                               strconv.Itoa(int(at.Port)),
		"database.user":                               at.User,
		"database.password":                           at.Password,
		"database.dbname":                             at.Database,
		"topic.prefix":                                d.system,
		"plugin.name":                                 "pgoutput",
		"slot.name":                                   d.system,
		"publication.name":                            d.system,
		"publication.autocreate.mode":                 "filtered",
		"table.include.list":                          "public.outbox",
		"snapshot.mode":                               "no_data",
		"tombstones.on.delete":                        "false",
		"skipped.operations":                          "u,d,t",
		"statistics.metrics.enabled":                  "false", // else a warning for each record of a drain
		"transforms":                                  "outbox",
		"transforms.outbox.type":                      "io.debezium.transforms.outbox.EventRouter",
		"transforms.outbox.table.field.event.id":      "id",
		"transforms.outbox.table.field.event.key":     "aggregateid",
		"transforms.outbox.table.field.event.payload": "payload",
		"transforms.outbox.route.by.field":            "aggregatetype",
		"transforms.outbox.route.topic.replacement":   "${routedByValue}",
		"transforms.outbox.table.fields.additional.placement": "type:header:eventType",
		"producer.override.compression.type":                  "lz4",
		"producer.override.linger.ms":                         "10",
		"producer.override.batch.size":                        "262144",
		"producer.override.buffer.memory":                     "67108864",
	}
}

func (d *debezium) close() {
	if d.worker != nil && d.peer != nil {
		_ = d.stop()
	}
	// The server keeps a database that has a slot.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const drop = `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active`
	for ; ctx.Err() == nil; pause(ctx, 100*time.Millisecond) { // its walsender notices the end of the worker a little later
		if _, err := d.source.Exec(ctx, drop, d.system); err != nil {
			break
		}
		var left int
		if err := d.source.QueryRow(ctx, "select count(*) from pg_replication_slots where slot_name = $1", d.system).Scan(&left); err != nil || left == 0 {
			break
		}
	}
	d.rig.close()
}

// backlog stops the connector, writes n rows for a new topic, and returns the topic.
func (d *debezium) backlog(ctx context.Context, name string, n int) (string, error) {
	topic, err := d.topic(ctx, name, defaultPartitions)
	if err != nil {
		return "", err
	}
	if err := d.order(ctx, d.system, "stop"); err != nil {
		return "", err
	}
	if err := d.state(ctx, d.system, "STOPPED"); err != nil {
		return "", err
	}
	return topic, d.fillPeerOutbox(ctx, topic, n)
}

// debeziumDrain measures the drain of a backlog by a warm worker, and how long a killed one takes to go on.
func debeziumDrain(scenario string, exactlyOnce bool) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		d, err := b.newDebezium(ctx, exactlyOnce, nil)
		if err != nil {
			return err
		}
		defer d.close()
		n := min(b.o.rows, peerRows)
		if _, err := b.apart(func() error { return d.drain(ctx, scenario, "warmup", n/2) }); err != nil {
			return err
		}
		if err := d.drain(ctx, scenario, "drain", n); err != nil {
			return err
		}
		return d.killed(ctx, scenario, n/3)
	}
}

func (d *debezium) drain(ctx context.Context, scenario, name string, n int) error {
	topic, err := d.backlog(ctx, name, n)
	if err != nil {
		return err
	}
	m := d.b.meter(d.PID())
	if err := d.order(ctx, d.system, "resume"); err != nil {
		return err
	}
	rate, a, err := d.b.drained(ctx, topic, n, numberOfRow, d.peer.failed)
	if err != nil {
		return d.said(err)
	}
	d.b.report.add(scenario, "records/s", "records/s", rate)
	a.add(&d.b.report, scenario)
	return m.add(scenario, n)
}

// killed kills the worker when it has sent a fifth of a backlog, starts it again at once, and measures until the next record.
func (d *debezium) killed(ctx context.Context, scenario string, n int) error {
	topic, err := d.backlog(ctx, "kill", n)
	if err != nil {
		return err
	}
	if err := d.order(ctx, d.system, "resume"); err != nil {
		return err
	}
	for ; ; pause(ctx, 5*time.Millisecond) {
		sum, err := d.b.stable(ctx, topic)
		if err = errors.Join(err, d.peer.failed()); err != nil {
			return d.said(err)
		}
		if sum > int64(n/5) {
			break
		}
	}
	d.Kill()
	begin := time.Now()
	if err := d.worker.start(); err != nil {
		return err
	}
	pause(ctx, 300*time.Millisecond) // what the broker still had to do: a JVM takes longer to start
	before, err := d.b.arrivedIn(ctx, topic, n, numberOfRow)
	if err != nil {
		return err
	}
	if before.distinct == n {
		return fmt.Errorf("the backlog of %d rows was sent before the worker was killed: take more -rows", n)
	}
	if err := d.moreThan(ctx, topic, before.distinct, n); err != nil {
		return d.said(err)
	}
	d.b.report.add(scenario, "first after kill s", "s", time.Since(begin).Seconds())
	_, a, err := d.b.drained(ctx, topic, n, numberOfRow, d.peer.failed)
	if err != nil {
		return d.said(err)
	}
	d.b.report.add(scenario, "duplicates of a kill", "records", float64(a.duplicates))
	return nil
}

// moreThan waits until the topic holds more than distinct records. Only reading them tells: an aborted transaction moves the offsets too.
func (d *debezium) moreThan(ctx context.Context, topic string, distinct, n int) error {
	var looked int64
	for ; ; pause(ctx, 5*time.Millisecond) {
		sum, err := d.b.stable(ctx, topic)
		if err = errors.Join(err, d.peer.failed()); err != nil {
			return err
		}
		if sum == looked {
			continue
		}
		looked = sum
		a, err := d.b.arrivedIn(ctx, topic, n, numberOfRow)
		if err != nil || a.distinct > distinct {
			return err
		}
	}
}
