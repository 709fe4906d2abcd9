package normalize_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors/normalize"
)

// problemsOf lists what is wrong with one file called m.yaml.
func problemsOf(t *testing.T, file string) []string {
	t.Helper()
	_, err := normalize.Load(fstest.MapFS{"m.yaml": {Data: []byte(file)}})
	var le *normalize.LoadError
	require.ErrorAs(t, err, &le)
	return strings.Split(le.Error(), "\n")
}

func TestLoad_ListsEveryProblemWithFileLineFieldAndRemedy(t *testing.T) {
	t.Parallel()
	got := problemsOf(t, `source: {system: Shop, entity: invoice}
where:
  - path: status
    equal: open
outputs:
  - to: invoice
    fields:
      type: {const: recipe}
      contact_id: customer..id
      issue_date: {path: at, format: rfc3339}
      due_date: {path: due, format: date, zone: Mars/Olympus}
      status: {path: status, values: {open: opened}}
      total: total
      sum: total
      lines:
        each: lines
        fields:
          id: id
          quantity: {path: qty, optional: true}
          unit_price: {amount: price, currency: {const: XXL}}
          total: {expr: item.total * 1.5}
      memo: {expr: "payload.memo +"}
      memo: memo
`)
	want := []string{
		`m.yaml:1:10: source.system: "Shop" is not a name of lower-case letters, digits, '-' and '_'`,
		`m.yaml:3:5: where[0]: has 0 tests beside path, want one of equals, in, not_in, exists`,
		`m.yaml:3:5: where[0].reason: is missing`,
		`m.yaml:4:5: where[0].equal: unknown key; did you mean "equals"?`,
		`m.yaml:7:5: outputs[0].fields.currency: is required by the contract and missing`,
		`m.yaml:8:14: outputs[0].fields.type.const: "recipe" does not fit the contract, which wants one of invoice, bill, credit_note`,
		`m.yaml:9:7: outputs[0].fields.contact_id: path "customer..id" has an empty part`,
		`m.yaml:10:30: outputs[0].fields.issue_date.format: the format is an instant: add zone`,
		`m.yaml:11:43: outputs[0].fields.due_date.zone: unknown time zone "Mars/Olympus"`,
		`m.yaml:12:39: outputs[0].fields.status.values.open: "opened" does not fit the contract, which wants one of draft`,
		`m.yaml:13:7: outputs[0].fields.total.currency: is missing; give it here`,
		`m.yaml:14:7: outputs[0].fields.sum: the contract has no such field; want tenant`,
		`m.yaml:19:11: outputs[0].fields.lines.fields.quantity: the contract requires it: remove optional`,
		`m.yaml:20:39: outputs[0].fields.lines.fields.unit_price.currency: "XXL" is not a current code of ISO 4217`,
		`m.yaml:21:19: outputs[0].fields.lines.fields.total.expr: unknown key; want amount, currency`,
		`m.yaml:22:34: outputs[0].fields.memo.expr: expression, line 1, column 15: Syntax error`,
		`m.yaml:23:7: outputs[0].fields.memo: the key occurs twice; keep one`,
	}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || strings.HasPrefix(g, w)
		}
		require.True(t, found, "no problem %s\namong\n%s", w, strings.Join(got, "\n"))
	}
}

func TestLoad_RefusesWhatIsNotAMapping(t *testing.T) {
	t.Parallel()
	head := "source: {system: s, entity: e}\noutputs:\n  - to: contact\n    fields:\n      kinds: {const: [customer]}\n      status: {const: active}\n"
	for name, c := range map[string]struct{ file, want string }{
		"empty":             {"", "m.yaml:1:1: the file is empty"},
		"not YAML":          {"a: [", "m.yaml:1:4: not YAML"},
		"a list":            {"- a", "found a list, want a map of keys"},
		"two documents":     {"a: 1\n---\nb: 2\n", "a second document"},
		"alias":             {"source: &x {system: s, entity: e}\noutputs: *x\n", "an anchor or alias"},
		"no outputs":        {"source: {system: s, entity: e}\n", "outputs: is missing"},
		"unknown entity":    {"source: {system: s, entity: e}\noutputs: [{to: ledger, fields: {}}]\n", "want one of contact, invoice, payment"},
		"tenant":            {head + "      tenant: t\n      display_name: n\n", "is set by Leat"},
		"float":             {head + "      display_name: {expr: 'string(payload.x * 1.5)'}\n", `floats are not exact: write decimal("0.5")`},
		"unknown variable":  {head + "      display_name: {expr: item.name}\n", "undeclared reference to 'item'"},
		"condition":         {head + "      display_name: n\n    when: {expr: '1 + 1'}\n", "the expression gives int, want true or false"},
		"nested loops":      {head + "      display_name: {expr: '[1].map(a, [1].map(b, [1].map(c, c)))[0][0][0]'}\n", "nest"},
		"path with star":    {head + "      display_name: 'a.*'\n", "is not used in paths"},
		"both path and exp": {head + "      display_name: {path: a, expr: key}\n", "makes no sense beside path"},
		"kinds of none":     {strings.Replace(head, "[customer]", "[]", 1) + "      display_name: n\n", "has 0 items, the contract wants 1 to 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, strings.Join(problemsOf(t, c.file), "\n"), c.want)
		})
	}
}

func TestLoad_RefusesTwoFilesForOneEntity(t *testing.T) {
	t.Parallel()
	_, err := normalize.Load(fstest.MapFS{"a.yaml": {Data: []byte(benchMapping)}, "b.yaml": {Data: []byte(benchMapping)}})
	require.ErrorContains(t, err, "b.yaml:1:1: source: a.yaml has the mapping of erp invoice already")
	_, err = normalize.Load(fstest.MapFS{"README.md": {}})
	require.ErrorContains(t, err, "no mappings")
	require.NotErrorAs(t, err, new(*normalize.LoadError))
}
