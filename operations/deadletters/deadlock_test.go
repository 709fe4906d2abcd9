package deadletters_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/topics"
)

// TestRedrive_DoesNotDeadlockWithTheIndex marks what a redrive moves while the index learns of the same records, in every order.
func TestRedrive_DoesNotDeadlockWithTheIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, s := r.group(broken)
	stopIndex := r.startIndex()
	r.source(0, 400, 400)
	r.waitFor(g, states{deadletters.Open: 400})
	stopIndex() // this test takes its place
	s.set(healthy)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	o := r.newOffice()
	learned := make([]error, 4)
	for i := range learned {
		wg.Go(func() { learned[i] = r.learnAtRandom(ctx, g) })
	}
	j, err := o.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}, Rate: 400})
	cancel()
	wg.Wait()
	require.NoError(t, errors.Join(learned...))
	require.NoError(t, err)
	require.Equal(t, int64(400), j.Moved)
}

// learnAtRandom lets the projection learn of redriven records of all jobs, in any order, again and again, and takes that back.
func (r *rig) learnAtRandom(ctx context.Context, group string) error {
	p, undone := deadletters.NewProjection(nil), errors.New("undone")
	for ctx.Err() == nil {
		err := pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `select job::text, original_partition, original_offset from leat_control.redrive_items order by random()`)
			if err != nil {
				return err
			}
			recs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*kgo.Record, error) {
				var job string
				var partition int32
				var offset int64
				err := row.Scan(&job, &partition, &offset)
				return &kgo.Record{
					Topic: topics.Retry(r.in, group), Partition: partition, Offset: offset, Key: []byte(topics.ParkedID(partition, offset)),
					Value: []byte("again"), Headers: []kgo.RecordHeader{{Key: topics.HeaderReplayID, Value: []byte(job)}},
				}, err
			})
			if err != nil {
				return err
			}
			return errors.Join(p.Apply(ctx, tx, recs), undone)
		})
		var pg *pgconn.PgError
		if errors.As(err, &pg) && ctx.Err() == nil {
			return err
		}
	}
	return nil
}
