package app

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/operations/incidents"
	"github.com/leat-io/leat/operations/notify"
)

// RunNotify moves incidents by the rules and tells people of them, until ctx ends.
func (a *App) RunNotify(ctx context.Context) error {
	db, err := a.controlDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := a.newNotifier(db)
	if err != nil {
		return err
	}
	return a.serve(ctx, nil, []stage{{"notify", n}}, nil)
}

func (a *App) newNotifier(db *pgxpool.Pool) (*notify.Notifier, error) {
	receivers, err := a.receivers()
	if err != nil {
		return nil, err
	}
	return notify.New(notify.Config{
		DB: db, Receivers: receivers, Policy: a.policy(), Logger: a.log.With("stage", "notify"), Registerer: a.reg, Version: a.version,
		Link: a.cfg.Notify.Link, PerMinute: a.cfg.Notify.PerMinute,
	})
}

// receivers are those of the configuration, with the text of their templates.
func (a *App) receivers() ([]notify.Receiver, error) {
	var out []notify.Receiver
	for _, r := range a.cfg.Notify.Receivers {
		n := notify.Receiver{
			Name: r.Name, Kind: r.Kind, URL: r.URL.Reveal(), Secret: r.Secret.Reveal(), From: r.From, To: r.To,
			MinSeverity: incidents.Severity(r.MinSeverity), Tenants: r.Tenants,
		}
		if r.Template != "" {
			text, err := os.ReadFile(r.Template)
			if err != nil {
				return nil, fmt.Errorf("reading the template of receiver %s: %w", r.Name, err)
			}
			n.Template = string(text)
		}
		out = append(out, n)
	}
	return out, nil
}

func (a *App) policy() incidents.Policy {
	c := a.cfg.Incidents
	return incidents.Policy{
		OngoingAfter: c.OngoingAfter, Quiet: c.Quiet, EscalationFactor: c.EscalationFactor, EscalationFloor: c.EscalationFloor,
		MinFailures: c.MinFailures, Wait: c.Wait,
	}
}

// NotifyAnswer is what a receiver said to a test message.
type NotifyAnswer struct {
	Receiver string `json:"receiver"`
	notify.Answer
}

// NotifyTest sends a sample to a receiver of the configuration. It needs no database.
func (a *App) NotifyTest(ctx context.Context, receiver string) (NotifyAnswer, error) {
	receivers, err := a.receivers()
	if err != nil {
		return NotifyAnswer{}, err
	}
	answer, err := notify.Try(ctx, receivers, receiver, a.version)
	return NotifyAnswer{receiver, answer}, err
}

// WriteText says what the receiver answered.
func (r NotifyAnswer) WriteText(w io.Writer) error {
	text := fmt.Sprintf("%s has taken a test message: %s\n", r.Receiver, r.Status)
	if r.Body != "" {
		text += "  " + r.Body + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
