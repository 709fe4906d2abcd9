package index

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Status is how far the index has read for a projection.
type Status struct {
	Projection string    `json:"projection"`
	Working    bool      `json:"working"`           // a process holds the projection
	Topics     int       `json:"topics"`            // that exist
	Partitions int       `json:"partitions"`        //
	Behind     int64     `json:"behind"`            // offsets to the last stable ones; markers of transactions count too
	MovedAt    time.Time `json:"moved_at,omitzero"` // when a position moved last
	Worst      []Lag     `json:"worst"`             // the partitions that are behind, the farthest first, at most ten
}

// Lag is a partition that the index has not read to its end.
type Lag struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`   // the next offset to be read
	Behind    int64  `json:"behind"` // offsets to the last stable one
}

// ReadStatus says how far the index has read. It needs no running index and disturbs none; of c it uses DB, Kafka, Topics
// and Projections.
func ReadStatus(ctx context.Context, c Config) ([]Status, error) {
	client, err := kgo.NewClient(c.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	return readStatus(ctx, c, client)
}

func readStatus(ctx context.Context, c Config, client *kgo.Client) ([]Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	all, err := c.Topics(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the topics of the installation: %w", err)
	}
	admin := kadm.NewClient(client)
	details, err := existing(ctx, admin, slices.DeleteFunc(slices.Clone(all), func(t string) bool {
		return !slices.ContainsFunc(c.Projections, func(p Projection) bool { return p.Reads(t) })
	}))
	if err != nil {
		return nil, err
	}
	var starts, stable kadm.ListedOffsets
	if len(details) > 0 {
		if starts, err = admin.ListStartOffsets(ctx, details.Names()...); err == nil {
			stable, err = admin.ListCommittedOffsets(ctx, details.Names()...)
		}
		if err != nil {
			return nil, fmt.Errorf("listing offsets: %w", err)
		}
	}
	report := make([]Status, 0, len(c.Projections))
	for _, p := range c.Projections {
		s := Status{Projection: p.Name(), Worst: []Lag{}}
		if err := s.look(ctx, c.DB, p, details, starts, stable); err != nil {
			return nil, err
		}
		report = append(report, s)
	}
	return report, nil
}

// Advisory locks are seen by everybody; a key of 64 bits stands in two halves.
const readProgress = `select
  exists (select from pg_locks, hashtextextended('leat index ' || $1, 0) as key
    where locktype = 'advisory' and objsubid = 1 and granted and database = (select oid from pg_database where datname = current_database())
      and classid::bigint = (key >> 32) & 4294967295 and objid::bigint = key & 4294967295),
  (select max(at) from leat_control.positions where projection = $1)`

type rowQueryer interface {
	queryer
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (s *Status) look(ctx context.Context, db rowQueryer, p Projection, details kadm.TopicDetails, starts, stable kadm.ListedOffsets) error {
	var moved *time.Time
	if err := db.QueryRow(ctx, readProgress, s.Projection).Scan(&s.Working, &moved); err != nil {
		return fmt.Errorf("reading how far the index has come: %w", err)
	}
	if moved != nil {
		s.MovedAt = *moved
	}
	known, err := positions(ctx, db, s.Projection)
	if err != nil {
		return err
	}
	for name, t := range details {
		if !p.Reads(name) {
			continue
		}
		s.Topics++
		for n := range t.Partitions {
			s.Partitions++
			start, _ := starts.Lookup(name, n)
			end, _ := stable.Lookup(name, n)
			at, ok := known[partition{name, n}]
			if !ok || at.topicID != [16]byte(t.ID) {
				at.next = start.Offset
			}
			if behind := end.Offset - max(at.next, start.Offset); behind > 0 {
				s.Behind += behind
				s.Worst = append(s.Worst, Lag{name, n, at.next, behind})
			}
		}
	}
	slices.SortFunc(s.Worst, func(a, b Lag) int { return int(min(max(b.Behind-a.Behind, -1), 1)) })
	s.Worst = s.Worst[:min(len(s.Worst), 10)]
	return nil
}
