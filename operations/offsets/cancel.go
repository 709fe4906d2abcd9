package offsets

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/topics"
)

// cancel writes tombstones for the parked records that the group is about to read again, all in one Kafka transaction.
//
// A member that comes back in between would fold the retry topic, pass a parked record, which keeps its place, and then lose it to its
// tombstone. So the transaction commits the group's offsets too, unchanged: while they are pending, a member that joins waits for
// its offset (KIP-447) and so folds the retry topic after the tombstones. Members that have joined before are seen by a look at the
// group after that, and then nothing is cancelled.
//
// With an error n is how many may have been cancelled all the same, because the answer to the commit was lost: an undo would lose them.
func (o *Offsets) cancel(ctx context.Context, p *Plan) (n int64, err error) {
	parked, err := o.parked(ctx, p.Group, p.place())
	if err != nil {
		return 0, err
	}
	var recs []*kgo.Record
	p.parkedInRange(parked, func(at tp, offset int64) {
		recs = append(recs, &kgo.Record{
			Topic: topics.Retry(at.topic, p.Group), Partition: at.partition, Key: []byte(topics.ParkedID(at.partition, offset)),
		})
	})
	if len(recs) == 0 {
		return 0, nil
	}
	o.progress("taking %d parked records off the retry topics", len(recs))
	id := "leat.offsets." + p.Group
	cl, err := kgo.NewClient(append(o.cfg.Client.Opts(), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return 0, fmt.Errorf("making a client to cancel parked records: %w", err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		return 0, fmt.Errorf("cancelling parked records: %w", err)
	}
	err = cl.ProduceSync(ctx, recs...).FirstErr()
	if err == nil {
		err = o.holdOff(ctx, cl, id, p)
	}
	endErr := cl.EndTransaction(ctx, kgo.TransactionEndTry(err == nil))
	return cancelled(len(recs), err, endErr)
}

// cancelled is how many of n records may have been cancelled, after err kept their transaction from being committed, or after its end.
func cancelled(n int, err, endErr error) (int64, error) {
	switch {
	case err != nil:
		return 0, fmt.Errorf("cancelling parked records: %w", err)
	case endErr != nil:
		return int64(n), fmt.Errorf("cancelling parked records: %w", endErr)
	}
	return int64(n), nil
}

// holdOff makes whoever joins the group wait for the end of cl's transaction, and refuses if somebody has joined before.
func (o *Offsets) holdOff(ctx context.Context, cl *kgo.Client, id string, p *Plan) error {
	if err := pend(ctx, cl, id, p); err != nil {
		return fmt.Errorf("holding the group off: %w", err)
	}
	g, err := o.describe(ctx, p.Group)
	if err != nil {
		return err
	}
	if err := refuse(g.refuseCancel()); err != nil {
		return err
	}
	commits, err := o.committed(ctx, p.Group, false)
	if err != nil {
		return err
	}
	return refuse(p.wentOn(commits)...)
}

// refuseCancel says who of the group may have passed a parked record already.
func (g *groupInfo) refuseCancel() string {
	if !g.active() {
		return ""
	}
	return "members of the group are back already: " + names(g.Members)
}

// wentOn says where somebody has come, read and left since the offsets were written.
func (p *Plan) wentOn(commits kadm.OffsetResponses) (problems []string) {
	for i := range p.Partitions {
		part := &p.Partitions[i]
		if now := commitOf(commits, part.Topic, part.Partition); !sameOffset(now, &Commit{Offset: part.Target}) {
			problems = append(problems, fmt.Sprintf("%s: the group has moved on to %s already", part.name(), now))
		}
	}
	return problems
}

// pend adds the offsets of the plan to cl's transaction, as one who is no member of the group: Kafka takes them without a look at its
// members, which is why they are looked at.
func pend(ctx context.Context, cl *kgo.Client, id string, p *Plan) error {
	producer, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, producer, epoch, p.Group
	added, err := add.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(added.ErrorCode)
	}
	if err != nil {
		return err
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = id, producer, epoch, p.Group
	for i := range p.Partitions {
		part := &p.Partitions[i]
		offset := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		offset.Partition, offset.Offset = part.Partition, part.Target
		topic := kmsg.NewTxnOffsetCommitRequestTopic()
		topic.Topic, topic.Partitions = part.Topic, append(topic.Partitions, offset)
		if topic.TopicID, err = topicUUID(part.TopicID); err != nil {
			return err
		}
		req.Topics = append(req.Topics, topic)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range resp.Topics {
		for _, part := range t.Partitions {
			errs = append(errs, kerr.ErrorForCode(part.ErrorCode))
		}
	}
	return errors.Join(errs...)
}
