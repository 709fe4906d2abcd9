package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/kafka"
	"github.com/leat-io/leat/outbox/relay"
)

func (a *App) newRelay() (*relay.Relay, error) {
	sources, err := a.relaySources()
	if err != nil {
		return nil, err
	}
	opts, err := a.KafkaOptions()
	if err != nil {
		return nil, err
	}
	tracer, err := a.tracer("relay")
	if err != nil {
		return nil, err
	}
	instance := ""
	if a.cfg.Relay.StaticMember {
		instance = a.cfg.Relay.Instance
	}
	return relay.New(relay.Config{
		Sources: sources, Kafka: opts, Group: a.cfg.Relay.Group, Instance: instance, Logger: a.log.With("stage", "relay"), Registerer: a.reg,
		Tracer: tracer, AwaitOrders: !a.cfg.Control.URL.Empty(),
	})
}

// relaySources are all sources of the configuration, or those that are named.
func (a *App) relaySources(names ...string) ([]relay.Source, error) {
	if err := a.cfg.Require(config.NeedKafka, config.NeedSources, config.NeedSourceURL); err != nil {
		return nil, err
	}
	var out []relay.Source
	for _, s := range a.cfg.Sources {
		if len(names) == 0 {
			out = append(out, relaySource(&s))
		}
	}
	for _, name := range names {
		s := a.cfg.Source(name)
		if s == nil {
			return nil, a.unknownSource(name)
		}
		out = append(out, relaySource(s))
	}
	return out, nil
}

func relaySource(s *config.Source) relay.Source {
	return relay.Source{Name: s.Name, URL: s.URL.Reveal(), Entities: s.Entities, Retention: s.OutboxRetention}
}

// RelayStatus is how far each source has been relayed.
type RelayStatus []relay.Status

// RelayStatus reads the cursors and the databases of all sources, or of those named. It needs no running relay.
func (a *App) RelayStatus(ctx context.Context, names ...string) (RelayStatus, error) {
	sources, err := a.relaySources(names...)
	if err != nil {
		return nil, err
	}
	opts, err := a.KafkaOptions()
	if err != nil {
		return nil, err
	}
	status, err := relay.ReadStatus(ctx, relay.StatusConfig{Sources: sources, Kafka: opts, Group: a.cfg.Relay.Group})
	return status, kafka.Explain(err)
}

// Adoption is an operator's decision about the position of a source.
type Adoption struct {
	Source string
	From   string // beginning, end or id:N
	Reason string
}

// Adopted is what an adoption changed.
type Adopted struct{ relay.Adopted }

// RelayAdopt writes a source's cursor anew, for the database as it is now. A running relay goes on from there by itself.
func (a *App) RelayAdopt(ctx context.Context, o Adoption) (Adopted, error) {
	sources, err := a.relaySources(o.Source)
	if err != nil {
		return Adopted{}, err
	}
	opts, err := a.KafkaOptions()
	if err != nil {
		return Adopted{}, err
	}
	adopted, err := relay.Adopt(ctx, relay.Adoption{Source: sources[0], Kafka: opts, From: o.From, Reason: a.hider.Told(o.Reason)})
	return Adopted{adopted}, kafka.Explain(err)
}

// WriteText says which position became which.
func (r Adopted) WriteText(w io.Writer) error {
	before := "none"
	if r.Before != nil {
		before = fmt.Sprintf("id %d", *r.Before)
	}
	text := fmt.Sprintf("source %s goes on after id %d; its position was %s\n", r.Source, r.After, before)
	if r.Refusal != "" {
		text += "the position before did not fit the database: " + r.Refusal + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// Err names the sources that have a problem.
func (r RelayStatus) Err() error {
	var errs []error
	for _, s := range r {
		if len(s.Problem) > 0 {
			errs = append(errs, fmt.Errorf("source %s: %s", s.Source, strings.Join(s.Problem, "; ")))
		}
	}
	return errors.Join(errs...)
}

// WriteText prints a paragraph for each source.
func (r RelayStatus) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	for i, s := range r {
		if i > 0 {
			line("")
		}
		line("%s", s.Source)
		writePosition(line, s)
		for _, p := range s.Problem {
			line("  PROBLEM\t%s", p)
		}
		for _, p := range s.Partitions {
			rows := fmt.Sprintf("about %d rows", p.Rows)
			if p.Rows < 0 {
				rows = "not analysed yet"
			}
			line("  partition\t%s\t%s\t%s\t%d KiB", p.Name, p.Bound, rows, p.Bytes>>10)
		}
		for _, x := range s.Transactions {
			who := fmt.Sprintf("pid %d", x.PID)
			if x.Prepared != "" {
				who = "prepared " + x.Prepared
			}
			line("  transaction\t%s\t%s, %s\topen for %.0f s%s", who, x.User, x.Application, x.AgeSeconds, held(x))
		}
	}
	return t.Flush()
}

func writePosition(line func(string, ...any), s relay.Status) {
	if p := s.Position; p == nil {
		line("  position\tnothing has been relayed yet")
	} else {
		line("  position\tid %d, %d rows relayed, written %s, epoch %d", p.LastID, p.Rows, p.WrittenAt.UTC().Format(time.RFC3339), p.Epoch)
		if p.Adopted != nil {
			line("  adopted\t%s, from %s: %s", p.Adopted.At.UTC().Format(time.RFC3339), p.Adopted.From, p.Adopted.Reason)
		}
	}
	owner := s.Owner
	if owner == "" {
		owner = "no relay runs"
	}
	line("  owner\t%s", owner)
	line("  behind\t%d rows (%d late), %.1f s", s.RowsBehind, s.LateRows, s.SecondsBehind)
}

func held(x relay.Transaction) string {
	switch {
	case x.BlocksRelay:
		return ", the relay waits for it"
	case x.HoldsOutbox:
		return ", its own rows wait for its end"
	default:
		return ""
	}
}
