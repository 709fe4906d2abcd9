package app

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/postgres"
	"github.com/leat-io/leat/operations/outcomes"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/processors/publish/reporting"
)

// RunRelay brings the outboxes of all sources to Kafka until ctx ends.
func (a *App) RunRelay(ctx context.Context) error {
	r, err := a.newRelay()
	if err != nil {
		return err
	}
	return a.serve(ctx, nil, []stage{{"relay", r}}, nil)
}

// RunNormalize turns source records into the finance model until ctx ends.
func (a *App) RunNormalize(ctx context.Context) error {
	r, err := a.newNormalize()
	if err != nil {
		return err
	}
	return a.serve(ctx, nil, []stage{{"normalize", r}}, nil)
}

// RunPublish keeps the reporting tables like the finance topics until ctx ends.
func (a *App) RunPublish(ctx context.Context) error {
	db, err := a.reportingDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := a.newPublish(db)
	if err != nil {
		return err
	}
	return a.serve(ctx, nil, []stage{{"publish", r}}, nil)
}

// RunAll runs relay, normalize and publish in this process until ctx ends, and index and notifier if there is a control database. The
// parts of before stop before them, those of after when they have stopped.
func (a *App) RunAll(ctx context.Context, before, after []Part) error {
	db, err := a.reportingDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	rel, err := a.newRelay()
	if err != nil {
		return err
	}
	norm, err := a.newNormalize()
	if err != nil {
		return err
	}
	pub, err := a.newPublish(db)
	if err != nil {
		return err
	}
	stages := []stage{{"relay", rel}, {"normalize", norm}, {"publish", pub}}
	if !a.cfg.Control.URL.Empty() {
		control, err := a.controlDB(ctx)
		if err != nil {
			return err
		}
		defer control.Close()
		x, err := a.newIndex(control)
		if err != nil {
			return err
		}
		n, err := a.newNotifier(control)
		if err != nil {
			return err
		}
		stages = append(stages, stage{"index", x}, stage{"notify", n})
	}
	return a.serve(ctx, before, stages, after)
}

// stage is a relay or a runner.
type stage struct {
	name string
	runnable
}

type runnable interface {
	Run(ctx context.Context) error
	Ready() error
}

// warn tells of databases whose connections others on the network could read or answer.
func (a *App) warn() {
	tell := func(key string, url config.DatabaseURL) {
		if how := postgres.Exposed(url.Reveal()); how != "" {
			a.log.Warn("a connection to a database is not protected", "key", key, "database", url, "remedy", how)
		}
	}
	for i, s := range a.cfg.Sources {
		tell(fmt.Sprintf("sources[%d].url", i), s.URL)
	}
	tell("control.url", a.cfg.Control.URL)
	tell("publish.reporting.url", a.cfg.Publish.Reporting.URL)
}

// serve runs stages with the HTTP server beside them, and with an agent of the control database, if there is one.
func (a *App) serve(ctx context.Context, before []Part, stages []stage, after []Part) error {
	a.warn()
	var parts []Part
	var checks []check
	for _, s := range stages {
		parts = append(parts, Part{s.name, s.Run})
		checks = append(checks, check{name: s.name, ready: s.Ready})
	}
	if a.outcomes != nil {
		after = append([]Part{{"outcomes", a.countOutcomes}}, after...)
	}
	spans, err := a.spanPart()
	if err != nil {
		return err
	}
	if !a.cfg.Control.URL.Empty() {
		db, err := a.controlDB(ctx)
		if err != nil {
			return err
		}
		defer db.Close()
		agent := a.newAgent(db, stages)
		after = append(after, Part{"control", agent.Run})
		checks = append(checks, check{name: "control", ready: agent.Ready})
	}
	server, err := a.serveHTTP(ctx, checks...)
	if err != nil {
		return err
	}
	a.log.Info("running", "version", a.version, "parts", len(parts), "http", a.cfg.HTTP.Listen)
	return runParts(ctx, a.log, slices.Concat(before, parts, after, []Part{spans, server})...)
}

func (a *App) newNormalize() (*processors.Runner, error) {
	if err := a.cfg.Require(config.NeedKafka); err != nil {
		return nil, err
	}
	set, err := a.mappingSet()
	if err != nil {
		return nil, err
	}
	return a.newRunner("normalize", processors.Config{
		Group: a.cfg.Normalize.Group, Instance: a.cfg.Normalize.Instance, Topics: set.Inputs(), Handler: normalize.New(set),
		StaticMember: a.cfg.Normalize.StaticMember,
	})
}

func (a *App) newPublish(db reporting.DB) (*processors.Runner, error) {
	handler, err := reporting.New(db, reporting.Config{Publication: a.cfg.Publish.Reporting.Publication})
	if err != nil {
		return nil, err
	}
	return a.newRunner("publish", processors.Config{
		Group: a.cfg.Publish.Group, Instance: a.cfg.Publish.Instance, Topics: reporting.Inputs(), Handler: handler,
		StaticMember: a.cfg.Publish.StaticMember,
	})
}

// newRunner adds to c what every stage of this process has.
func (a *App) newRunner(name string, c processors.Config) (*processors.Runner, error) {
	kafka, err := a.KafkaOptions()
	if err != nil {
		return nil, err
	}
	c.Name, c.Kafka, c.AppVersion, c.Registerer = name, kafka, a.version, a.reg
	c.Hide = a.hider.Hide
	c.Logger, c.AwaitOrders = a.log, !a.cfg.Control.URL.Empty()
	if a.outcomes == nil {
		a.outcomes = outcomes.New(outcomes.Config{Logger: a.log})
	}
	c.Observe = a.outcomes.Observe(name)
	if c.Tracer, err = a.tracer(name); err != nil {
		return nil, err
	}
	c.Instance = cmp.Or(c.Instance, defaultInstance())
	c.Retry = processors.RetryPolicy{
		MaxAttempts: a.cfg.Retry.Attempts, Base: a.cfg.Retry.Backoff, Max: a.cfg.Retry.Max,
	}
	r, err := processors.NewRunner(c)
	if err != nil {
		return nil, fmt.Errorf("configuring %s: %w", name, err)
	}
	return r, nil
}

func (a *App) reportingDB(ctx context.Context) (*pgxpool.Pool, error) {
	if err := a.cfg.Require(config.NeedKafka, config.NeedReporting); err != nil {
		return nil, err
	}
	url := a.cfg.Publish.Reporting.URL
	db, err := pgxpool.New(ctx, url.Reveal())
	if err != nil {
		return nil, fmt.Errorf("connecting to the reporting database %s: %w", url, err)
	}
	return db, nil
}

// defaultInstance names this process among the living ones of its group: two with one name would fence each other for
// ever. In a container, where the process id is always the same, it is also the same after a restart.
func defaultInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	clean := regexp.MustCompile(`[^a-z0-9-]+`).ReplaceAllString(strings.ToLower(host), "-")
	return strings.Trim(clean[:min(len(clean), 48)], "-") + "-" + strconv.Itoa(os.Getpid())
}
