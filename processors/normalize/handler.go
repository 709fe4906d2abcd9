package normalize

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// Outcomes of a record, and the detail of one that matched no output.
const (
	Normalized = "normalized"
	Filtered   = "filtered" // Detail is the filter's reason
	Deleted    = "deleted"
	noOutput   = "no_output"
)

// Codes of permanent failures.
const (
	codeRoute    = "route"    // no mapping reads the topic
	codeEnvelope = "envelope" // headers or key
	codeDecode   = "decode"   // the payload is not strict JSON
	codeMapping  = "mapping"  // a field does not fit
	codeContract = "contract" // the output breaks its contract
	codeDelete   = "delete"   // a deletion does not say what to delete
)

// New returns the stage. It is safe for concurrent use and keeps nothing between batches.
func New(set *Set) processors.Handler {
	return processors.HandlerFunc(func(ctx context.Context, batch []processors.Message) []processors.Result {
		r := &run{ctx: ctx}
		out := writer{}
		for i := range batch {
			out.pending += len(batch[i].Value)
		}
		results := make([]processors.Result, len(batch))
		for i := range batch {
			if err := ctx.Err(); err != nil {
				results[i].Err = err
				continue
			}
			results[i] = set.handle(r, &out, &batch[i])
			out.pending -= len(batch[i].Value)
		}
		return results
	})
}

// writer hands out the bytes of outputs from larger chunks. What it has handed out is not written to again.
type writer struct {
	buf     []byte
	pending int // bytes of input that are still to come
}

func (w *writer) begin() []byte {
	if cap(w.buf)-len(w.buf) < 2048 {
		w.buf = make([]byte, 0, min(max(2*w.pending, 2048), 64<<10))
	}
	return w.buf[len(w.buf):]
}

func (w *writer) take(b []byte) []byte {
	if cap(b) == cap(w.buf)-len(w.buf) { // still in the chunk
		w.buf = w.buf[:len(w.buf)+len(b)]
	}
	return slices.Clip(b)
}

func (s *Set) handle(r *run, w *writer, in *processors.Message) processors.Result {
	m := s.byTopic[in.Topic]
	if m == nil {
		return permanent(codeRoute, fmt.Errorf("no mapping reads topic %s", bounded(in.Topic)))
	}
	var err error
	if r.env, err = topics.DecodeEnvelope(in.Headers); err != nil {
		return permanent(codeEnvelope, err)
	}
	clear(r.vars)
	r.vars, r.index = nil, 0
	if err := m.belongs(&r.env, in.Key); err != nil {
		return permanent(codeEnvelope, err)
	}
	if r.env.Operation == topics.Delete {
		return m.remove(r, in)
	}
	if err := r.doc.parse(in.Value); err != nil {
		return permanent(codeDecode, fmt.Errorf("payload: %w", err))
	}
	if k := r.doc.nodes[root].kind; k != object {
		return permanent(codeDecode, fmt.Errorf("payload: found %s, want an object", k))
	}
	for i := range m.where {
		holds, err := m.where[i].holds(r)
		if err != nil {
			return r.failed(within("where."+m.where[i].reason, err))
		}
		if !holds {
			return processors.Result{Outcome: Filtered, Detail: m.where[i].reason}
		}
	}
	return m.upsert(r, w, in)
}

func permanent(code string, err error) processors.Result {
	return processors.Result{Err: processors.Permanent(code, err)}
}

// failed tells an input that does not fit from a context that has ended.
func (r *run) failed(err error) processors.Result {
	if ctxErr := r.ctx.Err(); ctxErr != nil {
		return processors.Result{Err: ctxErr}
	}
	return permanent(codeMapping, err)
}

// belongs checks that the envelope is that of the mapping's topic and that the key is the envelope's.
func (m *mapping) belongs(env *topics.Envelope, key []byte) error {
	if env.System != m.system || env.Kind != topics.SourceKind(m.entity) {
		return fmt.Errorf("header %s or %s: found %s of system %s, want %s of system %s", topics.HeaderType,
			topics.HeaderSource, bounded(env.Kind), bounded(env.System), topics.SourceKind(m.entity), m.system)
	}
	if !isKey(key, env) {
		want := topics.Key(env.Tenant, env.System, env.Subject)
		return fmt.Errorf("key: found %s, want %s as the headers say", quote(key), quote(want))
	}
	return nil
}

// isKey is bytes.Equal(key, topics.Key(…)) without making the latter.
func isKey(key []byte, env *topics.Envelope) bool {
	t, s := len(env.Tenant), len(env.System)
	return len(key) == t+s+len(env.Subject)+2 && string(key[:t]) == env.Tenant && key[t] == '/' &&
		string(key[t+1:t+1+s]) == env.System && key[t+1+s] == '/' && string(key[t+s+2:]) == env.Subject
}

