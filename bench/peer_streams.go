package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/topics"
)

const streamsHow = "Kafka Streams 4.1.1: `processing.guarantee=exactly_once_v2`, 2 threads, the mapping of invoices as a Processor with Jackson and records, no check of " +
	"the contract; 2 GB of heap. Three passes over the same input in one JVM: the first is called cold, the last is the result. Each pass has to write what " +
	"Leat's mapping writes, byte for byte in key, value and headers. Defaults: nothing else is set. Tuned: "

// streamsConfig is a way to run Kafka Streams.
type streamsConfig struct {
	jvm      []string
	settings map[string]string
}

func streamsDefaults() streamsConfig { return streamsConfig{jvm: peerJVM()} }

// streamsTuned is for throughput: large fetches, large batches, and the collector that pauses longer and costs less.
func streamsTuned() streamsConfig {
	return streamsConfig{
		jvm: []string{"-Xms2G", "-Xmx2G", "-server", "-XX:+UseParallelGC"},
		settings: map[string]string{
			"buffered.records.per.partition":     "10000",
			"consumer.max.poll.records":          "10000",
			"consumer.max.partition.fetch.bytes": "8388608",
			"consumer.fetch.max.bytes":           "67108864",
			"producer.batch.size":                "262144",
			"producer.linger.ms":                 "20",
			"producer.buffer.memory":             "134217728",
		},
	}
}

// streams measures passes over records like those that normalize gets.
func streams(scenario string, c streamsConfig) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		b.report.setting(streamsHow + strings.Join(append(streamsTuned().jvm, list(streamsTuned().settings)), " ") + ".")
		r, err := b.newRig(ctx)
		if err != nil {
			return err
		}
		defer r.close()
		n := min(b.o.rows, peerRows)
		if err := b.produce(ctx, n, r.sourceRecord); err != nil {
			return err
		}
		want, err := r.normalized(ctx)
		if err != nil {
			return fmt.Errorf("working out what the peer has to write: %w", err)
		}
		p, passes, err := r.startStreams(ctx, c)
		if err != nil {
			return err
		}
		defer func() { _ = passes.Close() }()
		for _, pass := range []string{"cold", "warmer", "warm"} {
			results, err := b.apart(func() error { return r.pass(ctx, p, passes, scenario, pass, n, want) })
			if err != nil {
				return p.said(fmt.Errorf("pass %s: %w", pass, err))
			}
			for _, x := range results {
				switch {
				case pass == "warm":
					b.report.add(scenario, x.Measure, x.Unit, x.Values[0])
				case pass == "cold" && x.Measure == "records/s":
					b.report.add(scenario, "records/s cold", x.Unit, x.Values[0])
				}
			}
		}
		return nil
	}
}

// startStreams starts the program, which waits for passes to be written to the file.
func (r *rig) startStreams(ctx context.Context, c streamsConfig) (*peer, *os.File, error) {
	libs, err := javaPeers(ctx)
	if err != nil {
		return nil, nil, err
	}
	settings := map[string]string{
		"bootstrap.servers":          strings.Join(r.b.servers.brokers, ","),
		"processing.guarantee":       "exactly_once_v2",
		"num.stream.threads":         "2",
		"state.dir":                  filepath.Join(r.b.dir, r.system+"-state"),
		"consumer.auto.offset.reset": "earliest",
	}
	maps.Copy(settings, c.settings)
	file := filepath.Join(r.b.dir, r.system+"-streams.properties")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(list(settings), " ", "\n")), 0o600); err != nil {
		return nil, nil, err
	}
	in, passes, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = in.Close() }() // the child has its own descriptor
	cmd := javaPeer(libs, "streams", c.jvm, "io.leat.bench.Normalize", file)
	cmd.Stdin = in
	p, err := r.startPeer(cmd)
	if err != nil {
		return nil, nil, errors.Join(err, passes.Close())
	}
	return p, passes, nil
}

// pass has the program map all of the input into a new topic.
func (r *rig) pass(ctx context.Context, p *peer, passes *os.File, scenario, name string, n int, want digest) error {
	output, err := r.topic(ctx, name, defaultPartitions)
	if err != nil {
		return err
	}
	m := r.b.meter(p.PID())
	if _, err := fmt.Fprintln(passes, r.system+"-"+name, r.sourceInvoices, output); err != nil {
		return err
	}
	rate, a, err := r.b.drained(ctx, output, n, numberOfSequence, p.failed)
	if err != nil {
		return err
	}
	r.b.report.add(scenario, "records/s", "records/s", rate)
	a.add(&r.b.report, scenario)
	if err := m.add(scenario, n); err != nil {
		return err
	}
	var got digest
	err = r.b.eachRecord(ctx, output, func(rec *kgo.Record) error {
		got.add(rec.Key, rec.Value, headersOf(rec))
		return nil
	})
	if err == nil && got != want {
		err = errors.New("what it wrote differs from what Leat's mapping writes")
	}
	return err
}

// numberOfSequence is the number that a record has in its envelope.
func numberOfSequence(rec *kgo.Record) (int, error) {
	for _, h := range rec.Headers {
		if h.Key == topics.HeaderSequence {
			i, err := strconv.Atoi(string(h.Value))
			return i - 1, err
		}
	}
	return 0, errors.New("a record that arrived has no number")
}

// digest is a sum over records, whatever their order: two sets that have it in common have the same records.
type digest [4]uint64

func (d *digest) add(key, value []byte, headers []topics.Header) {
	h := sha256.New()
	part := func(b []byte) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		_, _ = h.Write(b)
	}
	part(key)
	part(value)
	for _, x := range headers {
		part([]byte(x.Key))
		part(x.Value)
	}
	sum := h.Sum(nil)
	for i := range d {
		d[i] += binary.BigEndian.Uint64(sum[8*i:])
	}
}

func headersOf(rec *kgo.Record) []topics.Header {
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header{Key: h.Key, Value: h.Value}
	}
	return hs
}

// normalized is the digest of what normalize makes of the rig's input, with the rig's mapping.
func (r *rig) normalized(ctx context.Context) (d digest, err error) {
	set, err := normalize.Load(os.DirFS(filepath.Dir(r.config)))
	if err != nil {
		return d, err
	}
	stage := normalize.New(set)
	var batch []processors.Message
	flush := func() error {
		for _, result := range stage.Handle(ctx, batch) {
			if result.Err != nil {
				return result.Err
			}
			for _, out := range result.Outputs {
				d.add(out.Key, out.Value, out.Headers)
			}
		}
		batch = batch[:0]
		return nil
	}
	err = r.b.eachRecord(ctx, r.sourceInvoices, func(rec *kgo.Record) error {
		batch = append(batch, processors.Message{Topic: rec.Topic, Key: slices.Clone(rec.Key), Value: slices.Clone(rec.Value), Headers: headersOf(rec)})
		if len(batch) < 1000 {
			return nil
		}
		return flush()
	})
	return d, errors.Join(err, flush())
}
