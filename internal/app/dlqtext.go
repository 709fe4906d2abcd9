package app

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/safetext"
	"github.com/leat-io/leat/operations/deadletters"
)

// printer writes lines and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", inOneLine(args)...)
	}
}

// several is text that may have several lines.
type several string

// printRow prints a line whose texts are one line each: what a record says cannot add a line of its own, or move a column.
func printRow(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", inOneLine(args)...) // who flushes w has the error
}

func inOneLine(args []any) []any {
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = safetext.Line(text)
		}
	}
	return args
}

// oneLine makes one line of at most n characters of s.
func oneLine(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// WriteText prints the totals, then three lines for each letter.
func (l DLQList) WriteText(w io.Writer) error {
	p := &printer{w: w}
	var states []string
	for _, c := range l.States {
		states = append(states, fmt.Sprintf("%s %d", c.Name, c.Letters))
	}
	p.line("%d dead letters  %s", l.Total, strings.Join(states, ", "))
	for _, f := range l.Fingerprints {
		name := f.Name
		if name == "" {
			name = "(no fingerprint)"
		}
		p.line("%8d  %-19s  last %s  %s %s", f.Letters, name, f.Newest.UTC().Format(time.DateTime), f.Stage, f.Code)
		p.line("          %s", oneLine(f.Example, 90))
	}
	for i := range l.Letters {
		d := &l.Letters[i]
		p.line("")
		p.line("%s  %-12s  %s  %s", d.At.UTC().Format(time.DateTime), d.State, firstOf(d.Group, string(d.Format)), oneLine(d.KeyText(), 44))
		p.line("  %s", strings.Join(about(d), "  "))
		if d.Note != "" {
			p.line("  note: %s", oneLine(d.Note, 90))
		}
		p.line("  %s", oneLine(firstOf(d.Code, d.Class)+": "+d.Message, 98))
	}
	if n := l.Total - int64(len(l.Letters)); n > 0 && len(l.Letters) > 0 {
		p.line("\nand %d older ones: --limit shows more", n)
	}
	return p.err
}

func about(d *deadletters.Letter) []string {
	parts := []string{d.ID.String()}
	if d.ReplayCount > 0 {
		parts = append(parts, fmt.Sprintf("redriven %d times", d.ReplayCount))
	}
	if d.Owner != "" {
		parts = append(parts, "owner "+d.Owner)
	}
	return parts
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return "-"
}

// WriteText prints what is known, a line for each thing.
func (d DLQDetails) WriteText(w io.Writer) error {
	p := &printer{w: w}
	l := &d.Letter
	field := func(name, format string, args ...any) {
		if v := fmt.Sprintf(format, args...); strings.TrimSpace(v) != "" {
			p.line("%-10s %s", name, safetext.Line(v))
		}
	}
	field("letter", "%s", l.ID)
	field("state", "%s since %s", l.State, l.StateAt.Format(time.RFC3339))
	if l.Successor != nil {
		field("successor", "%s", l.Successor)
	}
	field("redrive", "%s", l.Job)
	field("owner", "%s", l.Owner)
	field("note", "%s", l.Note)
	field("key", "%s", l.KeyText())
	field("event", "%s", l.EventID)
	field("group", "%s", l.Group)
	field("stage", "%s", l.Stage)
	field("format", "%s", l.Format)
	if l.OriginalPartition != nil && l.OriginalOffset != nil {
		field("original", "%s/%d at offset %d", l.OriginalTopic, *l.OriginalPartition, *l.OriginalOffset)
	} else {
		field("original", "%s", l.OriginalTopic)
	}
	field("failed", "%s after %d attempts, redriven %d times", l.At.Format(time.RFC3339), l.Attempts, l.ReplayCount)
	field("why", "%s %s %s %s", l.Class, l.Code, l.Disposition, l.Fingerprint)
	field("message", "%s", l.Message)
	d.history(p)
	if !d.Found {
		p.line("\nthe topic no longer has the record")
		return p.err
	}
	p.line("\nheaders")
	for _, h := range d.Headers {
		p.line("  %s: %s", h.Name, several(strings.ReplaceAll(h.Value, "\n", "\n    ")))
	}
	if d.Value != nil {
		p.line("\nvalue\n%s", several(d.Value))
	} else if d.IsNull {
		p.line("\nvalue: null, a deletion")
	}
	return p.err
}

func (d DLQDetails) history(p *printer) {
	if len(d.Same) > 0 {
		p.line("\nother letters of the same record")
	}
	for _, id := range d.Same {
		p.line("  %s", id)
	}
	if len(d.Attempts) > 0 {
		p.line("\nfailed attempts")
	}
	for _, a := range d.Attempts {
		p.line("  %s  attempt %d  %s %s  %s", a.At.UTC().Format(time.RFC3339), a.Attempt, a.Disposition, a.Code, oneLine(a.Message, 40))
	}
	if len(d.Replays) > 0 {
		p.line("\nredrives")
	}
	for _, r := range d.Replays {
		p.line("  %s  %s  by %s: %s", r.At.UTC().Format(time.RFC3339), r.State, r.Actor, oneLine(r.Reason, 40))
		p.line("    redrive %s of %s", r.Job, r.Letter)
		if r.Problem != "" {
			p.line("    %s", oneLine(r.Problem, 94))
		}
		if r.Edit != nil {
			p.line("    edited: %s", r.Edit)
		}
	}
}
