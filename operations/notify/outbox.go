package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// digestLimit bounds what one message holds.
const digestLimit = 200

// serve delivers what is waiting for one receiver, in order, until ctx ends. For a receiver of kind alertmanager it also posts
// what is open, again and again: Alertmanager forgets an alert that it does not hear of, and all of them when it restarts.
func (n *Notifier) serve(ctx context.Context, s *sender) {
	var refreshed time.Time
	for ctx.Err() == nil {
		more, err := n.deliver(ctx, s)
		if err == nil && s.Kind == "alertmanager" && time.Since(refreshed) > alertLife/5 {
			refreshed = time.Now()
			err = n.refresh(ctx, s)
		}
		if err != nil && ctx.Err() == nil {
			n.cfg.Logger.WarnContext(ctx, "serving a receiver", "receiver", s.Name, "error", err)
		}
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(n.cfg.Interval/2 + rand.N(n.cfg.Interval/2)):
		}
	}
}

// waiting is a row of the outbox.
type waiting struct {
	id       uuid.UUID
	doc      Notification
	attempts int
	due      bool
	expired  bool
}

const (
	// One notifier serves a receiver at a time, so that its messages stay in order. The lock ends with the transaction, however it ends.
	tryServe = `select pg_try_advisory_xact_lock(hashtextextended('leat notify ' || $1, 0))`

	// The rows are locked while they are sent: nobody else takes them, and a notifier that dies gives them back.
	claim = `select id, document, attempts, due <= clock_timestamp(), created_at < clock_timestamp() - make_interval(secs => $2)
from leat_control.notifications where receiver = $1 and state = 'pending' order by seq limit $3 for update skip locked`

	countSent = `select count(distinct message) from leat_control.notifications
where receiver = $1 and state = 'sent' and sent_at > clock_timestamp() - interval '1 minute'`

	markSent = `update leat_control.notifications set state = 'sent', sent_at = clock_timestamp(), attempts = attempts + 1, error = '', message = $2
where id = any($1)`

	markFailed = `update leat_control.notifications set attempts = attempts + 1, error = $2, state = case when $3 then 'failed' else state end,
  due = clock_timestamp() + make_interval(secs => $4)
where id = any($1)`
)

// deliver sends one message, if one is due, and reports whether more may be.
func (n *Notifier) deliver(ctx context.Context, s *sender) (more bool, err error) {
	err = pgx.BeginFunc(ctx, n.cfg.DB, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, tryServe, s.Name).Scan(&mine); err != nil || !mine {
			return err
		}
		rows, err := n.claim(ctx, tx, s)
		if err != nil || len(rows) == 0 {
			return err
		}
		more = true
		return n.sendRows(ctx, tx, s, rows)
	})
	if err != nil {
		return false, fmt.Errorf("delivering notifications: %w", err)
	}
	return more, nil
}

// claim takes what goes into the next message: nothing while the first row waits for its next attempt, for what comes
// after must not overtake it; one row, or all that wait if they are more than may still be sent this minute.
func (n *Notifier) claim(ctx context.Context, tx pgx.Tx, s *sender) ([]waiting, error) {
	result, err := tx.Query(ctx, claim, s.Name, n.cfg.GiveUpAfter.Seconds(), digestLimit)
	if err != nil {
		return nil, err
	}
	rows, err := pgx.CollectRows(result, func(row pgx.CollectableRow) (w waiting, err error) {
		var doc []byte
		if err := row.Scan(&w.id, &doc, &w.attempts, &w.due, &w.expired); err != nil {
			return w, err
		}
		return w, json.Unmarshal(doc, &w.doc)
	})
	if err != nil || len(rows) == 0 || !rows[0].due {
		return nil, err
	}
	var sent int
	if err := tx.QueryRow(ctx, countSent, s.Name).Scan(&sent); err != nil {
		return nil, err
	}
	switch left := n.cfg.PerMinute - sent; {
	case left <= 0:
		return nil, nil
	case len(rows) > left:
		return rows, nil
	}
	return rows[:1], nil
}

