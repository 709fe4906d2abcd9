package dev

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// watchDeadLetters is a part that tells of every dead letter from now on.
func (r *rehearsal) watchDeadLetters(tell func(*kgo.Record)) func(context.Context) error {
	return func(ctx context.Context) error {
		from := map[string]map[int32]kgo.Offset{}
		for topic, ends := range r.baseline.only(isDLQ) {
			from[topic] = map[int32]kgo.Offset{}
			for p, end := range ends {
				from[topic][p] = kgo.NewOffset().At(end)
			}
		}
		cl, err := kgo.NewClient(slices.Concat(r.opts, []kgo.Opt{
			kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		})...)
		if err != nil {
			return err
		}
		defer cl.Close()
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(tell)
		}
		return nil
	}
}

// deadLetter shows why a record is in the dead letters, in the words that its headers have for people.
func (s *summary) deadLetter(rec *kgo.Record) {
	why, code, original := "", "", rec.Topic
	for _, h := range rec.Headers {
		switch h.Key {
		case topics.HeaderErrorMessage:
			why = string(h.Value)
		case topics.HeaderErrorCode:
			code = string(h.Value)
		case topics.HeaderOriginalTopic:
			original = string(h.Value)
		}
	}
	s.line("  dead letter: %s of %s: %s (%s)", rec.Key, original, why, code)
}
