package reporting_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/processors"
)

// state is the simple model of one record: the rule of the guard, applied to one message after the other.
type state struct {
	epoch, sequence int64
	content         string // "" is deleted
	deleted         bool
}

func (s *state) take(c change, content string) string {
	older := c.epoch < s.epoch || c.epoch == s.epoch && c.sequence < s.sequence
	same := c.epoch == s.epoch && c.sequence == s.sequence
	switch {
	case older:
		return "superseded"
	case same && content == s.content:
		return "unchanged"
	}
	s.epoch, s.sequence, s.content, s.deleted = c.epoch, c.sequence, content, content == ""
	if s.deleted {
		return "deleted"
	}
	return "applied"
}

// drawChange returns a change of one of a few records and its content as the tables show it.
func drawChange(t *rapid.T, prefix string) (change, string) {
	c := change{
		entity: "invoice", id: prefix + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id"),
		epoch: rapid.Int64Range(1, 2).Draw(t, "epoch"), sequence: rapid.Int64Range(1, 6).Draw(t, "sequence"),
	}
	lines := rapid.SliceOfN(rapid.SampledFrom([]string{"1.00", "2.50", "-3.00"}), 0, 3).Draw(t, "lines")
	status := rapid.SampledFrom([]string{"open", "paid", "deleted"}).Draw(t, "status")
	if status == "deleted" {
		return c, ""
	}
	c.value = invoice(c.id, status, "7.00", lines...)
	return c, strings.TrimRight(c.id+" "+status+" "+strings.Join(lines, ","), ",")
}

const showPrefix = `
select i.source_id, i.status, (select coalesce(string_agg(l.total::text, ',' order by l.line_no), '') from reporting.invoice_lines l
        where l.invoice_id = i.source_id and (l.deleted_at is null) = (i.deleted_at is null)),
       (select count(*) from reporting.invoice_lines l
        where l.invoice_id = i.source_id and (l.deleted_at is null) <> (i.deleted_at is null)),
       i.source_epoch = k.source_epoch and i.sequence = k.sequence and (i.deleted_at is not null) = k.deleted
  from reporting.invoices i join reporting.links k on k.entity = 'invoice' and k.source_id = i.source_id
 where i.source_id like $1 || '%' and i.deleted_at is null`

func TestHandler_AgreesWithASimpleModel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rapid.Check(t, func(rt *rapid.T) {
		prefix := testenv.Name("p") + "-"
		model := map[string]*state{}
		for range rapid.IntRange(1, 5).Draw(rt, "batches") {
			var changes []change
			var want []string
			of := map[string]int{}
			for range rapid.IntRange(1, 5).Draw(rt, "size") {
				c, content := drawChange(rt, prefix)
				if model[c.id] == nil {
					model[c.id] = &state{}
				}
				of[c.id]++
				changes, want = append(changes, c), append(want, model[c.id].take(c, content))
			}
			got := b.outcomes(t, changes...)
			for i := range got {
				// In a batch only the newest of a key is written; alone, every record is judged as the model does.
				if of[changes[i].id] == 1 {
					require.Equal(rt, want[i], got[i])
				}
			}
		}
		var shown []string
		for _, s := range model {
			// What a deleted record shows is left open: versions before the deletion, in its batch, are never written.
			if !s.deleted {
				shown = append(shown, s.content+" 0 true")
			}
		}
		slices.Sort(shown)
		got := strings.Split(b.query(t, showPrefix, prefix), "\n")
		slices.Sort(got)
		require.Equal(rt, strings.Join(shown, "\n"), strings.Join(got, "\n"))
	})
}

// TestHandler_StaysConsistentUnderConcurrentPublishers lets several publishers, of which all but one are zombies, write
// overlapping pieces of the same history in their own order and batches.
func TestHandler_StaysConsistentUnderConcurrentPublishers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const records, versions, publishers = 40, 8, 4
	var history []processors.Message
	for v := int64(1); v <= versions; v++ {
		for i := range records {
			lines := slices.Repeat([]string{fmt.Sprintf("%d.00", v)}, int(v*7+int64(i))%5)
			c := upsert(v, invoice(fmt.Sprintf("i%02d", i), "open", fmt.Sprintf("%d.00", v), lines...))
			if (int(v)+i)%6 == 0 {
				c.value = nil
			}
			history = append(history, b.message(c))
		}
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(p)))
			mine := slices.Clone(history)
			r.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for batch := range slices.Chunk(mine, 50) {
				for _, result := range b.handler.Handle(context.Background(), batch) {
					if result.Err != nil {
						t.Errorf("publisher %d: %v", p, result.Err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, fmt.Sprintf("%d %d", records, versions),
		b.query(t, "select count(*), min(sequence) from reporting.links"), "the newest version of each stands")
	require.Equal(t, "0", b.query(t, `
select count(*) from reporting.invoices i join reporting.links k using (tenant, system, source_id)
 where (i.sequence, i.deleted_at is not null) <> (k.sequence, k.deleted)`))
	require.Equal(t, "0", b.query(t, `
select count(*) from reporting.invoice_lines l join reporting.invoices i on i.source_id = l.invoice_id
 where (l.deleted_at is null) <> (i.deleted_at is null) or l.deleted_at is null and l.total <> i.total`))
	require.Equal(t, "0", b.query(t, `
select count(*) from reporting.invoices i
 where deleted_at is null and (sequence * 7 + substr(source_id, 2)::int) % 5 <>
       (select count(*) from reporting.invoice_lines l where l.invoice_id = i.source_id)`),
		"header and lines are of one version")
}
