package topics_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/topics"
)

func TestOutputID_IsUUIDv5OfInputAndIndex(t *testing.T) {
	t.Parallel()
	space := uuid.MustParse("c1ae5b1c-6f0e-5d2a-9c52-7d4f1b8e3a60")
	for i := range 12 {
		want := uuid.NewSHA1(space, fmt.Appendf(nil, "0190-x/%d", i))
		require.Equal(t, want.String(), topics.OutputID("0190-x", i))
	}
}
