package reporting

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// TestFault_ValuesOfTheRecordAreQuoted: what a trigger raises may name a customer; incidents and logs must not.
func TestFault_ValuesOfTheRecordAreQuoted(t *testing.T) {
	t.Parallel()
	for _, pg := range []*pgconn.PgError{
		{Severity: "ERROR", Code: "P0001", Message: "customer Ana Silva is blocked", Detail: "Key (email)=(ana@example.com) exists"},
		{Severity: "ERROR", Code: "23514", Message: "customer Ana Silva is blocked", Routine: "exec_stmt_raise"},
	} {
		err := diagnose(pg).err(fmt.Errorf("publishing 1 records to reporting.invoices: %w", pg))
		require.Equal(t, "permanent", processors.Class(err))
		require.ErrorAs(t, err, new(*pgconn.PgError))
		require.ErrorContains(t, err, `"customer Ana Silva is blocked"`)
		require.NotContains(t, err.Error(), "ana@example.com")
		require.NotContains(t, topics.Parameterize(err.Error()), "Ana")
	}
}
