package relay

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Delivered says which rows of a source's outbox have been delivered to Kafka, by its cursor as it was when it was read. What it
// covers stands on the topics, or with the relay's dead letters, in transactions that had been committed by then.
type Delivered struct {
	Position *Position // nil if nothing was ever delivered
	cursor   *cursor
}

// ReadDelivered reads the cursor of a source. It disturbs no relay.
func ReadDelivered(ctx context.Context, kafka []kgo.Opt, source string) (Delivered, error) {
	partitions, err := cursorPartitions(ctx, kafka)
	if err != nil {
		return Delivered{}, err
	}
	c, err := readCursor(ctx, kafka, source, partitions)
	if err != nil || c == nil {
		return Delivered{}, err
	}
	return Delivered{Position: c.public(), cursor: c}, nil
}

// Covers reports whether the row with that id, written by that transaction, has been delivered. The transaction must have
// committed.
func (d Delivered) Covers(id int64, transaction uint64) bool {
	if d.cursor == nil {
		return false
	}
	p := d.cursor.position
	return id <= p.Last && p.Snapshot.sees(transaction) ||
		p.Pass != nil && id <= p.Pass.Through && p.Pass.Snapshot.sees(transaction)
}

// AdoptedAt is when an operator last set the position by hand, from where, and why; zero if nobody did.
func (p *Position) AdoptedAt() (at time.Time, from, reason string) {
	if p == nil || p.Adopted == nil {
		return time.Time{}, "", ""
	}
	return p.Adopted.At, p.Adopted.From, p.Adopted.Reason
}

func (c *cursor) public() *Position {
	p := &Position{
		LastID: c.Last, LastEvent: c.LastEvent, Snapshot: c.Snapshot.String(), Rows: c.Rows, WrittenAt: c.WrittenAt, Epoch: c.Epoch,
		Adopted: c.Adopted,
	}
	if c.Pass != nil {
		p.LatePass = c.Pass.Through
	}
	return p
}
