package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// session is one ownership of a source in Kafka: two transactional producers that take turns. After any error it is closed
// and a new one made; what was committed is then read from the cursor.
type session struct {
	source  string
	clients [2]*kgo.Client
	turn    int
}

// transactionalID is stable for each source: a new owner's fences the old one's, and ends what it left open.
func transactionalID(source string, turn int) string {
	return "leat-relay-" + source + "-" + strconv.Itoa(turn)
}

// openSession makes the clients and fences every earlier owner of the source. When it returns, no transaction of an
// earlier owner is open, and none can be committed any more.
func openSession(ctx context.Context, c *Config, source string, limit func(topic string) int32) (*session, error) {
	s := &session{source: source}
	for i := range s.clients {
		client, err := kgo.NewClient(slices.Concat(c.Kafka, []kgo.Opt{
			kgo.TransactionalID(transactionalID(source, i)),
			kgo.TransactionTimeout(c.TransactionTimeout),
			kgo.RequiredAcks(kgo.AllISRAcks()),
			kgo.ProducerLinger(0),                                        // a batch is complete when it is produced: there is nothing to wait for
			kgo.ProducerBatchCompression(slices.Clone(c.Compression)...), // the client changes what it is given
			kgo.ProducerBatchMaxBytesFn(limit),
			kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2 of the key, as Java's
			kgo.MaxBufferedRecords(c.BatchRows + 1_000),
		})...)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("making producer %d of %s: %w", i, source, err)
		}
		s.clients[i] = client
	}
	for i, client := range s.clients {
		if _, _, err := client.ProducerID(ctx); err != nil {
			s.close()
			return nil, fmt.Errorf("fencing earlier owners of %s (%d): %w", source, i, err)
		}
	}
	return s, nil
}

func (s *session) close() {
	for _, c := range s.clients {
		if c != nil {
			c.Close()
		}
	}
}

// next returns the client whose turn it is.
func (s *session) next() *kgo.Client {
	c := s.clients[s.turn]
	s.turn = 1 - s.turn
	return c
}

// outcome collects the answers to the records of one transaction.
type outcome struct {
	mu       sync.Mutex
	err      error // of the first record that was refused
	suspects map[*kgo.Record]error
}

func (o *outcome) promise(rec *kgo.Record, err error) {
	if err == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = fmt.Errorf("producing to %s: %w", rec.Topic, err)
	}
	if refusedRecord(err) {
		if o.suspects == nil {
			o.suspects = map[*kgo.Record]error{}
		}
		o.suspects[rec] = err
	}
}

// result returns the first error, and the records that may be to blame for it, if it is a record's fault at all.
func (o *outcome) result() (map[*kgo.Record]error, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.suspects, o.err
}

// refusedRecord reports whether err means that the broker, or the client for it, will never take the record.
func refusedRecord(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) || errors.Is(err, kerr.InvalidRecord) ||
		errors.Is(err, kerr.InvalidTimestamp) || errors.Is(err, kerr.PolicyViolation)
}

// fenced reports whether err means that another owner has taken the transactional ids. A transaction that timed out looks the
// same: the broker ends it by the same means.
func fenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) ||
		errors.Is(err, kerr.InvalidProducerIDMapping) || errors.Is(err, kerr.TransactionalIDNotFound) ||
		errors.Is(err, kerr.InvalidTxnState)
}

// produce produces b and its cursor in a transaction of client and waits until every record is acknowledged. Rows that turn
// out to be refused become dead letters of the same transaction. The transaction is left open: the caller ends it.
func (s *session) produce(ctx context.Context, client *kgo.Client, b *batch, dlqMax int) error {
	var alone map[int]error // rows to produce one by one
	for {
		suspects, err := s.attempt(ctx, client, b, alone)
		if err == nil {
			return nil
		}
		if len(suspects) == 0 || ctx.Err() != nil {
			return err
		}
		if abortErr := s.abort(ctx, client); abortErr != nil {
			return errors.Join(err, abortErr)
		}
		found := s.suspected(b, suspects)
		switch {
		case len(found) == 0: // the cursor itself
			return err
		case alone == nil:
			// A Kafka batch is refused as a whole: whose fault it is shows when each is produced by itself.
			alone = found
		default:
			for i, cause := range found {
				if b.recs[i].Topic == topics.RelayDLQ {
					return fmt.Errorf("producing dead letter of outbox row %d: %w", b.rows[i].id, err)
				}
				b.rows[i].refuse(codeRefused, "%s", cause)
				bury(b, i, dlqMax)
			}
		}
	}
}

func (s *session) suspected(b *batch, suspects map[*kgo.Record]error) map[int]error {
	found := map[int]error{}
	for i := range b.recs {
		if err, ok := suspects[&b.recs[i]]; ok {
			found[i] = err
		}
	}
	return found
}

// attempt produces b once. Rows in alone go into Kafka batches of their own, in their place in the order.
func (s *session) attempt(ctx context.Context, client *kgo.Client, b *batch, alone map[int]error) (map[*kgo.Record]error, error) {
	b.cursor.WrittenAt = time.Now().UTC()
	value, err := b.cursor.encode()
	if err != nil {
		return nil, err
	}
	if err := client.BeginTransaction(); err != nil {
		return nil, fmt.Errorf("beginning transaction: %w", err)
	}
	var o outcome
	promise := o.promise
	for i := range b.recs {
		_, single := alone[i]
		if single {
			if err := client.Flush(ctx); err != nil {
				return nil, fmt.Errorf("waiting for acknowledgements: %w", err)
			}
		}
		client.Produce(ctx, &b.recs[i], promise)
		if single {
			if err := client.Flush(ctx); err != nil {
				return nil, fmt.Errorf("waiting for acknowledgements: %w", err)
			}
			if suspects, err := o.result(); err != nil {
				return suspects, err
			}
		}
	}
	client.Produce(ctx, &kgo.Record{Topic: topics.Cursors, Key: []byte(s.source), Value: value}, promise)
	if err := client.Flush(ctx); err != nil {
		return nil, fmt.Errorf("waiting for acknowledgements: %w", err)
	}
	return o.result()
}

func (s *session) abort(ctx context.Context, client *kgo.Client) error {
	if err := client.AbortBufferedRecords(ctx); err != nil {
		return fmt.Errorf("dropping records: %w", err)
	}
	if err := client.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("aborting transaction: %w", err)
	}
	return nil
}
