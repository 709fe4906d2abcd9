package offsets

import (
	"context"

	"github.com/leat-io/leat/processors"
)

// Foresee says what would become of messages, a result for each, without doing it. It may remember what it has said.
type Foresee func(ctx context.Context, batch []processors.Message) ([]processors.Result, error)

// Direct is the forecast for a group whose records go to a target as they are.
func Direct(target Foresee) Forecast { return direct{target} }

type direct struct{ target Foresee }

// Foresee implements Forecast.
func (d direct) Foresee(ctx context.Context, records []processors.Message) (Outlook, error) {
	out, err := outlook(ctx, d.target, records)
	out.Records = int64(len(records))
	return out, err
}

// outlook adds up what the target would make of messages.
func outlook(ctx context.Context, target Foresee, messages []processors.Message) (o Outlook, err error) {
	if len(messages) == 0 {
		return o, nil
	}
	results, err := target(ctx, messages)
	for i := range results {
		switch {
		case results[i].Err != nil:
			o.Failed++
		case results[i].Outcome == "unchanged":
			o.Unchanged++
		case results[i].Outcome == "superseded":
			o.Superseded++
		default: // applied, deleted
			o.Applied++
		}
	}
	return o, err
}

// Through is the forecast for a group whose handler turns its records into others, which then go to a target. The handler must have no
// effects of its own.
func Through(handler processors.Handler, target Foresee) Forecast { return through{handler, target} }

type through struct {
	handler processors.Handler
	target  Foresee
}

// Foresee implements Forecast.
func (t through) Foresee(ctx context.Context, records []processors.Message) (Outlook, error) {
	var outputs []processors.Message
	var silent, failed int64
	for i, res := range t.handler.Handle(ctx, records) {
		switch {
		case ctx.Err() != nil:
			return Outlook{}, ctx.Err()
		case res.Err != nil:
			failed++
		case len(res.Outputs) == 0:
			silent++
		}
		for _, out := range res.Outputs {
			out.Partition, out.Offset = records[i].Partition, records[i].Offset // for whoever reports it
			outputs = append(outputs, out)
		}
	}
	o, err := outlook(ctx, t.target, outputs)
	o.Records, o.Silent, o.Failed = int64(len(records)), silent, o.Failed+failed
	return o, err
}
