package trace

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Link is the row by which the target knows which version of a record it has.
type Link struct {
	Entity      string    `json:"entity"`
	Key         string    `json:"key"`
	EventID     string    `json:"event_id"`
	Epoch       int64     `json:"epoch"`
	Sequence    int64     `json:"sequence"`
	Revision    int64     `json:"revision"`
	Deleted     bool      `json:"deleted"`
	Topic       string    `json:"topic"`
	Partition   int32     `json:"partition"`
	Offset      int64     `json:"offset"`
	PublishedAt time.Time `json:"published_at"`
	Compared    string    `json:"compared"` // with the event: this, newer or older
}

// Target is a summary of a row of a reporting table. Its version is that of the event which wrote it.
type Target struct {
	Table       string     `json:"table"`
	Key         string     `json:"key"`
	Status      string     `json:"status"`
	Amount      *string    `json:"amount,omitempty"` // decimal
	Currency    *string    `json:"currency,omitempty"`
	Epoch       int64      `json:"epoch"`
	Sequence    int64      `json:"sequence"`
	PublishedAt time.Time  `json:"published_at"`
	DeletedAt   *time.Time `json:"deleted_at,omitempty"`
}

// By the primary key.
const findLinks = `select l.entity, l.target_id, l.event_id::text, l.source_epoch, l.sequence, l.revision, l.deleted, l.topic, l.topic_partition,
  l.topic_offset, l.published_at, ''
from unnest($2::text[], $3::text[], $4::text[], $5::text[]) as k (entity, tenant, system, source_id)
join reporting.links l on l.publication = $1 and l.entity = k.entity and l.tenant = k.tenant and l.system = k.system and l.source_id = k.source_id
order by l.entity, l.target_id`

// By the primary keys.
const findTargets = `with k as (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as k (entity, tenant, system, source_id)
)
select 'reporting.contacts', concat_ws('/', r.tenant, r.system, r.source_id), r.status, null::text, null::text,
  r.source_epoch, r.sequence, r.published_at, r.deleted_at
from k join reporting.contacts r on k.entity = 'contact' and r.tenant = k.tenant and r.system = k.system and r.source_id = k.source_id
union all
select 'reporting.invoices', concat_ws('/', r.tenant, r.system, r.source_id), r.status, r.total::text, r.currency::text,
  r.source_epoch, r.sequence, r.published_at, r.deleted_at
from k join reporting.invoices r on k.entity = 'invoice' and r.tenant = k.tenant and r.system = k.system and r.source_id = k.source_id
union all
select 'reporting.payments', concat_ws('/', r.tenant, r.system, r.source_id), r.status, r.amount::text, r.currency::text,
  r.source_epoch, r.sequence, r.published_at, r.deleted_at
from k join reporting.payments r on k.entity = 'payment' and r.tenant = k.tenant and r.system = k.system and r.source_id = k.source_id
order by 1, 2`

// target fills in what the reporting database has of the finance records at places.
func (c Config) target(ctx context.Context, j *Journey, v Version, places []Place) error {
	if c.Reporting == nil {
		return nil
	}
	type record struct{ entity, tenant, system, id string }
	seen := map[record]bool{}
	for _, p := range places {
		entity, ok := strings.CutPrefix(p.Topic, "finance.")
		if !ok {
			continue
		}
		entity, _, _ = strings.Cut(entity, ".")
		if tenant, system, id, err := topics.SplitKey([]byte(p.Key)); err == nil {
			seen[record{entity, tenant, system, id}] = true
		}
	}
	if len(seen) == 0 {
		return nil
	}
	var entities, tenants, systems, ids []string
	for r := range seen {
		entities, tenants, systems, ids = append(entities, r.entity), append(tenants, r.tenant), append(systems, r.system), append(ids, r.id)
	}
	rows, err := c.Reporting.Query(ctx, findLinks, c.Publication, entities, tenants, systems, ids)
	if err == nil {
		j.Links, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Link])
	}
	if err == nil {
		if rows, err = c.Reporting.Query(ctx, findTargets, entities, tenants, systems, ids); err == nil {
			j.Targets, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Target])
		}
	}
	if err != nil {
		return fmt.Errorf("looking in the reporting tables: %w", err)
	}
	for i := range j.Links {
		l := &j.Links[i]
		l.Compared = [...]string{"older", "this", "newer"}[1+compareVersions(l.Epoch, l.Sequence, v.Epoch, v.Sequence)]
	}
	return nil
}

// progress fills in how far the groups are that read the topics of places.
func (c Config) progress(ctx context.Context, places []Place) error {
	client, err := kgo.NewClient(c.Kafka...)
	if err != nil {
		return fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	names := map[string]bool{}
	for _, g := range c.Groups {
		for _, p := range places {
			if g.Reads(p.Topic) && !p.Former {
				names[g.Name] = true
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	groups := kadm.NewClient(client).FetchManyOffsets(ctx, slices.Collect(maps.Keys(names))...)
	for i := range places {
		p := &places[i]
		for _, g := range c.Groups {
			if !names[g.Name] || !g.Reads(p.Topic) || p.Former {
				continue
			}
			if err := groups[g.Name].Err; err != nil {
				return fmt.Errorf("asking for the offsets of group %s: %w", g.Name, err)
			}
			at := Progress{Group: g.Name, Committed: -1}
			if o, ok := groups[g.Name].Fetched.Lookup(p.Topic, p.Partition); ok {
				at.Committed = o.At
			}
			at.Past = at.Committed > p.Offset
			p.Groups = append(p.Groups, at)
		}
	}
	return nil
}
