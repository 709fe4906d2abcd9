package normalize

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	slash "path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// Sample is a record to try a mapping on: testdata/<name>/in.json. What is not given has a default.
type Sample struct {
	Name string `json:"-"` // the folder

	Tenant     string           `json:"tenant"` // "sample"
	System     string           `json:"system"` // needed if the mappings are of several systems
	Entity     string           `json:"entity"`
	Key        string           `json:"key"`
	Operation  topics.Operation `json:"operation"`   // "upsert"
	OccurredAt time.Time        `json:"occurred_at"` // 2026-01-02T03:04:05Z
	Payload    json.RawMessage  `json:"payload"`     // any JSON
	Text       *string          `json:"text"`        // instead of payload: bytes that are not JSON

	Want []byte `json:"-"` // testdata/<name>/want.json; nil: there is none
}

// Outcome is what became of a sample: what want.json holds.
type Outcome struct {
	Outcome string   `json:"outcome"`
	Detail  string   `json:"detail,omitempty"`
	Outputs []Output `json:"outputs,omitempty"`
	Code    string   `json:"code,omitempty"`  // of a permanent failure
	Error   string   `json:"error,omitempty"` // its message
}

// Output is one output of a sample. A null value is a deletion.
type Output struct {
	Topic string          `json:"topic"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

// Samples reads the samples of a folder of mappings, sorted by name. None at all is no error.
func Samples(fsys fs.FS) ([]Sample, error) {
	files, err := fs.Glob(fsys, "testdata/*/in.json")
	if err != nil {
		return nil, fmt.Errorf("listing samples: %w", err)
	}
	slices.Sort(files)
	samples := make([]Sample, 0, len(files))
	var errs []error
	for _, file := range files {
		s, err := readSample(fsys, file)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		samples = append(samples, s)
	}
	return samples, errors.Join(errs...)
}

func readSample(fsys fs.FS, file string) (Sample, error) {
	src, err := fs.ReadFile(fsys, file)
	if err != nil {
		return Sample{}, fmt.Errorf("reading sample: %w", err)
	}
	dir := slash.Dir(file)
	s := Sample{Name: slash.Base(dir)}
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("reading sample: %w", err)
	}
	if s.Want, err = fs.ReadFile(fsys, slash.Join(dir, "want.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("reading what the sample wants: %w", err)
	}
	return s, nil
}

// message is the sample as a record of its source topic.
func (s *Sample) message(set *Set) (processors.Message, error) {
	system := s.System
	if system == "" {
		for _, m := range set.byTopic {
			if system != "" && system != m.system {
				return processors.Message{}, errors.New("system is missing, and the mappings are of several systems")
			}
			system = m.system
		}
	}
	if s.Entity == "" || s.Key == "" {
		return processors.Message{}, errors.New("want at least entity, key and payload")
	}
	env := topics.Envelope{
		ID: "00000000-0000-7000-8000-000000000000", Tenant: cmp.Or(s.Tenant, "sample"), System: system,
		Kind: topics.SourceKind(s.Entity), Operation: cmp.Or(s.Operation, topics.Upsert), Subject: s.Key, Time: s.OccurredAt,
		Sequence: 1, Epoch: 1, ContentType: "application/json",
	}
	if env.Time.IsZero() {
		env.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	value := []byte(s.Payload)
	if s.Text != nil {
		value = []byte(*s.Text)
	}
	return processors.Message{
		Topic: topics.Source(system, s.Entity), Time: env.Time, Key: topics.Key(env.Tenant, system, s.Key),
		Value: value, Headers: env.Append(nil), Attempt: 1,
	}, nil
}

// Report is what Test found.
type Report struct {
	Cases  []Case `json:"cases"`
	Failed int    `json:"failed"` // cases with a problem
}

// Case is one sample and what became of it.
type Case struct {
	Name    string          `json:"name"`
	Input   json.RawMessage `json:"input"`
	Outcome Outcome         `json:"outcome"`
	Problem string          `json:"problem,omitempty"` // why the case fails; empty: it is as wanted
}

// Test runs samples through set. A sample fails if it is not as its want.json says; without one it fails if its record
// would become a dead letter.
func Test(set *Set, samples []Sample) Report {
	var rep Report
	h := New(set)
	for i := range samples {
		c := try(h, set, &samples[i])
		if c.Problem != "" {
			rep.Failed++
		}
		rep.Cases = append(rep.Cases, c)
	}
	return rep
}

func try(h processors.Handler, set *Set, s *Sample) Case {
	c := Case{Name: s.Name, Input: s.Payload}
	if s.Text != nil {
		c.Input = jsonText(*s.Text)
	}
	msg, err := s.message(set)
	if err != nil {
		c.Problem = "sample: " + err.Error()
		return c
	}
	res := h.Handle(context.Background(), []processors.Message{msg})[0]
	c.Outcome = Outcome{Outcome: res.Outcome, Detail: res.Detail}
	if res.Err != nil {
		c.Outcome = Outcome{Outcome: "dead letter", Code: processors.Code(res.Err), Error: res.Err.Error()}
	}
	for _, o := range res.Outputs {
		c.Outcome.Outputs = append(c.Outcome.Outputs, Output{o.Topic, string(o.Key), o.Value})
	}
	switch {
	case s.Want == nil && res.Err != nil:
		c.Problem = res.Err.Error()
	case s.Want != nil:
		c.Problem = differ(c.Outcome.Golden(), s.Want)
	}
	return c
}

// Golden is the text of want.json for this outcome.
func (o Outcome) Golden() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(o); err != nil {
		return []byte(err.Error()) // not reached: values have passed their contract
	}
	return b.Bytes()
}

// differ names the first line in which got and want differ.
func differ(got, want []byte) string {
	g, w := strings.Split(strings.TrimSpace(string(got)), "\n"), strings.Split(strings.TrimSpace(string(want)), "\n")
	for i := range max(len(g), len(w)) {
		a, b := "the end", "the end"
		if i < len(g) {
			a = strings.TrimSpace(g[i])
		}
		if i < len(w) {
			b = strings.TrimSpace(w[i])
		}
		if a != b {
			return fmt.Sprintf("want.json, line %d: want %s, got %s", i+1, b, a)
		}
	}
	return ""
}

// column is the width of either side of the text, in characters.
const column = 62

// WriteText shows input and output of every case side by side, and the problem below.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Cases {
		verdict := "ok  "
		if c.Problem != "" {
			verdict = "FAIL"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", verdict, c.Name, strings.TrimSpace(c.Outcome.Outcome+" "+c.Outcome.Detail))
		left, right := indented(c.Input), c.Outcome.lines()
		for i := range max(len(left), len(right)) {
			var l, r string
			if i < len(left) {
				l = left[i]
			}
			if i < len(right) {
				r = right[i]
			}
			l = cut(l)
			line := "  " + l + strings.Repeat(" ", column-utf8.RuneCountInString(l)) + " | " + r
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
		if c.Problem != "" {
			b.WriteString("  problem: " + c.Problem + "\n")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%d cases, %d failed\n", len(r.Cases), r.Failed)
	_, err := io.WriteString(w, b.String())
	return err
}

func (o Outcome) lines() []string {
	if o.Error != "" {
		return append([]string{"dead letter, code " + o.Code + ":"}, strings.Split(o.Error, "\n")...)
	}
	var out []string
	for _, output := range o.Outputs {
		out = append(out, output.Topic+" "+output.Key)
		if output.Value == nil {
			out = append(out, "(deleted)")
			continue
		}
		out = append(out, indented(output.Value)...)
	}
	return out
}

func indented(doc json.RawMessage) []string {
	var b bytes.Buffer
	if json.Indent(&b, doc, "", "  ") != nil {
		return strings.Split(string(doc), "\n")
	}
	return strings.Split(b.String(), "\n")
}

func cut(s string) string {
	if utf8.RuneCountInString(s) <= column {
		return s
	}
	return string([]rune(s)[:column-1]) + "…"
}
