package topics

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Names of the headers that a record on a retry or dead-letter topic carries beside its own. All are UTF-8 text, occur
// once, and replace those of the hop before; only leat_original_key holds bytes as they are. Times are RFC 3339 in UTC with nanoseconds; numbers are decimal.
const (
	HeaderOriginalTopic     = "leat_original_topic"
	HeaderOriginalPartition = "leat_original_partition"
	HeaderOriginalOffset    = "leat_original_offset"
	HeaderOriginalTime      = "leat_original_timestamp"
	HeaderOriginalKey       = "leat_original_key"      // on retry topics only: the record's own key is the parked id
	HeaderOriginalNull      = "leat_original_null"     // on retry topics only: "true" if the record's value is null
	HeaderOriginalKeyHash   = "leat_original_key_hash" // first 16 hex digits of SHA-256
	HeaderGroup             = "leat_group"
	HeaderAttempt           = "leat_attempt" // attempts made so far
	HeaderFirstFailedAt     = "leat_first_failed_at"
	HeaderLastFailedAt      = "leat_last_failed_at"
	HeaderNotBefore         = "leat_not_before" // on retry topics only
	HeaderErrorClass        = "leat_error_class"
	HeaderErrorCode         = "leat_error_code"
	HeaderDisposition       = "leat_disposition"
	HeaderFingerprint       = "leat_fingerprint"
	HeaderErrorMessage      = "leat_error_message" // at most 1 KiB
	HeaderErrorStack        = "leat_error_stack"   // at most 4 KiB; panics only
	HeaderHandler           = "leat_handler"
	HeaderAppVersion        = "leat_app_version"
	HeaderReplayCount       = "leat_replay_count"
	HeaderReplayID          = "leat_replay_id"
	HeaderResetGeneration   = "leat_reset_generation"
	HeaderOutboxID          = "leat_outbox_id" // on the relay's dead letters only
	HeaderSourceSystem      = "leat_source_system"
	HeaderEdited            = "leat_edited"        // the redrive in which a person changed the record; kept over hops like the record's own
	HeaderWriter            = "leat_writer"        // on retry topics only: the session that wrote the record
	HeaderOrder             = "leat_order"         // the operator's order that last concerned the parked record
	HeaderValueOmitted      = "leat_value_omitted" // on the relay's dead letters only: bytes of the value that was left out
)

// Disposition says why a record came to a dead-letter topic or waits on a retry topic.
type Disposition string

// The dispositions.
const (
	DispositionPermanent Disposition = "permanent"  // no retry can help
	DispositionExhausted Disposition = "exhausted"  // the last attempt failed
	DispositionManual    Disposition = "manual"     // an operator moved it, or made it due
	DispositionRetry     Disposition = "retry"      // parked: waits for its next attempt
	DispositionBlockedBy Disposition = "blocked-by" // parked: waits behind an earlier record of its key
	DispositionPaused    Disposition = "paused"     // parked: an operator has paused its tenant; no attempt was made
)

// Bounds of what a Failure adds to a record, so that it stays below 8 KiB in all.
const (
	maxFailureMessage = 1 << 10
	maxFailureStack   = 4 << 10
	maxFailureText    = 128 // any other text but the topic
)

// Failure is what the failure headers of a record on a retry or dead-letter topic say about it. The zero value of a field
// means that its header is absent, but for Topic, Partition, Offset, Attempt and Disposition, which are always there.
type Failure struct {
	Topic     string    // where the record was read first
	Partition int32     // its partition there
	Offset    int64     // its offset there
	Time      time.Time // its timestamp there
	KeyHash   string    // KeyHash of its key

	// Key is the record's own key, byte for byte, and Null says that its value is null: on retry topics only, where the
	// key is the parked id and a null value would be a tombstone.
	Key  []byte
	Null bool

	Group           string
	Handler         string
	AppVersion      string
	Attempt         int // attempts made so far
	FirstFailedAt   time.Time
	LastFailedAt    time.Time
	NotBefore       time.Time // on retry topics: never handled earlier
	Class           string
	Code            string
	Disposition     Disposition
	Fingerprint     string
	Message         string // cut to 1 KiB
	Stack           string // cut to 4 KiB
	ReplayCount     int
	ReplayID        string
	ResetGeneration int
	Writer          string // on retry topics: the session that wrote the record; empty if an operator did
	Order           string // the operator's order that last concerned it while it was parked
	OutboxID        int64  // on the relay's dead letters
	SourceSystem    string // on the relay's dead letters
}

