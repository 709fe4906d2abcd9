package topics

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Header is one Kafka record header. Values are UTF-8 text; a name occurs once in a record.
type Header struct {
	Key   string
	Value []byte
}

// Names of the headers that Envelope reads and writes: the Kafka binding of CloudEvents 1.0 in binary mode
// (github.com/cloudevents/spec, kafka-protocol-binding.md), the tenant, and W3C Trace Context.
const (
	HeaderSpecVersion = "ce_specversion"
	HeaderID          = "ce_id"
	HeaderSource      = "ce_source"
	HeaderType        = "ce_type"
	HeaderSubject     = "ce_subject"
	HeaderTime        = "ce_time"
	HeaderSequence    = "ce_sequence"
	HeaderEpoch       = "ce_sourceepoch"
	HeaderRevision    = "ce_revision"
	HeaderDataSchema  = "ce_dataschema"
	HeaderContentType = "content-type"
	HeaderTenant      = "tenant"
	HeaderTraceParent = "traceparent"
)

// Operation says what happened to the entity.
type Operation string

// The operations. A delete may carry the last known payload; its value may also be empty.
const (
	Upsert Operation = "upsert"
	Delete Operation = "delete"
)

// Envelope is what the headers of a record on a source or finance topic say about it.
type Envelope struct {
	ID          string    // ce_id: UUID of the event; on finance topics UUIDv5 of (input event, output index)
	Tenant      string    // tenant
	System      string    // ce_source is "/" + System
	Kind        string    // first parts of ce_type: "source.<entity>" or "finance.<entity>.v<major>"
	Operation   Operation // last part of ce_type
	Subject     string    // ce_subject: the id of the record in the source system
	Time        time.Time // ce_time: when the change occurred, by the source's clock
	Sequence    int64     // ce_sequence: the outbox id; with Epoch the version of the record
	Epoch       int64     // ce_sourceepoch: raised when a source's ids begin anew
	Revision    int64     // ce_revision: 0 at first, grows when the same output is emitted again; optional
	DataSchema  string    // ce_dataschema: version of the payload's schema; optional
	ContentType string    // content-type; optional
	TraceParent string    // traceparent; optional
}

// SourceKind is the Kind of records on a source topic.
func SourceKind(entity string) string { return "source." + entity }

// FinanceKind is the Kind of records on a finance topic.
func FinanceKind(entity string, major int) string { return Finance(entity, major) }

// Entity is the second part of Kind.
func (e *Envelope) Entity() string {
	_, rest, _ := strings.Cut(e.Kind, ".")
	entity, _, _ := strings.Cut(rest, ".")
	return entity
}

// Append adds e's headers to hs. It does not validate; what DecodeEnvelope accepts, it writes back unchanged.
func (e *Envelope) Append(hs []Header) []Header {
	// All values share one allocation: this runs for every record. Should append move buf, what was cut from it stays.
	buf := make([]byte, 0, 160+len(e.ID)+len(e.System)+len(e.Kind)+len(e.Subject)+len(e.DataSchema)+len(e.ContentType)+
		len(e.Tenant)+len(e.TraceParent))
	from := 0
	add := func(k string) {
		if len(buf) > from {
			hs = append(hs, Header{k, buf[from:len(buf):len(buf)]})
			from = len(buf)
		}
	}
	text := func(k, v string) {
		buf = append(buf, v...)
		add(k)
	}
	number := func(k string, n int64) {
		buf = strconv.AppendInt(buf, n, 10)
		add(k)
	}
	text(HeaderSpecVersion, "1.0")
	text(HeaderID, e.ID)
	buf = append(buf, '/')
	text(HeaderSource, e.System)
	buf = append(append(buf, e.Kind...), '.')
	text(HeaderType, string(e.Operation))
	text(HeaderSubject, e.Subject)
	buf = e.Time.UTC().AppendFormat(buf, time.RFC3339Nano)
	add(HeaderTime)
	number(HeaderSequence, e.Sequence)
	number(HeaderEpoch, e.Epoch)
	if e.Revision != 0 {
		number(HeaderRevision, e.Revision)
	}
	text(HeaderDataSchema, e.DataSchema)
	text(HeaderContentType, e.ContentType)
	text(HeaderTenant, e.Tenant)
	text(HeaderTraceParent, e.TraceParent)
	return hs
}

// required are the headers without which a record has no envelope.
const required = bitSpecVersion | bitID | bitSource | bitType | bitSubject | bitTime | bitSequence | bitEpoch | bitTenant

