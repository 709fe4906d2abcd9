package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Schedule verifies sources again and again.
type Schedule struct {
	DB        *pgxpool.Pool // the control database
	Sources   []string
	Connect   func(ctx context.Context, source string) (Config, func(), error) // what a verification needs, and how to let go of it
	Signer    Signer
	Every     time.Duration // between the beginnings of two verifications of a source
	Window    time.Duration
	Lag       time.Duration // between the end of the window and now
	Keep      time.Duration // of stored reports
	Directory string        // where reports are also written; "" is nowhere

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Runner runs a Schedule. Of several processes with one control database each verification is made by one.
type Runner struct {
	s      Schedule
	mu     sync.Mutex
	latest map[string]Summary
	err    error
}

// look is how often a process looks whether something is due.
const look = 5 * time.Second

// NewRunner checks s. It starts nothing.
func NewRunner(s Schedule) (*Runner, error) {
	if s.DB == nil || s.Connect == nil || len(s.Sources) == 0 || s.Every <= 0 || s.Window <= 0 {
		return nil, errors.New("scheduling verifications: database, sources, interval and window are needed")
	}
	r := &Runner{s: s, latest: map[string]Summary{}}
	if s.Logger == nil {
		r.s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Registerer != nil {
		if err := s.Registerer.Register(r); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return r, nil
}

// Run verifies what is due until ctx ends. What cannot be verified is logged and tried again.
func (r *Runner) Run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		err := r.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.s.Logger.Error("verification could not be made", "error", err)
		}
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Ready says what keeps verifications from being made.
func (r *Runner) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *Runner) round(ctx context.Context) error {
	var errs []error
	for _, source := range r.s.Sources {
		if err := r.source(ctx, source); err != nil {
			errs = append(errs, fmt.Errorf("source %s: %w", source, err))
		}
	}
	errs = append(errs, forget(ctx, r.s.DB, r.s.Keep), r.refresh(ctx))
	return errors.Join(errs...)
}

// The lock is the session's, so that it ends with the process that holds it.
const (
	lockSQL   = `select pg_try_advisory_lock(hashtextextended('leat verify ' || $1, 0))`
	unlockSQL = `select pg_advisory_unlock(hashtextextended('leat verify ' || $1, 0))`
	dueSQL    = `select coalesce(max(started_at) < now() - make_interval(secs => $2), true) from leat_control.verify_reports where source = $1`
)

// source verifies a source if it is due and no other process is at it.
func (r *Runner) source(ctx context.Context, source string) error {
	conn, err := r.s.DB.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the control database: %w", err)
	}
	defer conn.Release()
	var mine, due bool
	if err := conn.QueryRow(ctx, lockSQL, source).Scan(&mine); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	if !mine {
		return nil
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(end, unlockSQL, source); err != nil {
			_ = conn.Conn().Close(end) // its end frees the lock
		}
	}()
	// Under the lock: another process may have just finished.
	if err := conn.QueryRow(ctx, dueSQL, source, r.s.Every.Seconds()).Scan(&due); err != nil {
		return fmt.Errorf("looking for what is due: %w", err)
	}
	if !due {
		return nil
	}
	return r.verify(ctx, source)
}

func (r *Runner) verify(ctx context.Context, source string) error {
	c, done, err := r.s.Connect(ctx, source)
	if err != nil {
		return err
	}
	defer done()
	until := time.Now().Add(-r.s.Lag).UTC().Truncate(time.Microsecond)
	report, err := Verify(ctx, c, Window{Since: until.Add(-r.s.Window), Until: until})
	if err != nil {
		return err
	}
	doc, err := r.s.Signer.Sign(report)
	if err != nil {
		return err
	}
	if err := r.file(report, doc); err != nil {
		return err
	}
	if err := Store(ctx, r.s.DB, report, doc); err != nil {
		return err
	}
	log := r.s.Logger.Info
	if !report.Agrees {
		log = r.s.Logger.Error
	}
	log("verified", "source", source, "report", report.ID, "agrees", report.Agrees, "changes", report.Rows, "differences", report.Differences,
		"waiting", report.Waiting, "seconds", report.Seconds)
	return nil
}

// file writes the report and its page beside it, under names that sort by time.
func (r *Runner) file(report *Report, doc *Document) error {
	if r.s.Directory == "" {
		return nil
	}
	name := filepath.Join(r.s.Directory, report.Source+"-"+report.StartedAt.Format("20060102T150405Z")+"-"+report.ID[len(report.ID)-6:])
	text, err := doc.JSON()
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".json", text, 0o644); err != nil { //nolint:gosec // a report is for others to read
		return fmt.Errorf("filing the report: %w", err)
	}
	f, err := os.Create(name + ".html")
	if err != nil {
		return fmt.Errorf("filing the report: %w", err)
	}
	return errors.Join(doc.WritePage(f), f.Close())
}

func (r *Runner) refresh(ctx context.Context) error {
	latest, err := Latest(ctx, r.s.DB)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range latest {
		r.latest[s.Source] = s
	}
	return nil
}

// Describe implements prometheus.Collector.
func (r *Runner) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range metrics() {
		ch <- d
	}
}

func metrics() [4]*prometheus.Desc {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"source"}, nil)
	}
	return [...]*prometheus.Desc{
		desc("leat_verify_agrees", "1 if the last verification of the source found no difference, 0 if it did."),
		desc("leat_verify_differences", "Records that were missing, too many or different at the last verification of the source."),
		desc("leat_verify_waiting", "Records that were accounted for but had not arrived at the last verification of the source."),
		desc("leat_verify_age_seconds", "Seconds since the last verification of the source ended."),
	}
}

// Collect implements prometheus.Collector. A source that was never verified has no values.
func (r *Runner) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := metrics()
	for _, source := range r.s.Sources {
		s, ok := r.latest[source]
		if !ok {
			continue
		}
		agrees := 0.0
		if s.Agrees {
			agrees = 1
		}
		for i, n := range []float64{agrees, float64(s.Differences), float64(s.Waiting), time.Since(s.FinishedAt).Seconds()} {
			ch <- prometheus.MustNewConstMetric(m[i], prometheus.GaugeValue, n, source)
		}
	}
}
