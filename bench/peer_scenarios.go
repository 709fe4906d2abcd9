package main

import "time"

// peerScenarios are the same work done by others.
func peerScenarios() []scenario {
	goPeer := map[string]goPeer{}
	for _, g := range goPeers() {
		goPeer[g.scenario] = g
	}
	all := []scenario{
		{name: "debezium-eos", about: "Debezium, exactly once: drain a backlog", takes: 80 * time.Second, run: debeziumDrain("debezium-eos", true)},
		{name: "debezium-alo", about: "Debezium, at least once: drain a backlog", takes: 80 * time.Second, run: debeziumDrain("debezium-alo", false)},
		{name: "debezium-latency-eos", about: "Debezium, exactly once: commit until a read_committed consumer sees it, 2,000 rows/s", takes: 50 * time.Second, run: debeziumLatency("debezium-latency-eos", true)},
		{name: "debezium-latency-alo", about: "Debezium, at least once: commit until a read_committed consumer sees it, 2,000 rows/s", takes: 50 * time.Second, run: debeziumLatency("debezium-latency-alo", false)},
		{name: "skiplocked", about: "the tuned SKIP LOCKED poller, at least once: drain a backlog", takes: 15 * time.Second, run: goPeer["skiplocked"].drain()},
		{name: "streams-default", about: "Kafka Streams, exactly once, defaults: the mapping of normalize", takes: 40 * time.Second, run: streams("streams-default", streamsDefaults())},
		{name: "streams-tuned", about: "Kafka Streams, exactly once, tuned and warm: the mapping of normalize", takes: 40 * time.Second, run: streams("streams-tuned", streamsTuned())},
		{name: "jdbc-sink", about: "Debezium's JDBC sink, upsert: invoices without lines and links to one table", takes: 40 * time.Second, run: (*bench).jdbcSink},
		{name: "river", about: "River, at least once and without order: drain a backlog", takes: 15 * time.Second, run: goPeer["river"].drain()},
		{name: "watermill", about: "Watermill's SQL subscriber and forwarder, at least once: drain a backlog", takes: 25 * time.Second, run: goPeer["watermill"].drain()},
	}
	for i := range all {
		all[i].group = groupPeers
	}
	return all
}
