package integration_test

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

func isKafka(err error, code *kerr.Error) bool { return errors.Is(err, code) }

// fetch reads partition 0 of a topic by a request of its own: a consumer would hide the refusal among its retries.
func fetch(topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		listed, err := kadm.NewClient(cl).ListStartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		if err := listed.Error(); err != nil {
			return err
		}
		reader, err := kgo.NewClient(append(cl.Opts(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))...)
		if err != nil {
			return err
		}
		defer reader.Close()
		return reader.PollFetches(ctx).Err()
	}
}

func produce(topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		return cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("forged")}).FirstErr()
	}
}

func deleteTopic(topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		deleted, err := kadm.NewClient(cl).DeleteTopics(ctx, topic)
		return errors.Join(err, deleted.Error())
	}
}

func deleteRecords(topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		var offsets kadm.Offsets
		offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 1, LeaderEpoch: -1})
		deleted, err := kadm.NewClient(cl).DeleteRecords(ctx, offsets)
		return errors.Join(err, deleted.Error())
	}
}

func createTopic(topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		_, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, topic)
		return err
	}
}

func alterTopic(topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		value := "1"
		altered, err := kadm.NewClient(cl).AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, topic)
		for _, a := range altered {
			err = errors.Join(err, a.Err)
		}
		return err
	}
}

// begin initialises a transactional id: that fences whoever has it.
func begin(id string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, 10_000
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	}
}

// commit names the topic by its name: for its id, the client would have to be allowed to see the topic.
func commit(group, topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		versions := kversion.Stable()
		versions.SetMaxKeyVersion(kmsg.OffsetCommit.Int16(), 9)
		named, err := kgo.NewClient(append(cl.Opts(), kgo.MaxVersions(versions))...)
		if err != nil {
			return err
		}
		defer named.Close()
		req := kmsg.NewPtrOffsetCommitRequest()
		t, p := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		req.Group, t.Topic = group, topic
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, named)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
}

func deleteGroup(group string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		deleted, err := kadm.NewClient(cl).DeleteGroups(ctx, group)
		return errors.Join(err, deleted[group].Err)
	}
}

func giveItself(topic string) func(context.Context, *kgo.Client) error {
	return func(ctx context.Context, cl *kgo.Client) error {
		b := kadm.NewACLs().Allow("User:leat-stranger").AllowHosts().Topics(topic).Operations(kmsg.ACLOperationAll).ResourcePatternType(kadm.ACLPatternLiteral)
		created, err := kadm.NewClient(cl).CreateACLs(ctx, b)
		for _, c := range created {
			err = errors.Join(err, c.Err)
		}
		return err
	}
}