// KeyHash is the first 16 hex digits of the SHA-256 of a record key: it names a key without showing it.
func KeyHash(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// ParkedID is the key of a record on a retry topic: "<partition>/<offset>" of the record it holds, the offset padded with
// zeros so that ids of one partition sort as their offsets do. The same record always has the same parked id: parked
// again, by a replay or a redrive, it replaces itself.
func ParkedID(partition int32, offset int64) string {
	return fmt.Sprintf("%d/%019d", partition, offset)
}

// SplitParkedID undoes ParkedID.
func SplitParkedID(key []byte) (partition int32, offset int64, err error) {
	p, o, ok := strings.Cut(string(key), "/")
	pn, perr := strconv.ParseInt(p, 10, 32)
	on, oerr := strconv.ParseInt(o, 10, 64)
	if !ok || perr != nil || oerr != nil || pn < 0 || on < 0 || ParkedID(int32(pn), on) != string(key) {
		return 0, 0, fmt.Errorf("record key %.80q is not a parked id <partition>/<offset>", key)
	}
	return int32(pn), on, nil
}

// StripFailure returns hs without failure headers, in a new slice if there are any.
func StripFailure(hs []Header) []Header {
	if !slices.ContainsFunc(hs, isFailureHeader) {
		return hs
	}
	return slices.DeleteFunc(slices.Clone(hs), isFailureHeader)
}

func isFailureHeader(h Header) bool {
	if !strings.HasPrefix(h.Key, "leat_") {
		return false
	}
	var f Failure
	return f.field(h.Key) != nil
}

// Append returns hs with f's headers in place of those of the hop before. Texts are made valid UTF-8 and cut to their
// bounds. It does not change hs.
func (f *Failure) Append(hs []Header) []Header {
	hs = slices.DeleteFunc(slices.Concat(hs, make([]Header, 0, 32)), isFailureHeader)
	for _, name := range failureHeaders() {
		v, ok := f.text(name)
		if ok {
			hs = append(hs, Header{name, []byte(v)})
		}
	}
	return hs
}

// failureHeaders are the headers of a Failure in the order in which they are written.
func failureHeaders() [27]string {
	return [...]string{
		HeaderOriginalTopic, HeaderOriginalPartition, HeaderOriginalOffset, HeaderOriginalTime, HeaderOriginalKeyHash,
		HeaderOriginalKey, HeaderOriginalNull, HeaderGroup, HeaderHandler, HeaderAppVersion, HeaderAttempt,
		HeaderFirstFailedAt, HeaderLastFailedAt, HeaderNotBefore, HeaderErrorClass, HeaderErrorCode, HeaderDisposition,
		HeaderFingerprint, HeaderErrorMessage, HeaderErrorStack, HeaderReplayCount, HeaderReplayID,
		HeaderResetGeneration, HeaderWriter, HeaderOrder, HeaderOutboxID, HeaderSourceSystem,
	}
}

// field returns a pointer to the field that header name fills, nil if none does.
func (f *Failure) field(name string) any {
	switch name {
	case HeaderOriginalTopic:
		return &f.Topic
	case HeaderOriginalPartition:
		return &f.Partition
	case HeaderOriginalOffset:
		return &f.Offset
	case HeaderOriginalTime:
		return &f.Time
	case HeaderOriginalKeyHash:
		return &f.KeyHash
	case HeaderOriginalKey:
		return &f.Key
	case HeaderOriginalNull:
		return &f.Null
	case HeaderGroup:
		return &f.Group
	case HeaderHandler:
		return &f.Handler
	case HeaderAppVersion:
		return &f.AppVersion
	case HeaderAttempt:
		return &f.Attempt
	case HeaderFirstFailedAt:
		return &f.FirstFailedAt
	case HeaderLastFailedAt:
		return &f.LastFailedAt
	case HeaderNotBefore:
		return &f.NotBefore
	default:
		return f.reason(name)
	}
}

// reason is the second half of field.
func (f *Failure) reason(name string) any {
	switch name {
	case HeaderErrorClass:
		return &f.Class
	case HeaderErrorCode:
		return &f.Code
	case HeaderDisposition:
		return &f.Disposition
	case HeaderFingerprint:
		return &f.Fingerprint
	case HeaderErrorMessage:
		return &f.Message
	case HeaderErrorStack:
		return &f.Stack
	case HeaderReplayCount:
		return &f.ReplayCount
	case HeaderReplayID:
		return &f.ReplayID
	case HeaderResetGeneration:
		return &f.ResetGeneration
	case HeaderWriter:
		return &f.Writer
	case HeaderOrder:
		return &f.Order
	case HeaderOutboxID:
		return &f.OutboxID
	case HeaderSourceSystem:
		return &f.SourceSystem
	}
	return nil
}

// text returns the value of header name and whether it is to be written.
func (f *Failure) text(name string) (string, bool) {
	always := name == HeaderOriginalTopic || name == HeaderOriginalPartition || name == HeaderOriginalOffset ||
		name == HeaderAttempt || name == HeaderDisposition
	number := func(n int64) (string, bool) { return strconv.FormatInt(n, 10), always || n != 0 }
	switch v := f.field(name).(type) {
	case *string:
		return cutText(*v, textBound(name)), always || *v != ""
	case *Disposition:
		return cutText(string(*v), maxFailureText), true
	case *int:
		return number(int64(*v))
	case *int32:
		return number(int64(*v))
	case *int64:
		return number(*v)
	case *bool:
		return strconv.FormatBool(*v), *v
	case *time.Time:
		return v.UTC().Format(time.RFC3339Nano), !v.IsZero()
	case *[]byte:
		return string(*v), *v != nil
	}
	return "", false
}

func textBound(name string) int {
	switch name {
	case HeaderErrorMessage:
		return maxFailureMessage
	case HeaderErrorStack:
		return maxFailureStack
	case HeaderOriginalTopic:
		return 249 // Kafka's own bound
	}
	return maxFailureText
}

// cutText makes s valid UTF-8 of at most n bytes, without cutting a character in two.
func cutText(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// DecodeFailure reads the failure headers of a record. Headers it does not know are left alone. Every problem is reported,
// each naming its header.
func DecodeFailure(hs []Header) (Failure, error) {
	var f Failure
	var errs []error
	seen := make(map[string]bool, 24)
	for _, h := range hs {
		if !isFailureHeader(h) {
			continue
		}
		err := f.set(h)
		if seen[h.Key] {
			err = errors.New("occurs twice")
		}
		seen[h.Key] = true
		if err != nil {
			errs = append(errs, fmt.Errorf("header %s: %w", h.Key, err))
		}
	}
	for _, name := range [...]string{
		HeaderOriginalTopic, HeaderOriginalPartition, HeaderOriginalOffset, HeaderAttempt, HeaderDisposition,
	} {
		if !seen[name] {
			errs = append(errs, fmt.Errorf("header %s: is missing", name))
		}
	}
	if len(errs) > 0 {
		return Failure{}, errors.Join(errs...)
	}
	return f, nil
}

func (f *Failure) set(h Header) (err error) {
	s := string(h.Value)
	field := f.field(h.Key)
	if key, ok := field.(*[]byte); ok {
		*key = append([]byte{}, h.Value...)
		return nil
	}
	if !utf8.Valid(h.Value) {
		return errors.New("is not UTF-8")
	}
	if len(h.Value) > textBound(h.Key) {
		return fmt.Errorf("is longer than %d bytes", textBound(h.Key))
	}
	var n int64
	switch v := field.(type) {
	case *string:
		*v = s
	case *Disposition:
		*v = Disposition(s)
	case *int:
		n, err = natural(s, 31)
		*v = int(n)
	case *int32:
		n, err = natural(s, 31)
		*v = int32(n)
	case *int64:
		*v, err = natural(s, 63)
	case *bool:
		if *v = s == "true"; !*v {
			err = fmt.Errorf("%.20q, want true", s)
		}
	case *time.Time:
		if *v, err = time.Parse(time.RFC3339Nano, s); err != nil {
			err = fmt.Errorf("%.40q is not an RFC 3339 time", s)
		}
		*v = v.UTC()
	}
	return err
}

func natural(s string, bits int) (int64, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a number from 0", s)
	}
	return int64(n), nil
}
