package topics

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

// Fingerprint groups failures of one cause: failures of the same stage, class and code whose messages differ only in the values of
// the record have the same one. A panic is told by the function that panicked too; stack is empty for any other failure.
//
// Neither the tenant nor the record is part of it: what hits 500 tenants at once is one cause. The algorithm is part of the
// value ("v1:"), so that a better one moves no old group.
func Fingerprint(stage, class, code, message, stack string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{stage, class, code, frame(stack), Parameterize(message)}, "\x00")))
	return "v1:" + hex.EncodeToString(sum[:8])
}

var fingerprintRE = regexp.MustCompile(`^v\d{1,3}:[0-9a-z]{1,64}$`)

// ValidFingerprint reports whether s has the form of a fingerprint. Anybody who may write to a topic chooses its headers, and people copy
// fingerprints into command lines.
func ValidFingerprint(s string) bool { return fingerprintRE.MatchString(s) }

// Bounds of a message: what is read of it, and what is kept. What is kept is so much shorter that where the reading ends, which depends
// on the values in the message, does not show.
const (
	maxPatternInput = 4 << 10
	maxPattern      = 400
)

// parameterRE finds what differs between failures of one cause. At one place the first alternative wins.
var parameterRE = regexp.MustCompile(
	// Kept as it is, because it is the cause and no value of a record: names of the schema, states of SQL and HTTP.
	`\b(?:column|constraint|relation|table|view|schema|function|operator|type|index|sequence|trigger|role) "[A-Za-z_][\w.$]*"` +
		`|\bSQLSTATE [0-9A-Z]{5}\b|\b(?i:status|status code|http)[ :=]+[1-5]\d\d\b` +
		`|[\w.+-]+@[\w-]+(?:\.[\w-]+)+` + // mail address
		`|\b[a-z][a-z0-9+.-]*://[^\s"'<>]+` + // URL
		`|\b(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+(?:com|net|org|io|dev|br|eu|de|uk|local|localhost|internal|svc|lan|test|example|invalid)\b(?::\d+)?` + // host
		`|\blocalhost(?::\d+)?\b` +
		`|\[[0-9a-fA-F]*:[0-9a-fA-F:.]*(?:%\w+)?\](?::\d+)?|\b(?:[0-9a-fA-F]{1,4}:){3,7}:?[0-9a-fA-F]{1,4}\b` + // IPv6
		`|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b` + // IPv4
		`|\b[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\b` + // traceparent
		`|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b` + // UUID
		`|\b[0-9a-fA-F]{40}\b|\b[0-9a-fA-F]{32}\b` + // SHA-1, MD5
		`|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?)?\b` + // date, time
		`|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d? \w{3} \d{4} \d\d:\d\d:\d\d (?:[A-Z]{3}|[+-]\d{4})` +
		`|\b(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d))+\b` + // duration
		`|\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]*\d[0-9a-fA-F]{7,}\b|\b[a-fA-F][0-9a-fA-F]{5,}\d[0-9a-fA-F]*\b` + // hexadecimal, commit
		`|[-+]?\b\d+(?:[.,:/]\d+)+(?:[eE][-+]?\d+)?\b` + // number with point, clock, fraction
		`|[-+]?\b\d+(?:[eE][-+]?\d+)?\b` + // whole number
		`|[A-Za-z0-9_-]*\d[A-Za-z0-9_-]*` + // a word with digits: word decides
		`|"(?:[^"\\]|\\.)*"|'[^']*'|“[^”]*”` + // quoted text
		`|\b(?:true|false)\b`)

// keptRE tells the alternatives of parameterRE that are kept.
var keptRE = regexp.MustCompile(`^(?:[a-z]+ "[A-Za-z_]|SQLSTATE |(?i:status|http)[ :=])`)

// opaqueRE is a digit between letters: an id that means nothing, such as cus_N8kL2.
var opaqueRE = regexp.MustCompile(`[A-Za-z]\d+[A-Za-z]+\d|\d[A-Za-z]+\d+[A-Za-z]`)

var digitsRE = regexp.MustCompile(`\d+`)

// listRE is a list of values, of any length.
var listRE = regexp.MustCompile(`(^|[^\w?])\?(?:(?:, ?| )\?)+`)

// moreRE is how a list of problems ends that is cut.
var moreRE = regexp.MustCompile(`^and \? more$`)

// Parameterize replaces with "?" what differs between the messages of one cause: addresses, ids, times, numbers, quoted text, true and
// false. What stays holds no value of a record, so it can be shown where payloads must not be. A problem that is told again for
// another line of the same record counts once.
func Parameterize(message string) string {
	message = cutText(message, maxPatternInput)
	message = parameterRE.ReplaceAllStringFunc(message, func(m string) string {
		if keptRE.MatchString(m) {
			return m
		}
		return word(m)
	})
	message = listRE.ReplaceAllString(strings.Join(strings.Fields(message), " "), "${1}?")
	var parts []string
	for part := range strings.SplitSeq(message, "; ") {
		told := func(earlier string) bool { return earlier == part || strings.HasSuffix(earlier, ": "+part) }
		if !slices.ContainsFunc(parts, told) && !moreRE.MatchString(part) {
			parts = append(parts, part)
		}
	}
	return strings.TrimRight(cutText(strings.Join(parts, "; "), maxPattern), " ") // what was left out at the end leaves none
}

// word replaces a value. A word that has digits in it, such as utf8 or address_line2, keeps its letters unless it looks like an id.
func word(m string) string {
	letter := m[0] >= 'A' && m[0] <= 'Z' || m[0] >= 'a' && m[0] <= 'z' || m[0] == '_'
	plain := strings.Trim(strings.ToLower(m), "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
	if !letter || !plain || !strings.ContainsAny(m, "0123456789") || len(m) >= 8 && opaqueRE.MatchString(m) || isHex(m) {
		return "?"
	}
	return digitsRE.ReplaceAllString(m, "?")
}

func isHex(m string) bool {
	return len(m) >= 7 && strings.Trim(m, "0123456789abcdefABCDEF") == ""
}

// frame is the function that panicked, by a stack as debug.Stack writes it: the first one below panic that is not the Go
// runtime's. Lines and arguments are left out: they change with every build and record.
func frame(stack string) string {
	_, below, found := strings.Cut(stack, "\npanic(")
	if !found {
		return ""
	}
	for line := range strings.SplitSeq(below, "\n") {
		name, _, call := cutLast(line, "(")
		if call && !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "runtime.") && !strings.HasPrefix(line, "{") {
			return name
		}
	}
	return ""
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
