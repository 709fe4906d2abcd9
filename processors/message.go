package processors

import (
	"context"
	"time"

	"github.com/leat-io/leat/topics"
)

// Message is one record: an input as a handler sees it, or an output as a handler returns it. Byte slices are read-only and
// belong to the runtime; they stay valid until the batch's transaction has ended.
type Message struct {
	Topic     string
	Partition int32 // inputs only: outputs are partitioned by key (murmur2)
	Offset    int64 // inputs only
	Time      time.Time
	Key       []byte
	Value     []byte // nil is a tombstone
	Headers   []topics.Header

	// Attempt is 1 the first time a handler sees the record, and grows with each counted attempt. Inputs only.
	Attempt int
}

// Result is what became of one input message.
type Result struct {
	// Outputs are produced, in order, if Err is nil; otherwise dropped.
	Outputs []Message
	// Outcome is the business outcome of a nil Err: a short constant of the stage ("normalized", "filtered", "applied",
	// "unchanged", "superseded"), used as a metric label and logged.
	Outcome string
	// Detail explains the outcome where it needs one, such as the name of the filter. A bounded set of values.
	Detail string
	// Err is nil, or says that the message was not handled: Permanent, Systemic, or any other error, which is transient.
	Err error
}

// Handler is a stage.
//
// Handle gets messages of one partition in the order of their offsets and returns exactly one Result for each, in the same
// order. A message whose key has failed earlier in the same batch may be handled all the same: the runtime then discards its
// result and parks it behind the failed one, so a Handler with effects of its own must make them idempotent and guarded
// by version. Handle is called for several partitions at once. When ctx ends, it returns promptly; its results are
// then thrown away.
type Handler interface {
	Handle(ctx context.Context, batch []Message) []Result
}

// HandlerFunc adapts a function to Handler.
type HandlerFunc func(ctx context.Context, batch []Message) []Result

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, batch []Message) []Result { return f(ctx, batch) }