// sendRows sends rows as one message and notes how that went.
func (n *Notifier) sendRows(ctx context.Context, tx pgx.Tx, s *sender, rows []waiting) error {
	m := &Message{Schema: Schema, ID: rows[0].id.String(), Digest: len(rows) > 1}
	ids := make([]uuid.UUID, len(rows))
	for i, w := range rows {
		ids[i] = w.id
		m.Notifications = append(m.Notifications, w.doc)
	}
	if m.Digest {
		m.ID = uuid.NewString()
	}
	_, err := s.send(ctx, m)
	if err != nil && ctx.Err() != nil {
		return err // told to stop: not an attempt
	}
	// The receiver has answered: that is to be kept also if the notifier is told to stop just now.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.Timeout)
	defer cancel()
	if err == nil {
		n.metrics.sent.WithLabelValues(s.Name).Inc()
		n.cfg.Logger.InfoContext(ctx, "notification sent", "receiver", s.Name, "message", m.ID, "notifications", len(rows))
		_, err = tx.Exec(ctx, markSent, ids, m.ID)
		return err
	}
	var r *refusal
	_ = errors.As(err, &r)
	final := rows[0].expired || r != nil && r.final
	pause := n.pause(rows[0].attempts)
	if r != nil {
		pause = max(pause, r.after)
	}
	n.metrics.attempts.WithLabelValues(s.Name).Inc()
	if final {
		n.metrics.failed.WithLabelValues(s.Name).Add(float64(len(rows)))
		n.cfg.Logger.ErrorContext(ctx, "notification given up", "receiver", s.Name, "message", m.ID, "notifications", len(rows),
			"attempts", rows[0].attempts+1, "error", err)
	} else {
		n.cfg.Logger.WarnContext(ctx, "notification not taken, will be sent again", "receiver", s.Name, "message", m.ID,
			"attempts", rows[0].attempts+1, "pause", pause, "error", err)
	}
	_, dbErr := tx.Exec(ctx, markFailed, ids, err.Error(), final, pause.Seconds())
	return dbErr
}

// pause is how long to wait after so many failed attempts.
func (n *Notifier) pause(attempts int) time.Duration {
	d := min(n.cfg.Backoff<<min(attempts, 12), 5*time.Minute)
	return d/2 + rand.N(d/2+1)
}

// What a receiver was told of and is still open. A muted incident is left out: its alert ends.
const selectOpen = `select distinct on (n.fingerprint) n.document from leat_control.notifications n
join leat_control.incident_standings s on s.fingerprint = n.fingerprint and s.episode = n.episode
where n.receiver = $1 and s.state not in ('resolved', 'muted') and n.kind <> 'closed' and n.state = 'sent'
order by n.fingerprint, n.seq desc`

// refresh posts the alerts that are open, unless another notifier serves the receiver just now: an alert that it ends must not be
// told as open after that.
func (n *Notifier) refresh(ctx context.Context, s *sender) error {
	return pgx.BeginFunc(ctx, n.cfg.DB, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, tryServe, s.Name).Scan(&mine); err != nil || !mine {
			return err
		}
		return n.postOpen(ctx, tx, s)
	})
}

func (n *Notifier) postOpen(ctx context.Context, tx pgx.Tx, s *sender) error {
	rows, err := tx.Query(ctx, selectOpen, s.Name)
	if err != nil {
		return fmt.Errorf("reading open alerts: %w", err)
	}
	docs, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return fmt.Errorf("reading open alerts: %w", err)
	}
	m := &Message{Schema: Schema, ID: uuid.NewString(), Digest: true}
	for _, doc := range docs {
		var d Notification
		if err := json.Unmarshal(doc, &d); err != nil {
			return fmt.Errorf("reading an open alert: %w", err)
		}
		d.At = time.Now().UTC()
		m.Notifications = append(m.Notifications, d)
	}
	if len(docs) == 0 {
		return nil
	}
	if _, err := s.send(ctx, m); err != nil {
		return fmt.Errorf("posting open alerts again: %w", err)
	}
	return nil
}
