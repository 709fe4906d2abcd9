package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

const jdbcHow = "Debezium's JDBC sink 3.4.0 (newer ones that were tried could not be had from Maven Central), on one distributed Kafka Connect 4.3.1 worker with the JVM options of Kafka's start script: " +
	"`insert.mode=upsert`, `batch.size=2000`, `max.poll.records=2000`, `use.reduction.buffer=true`, `tasks.max=2`, and `reWriteBatchedInserts=true` in the URL, so that a batch is one " +
	"statement of many rows. It gets flat invoices, one row each, as JSON without a schema in each record (the converter knows it), and writes no lines and no links. " +
	"Two backlogs warm the JVM up; the table is emptied after each."

// jdbcTable has the columns of the reporting table that the flat invoice fills.
const jdbcTable = `create table invoices (tenant text, system text, source_id text, type text, number text, contact_id text, issue_date date, currency text,
	status text, subtotal numeric, total numeric, source_epoch bigint, sequence bigint, primary key (tenant, system, source_id)) with (fillfactor = 85)`

// flatInvoice is a record of the finance topic with what one row can hold.
type flatInvoice struct {
	Tenant      string `json:"tenant"`
	System      string `json:"system"`
	SourceID    string `json:"source_id"`
	Type        string `json:"type"`
	Number      string `json:"number"`
	ContactID   string `json:"contact_id"`
	IssueDate   string `json:"issue_date"`
	Currency    string `json:"currency"`
	Status      string `json:"status"`
	Subtotal    string `json:"subtotal"`
	Total       string `json:"total"`
	SourceEpoch int64  `json:"source_epoch"`
	Sequence    int64  `json:"sequence"`
}

// flatSchema is the same for Connect.
const flatSchema = `{"type": "struct", "fields": [
	{"field": "tenant", "type": "string"}, {"field": "system", "type": "string"}, {"field": "source_id", "type": "string"},
	{"field": "type", "type": "string"}, {"field": "number", "type": "string"}, {"field": "contact_id", "type": "string"},
	{"field": "issue_date", "type": "string"}, {"field": "currency", "type": "string"}, {"field": "status", "type": "string"},
	{"field": "subtotal", "type": "string"}, {"field": "total", "type": "string"}, {"field": "source_epoch", "type": "int64"},
	{"field": "sequence", "type": "int64"}]}`

func (r *rig) sinkRecord(topic string, i int) *kgo.Record {
	id := "invoice-" + strconv.Itoa(i%keys)
	value, err := json.Marshal(flatInvoice{
		Tenant: "acme", System: r.system, SourceID: id, Type: "invoice", Number: strconv.Itoa(i), ContactID: strconv.Itoa(i % 59),
		IssueDate: "2026-11-23", Currency: "USD", Status: "open", Subtotal: "31.50", Total: "31.50", SourceEpoch: 1, Sequence: int64(i + 1),
	})
	if err != nil {
		panic(err) // strings and numbers
	}
	return &kgo.Record{Topic: topic, Key: topics.Key("acme", r.system, id), Value: value}
}

// jdbcSink measures the upsert of as many invoices as publish gets.
func (b *bench) jdbcSink(ctx context.Context) error {
	const scenario = "jdbc-sink"
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	b.report.setting(jdbcHow)
	r, err := b.newPeerRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	topic, err := r.topic(ctx, "flat", defaultPartitions)
	if err != nil {
		return err
	}
	if _, err := r.source.Exec(ctx, jdbcTable); err != nil {
		return err
	}
	w, err := r.newWorker(ctx, "jdbc", nil)
	if err != nil {
		return err
	}
	n := b.publishRows()
	const passes = 3 // all but the last warm the JVM up
	for pass := range passes {
		first := pass * n
		if err := b.produce(ctx, n, func(i int) *kgo.Record { return r.sinkRecord(topic, first+i) }); err != nil {
			return err
		}
		start := func() error { return w.order(ctx, r.system, "resume") }
		if pass == 0 {
			start = func() error { return w.connect(ctx, r.system, r.jdbcConnector(topic)) }
		}
		run := func() error { return r.sink(ctx, w, scenario, start, first, n) }
		if pass == passes-1 {
			err = run()
		} else {
			_, err = b.apart(run)
		}
		if err != nil {
			return w.said(err)
		}
	}
	return nil
}

// sink has the connector start and waits until the table holds the newest record of each key; then it stops it and empties the table.
// Records first to first+n-1 have not been read yet.
func (r *rig) sink(ctx context.Context, w *worker, scenario string, start func() error, first, n int) error {
	m := r.b.meter(w.PID())
	if err := start(); err != nil {
		return err
	}
	distinct := min(n, keys)
	var begin time.Time
	var already int
	for ; ; pause(ctx, 20*time.Millisecond) {
		// The newest of each key is among the last `distinct` records.
		var done, some int
		if err := r.source.QueryRow(ctx, "select count(*) filter (where sequence > $1), count(*) from invoices", first+n-distinct).Scan(&done, &some); err != nil {
			return err
		}
		if begin.IsZero() && some > 0 {
			begin, already = time.Now(), some
		}
		if done == distinct {
			break
		}
		if err := w.failed(); err != nil {
			return err
		}
	}
	r.b.report.add(scenario, "records/s", "records/s", float64(n-already)/time.Since(begin).Seconds())
	if err := m.add(scenario, n); err != nil {
		return err
	}
	var rows int
	var total string
	if err := r.source.QueryRow(ctx, "select count(*), sum(total)::text from invoices").Scan(&rows, &total); err != nil {
		return err
	}
	if want := fmt.Sprintf("%d.%02d", distinct*3150/100, distinct*3150%100); rows != distinct || total != want {
		return fmt.Errorf("the table holds %d invoices of %s, not %d of %s", rows, total, distinct, want)
	}
	r.b.report.add(scenario, "distinct rows", "rows", float64(rows))
	if err := w.order(ctx, r.system, "stop"); err != nil {
		return err
	}
	if err := w.state(ctx, r.system, "STOPPED"); err != nil {
		return err
	}
	_, err := r.source.Exec(ctx, "truncate invoices")
	return err
}

func (r *rig) jdbcConnector(topic string) map[string]string {
	at := r.source.Config().ConnConfig
	return map[string]string{
		"connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
		"tasks.max":       "2",
		"topics":          topic,
		// The types of the columns are the server's business: dates and amounts come as text.
		"connection.url":                     fmt.Sprintf("jdbc:postgresql://%s:%d/%s?reWriteBatchedInserts=true&stringtype=unspecified", at.Host, at.Port, at.Database),
		"connection.username":                at.User,
		"connection.password":                at.Password,
		"insert.mode":                        "upsert",
		"primary.key.mode":                   "record_value",
		"primary.key.fields":                 "tenant,system,source_id",
		"schema.evolution":                   "none",
		"collection.name.format":             "invoices",
		"batch.size":                         "2000",
		"use.reduction.buffer":               "true",
		"value.converter":                    "org.apache.kafka.connect.json.JsonConverter",
		"value.converter.schemas.enable":     "true",
		"value.converter.schema.content":     flatSchema,
		"consumer.override.max.poll.records": "2000",
	}
}
