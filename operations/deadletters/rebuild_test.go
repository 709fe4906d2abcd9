package deadletters_test

import (
	"testing"

	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/operations/index"
)

func rebuild(t *testing.T, r *rig) error {
	t.Helper()
	return index.Rebuild(t.Context(), r.db, r.op, deadletters.NewProjection(nil))
}
