package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/verify"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/processors/publish/reporting"
)

// VerifyOptions say what to verify.
type VerifyOptions struct {
	Source string // may be empty if there is only one
	Window verify.Window
	Last   time.Duration // instead of Window.Since and Until: the last so long, up to now
	List   int

	Progress io.Writer // default: silent
	JSONFile string    // where the report is also written, signed
	HTMLFile string    // the same as a page
}

// VerifyReport is the result of a verification, as it is filed.
type VerifyReport struct {
	*verify.Document
	report *verify.Report
}

// Err is not nil if the records do not agree.
func (r VerifyReport) Err() error {
	if r.report.Agrees {
		return nil
	}
	return fmt.Errorf("the records of source %s do not agree: %d differences", r.report.Source, r.report.Differences)
}

// Verify compares a window of a source's outbox with Kafka and with the reporting tables.
func (a *App) Verify(ctx context.Context, o VerifyOptions) (VerifyReport, error) {
	c, done, err := a.verifyConfig(ctx, o.Source)
	if err != nil {
		return VerifyReport{}, err
	}
	defer done()
	signer, err := verify.LoadSigner(a.cfg.Verify.SigningKeyFile)
	if err != nil {
		return VerifyReport{}, err
	}
	c.List = o.List
	if o.Progress != nil {
		c.Progress = progress(o.Progress)
	}
	if !a.cfg.Control.URL.Empty() {
		db, err := a.controlDB(ctx)
		if err != nil {
			return VerifyReport{}, err
		}
		defer db.Close()
		c.Replays = verify.Replays(db, c.Normalize.Group)
	}
	if o.Last > 0 {
		o.Window.Since, o.Window.Until = time.Now().Add(-o.Last), time.Now()
	}
	report, err := verify.Verify(ctx, c, o.Window)
	if err != nil {
		return VerifyReport{}, err
	}
	doc, err := signer.Sign(report)
	if err != nil {
		return VerifyReport{}, err
	}
	if err := writeReport(doc, o.JSONFile, o.HTMLFile); err != nil {
		return VerifyReport{}, err
	}
	return VerifyReport{doc, report}, nil
}

// verifyConfig is what a verification of a source needs; done closes it.
func (a *App) verifyConfig(ctx context.Context, source string) (c verify.Config, done func(), err error) {
	if err := a.cfg.Require(config.NeedKafka, config.NeedSources); err != nil {
		return c, nil, err
	}
	if source == "" && len(a.cfg.Sources) == 1 {
		source = a.cfg.Sources[0].Name
	}
	s := a.cfg.Source(source)
	if s == nil {
		return c, nil, a.unknownSource(source)
	}
	if s.URL.Empty() {
		return c, nil, fmt.Errorf("source %s has no url in the configuration: its outbox is what everything is compared with", s.Name)
	}
	kafka, err := a.KafkaOptions()
	if err != nil {
		return c, nil, err
	}
	set, err := a.mappingSet()
	if err != nil {
		return c, nil, err
	}
	c = verify.Config{
		Source: s.Name, Entities: s.Entities, Kafka: kafka, PublishGroup: a.cfg.Publish.Group,
		Normalize:   verify.Stage{Group: a.cfg.Normalize.Group, Reads: set.Inputs(), Handler: normalize.New(set)},
		Publication: a.cfg.Publish.Reporting.Publication, ContentHash: reporting.ContentHash,
		By: audit.Actor(a.getenv), Version: a.version,
	}
	var open []*pgxpool.Pool
	done = func() {
		for _, db := range open {
			db.Close()
		}
	}
	connect := func(url config.DatabaseURL) (*pgxpool.Pool, error) {
		db, err := pgxpool.New(ctx, url.Reveal())
		if err != nil {
			done()
			return nil, fmt.Errorf("connecting to %s: %w", url, err)
		}
		open = append(open, db)
		return db, nil
	}
	if c.Outbox, err = connect(s.URL); err != nil {
		return c, nil, err
	}
	if url := a.cfg.Publish.Reporting.URL; !url.Empty() {
		if c.Reporting, err = connect(url); err != nil {
			return c, nil, err
		}
	}
	return c, done, nil
}

// progress writes what a long verification does, at most once a second.
func progress(w io.Writer) func(step string, done, total int64) {
	var mu sync.Mutex
	var last time.Time
	var step string
	return func(s string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if s == step && time.Since(last) < time.Second {
			return
		}
		step, last = s, time.Now()
		if total > 0 {
			_, _ = fmt.Fprintf(w, "%s: %d of %d\n", s, done, total) // progress is only for people
		} else {
			_, _ = fmt.Fprintf(w, "%s: %d\n", s, done)
		}
	}
}