// DecodeEnvelope reads the envelope of a record. Headers it does not know are left alone. Every problem is reported, each
// naming its header. The values are copied, all into one allocation: the envelope outlives the record.
func DecodeEnvelope(hs []Header) (Envelope, error) {
	var e Envelope
	var errs []error
	var buf [512]byte // on the stack: most envelopes fit
	all := buf[:0]
	for i := range hs {
		if headerBit(hs[i].Key) != 0 {
			all = append(all, hs[i].Value...)
		}
	}
	text := string(all)
	var seen uint32
	for i := range hs {
		bit := headerBit(hs[i].Key)
		if bit == 0 {
			continue
		}
		var v string
		v, text = text[:len(hs[i].Value)], text[len(hs[i].Value):]
		var err error
		switch {
		case seen&bit != 0:
			err = errors.New("occurs twice")
		case !utf8.ValidString(v):
			err = errors.New("is not UTF-8")
		default:
			err = e.set(bit, v)
		}
		seen |= bit
		if err != nil {
			errs = append(errs, fmt.Errorf("header %s: %w", hs[i].Key, err))
		}
	}
	if seen&required != required {
		errs = append(errs, missingHeaders(seen)...)
	}
	if len(errs) > 0 {
		return Envelope{}, errors.Join(errs...)
	}
	return e, nil
}

func missingHeaders(seen uint32) (errs []error) {
	for _, name := range [...]string{
		HeaderSpecVersion, HeaderID, HeaderSource, HeaderType, HeaderSubject, HeaderTime, HeaderSequence, HeaderEpoch, HeaderTenant,
	} {
		if seen&headerBit(name) == 0 {
			errs = append(errs, fmt.Errorf("header %s: is missing", name))
		}
	}
	return errs
}

const (
	bitSpecVersion uint32 = 1 << iota
	bitID
	bitSource
	bitType
	bitSubject
	bitTime
	bitSequence
	bitEpoch
	bitRevision
	bitDataSchema
	bitContentType
	bitTenant
	bitTraceParent
)

func headerBit(name string) uint32 {
	switch name {
	case HeaderSpecVersion:
		return bitSpecVersion
	case HeaderID:
		return bitID
	case HeaderSource:
		return bitSource
	case HeaderType:
		return bitType
	case HeaderSubject:
		return bitSubject
	case HeaderTime:
		return bitTime
	case HeaderSequence:
		return bitSequence
	case HeaderEpoch:
		return bitEpoch
	case HeaderRevision:
		return bitRevision
	case HeaderDataSchema:
		return bitDataSchema
	case HeaderContentType:
		return bitContentType
	case HeaderTenant:
		return bitTenant
	case HeaderTraceParent:
		return bitTraceParent
	}
	return 0
}

func (e *Envelope) set(bit uint32, v string) (err error) {
	switch bit {
	case bitSpecVersion:
		if v != "1.0" {
			return fmt.Errorf("%.20q, want 1.0", v)
		}
	case bitID:
		e.ID = v
		if v == "" || len(v) > 64 {
			return errors.New("want 1 to 64 bytes")
		}
	case bitSource:
		e.System = strings.TrimPrefix(v, "/")
		if len(e.System) == len(v) || !ValidName(e.System) {
			return fmt.Errorf("%.80q is not /<system>", v)
		}
	case bitType:
		i := strings.LastIndexByte(v, '.')
		if i < 1 || (Operation(v[i+1:]) != Upsert && Operation(v[i+1:]) != Delete) {
			return fmt.Errorf("%.80q is not a kind with .upsert or .delete behind it", v)
		}
		e.Kind, e.Operation = v[:i], Operation(v[i+1:])
	case bitSubject:
		e.Subject = v
		if v == "" {
			return errors.New("is empty")
		}
	case bitTime:
		if e.Time, err = time.Parse(time.RFC3339Nano, v); err != nil {
			return fmt.Errorf("%.40q is not an RFC 3339 time", v)
		}
		e.Time = e.Time.UTC()
		if y := e.Time.Year(); y < 1 || y > 9999 { // a zone can carry it over the edge
			return fmt.Errorf("%.40q is not of the years 1 to 9999", v)
		}
	case bitSequence:
		e.Sequence, err = positive(v)
	case bitEpoch:
		e.Epoch, err = positive(v)
	case bitRevision:
		e.Revision, err = positive(v)
	case bitDataSchema:
		e.DataSchema = v
	case bitContentType:
		e.ContentType = v
	case bitTenant:
		e.Tenant = v
		if !ValidName(v) {
			return fmt.Errorf("%.80q is not a valid name", v)
		}
	case bitTraceParent:
		e.TraceParent = v
	}
	return err
}

func positive(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%.40q is not a positive number", v)
	}
	return n, nil
}
