package relay

import (
	"context"
	"errors"
	"time"
)

// readLoop reads batch after batch, under load ahead of what Kafka has acknowledged. Its cursor runs ahead likewise; if a batch fails, the
// loop is ended and a new one begins at the committed cursor.
type readLoop struct {
	*source
	dests  *destinations
	enc    *encoder
	cursor cursor
	out    chan<- *batch
	free   <-chan *batch

	spare   []*batch // taken from free and not in use
	reader  *reader
	payload int // larger payloads are not read
	idle    time.Duration
	wait    backoff
	lagAt   time.Time
}

// run returns nil when ctx is done, and an error only for what a new session may help against, or an operator.
func (l *readLoop) run(ctx context.Context) error {
	defer l.disconnect()
	l.payload = l.dests.largest()
	full := false // more rows were waiting
	for {
		b := l.take(ctx, full)
		if b == nil {
			return nil
		}
		var err error
		full, err = l.fill(ctx, b)
		if err != nil || ctx.Err() != nil {
			return err
		}
		started := l.reader.lastRead
		select {
		case <-ctx.Done():
			return nil
		case l.out <- b:
		}
		// A transaction costs more than its rows: under load a few milliseconds of them share one.
		if gather := l.cfg.Gather - time.Since(started); !full && gather > 0 && !sleep(ctx, gather) {
			return nil
		}
	}
}

// take returns a batch to fill, nil when ctx is done. While more rows are waiting, one is filled as the one before it is produced. Else only
// once that is acknowledged: it then holds all that was committed meanwhile, and a Kafka that is slow gets fewer transactions.
func (l *readLoop) take(ctx context.Context, more bool) *batch {
	for len(l.spare) == 0 || !more && len(l.spare) < batchesInUse {
		select {
		case <-ctx.Done():
			return nil
		case b := <-l.free:
			l.spare = append(l.spare, b)
		}
	}
	last := len(l.spare) - 1
	b := l.spare[last]
	l.spare = l.spare[:last]
	return b
}

// fill polls until b has rows. It reports whether more are waiting. It returns without rows or error when ctx is done.
func (l *readLoop) fill(ctx context.Context, b *batch) (full bool, err error) {
	l.idle = 0
	for ctx.Err() == nil {
		if l.obey(ctx) {
			continue
		}
		b.reset()
		full, err = l.read(ctx, b)
		switch {
		case err == nil && len(b.rows) > 0:
			return full, nil
		case err == nil:
			l.rest(ctx, full)
		case ctx.Err() != nil:
		default:
			if err := l.outage(ctx, err); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// rest waits after a read that found nothing: twice as long each time, so that an idle source costs little. However long a
// read takes (it may have to pass over the rows of a large transaction that is not committed yet), it takes less
// than half of the time.
func (l *readLoop) rest(ctx context.Context, inPass bool) {
	if inPass {
		return
	}
	l.idle = min(max(2*l.idle, l.cfg.PollBusy), l.cfg.PollIdle)
	sleep(ctx, max(l.idle, time.Since(l.reader.lastRead)))
}

// read reads what follows the cursor into b, moves the cursor, and settles where the rows go.
func (l *readLoop) read(ctx context.Context, b *batch) (more bool, err error) {
	if l.reader == nil {
		if l.reader, err = openReader(ctx, l.spec.URL, l.spec.Name, &l.cursor); err != nil {
			return false, &databaseError{err}
		}
		l.enc.setEpoch(l.reader.id.Epoch)
		if l.cursor.System == 0 || l.cursor.identity != l.reader.id {
			l.log.InfoContext(ctx, "connected to database", "system_identifier", l.reader.id.System,
				"timeline", l.reader.id.Timeline, "table_oid", l.reader.id.Table, "epoch", l.reader.id.Epoch)
		}
	}
	f, err := l.reader.read(ctx, l.cursor.position, l.enc, b, limits{l.cfg.BatchRows, l.cfg.BatchBytes, l.payload})
	if err != nil {
		return false, &databaseError{err}
	}
	l.metrics.readSeconds.Observe(time.Since(l.reader.lastRead).Seconds())
	if err := l.dests.settle(ctx, b); err != nil {
		return false, err
	}
	l.advance(b, f)
	l.pending.read(len(b.rows), b.oldest)
	l.set(stateRunning, nil)
	l.wait = backoff{}
	l.observeLag(ctx)
	return f.freshMore || l.cursor.Pass != nil, nil
}

// advance moves the cursor over b.
func (l *readLoop) advance(b *batch, f found) {
	l.cursor.position = l.cursor.after(f)
	l.cursor.identity = l.reader.id
	l.cursor.Rows += int64(len(b.rows))
	if n := len(b.rows); f.freshLast != 0 {
		l.cursor.LastEvent = string(b.rows[n-1].event) // fresh rows stand last
	}
	b.cursor = l.cursor
}

// databaseError marks what went wrong on the database's side.
type databaseError struct{ error }

func (e *databaseError) Unwrap() error { return e.error }

// outage waits after err and returns nil, or returns err if waiting cannot help.
func (l *readLoop) outage(ctx context.Context, err error) error {
	var db *databaseError
	switch {
	case errors.Is(err, ErrRefused), errors.Is(err, errLimitsChanged):
		return err
	case errors.Is(err, errPayloadCut):
		l.payload = l.dests.largest()
		return nil
	case errors.As(err, &db):
		l.disconnect()
		l.set(stateDatabase, err)
	case errors.Is(err, errTopicMissing):
		l.set(stateTopics, err)
	default:
		l.set(stateKafka, err)
	}
	l.wait.sleep(ctx)
	return nil
}

func (l *readLoop) disconnect() {
	if l.reader != nil {
		l.reader.close()
		l.reader = nil
	}
}

// observeLag looks now and then at how far the cursor is behind.
func (l *readLoop) observeLag(ctx context.Context) {
	if time.Since(l.lagAt) < 5*time.Second {
		return
	}
	l.lagAt = time.Now()
	if highest, err := l.reader.highest(ctx); err == nil { // else the next read says it
		l.metrics.lag.WithLabelValues(l.spec.Name).Set(float64(max(0, highest-l.cursor.Last)))
	}
}
