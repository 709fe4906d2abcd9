package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/leat-io/leat/internal/yamlbound"
)

// Load reads and checks the file at path. The error is Problems unless the file could not be read.
func Load(path string, getenv func(string) string) (*Config, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the configuration: there is no file %s; "+
			"name it with --config or LEAT_CONFIG, or try `leat dev`, which needs none", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := Parse(filepath.Base(path), text, getenv)
	if err != nil {
		return nil, err
	}
	c.resolve(filepath.Dir(path))
	return c, nil
}

// resolve makes relative paths relative to the directory of the file: where a process is started says nothing.
func (c *Config) resolve(dir string) {
	t := &c.Kafka.TLS
	paths := []*string{&c.Normalize.Mappings, &t.CAFile, &t.CertFile, &t.KeyFile, &c.Verify.SigningKeyFile, &c.Verify.Directory}
	for i := range c.Notify.Receivers {
		paths = append(paths, &c.Notify.Receivers[i].Template)
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// Parse reads and checks text; file is its name in messages. The error is Problems.
func Parse(file string, text []byte, getenv func(string) string) (*Config, error) {
	if err := yamlbound.Check(text); err != nil {
		return nil, Problems{{File: file, Line: 1, Message: err.Error(), Remedy: "write values out on lines of their own, and leave out what is not needed"}}
	}
	tree, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxProblem(file, err)
	}
	d := &decoder{file: file, getenv: getenv, keys: map[string]*keyState{}}
	c := &Config{file: file, keys: d.keys}
	for i, doc := range tree.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.CommentGroupNode:
		default:
			if i > 0 {
				d.bad(lineOf(body), "", "a second YAML document", "write one document")
				continue
			}
			d.decode(body, reflect.ValueOf(c).Elem(), "")
		}
	}
	d.problems = append(d.problems, c.validate()...)
	if err := d.problems.sorted(); err != nil {
		return nil, err
	}
	c.setDefaults()
	return c, nil
}

func syntaxProblem(file string, err error) error {
	p := Problem{File: file, Line: 1, Message: err.Error(), Remedy: "this is not YAML"}
	if ye := yaml.Error(nil); errors.As(err, &ye) {
		p.Message = ye.GetMessage()
		if t := ye.GetToken(); t != nil && t.Position != nil {
			p.Line = t.Position.Line
		}
	}
	return Problems{p}
}

func (c *Config) setDefaults() {
	k := &c.Kafka
	k.ClientID = cmp.Or(k.ClientID, "leat")
	k.Partitions = cmp.Or(k.Partitions, 8)
	k.Replication = cmp.Or(k.Replication, 1)
	for i := range c.Sources {
		s := &c.Sources[i]
		s.Retention = cmp.Or(s.Retention, 90*24*time.Hour)
		s.OutboxRetention = cmp.Or(s.OutboxRetention, 7*24*time.Hour)
	}
	c.Relay.Group = cmp.Or(c.Relay.Group, "leat-relay")
	c.Normalize.Mappings = cmp.Or(c.Normalize.Mappings, "mappings")
	c.Normalize.Group = cmp.Or(c.Normalize.Group, "normalize")
	c.Publish.Group = cmp.Or(c.Publish.Group, "reporting")
	c.Publish.Reporting.Publication = cmp.Or(c.Publish.Reporting.Publication, "reporting")
	c.Retry.Attempts = cmp.Or(c.Retry.Attempts, 8)
	c.Retry.Backoff = cmp.Or(c.Retry.Backoff, time.Second)
	c.Retry.Max = cmp.Or(c.Retry.Max, 10*time.Minute)
	c.Index.JournalRetention = cmp.Or(c.Index.JournalRetention, 90*24*time.Hour)
	c.Index.AttemptsRetention = cmp.Or(c.Index.AttemptsRetention, 90*24*time.Hour)
	n := &c.Incidents
	n.Quiet = cmp.Or(n.Quiet, 24*time.Hour)
	n.OngoingAfter = cmp.Or(n.OngoingAfter, time.Hour)
	n.EscalationFactor = cmp.Or(n.EscalationFactor, 4)
	n.EscalationFloor = cmp.Or(n.EscalationFloor, 50)
	n.MinFailures = cmp.Or(n.MinFailures, 5)
	n.Wait = cmp.Or(n.Wait, 10*time.Second)
	c.Notify.PerMinute = cmp.Or(c.Notify.PerMinute, 6)
	for i := range c.Notify.Receivers {
		r := &c.Notify.Receivers[i]
		r.MinSeverity = cmp.Or(r.MinSeverity, "warning")
	}
	c.Redrive.MaxReplays = cmp.Or(c.Redrive.MaxReplays, 3)
	c.Verify.Every = cmp.Or(c.Verify.Every, time.Hour)
	c.Verify.Window = cmp.Or(c.Verify.Window, 24*time.Hour)
	c.Verify.Lag = cmp.Or(c.Verify.Lag, 5*time.Minute)
	c.Verify.Keep = cmp.Or(c.Verify.Keep, 400*24*time.Hour)
	c.HTTP.Listen = cmp.Or(c.HTTP.Listen, "127.0.0.1:9464")
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "json")
	c.Tracing.Exporter = cmp.Or(c.Tracing.Exporter, "off")
	c.Tracing.Endpoint = cmp.Or(c.Tracing.Endpoint, "http://localhost:4318")
	c.Tracing.ServiceName = cmp.Or(c.Tracing.ServiceName, "leat")
}
