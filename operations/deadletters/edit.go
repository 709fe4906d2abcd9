package deadletters

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// Edit changes the one letter of a redrive. The letter itself stays as it is on its topic; the record that is moved carries
// topics.HeaderEdited with the id of the redrive, which keeps what was changed.
type Edit struct {
	Value   []byte            // the new value; nil: as it is
	Headers map[string]string // to be set, each by its name
}

// identity are the headers by which targets know an event and its version: with others it would be another event.
const identity = " " + topics.HeaderID + " " + topics.HeaderSource + " " + topics.HeaderSubject + " " + topics.HeaderSequence + " " +
	topics.HeaderEpoch + " " + topics.HeaderTenant + " " + topics.HeaderSpecVersion + " "

func (e *Edit) validate() error {
	var errs []error
	if e.Value == nil && len(e.Headers) == 0 {
		errs = append(errs, errors.New("the edit changes nothing: give a new value or a header"))
	}
	for name := range e.Headers {
		switch {
		case strings.HasPrefix(name, "leat_"), len(kept([]topics.Header{{Key: name}})) == 0:
			errs = append(errs, fmt.Errorf("header %.80q: is written by tools, not by hand", name))
		case strings.Contains(identity, " "+name+" "):
			errs = append(errs, fmt.Errorf("header %.80q: says which event and version this is, and cannot be changed", name))
		}
	}
	return errors.Join(errs...)
}

// edited is an edit with what it changes, as the job keeps it.
type edited struct {
	Value   *valueChange   `json:"value,omitempty"`
	Headers []headerChange `json:"headers,omitempty"`

	value []byte
}

type valueChange struct {
	BeforeSHA256 string   `json:"before_sha256"`
	AfterSHA256  string   `json:"after_sha256"`
	BeforeBytes  int      `json:"before_bytes"`
	AfterBytes   int      `json:"after_bytes"`
	Changes      []change `json:"changes,omitempty"` // if both are JSON
	More         int      `json:"more,omitempty"`    // changes that are not listed
}

