package status

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Transaction is an open transaction that holds the last stable offset of a partition back: readers under read_committed see nothing of
// what comes after its first record until it ends.
type Transaction struct {
	TransactionalID string  `json:"transactional_id"` // names its owner: leat.<group>.<instance>, leat-relay-<source>-<n>
	ProducerID      int64   `json:"producer_id"`
	State           string  `json:"state"` // Kafka's: Ongoing, PrepareCommit, …
	Topic           string  `json:"topic"`
	Partition       int32   `json:"partition"`
	FirstOffset     int64   `json:"first_offset"`
	Behind          int64   `json:"behind"` // offsets that readers cannot see because of it
	AgeSeconds      float64 `json:"age_seconds"`
	TimeoutSeconds  float64 `json:"timeout_seconds"`
	// Hung: older than its own timeout, after which the coordinator should have aborted it, or known to no coordinator.
	Hung bool `json:"hung"`
}

// longestTimeout is the default of transaction.max.timeout.ms: no transaction of a living producer is older.
const longestTimeout = 15 * time.Minute

// transactions looks at the partitions whose last stable offset is behind their end. Nearly always there are few of them, and they
// are of transactions that end within milliseconds.
func (l *look) transactions(ctx context.Context, m marks) ([]Transaction, error) {
	held := kadm.TopicsSet{}
	m.ends.Each(func(end kadm.ListedOffset) {
		if stable, ok := m.stable.Lookup(end.Topic, end.Partition); ok && end.Err == nil && stable.Err == nil && stable.Offset < end.Offset {
			held.Add(end.Topic, end.Partition)
		}
	})
	if len(held) == 0 {
		return nil, nil
	}
	described, err := l.adm.DescribeProducers(ctx, held)
	if err != nil {
		return nil, fmt.Errorf("describing producers: %w", err)
	}
	var open []Transaction
	ids := map[int64]bool{}
	described.EachProducer(func(p kadm.DescribedProducer) {
		if p.CurrentTxnStartOffset < 0 {
			return
		}
		end, _ := m.ends.Lookup(p.Topic, p.Partition)
		ids[p.ProducerID] = true
		open = append(open, Transaction{
			ProducerID: p.ProducerID, Topic: p.Topic, Partition: p.Partition, FirstOffset: p.CurrentTxnStartOffset,
			Behind:     end.Offset - p.CurrentTxnStartOffset,
			AgeSeconds: max(0, l.report.At.Sub(time.UnixMilli(p.LastTimestamp)).Seconds()), // at least: since its last record
		})
	})
	err = l.nameTransactions(ctx, open, ids)
	slices.SortFunc(open, func(a, b Transaction) int {
		return cmp.Or(cmp.Compare(b.AgeSeconds, a.AgeSeconds), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return open, err
}

// nameTransactions asks the coordinators whose they are. A producer whose transactional id no coordinator knows has left its
// transaction behind for good: only an administrator can abort it (kafka-transactions.sh abort).
func (l *look) nameTransactions(ctx context.Context, open []Transaction, ids map[int64]bool) error {
	if len(open) == 0 {
		return nil
	}
	var producers []int64
	for id := range ids {
		producers = append(producers, id)
	}
	listed, err := l.adm.ListTransactions(ctx, producers, nil)
	if err != nil {
		return fmt.Errorf("listing transactions: %w", err)
	}
	described, err := l.adm.DescribeTransactions(ctx, listed.TransactionalIDs()...)
	if err != nil {
		return fmt.Errorf("describing transactions: %w", err)
	}
	byProducer := map[int64]kadm.DescribedTransaction{}
	for _, d := range described {
		byProducer[d.ProducerID] = d
	}
	for i := range open {
		t := &open[i]
		d, known := byProducer[t.ProducerID]
		if !known || d.Err != nil {
			t.State = "unknown to its coordinator"
			t.Hung = t.AgeSeconds > longestTimeout.Seconds()
			continue
		}
		t.TransactionalID, t.State = d.TxnID, d.State
		t.TimeoutSeconds = (time.Duration(d.TimeoutMillis) * time.Millisecond).Seconds()
		if d.StartTimestamp > 0 {
			t.AgeSeconds = max(0, l.report.At.Sub(time.UnixMilli(d.StartTimestamp)).Seconds())
		}
		t.Hung = t.TimeoutSeconds > 0 && t.AgeSeconds > t.TimeoutSeconds
	}
	return nil
}