func writeReport(d *verify.Document, jsonFile, htmlFile string) error {
	if jsonFile != "" {
		text, err := d.JSON()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Clean(jsonFile), text, 0o644); err != nil { //nolint:gosec // a report is for others to read
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if htmlFile != "" {
		var page strings.Builder
		if err := d.WritePage(&page); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Clean(htmlFile), []byte(page.String()), 0o644); err != nil { //nolint:gosec // as above
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	return nil
}

// WriteText prints the verdict, the numbers, and what differs.
func (r VerifyReport) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	p := r.report
	for _, s := range p.Statement {
		line("%s", s)
	}
	line("")
	line("source %s, %d changes (outbox ids %d to %d), looked at %s, %.1f s", p.Source, p.Rows, p.FirstID, p.LastID,
		p.Looked.At.Format(time.RFC3339), p.Seconds)
	line("")
	line("LAYER\tEXPECTED\tMATCHED\tPENDING\tPARKED\tDEAD\tFILTERED\tMISSING\tEXTRA\tDIFFERENT\tDUPLICATE\tOUT OF ORDER")
	for _, l := range p.Layers {
		line("%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d", l.Name, l.Expected, l.Matched, l.Pending, l.Parked, l.Dead, l.Filtered,
			l.Missing, l.Extra, l.Different, l.Duplicates, l.OutOfOrder)
	}
	for _, d := range p.Listed {
		line("")
		line("%s in %s: %s %s of %s, change %d", strings.ToUpper(d.Kind), d.Layer, d.Entity, d.SourceID, d.Tenant, d.Sequence)
		line("  %s", d.What)
		for _, f := range d.Fields {
			line("  %s\tmust be %q\tis %q", f.Name, f.Expected, f.Found)
		}
		if d.Trace != "" {
			line("  %s", d.Trace)
		}
	}
	if n := int(p.Differences) - len(p.Listed); n > 0 {
		line("\nand %d more", n)
	}
	for _, n := range p.Notes {
		line("\nnote: %s", n)
	}
	if r.Signature == nil {
		line("\nThe report is not signed: verify.signing_key_file is not configured.")
	}
	return t.Flush()
}

// VerifyKey makes a key for signing reports.
func VerifyKey(file string) (string, error) { return verify.NewKey(file) }

// CheckedReport is what a check of a report found.
type CheckedReport struct{ verify.Checked }

// Err is not nil unless the report is signed, unchanged, and by the key that was asked for, if one was.
func (c CheckedReport) Err() error {
	if c.Valid && (c.Trusted || c.Problem == "") {
		return nil
	}
	return errors.New(c.Problem)
}

// WriteText says whether the signature holds, and what the report says.
func (c CheckedReport) WriteText(w io.Writer) error {
	r := c.Report
	text := fmt.Sprintf("report %s of source %s, made %s by %s\n", r.ID, r.Source, r.StartedAt.Format(time.RFC3339), r.By)
	switch {
	case c.Trusted:
		text += "the signature is good: unchanged, and made with the key " + c.Fingerprint + "\n"
	case c.Valid:
		text += "unchanged since it was signed with the key " + c.Fingerprint + "; whose that is, --public-key tells\n"
	}
	_, err := io.WriteString(w, text+strings.Join(r.Statement, "\n")+"\n")
	return err
}

// VerifyCheck checks the signature of a report. key is the name of a file with the public key, or the key itself in base64; without it
// only that the report is unchanged can be said.
func VerifyCheck(file, key string) (CheckedReport, error) {
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return CheckedReport{}, fmt.Errorf("reading the report: %w", err)
	}
	if key == "" {
		c, err := verify.Check(text, nil)
		return CheckedReport{c}, err
	}
	keyText := []byte(key)
	if content, err := os.ReadFile(filepath.Clean(key)); err == nil {
		keyText = content
	}
	public, err := verify.PublicKey(keyText)
	if err != nil {
		return CheckedReport{}, err
	}
	c, err := verify.Check(text, public)
	return CheckedReport{c}, err
}

// RunVerify verifies all sources on the schedule of the configuration until ctx ends.
func (a *App) RunVerify(ctx context.Context) error {
	if err := a.cfg.Require(config.NeedKafka, config.NeedSources, config.NeedSourceURL); err != nil {
		return err
	}
	db, err := a.controlDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	signer, err := verify.LoadSigner(a.cfg.Verify.SigningKeyFile)
	if err != nil {
		return err
	}
	c := a.cfg.Verify
	s := verify.Schedule{
		DB: db, Signer: signer, Every: c.Every, Window: c.Window, Lag: c.Lag, Keep: c.Keep, Directory: c.Directory,
		Logger: a.log.With("stage", "verify"), Registerer: a.reg,
		Connect: func(ctx context.Context, source string) (verify.Config, func(), error) {
			c, done, err := a.verifyConfig(ctx, source)
			c.Replays = verify.Replays(db, c.Normalize.Group)
			return c, done, err
		},
	}
	for _, src := range a.cfg.Sources {
		s.Sources = append(s.Sources, src.Name)
	}
	r, err := verify.NewRunner(s)
	if err != nil {
		return err
	}
	return a.serve(ctx, nil, []stage{{"verify", r}}, nil)
}

// VerifyReports are stored reports, newest first.
type VerifyReports []verify.Summary

// VerifyList returns the newest stored reports, of one source or of all.
func (a *App) VerifyList(ctx context.Context, source string, limit int) (VerifyReports, error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return verify.List(ctx, db, source, limit)
}

// WriteText prints a line for each report.
func (rs VerifyReports) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	if len(rs) == 0 {
		line("no reports: `leat verify run` makes them")
		return t.Flush()
	}
	line("ID\tSOURCE\tMADE\tSINCE\tUNTIL\tCHANGES\tVERDICT\tWAITING")
	at := func(t *time.Time) string {
		if t == nil {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	}
	for _, r := range rs {
		verdict := "agrees"
		if !r.Agrees {
			verdict = fmt.Sprintf("%d DIFFERENCES", r.Differences)
		}
		line("%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d", r.ID, r.Source, at(&r.FinishedAt), at(r.Since), at(r.Until), r.Changes, verdict, r.Waiting)
	}
	return t.Flush()
}

// VerifyShow returns a stored report, and writes it to files where names are given.
func (a *App) VerifyShow(ctx context.Context, id, jsonFile, htmlFile string) (VerifyReport, error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	defer db.Close()
	d, err := verify.Load(ctx, db, id)
	if err != nil {
		return VerifyReport{}, err
	}
	report, err := d.Read()
	if err != nil {
		return VerifyReport{}, err
	}
	return VerifyReport{d, report}, writeReport(d, jsonFile, htmlFile)
}