func (m *mapping) upsert(r *run, w *writer, in *processors.Message) processors.Result {
	var outputs []processors.Message
	for i, o := range m.outputs {
		if o.when != nil {
			holds, err := o.when.holds(r)
			if err != nil {
				return r.failed(within(fmt.Sprintf("outputs[%d].when", i), err))
			}
			if !holds {
				continue
			}
		}
		id, err := o.id(r)
		if err != nil {
			return r.failed(within("source_id", err))
		}
		msg := o.message(r, in, i, id)
		if twice(outputs, &msg) {
			return permanent(codeMapping, fmt.Errorf("outputs[%d]: a second %s with source_id %s; give one of them another", i,
				o.contract.Entity, quote([]byte(id))))
		}
		value, err := o.write(r, w.begin(), id)
		if err != nil {
			return r.failed(fmt.Errorf("%s: %w", o.topic, err))
		}
		if err := o.contract.CheckRules(value); err != nil {
			return permanent(codeContract, bound(err))
		}
		msg.Value = w.take(value)
		if outputs == nil {
			outputs = make([]processors.Message, 0, len(m.outputs)-i)
		}
		outputs = append(outputs, msg)
	}
	if len(outputs) == 0 {
		return processors.Result{Outcome: Filtered, Detail: noOutput}
	}
	return processors.Result{Outputs: outputs, Outcome: Normalized}
}

// bound keeps the error of a contract to a length that suits a header.
func bound(err error) error {
	var ce *topics.ContractError
	if errors.As(err, &ce) && len(ce.Problems) > 5 {
		more := len(ce.Problems) - 5
		return fmt.Errorf("%w; and %d more", &topics.ContractError{Topic: ce.Topic, Problems: ce.Problems[:5]}, more)
	}
	return err
}

// remove makes a deletion of every output, whatever its condition: the record may have met it before.
func (m *mapping) remove(r *run, in *processors.Message) processors.Result {
	r.doc.nodes = r.doc.nodes[:0]
	if len(in.Value) > 0 {
		if err := r.doc.parse(in.Value); err != nil {
			return permanent(codeDecode, fmt.Errorf("payload of a deletion: %w", err))
		}
	}
	outputs := make([]processors.Message, 0, len(m.outputs))
	for i, o := range m.outputs {
		if o.sourceID != nil && o.sourceID.needsPayload() && len(in.Value) == 0 {
			return permanent(codeDelete, fmt.Errorf("outputs[%d].source_id: reads the payload (%s), and the deletion carries "+
				"none; derive source_id from key, or let the source send the last payload with deletions", i, o.sourceID))
		}
		id, err := o.id(r)
		if err != nil {
			return r.failed(within(fmt.Sprintf("outputs[%d].source_id", i), err))
		}
		if msg := o.message(r, in, i, id); !twice(outputs, &msg) {
			outputs = append(outputs, msg)
		}
	}
	return processors.Result{Outputs: outputs, Outcome: Deleted}
}

func twice(outputs []processors.Message, msg *processors.Message) bool {
	for i := range outputs {
		if outputs[i].Topic == msg.Topic && bytes.Equal(outputs[i].Key, msg.Key) {
			return true
		}
	}
	return false
}

// id is the source id of the output.
func (o *output) id(r *run) (string, error) {
	if o.sourceID == nil {
		return r.env.Subject, nil
	}
	v, err := o.sourceID.get(r, root)
	if err != nil {
		return "", err
	}
	if v.absent() || v.kind >= array || v.kind == boolean || v.kind == number && !plainNumber(v.text) || len(v.text) > 1024 {
		return "", &misfit{from: o.sourceID.String(), found: v.String(), want: "an id: text or a whole number"}
	}
	return string(v.text), nil
}

// message is the output without its value.
func (o *output) message(r *run, in *processors.Message, index int, id string) processors.Message {
	env := r.env
	env.ID = topics.OutputID(r.env.ID, index)
	env.Kind, env.Subject, env.Revision = o.topic, id, 0
	env.DataSchema = o.contract.ID
	env.ContentType = "application/json"
	key := in.Key
	if id != r.env.Subject {
		key = topics.Key(env.Tenant, env.System, id)
	}
	return processors.Message{ // its time is that of its writing: when the change occurred is in ce_time
		Topic:   o.topic,
		Key:     key,
		Headers: env.Append(make([]topics.Header, 0, 14)),
	}
}

func (o *output) write(r *run, dst []byte, id string) ([]byte, error) {
	dst = append(dst, `{"tenant":"`...)
	dst = append(dst, r.env.Tenant...)
	dst = append(dst, `","system":"`...)
	dst = append(dst, r.env.System...)
	dst = append(dst, `","source_id":`...)
	dst = appendText(dst, []byte(id))
	dst, err := emitFields(o.fields, r, root, dst)
	return append(dst, '}'), err
}

// holds reports whether the record meets the condition.
func (c *condition) holds(r *run) (bool, error) {
	v, err := c.get(r, root)
	switch {
	case err != nil:
		return false, err
	case c.expr != nil && v.kind != boolean:
		return false, &misfit{from: "the expression", found: v.String(), want: "true or false"}
	case c.expr != nil:
		return string(v.text) == "true", nil
	case c.exists != nil:
		return (v.kind != missing && v.kind != null) == *c.exists, nil
	}
	_, in := c.oneOf[string(v.text)]
	return (in && v.kind != missing && v.kind < array) != c.noneOf, nil
}
