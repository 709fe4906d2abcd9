package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const (
	peerRows    = 300_000         // at most: peers are slower than Leat, and a rate needs no longer run
	peerTimeout = 5 * time.Minute // for one measurement of a peer
)

// setting notes how something was set, once.
func (r *report) setting(how string) {
	if !slices.Contains(r.Settings, how) {
		r.Settings = append(r.Settings, how)
	}
}

// newPeerRig makes a rig of one database, without Leat's tables and topics.
func (b *bench) newPeerRig(ctx context.Context) (_ *rig, err error) {
	var id [3]byte
	_, _ = rand.Read(id[:])
	r := &rig{b: b, o: rigOptions{partitions: defaultPartitions}, system: "peer" + hex.EncodeToString(id[:])}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.sourceURL, r.source, err = r.database(ctx, r.system+"_source", "")
	return r, err
}

// peerOutbox is the table of Debezium's guide, with a number that pollers go by for its key. The payload is of the type that is
// cheapest for who reads it.
const peerOutbox = `
create table outbox (
  seq bigint generated always as identity primary key,
  id uuid not null default gen_random_uuid(),
  aggregatetype text not null,
  aggregateid text not null,
  type text not null,
  payload %s not null
)`

// fillPeerOutbox writes the invoices that fillOutbox writes, but in transactions of 100: who reads the write-ahead log has less to do
// than with those of one row that Leat's outbox is filled with.
const fillPeerOutbox = `
create procedure fill(destination text, n int) language plpgsql as $$
begin
  for at in 0 .. n - 1 by 100 loop
    insert into outbox (aggregatetype, aggregateid, type, payload)
    select destination, 'acme/' || current_database() || '/invoice-' || i %% 50000, 'upsert', (format(
      '{"invoice_id": %%s, "customer_id": %%s, "invoice_date": "2026-11-23 00:00:00", "status": "open", "currency": "USD", "total": "31.50", "billing_country": "Brazil", "lines": [{"invoice_line_id": 1, "invoice_id": %%s, "track_id": 2, "unit_price": "10.50", "quantity": 1}, {"invoice_line_id": 2, "invoice_id": %%s, "track_id": 4, "unit_price": "10.50", "quantity": 2}], "memo": "%%s"}',
      i %% 50000, i %% 59, i, i, md5(i::text) || md5((i + 1)::text) || md5((i + 2)::text)))::%s
    from generate_series(at, least(at + 99, n - 1)) as i;
    commit;
  end loop;
end
$$`

// makePeerOutbox makes an empty outbox with payloads of the type jsonb or bytea.
func (r *rig) makePeerOutbox(ctx context.Context, payload string) error {
	for _, sql := range []string{peerOutbox, fillPeerOutbox} {
		if _, err := r.source.Exec(ctx, fmt.Sprintf(sql, payload)); err != nil {
			return fmt.Errorf("making the outbox of a peer: %w", err)
		}
	}
	return nil
}

// fillPeerOutbox empties the outbox and writes n rows for a destination.
func (r *rig) fillPeerOutbox(ctx context.Context, destination string, n int) error {
	conn, err := r.source.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	for _, sql := range []string{"truncate outbox", "set synchronous_commit = off"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if _, err := conn.Exec(ctx, "call fill($1, $2)", destination, n); err != nil {
		return fmt.Errorf("filling the outbox of a peer: %w", err)
	}
	for _, sql := range []string{"reset synchronous_commit", "vacuum analyze outbox", "checkpoint"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// peer is a program of others that runs.
type peer struct {
	*process
	log string // file with what it says
}

// startPeer starts a program. It ends with the rig.
func (r *rig) startPeer(cmd *exec.Cmd) (*peer, error) {
	p := &peer{log: filepath.Join(r.b.dir, fmt.Sprintf("%s-%d.log", r.system, len(r.processes)))}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("making the log of a peer: %w", err)
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	cmd.Stdout = out
	if p.process, err = startProcess(cmd, out); err != nil {
		return nil, err
	}
	r.processes = append(r.processes, p.process)
	return p, nil
}

// said adds the end of what the peer has said to an error.
func (p *peer) said(err error) error {
	if err == nil {
		return nil
	}
	const limit = 3000
	text, readErr := os.ReadFile(p.log)
	if readErr != nil {
		return err
	}
	return fmt.Errorf("%w; it said: %s", err, text[max(0, len(text)-limit):])
}

// apart collects what f measures in a report of its own.
func (b *bench) apart(f func() error) ([]*result, error) {
	counted := b.report.Results
	b.report.Results = nil
	err := f()
	apart := b.report.Results
	b.report.Results = counted
	return apart, err
}
