package app_test

import (
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/internal/dev"
)

var update = flag.Bool("update", false, "write docs/json.md anew")

// commandOf names the command that prints the result of a method of App with -o json.
var commandOf = map[string]string{
	"Audit": "audit", "Pauses": "pauses", "Pause": "pause", "Resume": "resume", "Breakers": "breaker list",
	"OrderBreaker": "breaker open, close, release", "Parked": "parked list", "OrderParked": "parked retry, cancel, dead-letter",
	"DLQList": "dlq list", "DLQShow": "dlq show", "DLQExport": "dlq export", "DLQAssign": "dlq assign", "DLQDiscard": "dlq discard",
	"DLQReindex": "dlq reindex", "DLQDryRun": "dlq redrive --dry-run", "DLQRedrive": "dlq redrive", "DLQResume": "dlq redrive --resume", "DLQCancel": "dlq jobs --cancel",
	"DLQJobs": "dlq jobs", "Incidents": "incidents list", "Incident": "incidents show", "ResolveIncident": "incidents resolve",
	"MuteIncident": "incidents mute", "UnmuteIncident": "incidents unmute", "AssignIncident": "incidents assign",
	"IndexStatus": "index status", "IndexRebuild": "index rebuild", "Migrate": "migrate up, status, down", "NotifyTest": "notify test",
	"OffsetsPlan": "offsets plan", "OffsetsApply": "offsets apply", "OffsetsUndo": "offsets undo", "OffsetsShow": "offsets show",
	"OffsetsPlans": "offsets show, without a plan", "OffsetsList": "offsets list", "OffsetsExport": "offsets export",
	"OutboxCapture": "outbox capture", "OutboxRelease": "outbox release", "OutboxList": "outbox list", "OutboxPartitions": "outbox partitions",
	"Outcomes": "outcomes", "RelayStatus": "relay status", "RelayAdopt": "relay adopt", "Status": "status", "TopicsPlan": "topics plan",
	"TopicsApply": "topics apply", "TopicsACLs": "topics acls", "Trace": "trace", "Verify": "verify", "VerifyList": "verify list", "VerifyShow": "verify show",
	"ConfigReport": "config check", "OutboxGrant": "outbox grant",
}

// TestJSON_IsDocumented: the shape of every command's -o json stands in docs/json.md, so that a change of it shows in a review.
// Write the page anew with: go test ./internal/app -run TestJSON -update.
func TestJSON_IsDocumented(t *testing.T) {
	t.Parallel()
	shapes := map[string]reflect.Type{
		"dev --once": reflect.TypeFor[*dev.Report](), "health": reflect.TypeFor[app.HealthReport](), "version": reflect.TypeFor[app.Version](),
		"mapping test": reflect.TypeFor[app.MappingReport](),
	}
	of := reflect.TypeFor[*app.App]()
	for m := range of.Methods() {
		if m.Type.NumOut() == 0 || !m.Type.Out(0).Implements(reflect.TypeFor[interface{ WriteText(io.Writer) error }]()) {
			continue
		}
		require.NotEmpty(t, commandOf[m.Name], m.Name+": "+"a result with WriteText is printed by a command: name it here")
		shapes[commandOf[m.Name]] = m.Type.Out(0)
	}
	var b strings.Builder
	b.WriteString(jsonHead)
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		fmt.Fprintf(&b, "\n## leat %s\n\n```\n", name)
		describe(&b, shapes[name], "", nil)
		b.WriteString("```\n")
	}
	page := filepath.Join("..", "..", "docs", "json.md")
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(b.String()), 0o600))
	}
	want, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "write it anew with -update if the change is meant, and say so in CHANGELOG.md")
}

const jsonHead = `# JSON

What the commands print with ` + "`-o json`" + `, written by a test from the program's types. Names stay; new ones may come: skip what you do not
know. A ` + "`?`" + ` marks what is left out, or null, where there is nothing to say; ` + "`[]`" + ` a list; ` + "`{}`" + ` an object with any names. Times are RFC 3339 in
UTC. Numbers of records are whole and exact; amounts of money are text.
`

// describe writes the JSON shape of t, a line for each name. A type within itself is described once.
func describe(w *strings.Builder, t reflect.Type, indent string, above []reflect.Type) {
	t, shape := unwrap(t)
	if indent == "" && shape != "" {
		w.WriteString(shape + "\n")
	}
	if t.Kind() != reflect.Struct || named(t) != "" || slices.Contains(above, t) {
		if indent == "" {
			w.WriteString(leaf(t) + "\n")
		}
		return
	}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if f.Anonymous && name == "" {
			describe(w, f.Type, indent, append(above, t))
			continue
		}
		if name == "" {
			name = f.Name
		}
		inner, shape := unwrap(f.Type)
		optional := ""
		if strings.Contains(options, "omit") || f.Type.Kind() == reflect.Pointer {
			optional = "?"
		}
		fmt.Fprintln(w, strings.TrimRight(indent+name+shape+optional+": "+leaf(inner), " "))
		describe(w, inner, indent+"  ", append(above, t))
	}
}

// unwrap returns what is in lists and objects with any names.
func unwrap(t reflect.Type) (inner reflect.Type, shape string) {
	for named(t) == "" {
		switch t.Kind() {
		case reflect.Pointer:
			t = t.Elem()
		case reflect.Slice, reflect.Array:
			t, shape = t.Elem(), shape+"[]"
		case reflect.Map:
			t, shape = t.Elem(), shape+"{}"
		default:
			return t, shape
		}
	}
	return t, shape
}

// named is the JSON of types that say themselves what it is.
func named(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[*time.Time]():
		return "time"
	case t == reflect.TypeFor[time.Duration]():
		return "nanoseconds"
	case t == reflect.TypeFor[json.RawMessage](), t.Kind() == reflect.Interface:
		return "anything"
	case t == reflect.TypeFor[[]byte]():
		return "base64"
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return "text"
	case t.Implements(reflect.TypeFor[json.Marshaler]()):
		return "anything"
	}
	return ""
}

func leaf(t reflect.Type) string {
	if n := named(t); n != "" {
		return n
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32,
		reflect.Uint64:
		return "whole number"
	case reflect.Float32, reflect.Float64:
		return "number"
	default:
		return ""
	}
}
