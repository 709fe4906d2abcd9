package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/topics"
)

// describe gives what is listed its names, the fields that differ, and the command that shows its way. What is listed is bounded, so
// that these are few queries of few rows.
func (v *run) describe(ctx context.Context) error {
	var ids []int64
	for _, d := range v.differences.listed {
		if d.SourceID == "" && d.Sequence > 0 {
			ids = append(ids, d.Sequence)
		}
	}
	for _, o := range v.differences.open {
		ids = append(ids, o.Sequence)
	}
	names, err := v.origins(ctx, ids)
	if err != nil {
		return err
	}
	for i := range v.differences.listed {
		d := &v.differences.listed[i]
		if n, ok := names[d.Sequence]; ok && d.SourceID == "" {
			d.Tenant, d.Entity, d.SourceID, d.EventID = n.tenant, n.entity, n.key, n.eventID
		}
		if d.at != nil {
			if err := v.nameLink(ctx, d); err != nil {
				return err
			}
		}
		if d.want != nil {
			if d.Fields, err = v.fields(ctx, d); err != nil {
				return err
			}
		}
		d.Trace = v.trace(d.Tenant, d.SourceID)
	}
	for i := range v.differences.open {
		o := &v.differences.open[i]
		if n, ok := names[o.Sequence]; ok {
			o.Tenant, o.Entity, o.SourceID = n.tenant, n.entity, n.key
		}
		o.Trace = v.trace(o.Tenant, o.SourceID)
	}
	return nil
}

func (v *run) trace(tenant, id string) string {
	if tenant == "" || id == "" {
		return ""
	}
	key := string(topics.Key(tenant, v.c.Source, id))
	if strings.ContainsFunc(key, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:", r)
	}) {
		key = "'" + strings.ReplaceAll(key, "'", `'\''`) + "'"
	}
	return "leat trace " + key
}

// There is no index on the place. It is asked for only where a link row is wrong by itself.
const nameLinkSQL = `select tenant, source_id, event_id::text, sequence from reporting.links
where publication = $1 and system = $2 and entity = $3 and topic_partition = $4 and topic_offset = $5 limit 1`

func (v *run) nameLink(ctx context.Context, d *Difference) error {
	err := v.tables.tx.QueryRow(ctx, nameLinkSQL, v.c.Publication, v.c.Source, d.Entity, d.at.partition, d.at.offset).
		Scan(&d.Tenant, &d.SourceID, &d.EventID, &d.Sequence)
	if err != nil {
		return fmt.Errorf("naming a link row: %w", err)
	}
	return nil
}

// fields compares a row with what it must be, column by column.
func (v *run) fields(ctx context.Context, d *Difference) ([]Field, error) {
	b := books()[d.book]
	heads, err := v.one(ctx, b.heads, d)
	if err != nil || len(heads) == 0 {
		return nil, err
	}
	var out []Field
	compare := func(prefix string, names, want, found []string) {
		for i, name := range names {
			if want[i] != found[i] {
				out = append(out, Field{prefix + name, want[i], found[i]})
			}
		}
	}
	compare("", b.columns, d.want.head, heads[0][headCount:])
	if heads[0][4] == "true" {
		out = append(out, Field{"deleted", "false", "true"})
	}
	if b.lines == "" {
		return out, nil
	}
	lines, err := v.one(ctx, b.lines, d)
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, l := range lines {
		found[l[2]] = l[2:]
	}
	for _, want := range d.want.lines {
		if have, ok := found[want[0]]; ok {
			compare("line "+want[0]+" ", b.line, want, have)
		} else {
			out = append(out, Field{"line " + want[0], "a line", "none"})
		}
		delete(found, want[0])
	}
	for no := range found {
		out = append(out, Field{"line " + no, "none", "a line"})
	}
	slices.SortStableFunc(out, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return out[:min(len(out), 20)], nil
}

// one reads the rows of one record as text.
func (v *run) one(ctx context.Context, query string, d *Difference) ([][]string, error) {
	rows, err := v.tables.tx.Query(ctx, query+oneSQL, v.c.Source, d.Tenant, d.SourceID)
	if err != nil {
		return nil, fmt.Errorf("reading a row of the tables: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]string, error) {
		cells := make([]*string, len(row.FieldDescriptions()))
		into := make([]any, len(cells))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := row.Scan(into...); err != nil {
			return nil, err
		}
		texts := make([]string, len(cells))
		for i, c := range cells {
			if c != nil {
				texts[i] = *c
			}
		}
		return texts, nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading a row of the tables: %w", err)
	}
	return out, nil
}
