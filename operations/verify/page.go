package verify

import (
	"bytes"
	_ "embed" // the template of the page
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

// JSON is the document as it is filed: indented, with a newline at its end.
func (d *Document) JSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("encoding the report: %w", err)
	}
	return b.Bytes(), nil
}

// Read returns the report in the document, signed or not.
func (d *Document) Read() (*Report, error) {
	var r Report
	if err := json.Unmarshal(d.Report, &r); err != nil {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	return &r, nil
}

// WritePage writes the report for people: one page without scripts, styles or pictures from elsewhere. What comes from records
// is escaped, and cannot become a formula where the page is opened or pasted into a spreadsheet.
func (d *Document) WritePage(w io.Writer) error {
	r, err := d.Read()
	if err != nil {
		return err
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"text": harmless, "number": grouped, "amount": groupedAmount, "time": shownTime, "window": shownWindow, "layer": layerTitle,
		"kind": kindTitle, "base64": base64.StdEncoding.EncodeToString,
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("reading the template of the page: %w", err)
	}
	err = t.Execute(w, struct {
		*Report
		Steps     []Layer
		Signature *Signature
		Verdict   string
		More      int64
	}{r, r.Layers, d.Signature, verdict(r), r.Differences - int64(len(r.Listed))})
	if err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

func verdict(r *Report) string {
	switch {
	case !r.Agrees:
		return "disagrees"
	case r.Waiting > 0:
		return "waiting"
	default:
		return "agrees"
	}
}

// harmless keeps a spreadsheet from taking text for a formula.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n|", rune(s[0])) {
		return "'" + s
	}
	return s
}

// grouped writes a number with thin spaces between thousands.
func grouped(n int64) string { return groupedAmount(strconv.FormatInt(n, 10)) }

func groupedAmount(s string) string {
	whole, frac, _ := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "\u2212", whole[1:]
	}
	var b strings.Builder
	for i, r := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteRune('\u202f')
		}
		b.WriteRune(r)
	}
	if frac != "" {
		b.WriteString("." + frac)
	}
	return sign + b.String()
}

func shownTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func shownWindow(w Window) string {
	var parts []string
	switch {
	case !w.Since.IsZero() && !w.Until.IsZero():
		parts = append(parts, "changes from "+shownTime(w.Since)+" to before "+shownTime(w.Until))
	case !w.Since.IsZero():
		parts = append(parts, "changes from "+shownTime(w.Since))
	case !w.Until.IsZero():
		parts = append(parts, "changes before "+shownTime(w.Until))
	}
	switch {
	case w.FromID > 0 && w.ToID > 0:
		parts = append(parts, fmt.Sprintf("outbox ids %d to %d", w.FromID, w.ToID))
	case w.FromID > 0:
		parts = append(parts, fmt.Sprintf("outbox ids from %d", w.FromID))
	case w.ToID > 0:
		parts = append(parts, fmt.Sprintf("outbox ids up to %d", w.ToID))
	}
	if len(parts) == 0 {
		return "everything that the outbox holds"
	}
	return strings.Join(parts, "; ")
}

func layerTitle(name string) string {
	switch name {
	case "source":
		return "Source to record of changes"
	case "finance":
		return "Record of changes to finance records"
	case "tables":
		return "Finance records to reporting tables"
	}
	return name
}

func kindTitle(kind string) string {
	switch kind {
	case Missing:
		return "Missing"
	case Extra:
		return "Unexplained"
	case Different:
		return "Altered"
	case Duplicate:
		return "More than once"
	case OutOfOrder:
		return "Out of order"
	}
	return kind
}
