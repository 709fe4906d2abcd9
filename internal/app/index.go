package app

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/operations/incidents"
	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/operations/journal"
)

// projections are the tables that the index keeps.
func (a *App) projections() []index.Projection {
	return []index.Projection{
		journal.New(a.cfg.Index.JournalRetention),
		journal.NewAttempts(a.cfg.Index.AttemptsRetention),
		incidents.Projection{},
		deadletters.NewProjection(a.cfg.Index.DeadLetterTopics),
	}
}

// RunIndex keeps the tables of the control database that are made from topics, until ctx ends.
func (a *App) RunIndex(ctx context.Context) error {
	db, err := a.controlDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	x, err := a.newIndex(db)
	if err != nil {
		return err
	}
	if err := a.reg.Register(audit.NewMetrics(db, a.log)); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return a.withKafka(func(cl *kgo.Client) error {
		waiting, err := deadletters.NewMetrics(db, cl, a.reg, a.log)
		if err != nil {
			return err
		}
		return a.serve(ctx, []Part{{"dead letters", waiting.Run}}, []stage{{"index", x}}, nil)
	})
}

func (a *App) newIndex(db *pgxpool.Pool) (*index.Index, error) {
	c, err := a.indexConfig(db)
	if err != nil {
		return nil, err
	}
	return index.New(c)
}

func (a *App) indexConfig(db *pgxpool.Pool) (index.Config, error) {
	if err := a.cfg.Require(config.NeedKafka, config.NeedSources); err != nil {
		return index.Config{}, err
	}
	kafka, err := a.KafkaOptions()
	if err != nil {
		return index.Config{}, err
	}
	return index.Config{
		DB: db, Kafka: kafka, Projections: a.projections(), Logger: a.log.With("stage", "index"), Registerer: a.reg,
		Topics: func(context.Context) ([]string, error) {
			names, err := a.TopicNames()
			return append(names, a.cfg.Index.DeadLetterTopics...), err
		},
	}, nil
}

// IndexStatus is how far the index has read.
type IndexStatus []index.Status

// IndexStatus reads the positions of the index and the ends of the topics. It needs no running index.
func (a *App) IndexStatus(ctx context.Context) (IndexStatus, error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	c, err := a.indexConfig(db)
	if err != nil {
		return nil, err
	}
	return index.ReadStatus(ctx, c)
}

// WriteText prints a paragraph for each projection.
func (r IndexStatus) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	for _, s := range r {
		state := "no index runs: start `leat index run`"
		if s.Working {
			state = "running"
		}
		moved := "has read nothing yet"
		if !s.MovedAt.IsZero() {
			moved = "last moved " + s.MovedAt.UTC().Format(time.RFC3339)
		}
		line("%s\t%s\t%d records behind\t%d topics, %d partitions\t%s", s.Projection, state, s.Behind, s.Topics, s.Partitions, moved)
		for _, l := range s.Worst {
			line("  %s/%d\tat %d\t%d behind\t\t", l.Topic, l.Partition, l.Next, l.Behind)
		}
	}
	return t.Flush()
}

// IndexRebuilt names what is being made anew.
type IndexRebuilt struct {
	Projections []string `json:"projections"`
}

// IndexRebuild empties projections, all if none is named, so that a running index makes them anew from the topics.
func (a *App) IndexRebuild(ctx context.Context, reason string, names ...string) (IndexRebuilt, error) {
	op, err := a.operator(reason)
	if err != nil {
		return IndexRebuilt{}, err
	}
	chosen, err := a.chooseProjections(names)
	if err != nil {
		return IndexRebuilt{}, err
	}
	db, err := a.controlDB(ctx)
	if err != nil {
		return IndexRebuilt{}, err
	}
	defer db.Close()
	var done IndexRebuilt
	for _, p := range chosen {
		done.Projections = append(done.Projections, p.Name())
	}
	return done, index.Rebuild(ctx, db, op, chosen...)
}

func (a *App) chooseProjections(names []string) ([]index.Projection, error) {
	all := a.projections()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []index.Projection
	for _, name := range names {
		i := slices.IndexFunc(all, func(p index.Projection) bool { return p.Name() == name })
		if i < 0 {
			var known []string
			for _, p := range all {
				known = append(known, p.Name())
			}
			return nil, fmt.Errorf("there is no projection %q; there are: %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// WriteText says what comes next.
func (r IndexRebuilt) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "emptied: %s\na running index reads the topics again; `leat index status` shows how far it is\n",
		strings.Join(r.Projections, ", "))
	return err
}
