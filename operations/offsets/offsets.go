// Package offsets moves consumer groups on their topics, on purpose and reversibly: a plan says what would happen, apply does exactly
// that or nothing, undo takes it back.
//
//	planned ──apply──▶ applied ──undo──▶ undone
//	   │                  └ (undo only while the group stands where apply has put it)
//	   ├──(time)──▶ expired
//	   └──apply that began to write and did not end well──▶ failed
//
// A plan is compared with Kafka once more when it is applied: if the group, its offsets or its topics have moved since, it is void. No
// offset is ever guessed, rounded to one that exists, or written to a group that does not exist, unless the request says so.
//
// It is not a consumer and knows no stage: what a replay would do downstream is foreseen by a Forecast that the caller hands in.
package offsets

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/processors"
)

// Config is what operations on offsets need.
type Config struct {
	DB     *pgxpool.Pool // control database
	Client *kgo.Client   // for administration and for reading
	Groups []Group       // of this installation
	Drains Drains        // nil: groups cannot be drained

	Hide func(string) string // takes secrets out of the errors that are kept; default: leaves them as they are

	// Progress tells of long work; nil tells nobody.
	Progress func(format string, args ...any)
}

// Group is a consumer group of this installation.
type Group struct {
	Name  string
	Reads []string // topics

	// Forecast foresees what records would become; nil if that cannot be known, then Blind says why.
	Forecast func() Forecast
	Blind    string
}

// Forecast foresees what handling records once more would do to the targets, without doing it. One is made for each plan; it is given
// the records of each partition in order and may remember them.
type Forecast interface {
	Foresee(ctx context.Context, records []processors.Message) (Outlook, error)
}

// Drains makes running members of a group finish what they do, leave, and stay away until the time is over or End is called.
type Drains interface {
	Drain(ctx context.Context, o audit.Operator, group string, until time.Time) error
	EndDrain(ctx context.Context, o audit.Operator, group string) error
}

// Offsets plans and applies. It is safe for concurrent use.
type Offsets struct {
	cfg Config
	adm *kadm.Client
	now func() time.Time
}

// New makes an Offsets. It starts nothing, and closes nothing of what it is given.
func New(cfg Config) (*Offsets, error) {
	if cfg.Client == nil || cfg.DB == nil {
		return nil, errors.New("offsets need a Kafka client and the control database")
	}
	if cfg.Hide == nil {
		cfg.Hide = func(s string) string { return s }
	}
	return &Offsets{cfg: cfg, adm: kadm.NewClient(cfg.Client), now: time.Now}, nil
}

func (o *Offsets) progress(format string, args ...any) {
	if o.cfg.Progress != nil {
		o.cfg.Progress(format, args...)
	}
}

// own is the group of this installation with that name, nil if it is none.
func (o *Offsets) own(name string) *Group {
	i := slices.IndexFunc(o.cfg.Groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		return nil
	}
	return &o.cfg.Groups[i]
}

func (o *Offsets) reader() *reader { return &reader{cl: o.cfg.Client, adm: o.adm} }

// RefusedError says why something was not done. Nothing was changed.
type RefusedError struct{ Problems []string }

// Error has a line for each problem.
func (e *RefusedError) Error() string { return strings.Join(e.Problems, "\n") }

// refuse returns a RefusedError, or nil if there is no problem.
func refuse(problems ...string) error {
	problems = slices.DeleteFunc(problems, func(p string) bool { return p == "" })
	if len(problems) == 0 {
		return nil
	}
	return &RefusedError{problems}
}
