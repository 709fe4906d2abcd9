package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/leat-io/leat/examples/chinook"
	"github.com/leat-io/leat/topics"
)

// summary shows how a rehearsal goes: on a terminal a few lines that are redrawn, elsewhere a line every few seconds.
type summary struct {
	r    *rehearsal
	tty  bool
	mu   sync.Mutex // guards what follows
	rows int        // lines of the block that is on the terminal now
}

func newSummary(r *rehearsal) *summary { return &summary{r: r, tty: isTerminal(r.Stdout) && !r.JSON} }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// hello says what runs where, and what to try next.
func (s *summary) hello() error {
	if s.r.JSON {
		return nil
	}
	v := s.r.servers
	brokers := strings.Join(v.brokers, ",")
	topic := topics.Finance("invoice", 1)
	_, err := fmt.Fprintf(s.r.Stdout, `Leat runs: a shop's outbox, relay, normalize and publish.

  Kafka     %s (%s)
  Postgres  %s
  Metrics   http://%s/metrics (and /readyz)

Try, in another terminal:

  psql '%s' -c 'select * from reporting.source_totals'
  psql '%s' -c 'select id, entity, key, operation, occurred_at from leat.outbox order by id desc limit 5'
  kafka-console-consumer.sh --bootstrap-server %s --topic %s \
      --isolation-level read_committed --from-beginning --property print.key=true --property print.headers=true
  kafka-console-consumer.sh --bootstrap-server %s --topic %s --from-beginning --property print.headers=true

Operate it, in another terminal (docs/operations.md; leat is here: go run ./cmd/leat):

  export LEAT_CONFIG=%s
  leat status --watch
  leat dlq list
  leat trace %s/%s/1

Ctrl-C ends it.

`, brokers, v.kafkaOrigin(), v.postgres.Origin(), s.r.cfg.HTTP.Listen, v.shown(v.reporting), v.shown(v.source),
		brokers, topic, brokers, topics.DLQ(topics.Source(chinook.System, chinook.Invoice), s.r.cfg.Normalize.Group),
		s.r.desk.file, chinook.Tenant, chinook.System)
	return err
}

// shown is a database URL to connect with; without its password, unless the server is of this run only.
func (s *servers) shown(raw string) string {
	if s.postgres.PID() != 0 {
		return raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "postgres://…"
	}
	return u.Redacted()
}

// state is one moment of a rehearsal.
type state struct {
	Time       time.Time      `json:"time"`
	Source     chinook.Totals `json:"source"`
	Target     chinook.Totals `json:"target"`
	OutboxRows int64          `json:"outbox_rows"`
	Counts     Counts         `json:"counts"`
}

func (r *rehearsal) state(ctx context.Context) (st state, err error) {
	st.Time = time.Now()
	if st.Target, err = reportingTotals(ctx, r.books); err != nil {
		return st, err
	}
	if st.Counts, err = readCounts(r.app.Metrics()); err != nil {
		return st, err
	}
	if st.OutboxRows, err = outboxRows(ctx, r.source); err != nil {
		return st, err
	}
	st.Source, err = chinook.ReadTotals(ctx, r.source)
	return st, err
}

// run shows the state until ctx ends, and once more then.
func (s *summary) run(ctx context.Context) error {
	if err := s.hello(); err != nil {
		return err
	}
	every := 5 * time.Second
	if s.tty {
		every = time.Second
	}
	// The first one as soon as there is something to see, which is what somebody who has just started it waits for.
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	first := true
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return s.show(last)
		case <-tick.C:
		}
		if first {
			st, err := s.r.state(ctx)
			if err == nil && st.Target.Invoices == 0 {
				continue
			}
			first = false
			tick.Reset(every)
			s.line("First invoices in the reporting tables %.1f s after the start.", time.Since(s.r.begin).Seconds())
		}
		if err := s.show(ctx); err != nil && ctx.Err() == nil {
			s.line("The summary is not available: %v", err)
		}
	}
}

func (s *summary) show(ctx context.Context) error {
	st, err := s.r.state(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.r.JSON:
		return json.NewEncoder(s.r.Stdout).Encode(st)
	case s.tty:
		block := st.block()
		_, err = io.WriteString(s.r.Stdout, s.erase()+block)
		s.rows = strings.Count(block, "\n")
	default:
		_, err = io.WriteString(s.r.Stdout, st.line())
	}
	return err
}

// erase moves up to the first line of the block that is shown and clears it.
func (s *summary) erase() string {
	if s.rows == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\x1b[J", s.rows)
}

// line prints something that stays, above the block.
func (s *summary) line(format string, args ...any) {
	if s.r.JSON {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.r.Stdout, s.erase()+format+"\n", args...) // a broken terminal shows in show
	s.rows = 0
}

func (st state) line() string {
	c := st.Counts
	return fmt.Sprintf("%s  outbox %d · relayed %d · normalized %d · published %d (unchanged %d) · dead letters %d · parked %d"+
		" | invoices %d of %d, USD %s of %s, payments %d of %d\n",
		st.Time.Format(time.TimeOnly), st.OutboxRows, c.Relayed, c.Normalized, c.Applied, c.Unchanged, c.DeadLetters, c.Parked,
		st.Target.Invoices, st.Source.Invoices, st.Target.Invoiced, st.Source.Invoiced, st.Target.Payments, st.Source.Payments)
}

func (st state) block() string {
	var b strings.Builder
	c, s, t := st.Counts, st.Source, st.Target
	fmt.Fprintf(&b, "\n  outbox %d → relayed %d → normalized %d → published %d   unchanged %d   dead letters %d   parked %d\n",
		st.OutboxRows, c.Relayed, c.Normalized, c.Applied, c.Unchanged, c.DeadLetters, c.Parked)
	fmt.Fprintf(&b, "  %-10s %10s %10s %10s %12s %10s %12s\n", "", "customers", "invoices", "lines", "invoiced", "payments", "paid")
	for _, row := range []struct {
		name string
		t    chinook.Totals
	}{{"source", s}, {"reporting", t}} {
		fmt.Fprintf(&b, "  %-10s %10d %10d %10d %12s %10d %12s\n", row.name, row.t.Customers, row.t.Invoices, row.t.Lines,
			row.t.Invoiced, row.t.Payments, row.t.Paid)
	}
	if s == t {
		fmt.Fprintf(&b, "  %s  both agree\n", st.Time.Format(time.TimeOnly))
	} else {
		fmt.Fprintf(&b, "  %s  differences are on their way, or in the dead letters until the shop corrects them\n",
			st.Time.Format(time.TimeOnly))
	}
	return b.String()
}
