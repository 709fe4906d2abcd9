package normalize

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	slash "path"
	"slices"
	"time"

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