// change is one difference of two JSON values, as in a JSON Patch (RFC 6902), with what was there before.
type change struct {
	Op     string          `json:"op"` // add, remove, replace
	Path   string          `json:"path"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

type headerChange struct {
	Name   string  `json:"name"`
	Before *string `json:"before,omitempty"` // nil: it was not there
	After  string  `json:"after"`
}

// maxChanges bounds the changes that a job keeps.
const maxChanges = 200

// prepareEdit compares the edit with the letter and tries the result with the current handler.
func (o *Office) prepareEdit(ctx context.Context, r Request, c claimable) (*edited, error) {
	if !o.AllowEdit {
		return nil, errors.New("changing a record while it is redriven is off: set redrive.allow_edit in the configuration, if it may be done here")
	}
	rows, err := o.DB.Query(ctx, selectLetters+fromOrigins+c.where, c.args...)
	if err != nil {
		return nil, fmt.Errorf("selecting the dead letter: %w", err)
	}
	found, err := collectLetters(rows)
	if err != nil {
		return nil, fmt.Errorf("selecting the dead letter: %w", err)
	}
	if len(found) != 1 {
		return nil, c.nothing()
	}
	recs, err := o.fetch(ctx, idsOf(found))
	if err != nil {
		return nil, err
	}
	rec := recs[found[0].ID]
	if rec == nil {
		return nil, fmt.Errorf("the dead-letter topic no longer has the record of %s", found[0].ID)
	}
	e := compare(rec, r.Edit)
	if e.Value == nil && len(e.Headers) == 0 {
		return nil, errors.New("the edit changes nothing: the record is like that already")
	}
	if err := o.tryEdit(ctx, found[0].Group, e.apply(rec, "")); err != nil && !r.Force {
		return nil, fmt.Errorf("the edited record would fail: %w; correct it, or redrive it all the same with --force", err)
	}
	return e, nil
}

func (o *Office) tryEdit(ctx context.Context, group string, rec *kgo.Record) error {
	stage, err := o.Stage(ctx, group)
	if err != nil {
		return err
	}
	msg, err := message(rec)
	if err != nil {
		return err
	}
	results, err := handle(ctx, stage.Handler, []processors.Message{msg})
	if err != nil {
		return err
	}
	return results[0].Err
}

// compare finds what an edit changes in a record.
func compare(rec *kgo.Record, edit *Edit) *edited {
	e := &edited{}
	if edit.Value != nil && !bytes.Equal(edit.Value, rec.Value) {
		e.value = edit.Value
		e.Value = &valueChange{
			BeforeSHA256: digest(rec.Value), AfterSHA256: digest(edit.Value), BeforeBytes: len(rec.Value), AfterBytes: len(edit.Value),
		}
		var before, after any
		if decodeJSON(rec.Value, &before) && decodeJSON(edit.Value, &after) {
			e.Value.compare("", before, after)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(edit.Headers)) {
		h := headerChange{Name: name, After: edit.Headers[name]}
		for _, old := range rec.Headers {
			if old.Key == name {
				h.Before = new(clean(string(old.Value), maxMessage))
			}
		}
		if h.Before == nil || *h.Before != h.After {
			e.Headers = append(e.Headers, h)
		}
	}
	return e
}

func digest(v []byte) string {
	sum := sha256.Sum256(v)
	return hex.EncodeToString(sum[:])
}

func decodeJSON(text []byte, v *any) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // amounts stay digit by digit
	return d.Decode(v) == nil && !d.More()
}

func (v *valueChange) compare(path string, before, after any) {
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			break
		}
		for _, name := range slices.Sorted(maps.Keys(b)) {
			if value, ok := a[name]; ok {
				v.compare(path+"/"+pointer(name), b[name], value)
			} else {
				v.add(change{Op: "remove", Path: path + "/" + pointer(name), Before: raw(b[name])})
			}
		}
		for _, name := range slices.Sorted(maps.Keys(a)) {
			if _, ok := b[name]; !ok {
				v.add(change{Op: "add", Path: path + "/" + pointer(name), After: raw(a[name])})
			}
		}
		return
	case []any:
		a, ok := after.([]any)
		if !ok {
			break
		}
		for i := range max(len(a), len(b)) {
			at := path + "/" + strconv.Itoa(i)
			switch {
			case i >= len(a):
				v.add(change{Op: "remove", Path: at, Before: raw(b[i])})
			case i >= len(b):
				v.add(change{Op: "add", Path: at, After: raw(a[i])})
			default:
				v.compare(at, b[i], a[i])
			}
		}
		return
	}
	if !reflect.DeepEqual(before, after) {
		v.add(change{Op: "replace", Path: path, Before: raw(before), After: raw(after)})
	}
}

func (v *valueChange) add(c change) {
	if len(v.Changes) >= maxChanges {
		v.More++
		return
	}
	v.Changes = append(v.Changes, c)
}

func pointer(name string) string {
	return clean(strings.NewReplacer("~", "~0", "/", "~1").Replace(name), maxText)
}

// raw is v as JSON that Postgres takes; what is long is told by its length.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil || len(b) > maxMessage || bytes.Contains(b, []byte(`\u0000`)) {
		b, _ = json.Marshal(fmt.Sprintf("(%d bytes)", len(b)))
	}
	return b
}

// apply is the record as it was edited. job is the redrive; "" while there is none yet.
func (e *edited) apply(rec *kgo.Record, job string) *kgo.Record {
	out := *rec
	if e.Value != nil {
		out.Value = e.value
	}
	out.Headers = slices.Clone(rec.Headers)
	set := func(name, value string) {
		out.Headers = slices.DeleteFunc(out.Headers, func(h kgo.RecordHeader) bool { return h.Key == name })
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	for _, h := range e.Headers {
		set(h.Name, h.After)
	}
	if job != "" {
		set(topics.HeaderEdited, job)
	}
	return &out
}

const storeEdit = `update leat_control.redrive_items set edit = $2, edited_value = $3 where job = $1`

func (e *edited) store(ctx context.Context, tx pgx.Tx, job string, letters []ID) error {
	if len(letters) != 1 {
		return fmt.Errorf("an edit is of one dead letter, not of %d", len(letters))
	}
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("keeping the edit: %w", err)
	}
	if _, err := tx.Exec(ctx, storeEdit, job, text, e.value); err != nil {
		return fmt.Errorf("keeping the edit: %w", err)
	}
	return nil
}

// storedEdit undoes store.
func storedEdit(text json.RawMessage, value []byte) (*edited, error) {
	e := &edited{value: value}
	if err := json.Unmarshal(text, e); err != nil {
		return nil, fmt.Errorf("reading the edit: %w", err)
	}
	return e, nil
}

// summary is what the audit log keeps: what was changed, but not the contents.
func (e *edited) summary() any {
	out := map[string]any{}
	if v := e.Value; v != nil {
		paths := make([]string, len(v.Changes))
		for i, c := range v.Changes {
			paths[i] = c.Op + " " + c.Path
		}
		out["before_sha256"], out["after_sha256"], out["changes"] = v.BeforeSHA256, v.AfterSHA256, paths
	}
	for _, h := range e.Headers {
		out["header "+h.Name] = "changed"
	}
	return out
}
