package topics

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestTypesEqualContracts walks types and shapes side by side: the same properties, kinds and optionality in both.
func TestTypesEqualContracts(t *testing.T) {
	t.Parallel()
	types := map[string]reflect.Type{
		"contact": reflect.TypeFor[Contact](), "invoice": reflect.TypeFor[Invoice](), "payment": reflect.TypeFor[Payment](),
	}
	require.Len(t, types, len(Entities()))
	for entity, typ := range types {
		c, err := ContractFor(entity, 1)
		require.NoError(t, err)
		sameShape(t, "/"+entity, c.Shape, typ)
	}
}

func sameShape(t *testing.T, path string, s *Shape, typ reflect.Type) {
	t.Helper()
	var names []string
	for field := range typ.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
		f := s.Field(name)
		require.NotNil(t, f, "%s/%s is not in the contract", path, name)
		require.Equal(t, !f.Required, options == "omitempty", "%s/%s: omitempty is for optional properties", path, name)
		sameKind(t, path+"/"+name, f, field.Type)
	}
	require.Len(t, s.Fields, len(names), "%s: the type has %v", path, names)
	for i, f := range s.Fields {
		require.Equal(t, f.Name, names[i], "%s: order, on which the speed of Check depends", path)
	}
}

func sameKind(t *testing.T, path string, f *Field, typ reflect.Type) {
	t.Helper()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch f.Kind {
	case KindString, KindEnum:
		require.Equal(t, reflect.TypeFor[string](), typ, path)
	case KindDate:
		require.Equal(t, reflect.TypeFor[Date](), typ, path)
	case KindDecimal:
		require.Equal(t, reflect.TypeFor[Decimal](), typ, path)
	case KindMoney:
		require.Equal(t, reflect.TypeFor[Money](), typ, path)
	case KindList:
		require.Equal(t, reflect.Slice, typ.Kind(), path)
		sameKind(t, path+"/*", f.Item, typ.Elem())
	case KindObject:
		sameShape(t, path, f.Shape, typ)
	default:
		require.Fail(t, "no Go type for "+f.Kind.String(), path)
	}
}

func TestTypes_RoundTrip(t *testing.T) {
	t.Parallel()
	for doc, into := range map[string]any{sampleContact: &Contact{}, sampleInvoice: &Invoice{}, samplePayment: &Payment{}} {
		require.NoError(t, json.Unmarshal([]byte(doc), into))
		require.JSONEq(t, doc, string(mustMarshal(into)))
	}
}

func TestNewMoney(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, currency, want, err string }{
		{"3000", "BRL", "3000.00", ""},
		{"3E+3", "BRL", "3000.00", ""},
		{"12.50000", "BRL", "12.50", ""},
		{"-0.00", "BRL", "0.00", ""},
		{"-0.05", "BRL", "-0.05", ""},
		{"12.000", "JPY", "12", ""},
		{"1.5", "KWD", "1.500", ""},
		{"999999999999999.99", "BRL", "999999999999999.99", ""},
		{"1.005", "BRL", "", "has 3 decimal places, want at most 2"},
		{"0.5", "JPY", "", "has 1 decimal places, want at most 0"},
		{"1000000000000000", "BRL", "", "16 digits before the point"},
		{"1E+400", "BRL", "", "digits before the point"},
		{"NaN", "BRL", "", "is not a number"},
		{"Infinity", "BRL", "", "is not a number"},
		{"1", "XXX", "", "not a currency of ISO 4217"},
	} {
		d, _, err := apd.NewFromString(tc.in)
		require.NoError(t, err)
		m, err := NewMoney(d, tc.currency)
		if tc.err != "" {
			require.ErrorContains(t, err, tc.err, tc.in)
			continue
		}
		require.NoError(t, err, tc.in)
		require.Equal(t, Money{Decimal(tc.want), tc.currency}, m)
	}
	price, err := NewPrice(apd.New(125, -4), "BRL")
	require.NoError(t, err)
	require.Equal(t, Money{"0.0125", "BRL"}, price)
}

// TestDecimal_ParseAgreesWithTheContract: what Parse accepts is what the schema's pattern accepts, and it comes back.
func TestDecimal_ParseAgreesWithTheContract(t *testing.T) {
	t.Parallel()
	c, err := ContractFor("invoice", 1)
	require.NoError(t, err)
	quantity := c.Shape.Field("lines").Item.Shape.Field("quantity")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`[-+]?[0-9]{0,17}(\.[0-9]{0,12})?(e[0-9])?`),
			rapid.StringMatching(`-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,10})?`),
		).Draw(t, "decimal")
		n, err := Decimal(text).Parse()
		require.Equal(t, quantity.match.match([]byte(text)), err == nil, text)
		if err != nil {
			return
		}
		back, err := NewDecimal(n, 0, maxPlaces)
		require.NoError(t, err)
		again, err := back.Parse()
		require.NoError(t, err)
		require.Zero(t, n.Cmp(again), text)
	})
}

