// Package safetext makes text safe to show: without secrets, and without characters that make a terminal do, or a reader see,
// something else than what is written. It is the last line: nothing else may count on it and show a secret.
//
// It knows nothing of records: that payloads stay out of logs is for who writes the line.
package safetext

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Hidden is what stands in the place of a secret.
const Hidden = "[secret]"

// MinSecret is the length in bytes from which a secret is looked for. A shorter one is found in words that have nothing to do with it.
const MinSecret = 8

// Hider replaces secrets. The zero value knows none.
type Hider struct{ replacer *strings.Replacer }

// NewHider returns a Hider of secrets, also as they are written in JSON and in URLs. Those of less than MinSecret bytes are not looked for.
func NewHider(secrets ...string) Hider {
	var forms []string
	for _, s := range secrets {
		quoted, _ := json.Marshal(s) // of a text this cannot fail
		for _, form := range []string{s, strings.Trim(string(quoted), `"`), url.QueryEscape(s), url.PathEscape(s)} {
			if len(s) >= MinSecret && !slices.Contains(forms, form) {
				forms = append(forms, form)
			}
		}
	}
	if len(forms) == 0 {
		return Hider{}
	}
	slices.SortStableFunc(forms, func(a, b string) int { return len(b) - len(a) }) // a whole address before the password in it
	var pairs []string
	for _, form := range forms {
		pairs = append(pairs, form, Hidden)
	}
	return Hider{strings.NewReplacer(pairs...)}
}

// Hide returns s without secrets.
func (h Hider) Hide(s string) string {
	if h.replacer == nil {
		return s
	}
	return h.replacer.Replace(s)
}

// Addresses with a password in them, and settings as in connection strings of databases and in JAAS: what stands before the password, and it.
const givenAway = `([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#"\\<>@:]*:)[^\s/?#"\\<>]+(@)` +
	`|(?i)(\b(?:ssl)?pass(?:word|wd)\s*=\s*)(?:'[^']*'|\\?"[^"\\]*\\?"|[^\s&;,"'\\]+)`

// Told is Hide for what people type and what the errors of others say, before it is kept: it also takes the passwords out of addresses
// (scheme://user:password@host) and settings (password=...), whosever they are. A secret that stands alone is found only if h knows it.
func (h Hider) Told(s string) string {
	return regexp.MustCompile(givenAway).ReplaceAllString(h.Hide(s), "${1}${3}"+Hidden+"${2}")
}

// Error returns err with a text without secrets and without control characters; nil for nil. What err wraps stays visible to errors.As.
func (h Hider) Error(err error) error {
	if err == nil {
		return nil
	}
	if text := Clean(h.Hide(err.Error())); text != err.Error() {
		return &hidden{text, err}
	}
	return err
}

type hidden struct {
	text string
	err  error
}

func (e *hidden) Error() string { return e.text }
func (e *hidden) Unwrap() error { return e.err }

// Clean writes control characters other than newline and tab, marks of text direction, and bytes that are not UTF-8 as escapes
// (\u001b, \xff). JSON, which has none of the latter, stays the same JSON.
func Clean(s string) string {
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r != utf8.RuneError && unsafe(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unsafe(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || r == utf8.RuneError ||
		unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// Line is Clean of s as a single line: what a record says cannot add a line, or a column, to a table.
func Line(s string) string {
	return Clean(strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(s))
}

// Writer cleans and hides what is written to it. It may be used by several goroutines at once. Secrets are found within one Write: loggers
// and encoders write a line, and tables a cell, at a time.
type Writer struct {
	mu    sync.Mutex
	to    io.Writer
	hider Hider
	rest  []byte // the beginning of a character
}

// NewWriter returns a Writer to to that hides nothing yet.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Hide makes w hide what h does, from now on.
func (w *Writer) Hide(h Hider) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hider = h
}

// Write implements io.Writer. It holds back the beginning of a character until the rest is written.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := append(w.rest, p...)
	end := len(all)
	for i := 1; i < utf8.UTFMax && i <= len(all); i++ {
		if tail := all[len(all)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				end = len(all) - i
			}
			break
		}
	}
	text := string(all[:end])
	w.rest = append([]byte(nil), all[end:]...)
	if _, err := io.WriteString(w.to, Clean(w.hider.Hide(text))); err != nil {
		return 0, err
	}
	return len(p), nil
}
