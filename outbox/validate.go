package outbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/topics"
)

// Limits of an event. They keep a record below Kafka's default message.max.bytes of 1,048,588 bytes with room for headers.
const (
	MaxKey     = 1 << 10   // bytes
	MaxPayload = 900 << 10 // bytes
	MaxHeaders = 32        // headers, with 8 KiB of names and values in all
	maxHeader  = 8 << 10
)

func (e *Event) contentType() string   { return cmp.Or(e.ContentType, "application/json") }
func (e *Event) schemaVersion() string { return cmp.Or(e.SchemaVersion, "1") }

func (e *Event) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	const name = "use 1 to 63 lower-case letters, digits, '-' and '_'"
	if !topics.ValidName(e.Tenant) {
		bad("tenant %.80q is not a valid name: %s", e.Tenant, name)
	}
	if !topics.ValidName(e.Entity) {
		bad("entity %.80q is not a valid name: %s", e.Entity, name)
	}
	if err := text(e.Key, MaxKey); err != nil {
		bad("key %w", err)
	} else if e.Key == "" {
		bad("key is empty: it is the id of the record in the source system")
	}
	if e.Operation != topics.Upsert && e.Operation != topics.Delete {
		bad("operation %.80q is unknown: use topics.Upsert or topics.Delete", e.Operation)
	}
	e.validatePayload(bad)
	if err := text(e.contentType(), 256); err != nil {
		bad("content type %w", err)
	}
	if err := text(e.schemaVersion(), 64); err != nil {
		bad("schema version %w", err)
	}
	if y := e.OccurredAt.UTC().Year(); y < 1 || y > 9999 {
		bad("occurred at year %d is outside of 1 to 9999", y)
	}
	e.validateHeaders(bad)
	return errors.Join(errs...)
}

func (e *Event) validatePayload(bad func(string, ...any)) {
	switch {
	case e.Operation == topics.Upsert && len(e.Payload) == 0:
		bad("payload is empty: an upsert carries the whole record")
	case len(e.Payload) > MaxPayload:
		bad("payload has %d bytes, more than %d: Kafka would refuse the record; store the document elsewhere and send its address",
			len(e.Payload), MaxPayload)
	case len(e.Payload) == 0 || e.contentType() != "application/json":
	case !json.Valid(e.Payload):
		bad("payload is not JSON: set ContentType if it is something else")
	case !utf8.Valid(e.Payload):
		bad("payload is not UTF-8, which JSON is written in")
	}
}

func (e *Event) validateHeaders(bad func(string, ...any)) {
	if len(e.Headers) > MaxHeaders {
		bad("%d headers, more than %d", len(e.Headers), MaxHeaders)
	}
	size := 0
	for k, v := range e.Headers {
		size += len(k) + len(v)
		if err := text(k, 256); err != nil {
			bad("header name %w", err)
		} else if k == "" {
			bad("a header has no name")
		} else if Reserved(k) {
			bad("header %q is reserved: Leat writes it", k)
		}
		if err := text(v, maxHeader); err != nil {
			bad("header %.80q %w", k, err)
		}
	}
	if size > maxHeader {
		bad("headers have %d bytes, more than %d", size, maxHeader)
	}
}

// Reserved reports whether a header name is Leat's own: ce_*, leat_*, content-type and tenant, in any case of letters.
func Reserved(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "ce_") || strings.HasPrefix(name, "leat_") ||
		name == topics.HeaderContentType || name == topics.HeaderTenant
}

// text refuses what Postgres cannot store as text, and what is too long.
func text(s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("has %d bytes, more than %d", len(s), limit)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	case strings.ContainsRune(s, 0):
		return errors.New("contains a NUL byte, which Postgres cannot store as text")
	}
	return nil
}
