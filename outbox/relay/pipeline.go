package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
)

// sent is what is known of a batch once its memory is in use again.
type sent struct {
	rows, late int
	dead       []deadLetter
	cursor     cursor
	started    time.Time
	spans      []trace.Span
}

// deadLetter is a row that was refused, for the log.
type deadLetter struct {
	id                 int64
	event, entity, key string
	reason             refusal
}

// ending is a transaction that is being committed.
type ending struct {
	done chan struct{}
	err  error
}

// wait returns the outcome of e. A nil ending has ended well.
func (e *ending) wait() error {
	if e == nil {
		return nil
	}
	<-e.done
	return e.err
}

// pipeline turns batches into transactions. Batch n+1 is produced by one client while the other commits n; it is committed only
// after n's commit is acknowledged, and aborted if that fails. So batches become visible in order, and the cursor of the last
// visible one covers all before it.
type pipeline struct {
	session *session
	dlqMax  int
	metrics *metrics
	source  string
	free    chan<- *batch // takes batches back
	done    func(sent)    // called for each committed batch, in order
}

// run returns nil when batches is closed and everything is committed. After an error the session must be closed.
func (p *pipeline) run(ctx context.Context, batches <-chan *batch) error {
	var last *ending
	for b := range batches {
		client := p.session.next()
		now := sent{rows: len(b.rows), late: b.late(), started: time.Now()}
		err := p.session.produce(ctx, client, b, p.dlqMax)
		if lastErr := last.wait(); lastErr != nil || err != nil {
			p.giveUp(ctx, client)
			return errors.Join(lastErr, err)
		}
		now.cursor, now.dead, now.spans = b.cursor, deadLetters(b), b.acknowledged()
		p.free <- b // every record is acknowledged: the client needs its memory no more
		last = p.commit(ctx, client, now)
	}
	return last.wait()
}

// giveUp aborts what client has open, if it still can: a new owner's fencing would end it as well, but readers would wait.
func (p *pipeline) giveUp(ctx context.Context, client *kgo.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := p.session.abort(ctx, client); err == nil {
		p.metrics.transactions.WithLabelValues(p.source, resultAborted).Inc()
	}
}

func (p *pipeline) commit(ctx context.Context, client *kgo.Client, now sent) *ending {
	e := &ending{done: make(chan struct{})}
	go func() {
		defer close(e.done)
		if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
			p.metrics.transactions.WithLabelValues(p.source, resultFailed).Inc()
			e.err = fmt.Errorf("committing transaction: %w", err)
			return
		}
		p.done(now)
	}()
	return e
}

func deadLetters(b *batch) []deadLetter {
	var dead []deadLetter
	for i := range b.rows {
		if r := &b.rows[i]; r.refused != nil {
			dead = append(dead, deadLetter{
				id: r.id, event: string(r.event), entity: r.entity, key: string(b.recs[i].Key), reason: *r.refused,
			})
		}
	}
	return dead
}
