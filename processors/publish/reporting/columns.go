package reporting

import (
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/topics"
)

// keys are the columns that every statement starts with.
type keys struct {
	tenant, system, sourceID []string
	epoch, sequence          []int64
}

func keysOf(records []*record) keys {
	n := len(records)
	k := keys{make([]string, n), make([]string, n), make([]string, n), make([]int64, n), make([]int64, n)}
	for i, r := range records {
		k.tenant[i], k.system[i], k.sourceID[i] = r.tenant, r.system, r.sourceID
		k.epoch[i], k.sequence[i] = r.epoch, r.sequence
	}
	return k
}

// match calls found with the index of each key in rows. The keys are sorted and rows come in the same order, so it walks
// both together.
func (k keys) match(rows pgx.Rows, found func(i int)) error {
	var tenant, system, sourceID string
	i := 0
	_, err := pgx.ForEachRow(rows, []any{&tenant, &system, &sourceID}, func() error {
		for ; i < len(k.tenant); i++ {
			if k.sourceID[i] == sourceID && k.tenant[i] == tenant && k.system[i] == system {
				found(i)
				i++
				return nil
			}
		}
		return fmt.Errorf("row %s/%s/%s is none of the batch, or out of order", tenant, system, sourceID)
	})
	return err
}

// table collects values column by column, as unnest takes them. Values travel as text: "" is null where the column may be
// null, and Postgres reads numbers and dates from their own exact text.
type table struct{ columns [][]string }

func newTable(columns, rows int) *table {
	t := &table{make([][]string, columns)}
	all := make([]string, columns*rows)
	for i := range t.columns {
		t.columns[i], all = all[:0:rows], all[rows:]
	}
	return t
}

func (t *table) add(values ...string) {
	for i, v := range values {
		t.columns[i] = append(t.columns[i], v)
	}
}

func (t *table) args(more ...any) []any {
	args := make([]any, 0, len(t.columns)+len(more))
	for _, c := range t.columns {
		args = append(args, c)
	}
	return append(args, more...)
}

func amount(m *topics.Money) string {
	if m == nil {
		return ""
	}
	return string(m.Amount)
}
