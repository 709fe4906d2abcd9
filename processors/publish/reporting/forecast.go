package reporting

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/processors"
)

// Queryer is a pgxpool.Pool, or anything else that can ask the reporting database.
type Queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Forecast tells what the publisher would make of messages, by the link rows of now and without writing anything. It remembers what it
// has said: a message is judged as if those before it had been published. It is not safe for concurrent use.
type Forecast struct {
	handler *handler
	db      Queryer
	links   map[identity]link
}

// link is what the guard compares with.
type link struct {
	version
	hash [16]byte
}

// NewForecast needs the publisher's configuration and the right to read reporting.links.
func NewForecast(db Queryer, config Config) (*Forecast, error) {
	h, err := newHandler(nil, config)
	if err != nil {
		return nil, err
	}
	return &Forecast{handler: h, db: db, links: map[identity]link{}}, nil
}

// Foresee returns a result for each message: the outcome that the publisher would give it, or the error of a message that it would
// refuse. What only the database would refuse is not foreseen. The error is that of the database.
func (f *Forecast) Foresee(ctx context.Context, batch []processors.Message) ([]processors.Result, error) {
	results := make([]processors.Result, len(batch))
	records := make([]*record, len(batch))
	var unknown []*record
	asked := map[identity]bool{}
	for i := range batch {
		r, err := f.handler.decode(&batch[i])
		if err != nil {
			results[i].Err = err
			continue
		}
		records[i] = r
		if _, known := f.links[r.identity]; !known && !asked[r.identity] {
			asked[r.identity] = true
			unknown = append(unknown, r)
		}
	}
	if err := f.look(ctx, unknown); err != nil {
		return nil, err
	}
	for i, r := range records {
		if r != nil {
			results[i].Outcome = f.judge(r)
		}
	}
	return results, nil
}

// judge is the guard's rule; see guardSQL.
func (f *Forecast) judge(r *record) string {
	l := f.links[r.identity] // the zero link is older than any record
	switch n := r.version.compare(l.version); {
	case n < 0:
		return OutcomeSuperseded
	case n == 0 && r.hash == l.hash:
		return OutcomeUnchanged
	}
	f.links[r.identity] = link{r.version, r.hash}
	if r.body == nil {
		return OutcomeDeleted
	}
	return OutcomeApplied
}

// linksSQL looks up one key after the other in the primary key, as sameSQL does and for its reason.
const linksSQL = `
select i.n, l.source_epoch, l.sequence, l.content_hash
  from unnest($2::text[], $3::text[], $4::text[], $5::text[]) with ordinality as i(entity, tenant, system, source_id, n)
 cross join lateral (select l.source_epoch, l.sequence, l.content_hash from reporting.links l
                      where l.publication = $1 and l.entity = i.entity and l.tenant = i.tenant and l.system = i.system
                        and l.source_id = i.source_id offset 0) l`

// look reads the link rows of records; where there is none, the zero link stands for it.
func (f *Forecast) look(ctx context.Context, records []*record) error {
	if len(records) == 0 {
		return nil
	}
	k := keysOf(records)
	entities := make([]string, len(records))
	for i, r := range records {
		entities[i] = r.entity.name
		f.links[r.identity] = link{}
	}
	rows, err := f.db.Query(ctx, linksSQL, f.handler.publication, entities, k.tenant, k.system, k.sourceID)
	if err != nil {
		return fmt.Errorf("reading link rows: %w", err)
	}
	var n int
	var l link
	var hash []byte
	_, err = pgx.ForEachRow(rows, []any{&n, &l.epoch, &l.sequence, &hash}, func() error {
		copy(l.hash[:], hash)
		f.links[records[n-1].identity] = l
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading link rows: %w", err)
	}
	return nil
}
