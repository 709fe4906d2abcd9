package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// goPeer is a peer that is a Go library, in the program of bench/peers.
type goPeer struct {
	scenario string
	command  string // of the program
	fill     string // command that makes the peer's own rows of those of the outbox; "" for a peer that reads the outbox
	payload  string // column type
	rows     int    // at most: some slow down as the backlog grows, or never end
	how      string // for the report
}

func goPeers() []goPeer {
	return []goPeer{
		{
			scenario: "skiplocked", command: "skiplocked", payload: "bytea", rows: peerRows,
			how: "SKIP LOCKED poller: one connection; deletes 1,000 rows a transaction in the order of their number, sends them with one " +
				"ProduceSync (franz-go, acks=all, idempotent, linger 0, not compressed) and commits; at once again until nothing is left.",
		},
		{
			scenario: "river", command: "river", fill: "river-fill", payload: "jsonb", rows: 50_000,
			how: "River 0.51: one job a record, MaxWorkers 2,000 (10,000 were slower), FetchCooldown 10 ms, ProduceSync in the worker, with the " +
				"producer of the SKIP LOCKED poller; table analysed. It keeps no order.",
		},
		{
			scenario: "watermill", command: "watermill", fill: "watermill-fill", payload: "jsonb", rows: 20_000,
			how: "Watermill 1.5 with watermill-sql 3.1: subscriber with SubscribeBatchSize 10,000 (100 by default is ten times slower) and PollInterval 10 ms, " +
				"Forwarder, and the Kafka publisher with acks=all. It publishes one message after the other, and sorts the backlog for each batch.",
		},
	}
}

// drain measures how fast the peer moves a backlog to Kafka.
func (g goPeer) drain() func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		program, err := b.buildPeers(ctx)
		if err != nil {
			return err
		}
		r, err := b.newPeerRig(ctx)
		if err != nil {
			return err
		}
		defer r.close()
		n := min(b.o.rows, g.rows)
		topic, err := r.topic(ctx, "drain", defaultPartitions)
		if err != nil {
			return err
		}
		if err := r.makePeerOutbox(ctx, g.payload); err != nil {
			return err
		}
		if err := r.fillPeerOutbox(ctx, topic, n); err != nil {
			return err
		}
		args := []string{"-postgres", r.sourceURL, "-kafka", strings.Join(b.servers.brokers, ",")}
		if g.fill != "" {
			if out, err := exec.CommandContext(ctx, program, append(args, g.fill)...).CombinedOutput(); err != nil {
				return fmt.Errorf("filling the outbox of %s: %w\n%s", g.scenario, err, out)
			}
		}
		b.report.setting(g.how)
		p, err := r.startPeer(exec.CommandContext(context.Background(), program, append(args, g.command)...)) // it ends with the rig
		if err != nil {
			return err
		}
		m := b.meter(p.PID())
		rate, a, err := b.drained(ctx, topic, n, numberOfRow, p.failed)
		if err != nil {
			return p.said(err)
		}
		b.report.add(g.scenario, "records/s", "records/s", rate)
		a.add(&b.report, g.scenario)
		return m.add(g.scenario, n)
	}
}