func TestDate_Time(t *testing.T) {
	t.Parallel()
	d, err := Date("2024-02-29").Time()
	require.NoError(t, err)
	require.Equal(t, Date("2024-02-29"), NewDate(d))
	for _, bad := range []Date{"", "2026-02-29", "0001-01-01", "2026-1-1", "2026-01-01T00:00:00Z", "2200-01-01"} {
		_, err := bad.Time()
		require.Error(t, err, string(bad))
	}
}

// TestContractsStayCompatible fails when a contract changes in a way that its users cannot live with. Such a change needs a
// new major version: a file of its own, on a topic of its own. The files in contracts/released are what has been promised.
func TestContractsStayCompatible(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("contracts/released")
	require.NoError(t, err)
	require.Len(t, files, len(Entities()))
	for _, file := range files {
		released, err := os.ReadFile("contracts/released/" + file.Name())
		require.NoError(t, err)
		now, err := os.ReadFile("contracts/" + file.Name())
		require.NoError(t, err, "a released contract is gone")
		problems, err := Compatible(released, now)
		require.NoError(t, err)
		require.Empty(t, problems, file.Name())
	}
}

func TestCompatible(t *testing.T) {
	t.Parallel()
	c, err := ContractFor("payment", 1)
	require.NoError(t, err)
	for name, tc := range map[string]struct{ from, to, want string }{
		"removed":          {`"method":`, `"way":`, "/method removed"},
		"new and required": {`"required": ["tenant", "system", "source_id", "direction"`, `"required": ["tenant", "system", "source_id", "method", "direction"`, "/method required"},
		"optional now":     {`"allocations"],`, `"unapplied"],`, "/unapplied required,/allocations required"},
		"narrower enum":    {`"enum": ["posted", "void"]`, `"enum": ["posted"]`, "/status enum"},
		"wider enum":       {`"enum": ["posted", "void"]`, `"enum": ["posted", "void", "pending"]`, ""},
		"pattern":          {`{0,14}`, `{0,12}`, "/amount/amount pattern,/unapplied/amount pattern,/allocations/*/amount/amount pattern"},
		"bounds":           {`"maxLength": 256}`, `"maxLength": 255}`, "/source_id bounds,/contact_id bounds,/reference bounds,/allocations/*/target_id bounds"},
		"kind":             {`"reference": {"title": "Reference", "description": "Bank reference, cheque number or the like.", "type": "string", "minLength": 1, "maxLength": 256}`, `"reference": {"type": "integer"}`, "/reference kind"},
		"words":            {`"description": "How it was paid`, `"description": "The way it was paid`, ""},
		"new and optional": {`"method":`, `"fee": {"type": "string"}, "method":`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, string(c.Schema), tc.from)
			next := strings.ReplaceAll(string(c.Schema), tc.from, tc.to)
			problems, err := Compatible(c.Schema, []byte(next))
			require.NoError(t, err)
			var got []string
			for _, p := range problems {
				got = append(got, p.Path+" "+p.Code)
			}
			require.Equal(t, tc.want, strings.Join(got, ","))
		})
	}
}

// TestSchema_RefusesWhatItCannotCheck: a keyword that Check does not know would be a promise without a check.
func TestSchema_RefusesWhatItCannotCheck(t *testing.T) {
	t.Parallel()
	object := func(property string) string {
		return `{"type":"object","additionalProperties":false,"properties":{"p":` + property + `}}`
	}
	for file, want := range map[string]string{
		object(`{"type":"number"}`):                                  `type "number" is not supported`,
		object(`{"type":"string","const":"a"}`):                      "unknown field",
		object(`{"type":"string","pattern":"a"}`):                    "is not anchored",
		object(`{"type":"string","pattern":"^.$"}`):                  "more than ASCII",
		object(`{"type":"string","pattern":"^é$"}`):                  "more than ASCII",
		object(`{"type":"string","pattern":"^[^a]$"}`):               "more than ASCII",
		object(`{"type":"string","pattern":"^(a*)*b{0,900}$"}`):      "more than 255 states",
		object(`{"type":"string","format":"email"}`):                 `format "email" is not supported`,
		object(`{"type":"string","format":"amount"}`):                "is not that of a decimal",
		object(`{"type":"object","properties":{}}`):                  "additionalProperties must be false",
		object(`{"type":"object","additionalProperties":false}`):     "want 1 to 64",
		object(`{"type":"array"}`):                                   "array without items",
		object(`{"$ref":"#/$defs/none"}`):                            "does not name one of $defs",
		object(`{"type":"object","properties":{"q":{"minimum":1}}}`): "unknown field",
		`{"type":"string"}`:                                          "not an object",
		`{} {}`:                                                      "something follows",
		strings.Repeat(`{"type":"array","items":`, 12) + object(`{"type":"boolean"}`) + strings.Repeat("}", 12): "nests deeper",
	} {
		_, err := newContract("test", 1, []byte(file))
		require.ErrorContains(t, err, want, file)
	}
}
