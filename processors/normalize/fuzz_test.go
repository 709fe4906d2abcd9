package normalize

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzMapping(f *testing.F) {
	f.Add("source: {system: s, entity: e}\noutputs: [{to: payment, fields: {amount: {amount: a, scale: 2}}}]")
	f.Add("source: {system: s, entity: e}\nwhere: [{reason: r, path: a.b, in: [1]}]\noutputs:\n  - to: contact\n" +
		"    fields:\n      kinds: {const: [customer]}\n      status: {const: active}\n      display_name: {expr: key}\n")
	x, err := newExpressions()
	require.NoError(f, err)
	all, err := contracts()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, file string) {
		p := &problems{file: "m.yaml"}
		m := (&compiler{problems: p, expressions: x, contracts: all}).mapping([]byte(file))
		if len(p.list) == 0 && (m == nil || len(m.outputs) == 0) {
			t.Fatal("no problem, and no mapping")
		}
	})
}
