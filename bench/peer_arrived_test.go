package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A duplicate or an inversion is only seen if the number is read right, also after jsonb has put the fields in an order of its own.
func TestSequence(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"as written": `{"invoice_id": 7, "lines": [{"invoice_line_id": 1, "invoice_id": 50007, "track_id": 2}, {"invoice_id": 50007}], "memo": ""}`,
		"jsonb":      `{"memo": "", "lines": [{"quantity": 1, "invoice_id": 50007, "invoice_line_id": 1}, {"invoice_id": 50007}], "invoice_id": 7}`,
		"last field": `{"lines": [{"invoice_id": 50007}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, err := sequence([]byte(value))
			require.NoError(t, err)
			require.Equal(t, 50007, i)
		})
	}
	_, err := sequence([]byte(`{"invoice_id": 7}`))
	require.ErrorContains(t, err, "not an invoice")
}
