package normalize_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/topics"
)

// kitchen uses every kind of mapping at once.
const kitchen = `
source: {system: erp, entity: deal}
where:
  - {reason: test_record, path: test, not_in: [true]}
  - {reason: no_amount, expr: 'has(payload.amount) && decimal(payload.amount) > 0'}
outputs:
  - to: contact
    source_id: {expr: '"c-" + key'}
    when: {path: customer.name, exists: true}
    fields:
      kinds:
        each: kinds
        item: {path: ., values: {C: customer, V: vendor}, default: customer}
      display_name: {path: customer.name, trim: true}
      status: {path: customer.active, values: {true: active, false: inactive}, default: active}
      address: {path: customer.address, optional: true, fields: {city: {path: city, optional: true}, country: {const: BR}}}
  - to: payment
    currency: currency
    fields:
      direction: {const: received}
      contact_id: {expr: '"c-" + key'}
      date: {path: paid, format: unix_ms, zone: America/Sao_Paulo}
      status: {const: posted}
      amount: {amount: amount, minor_units: true}
      allocations:
        items:
          - fields: {target_type: {const: invoice}, target_id: invoice, amount: {amount: amount, scale: 2, round: half_even}}
`

const deal = `{"test":false,"amount":12345,"currency":"BRL","paid":1763950000000,"invoice":77,"kinds":["C","V"],` +
	`"customer":{"name":" Zé \"Bar\"\n","address":{"city":"Recife"}}}`

func one(t *testing.T, set *normalize.Set, m processors.Message) processors.Result {
	t.Helper()
	res := normalize.New(set).Handle(t.Context(), []processors.Message{m})
	require.Len(t, res, 1)
	return res[0]
}

func TestHandle_MakesManyOutputsOfOneInput(t *testing.T) {
	t.Parallel()
	in := message("erp", "deal", "9/1", topics.Upsert, deal)
	res := one(t, load(t, kitchen), in)
	require.NoError(t, res.Err)
	require.Equal(t, normalize.Normalized, res.Outcome)
	require.Len(t, res.Outputs, 2)
	contact := `{"tenant":"acme","system":"erp","source_id":"c-9/1","kinds":["customer","vendor"],` +
		`"display_name":"Zé \"Bar\"","status":"active","address":{"city":"Recife","country":"BR"}}`
	require.Equal(t, []byte(contact), res.Outputs[0].Value, "byte for byte: %s", res.Outputs[0].Value)
	payment := `{"tenant":"acme","system":"erp","source_id":"9/1","direction":"received","contact_id":"c-9/1",` +
		`"date":"2025-11-23","status":"posted","amount":{"amount":"123.45","currency":"BRL"},"allocations":[{"target_type":"invoice",` +
		`"target_id":"77","amount":{"amount":"123.45","currency":"BRL"}}]}`
	require.Equal(t, []byte(payment), res.Outputs[1].Value, "byte for byte: %s", res.Outputs[1].Value)

	was, err := topics.DecodeEnvelope(in.Headers)
	require.NoError(t, err)
	for i, kind := range []string{"finance.contact.v1", "finance.payment.v1"} {
		out := res.Outputs[i]
		env, err := topics.DecodeEnvelope(out.Headers)
		require.NoError(t, err)
		want := was
		want.ID, want.Kind, want.Subject = topics.OutputID(was.ID, i), kind, []string{"c-9/1", "9/1"}[i]
		want.DataSchema = "urn:leat:contract:" + kind
		require.Equal(t, want, env)
		require.Equal(t, kind, out.Topic)
		require.Equal(t, "acme/erp/"+want.Subject, string(out.Key))
	}
	again := one(t, load(t, kitchen), in)
	require.Equal(t, res, again, "a replay gives the same bytes")
}

func TestHandle_FiltersWithReason(t *testing.T) {
	t.Parallel()
	set := load(t, kitchen)
	for payload, reason := range map[string]string{
		`{"test":true}`: "test_record",
		`{"amount":0}`:  "no_amount",
		`{}`:            "no_amount",
	} {
		res := one(t, set, message("erp", "deal", "1", topics.Upsert, payload))
		require.NoError(t, res.Err)
		require.Equal(t, processors.Result{Outcome: normalize.Filtered, Detail: reason}, res)
	}
}

func TestHandle_DeletesEveryOutput(t *testing.T) {
	t.Parallel()
	res := one(t, load(t, kitchen), message("erp", "deal", "1", topics.Delete, ""))
	require.NoError(t, res.Err)
	require.Equal(t, normalize.Deleted, res.Outcome)
	require.Len(t, res.Outputs, 2)
	for i, key := range []string{"acme/erp/c-1", "acme/erp/1"} {
		require.Nil(t, res.Outputs[i].Value)
		require.Equal(t, key, string(res.Outputs[i].Key))
		env, err := topics.DecodeEnvelope(res.Outputs[i].Headers)
		require.NoError(t, err)
		require.Equal(t, topics.Delete, env.Operation)
	}

	byPath := load(t, strings.Replace(kitchen, `{expr: '"c-" + key'}`, "customer.id", 1))
	res = one(t, byPath, message("erp", "deal", "1", topics.Delete, ""))
	require.Equal(t, "delete", processors.Code(res.Err))
	require.ErrorContains(t, res.Err, "outputs[0].source_id: reads the payload (path customer.id), and the deletion carries none")
	res = one(t, byPath, message("erp", "deal", "1", topics.Delete, `{"customer":{"id":"x7"}}`))
	require.NoError(t, res.Err)
	require.Equal(t, "acme/erp/x7", string(res.Outputs[0].Key))
}

func TestHandle_NamesFieldFoundAndWanted(t *testing.T) {
	t.Parallel()
	set := load(t, benchMapping)
	long := strings.Repeat("9", 500)
	for _, c := range []struct{ from, to, code, want string }{
		{`"qty":"10"`, `"qty":"ten"`, "mapping", `finance.invoice.v1: field lines[0].quantity: found "ten" (path qty), want a decimal number such as -1234.50`},
		{`"price":18.25`, `"price":1.825e1`, "mapping", `field lines[1].unit_price.amount: found "1.825e1" (path price), want plain digits, without exponent`},
		{`"total":"3000.00"`, `"total":"3000.001"`, "mapping", `want at most 2 decimal places where it has 3; declare round: half_even`},
		{`"total":"3000.00"`, `"total":` + long, "mapping", "want at most 60 digits"},
		{`"total":"3000.00"`, `"total":"` + long[:20] + `"`, "contract", "/total/amount: want a decimal number of at most 15 digits"},
		{`"total":"3000.00"`, `"total":NaN`, "decode", "found \"NaN"},
		{`"total":"3000.00"`, `"total":"NaN"`, "mapping", `found "NaN" (path total), want a decimal`},
		{`"currency":"BRL"`, `"currency":"brl"`, "mapping", `found "brl" (path $.currency), want a currency's code by ISO 4217`},
		{`"status":"open"`, `"status":"lost"`, "mapping", `field status: found "lost" (path status), want one of the values of the mapping`},
		{`2026-11-23T01:15:00Z`, `23/11/2026`, "mapping", `field issue_date: found "23/11/2026" (path issued_at), want a date of the form 2006-01-02T15:04:05`},
		{`"lines":[`, `"lines":{},"rest":[`, "mapping", `field lines: found an object (path lines), want a list`},
		{`"number":"2026-000918273"`, `"number":["a"]`, "mapping", `field number: found a list (path number), want a single value`},
		{`"number":"2026-000918273"`, `"number":1,"number":2`, "decode", `key "number" occurs twice`},
		{`Entrega`, `En\u0000trega`, "decode", "a NUL character"},
		{`Entrega`, `En\ud800trega`, "decode", "half a surrogate pair"},
		{`Entrega`, "En\xfftrega", "decode", "is not UTF-8"},
		{`Entrega`, "En\x00trega", "decode", "control character 0x00"},
		{`"id":918273`, `"id":` + strings.Repeat("[", 200) + strings.Repeat("]", 200), "decode", "nested deeper than 64"},
		{`"id":3`, `"id":1`, "contract", "/lines/2/id: another line has the id 1 too"},
		{`"id":1,`, ``, "mapping", `field lines[0].id: found nothing (path id), want a value (the field is required)`},
	} {
		payload := strings.Replace(benchInvoice, c.from, c.to, 1)
		require.NotEqual(t, benchInvoice, payload, c.from)
		res := one(t, set, message("erp", "invoice", "1", topics.Upsert, payload))
		require.ErrorContains(t, res.Err, c.want)
		require.Equal(t, c.code, processors.Code(res.Err), "%v", res.Err)
		require.Less(t, len(res.Err.Error()), 400)
		require.Empty(t, res.Outputs)
	}
}

func TestHandle_RefusesRecordsOfAnotherTopicOrKey(t *testing.T) {
	t.Parallel()
	set := load(t, benchMapping)
	for want, spoil := range map[string]func(*processors.Message){
		"no mapping reads topic source.erp.order":    func(m *processors.Message) { m.Topic = "source.erp.order" },
		`key: found "acme/erp/2", want "acme/erp/1"`: func(m *processors.Message) { m.Key = []byte("acme/erp/2") },
		"header ce_id: is missing":                   func(m *processors.Message) { m.Headers = m.Headers[2:] },
		"found source.order of system erp, want source.invoice": func(m *processors.Message) {
			m.Headers = message("erp", "order", "1", topics.Upsert, "").Headers
		},
	} {
		m := message("erp", "invoice", "1", topics.Upsert, benchInvoice)
		spoil(&m)
		require.ErrorContains(t, one(t, set, m).Err, want)
	}
}

func TestHandle_StopsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := []processors.Message{message("erp", "invoice", "1", topics.Upsert, benchInvoice)}
	res := normalize.New(load(t, benchMapping)).Handle(ctx, batch)
	require.Len(t, res, 1)
	require.ErrorIs(t, res[0].Err, context.Canceled)
}

func TestHandle_BoundsWhatAnExpressionCosts(t *testing.T) {
	t.Parallel()
	set := load(t, strings.Replace(kitchen, "has(payload.amount)", "payload.xs.all(x, payload.xs.all(y, x != y + 1000000))", 1))
	xs := strings.TrimSuffix(strings.Repeat("1,", 2000), ",")
	res := one(t, set, message("erp", "deal", "1", topics.Upsert, `{"xs":[`+xs+`]}`))
	require.Equal(t, "mapping", processors.Code(res.Err))
	require.ErrorContains(t, res.Err, "cost limit")
}

// TestHandle_BoundsWhatAnExpressionMakes: each of these filled the memory, for a few units of cost.
func TestHandle_BoundsWhatAnExpressionMakes(t *testing.T) {
	t.Parallel()
	list := strings.TrimSuffix(strings.Repeat(`"z",`, 2000), ",")
	small, large := strings.Repeat("a", 20_000), strings.Repeat("a", 100_000)
	for name, c := range map[string]struct{ expr, text, want string }{
		"replace":          {`payload.a.replace("", payload.a) == ""`, small, "longer than 1048576 bytes"},
		"join":             {`payload.l.join(payload.a) == ""`, small, "longer than 1048576 bytes"},
		"sums":             {`payload.l.map(x, payload.a + payload.a).size() == 1`, small, "cost limit"},
		"sums of lists":    {`payload.l.map(x, payload.l + payload.l).size() == 1`, small, "cost limit"},
		"formatting":       {`"` + strings.Repeat("%s", 200) + `".format([` + strings.TrimSuffix(strings.Repeat("payload.a,", 200), ",") + `]) == ""`, small, "cost limit"},
		"text of a record": {`payload.a == "x"`, large, "a text of 100000 bytes, want at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expr := strings.ReplaceAll(c.expr, "'", "''")
			set := load(t, strings.Replace(kitchen, "has(payload.amount) && decimal(payload.amount) > 0", expr, 1))
			res := one(t, set, message("erp", "deal", "1", topics.Upsert, `{"a":"`+c.text+`","l":[`+list+`]}`))
			require.Equal(t, "mapping", processors.Code(res.Err))
			require.ErrorContains(t, res.Err, "where.no_amount")
			require.ErrorContains(t, res.Err, c.want)
		})
	}
}

func TestHandle_ReplacesAndJoins(t *testing.T) {
	t.Parallel()
	for expr, holds := range map[string]bool{
		`"a-b-c".replace("-", "+") == "a+b+c"`:    true,
		`"a-b-c".replace("-", "+", 1) == "a+b-c"`: true,
		`"a-b-c".replace("-", "+", 0) == "a-b-c"`: true,
		`"ab".replace("", ".") == ".a.b."`:        true,
		`["a", "b"].join() == "ab"`:               true,
		`["a", "b"].join(", ") == "a, b"`:         true,
		`payload.l.join("") == "xy"`:              true,
		`payload.l.join("") == "yx"`:              false,
	} {
		set := load(t, strings.Replace(kitchen, "has(payload.amount) && decimal(payload.amount) > 0", expr, 1))
		res := one(t, set, message("erp", "deal", "1", topics.Upsert, strings.Replace(deal, "{", `{"l":["x","y"],`, 1)))
		require.NoError(t, res.Err, expr)
		require.Equal(t, holds, res.Outcome == normalize.Normalized, expr)
	}
}

// TestHandle_RefusesHostilePayloads names what is wrong and where, and stays quick.
func TestHandle_RefusesHostilePayloads(t *testing.T) {
	t.Parallel()
	set := load(t, kitchen)
	with := func(field string) string { return strings.Replace(deal, `"amount":12345`, field, 1) }
	for name, c := range map[string]struct{ payload, want string }{
		"deep lists":         {`{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, "nested deeper than 64"},
		"deep objects":       {strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), "nested deeper than 64"},
		"never closed":       {strings.Repeat("[", 100_000), "nested deeper than 64"},
		"huge exponent":      {with(`"amount":1e1000000`), "1e1000000"},
		"1,000 digits":       {with(`"amount":` + strings.Repeat("9", 1000)), "at most 60 digits"},
		"1,000 places":       {with(`"amount":0.` + strings.Repeat("9", 1000)), "at most 60 digits"},
		"duplicate key":      {with(`"amount":1,"amount":2`), "amount"},
		"duplicate, escaped": {with(`"amount":1,"\u0061mount":2`), "amount"},
		"not UTF-8":          {with("\"amount\":1,\"x\":\"\xff\""), "is not UTF-8"},
		"NUL":                {with(`"amount":1,"x":"\u0000"`), "NUL"},
		"half a surrogate":   {with(`"amount":1,"x":"\ud800"`), "half a surrogate pair"},
		"surrogates swapped": {with(`"amount":1,"x":"\udc00\ud800"`), "half a surrogate pair"},
		"a raw control":      {with("\"amount\":1,\"x\":\"\x1b[2J\""), "control character 0x1b"},
		"nothing":            {``, "the record ends"},
		"not JSON":           {`=cmd|'/c calc'!A0`, "want a JSON value"},
		"a second value":     {deal + `{}`, "want the end of the record"},
		"NaN":                {with(`"amount":NaN`), "want a JSON value"},
		"text for an amount": {with(`"amount":"'; drop table reporting.invoices; --"`), "drop table"},
		"17 MiB":             {`{"a":"` + strings.Repeat("x", 17<<20) + `"}`, "want at most 16777216"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := one(t, set, message("erp", "deal", "1", topics.Upsert, c.payload))
			require.Equal(t, "permanent", processors.Class(res.Err))
			require.ErrorContains(t, res.Err, c.want)
			require.Less(t, len(res.Err.Error()), 1000, "the message shows what was found, not all of it")
			require.True(t, utf8.ValidString(res.Err.Error()))
		})
	}
}

// schemas compiles the contracts' files with an independent validator.
func schemas(tb testing.TB) map[string]*jsonschema.Schema {
	tb.Helper()
	out := map[string]*jsonschema.Schema{}
	for _, entity := range topics.Entities() {
		contract, err := topics.ContractFor(entity, 1)
		require.NoError(tb, err)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(contract.Schema))
		require.NoError(tb, err)
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		require.NoError(tb, c.AddResource("schema.json", doc))
		out[contract.Topic()], err = c.Compile("schema.json")
		require.NoError(tb, err)
	}
	return out
}

// agree fails if a result is not one that the stage may give.
func agree(t interface{ Fatalf(string, ...any) }, schemas map[string]*jsonschema.Schema, res processors.Result) {
	if res.Err != nil {
		if processors.Code(res.Err) == "unknown" || len(res.Outputs) > 0 || !utf8.ValidString(res.Err.Error()) {
			t.Fatalf("not a permanent failure of the stage: %v", res.Err)
		}
		return
	}
	for _, out := range res.Outputs {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(out.Value))
		if err == nil {
			err = schemas[out.Topic].Validate(doc)
		}
		var compact bytes.Buffer
		if err == nil && (json.Compact(&compact, out.Value) != nil || !bytes.Equal(compact.Bytes(), out.Value)) {
			err = errors.New("not compact")
		}
		if err != nil {
			t.Fatalf("output %s breaks its schema: %v", out.Value, err)
		}
	}
}

func TestHandle_OutputsAgreeWithTheSchema(t *testing.T) {
	t.Parallel()
	h, valid := normalize.New(load(t, benchMapping, kitchen)), schemas(t)
	passed := 0
	rapid.Check(t, func(t *rapid.T) {
		anyText := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "open", "BRL", "JPY", "KWD", "2026-02-29", "é\u2028"}))
		amount := rapid.OneOf(rapid.StringMatching(`-?[0-9]{1,17}(\.[0-9]{1,3})?`), rapid.StringMatching(`-?[0-9]{1,3}\.[0-9]{2}`), anyText)
		maybe := func(name string, good any) any {
			switch rapid.IntRange(0, 30).Draw(t, name) {
			case 0:
				return anyText.Draw(t, name)
			case 1:
				return nil
			case 2:
				return json.Number(rapid.StringMatching(`-?[1-9][0-9]{0,20}(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?`).Draw(t, name))
			case 3:
				return []any{map[string]any{}}
			case 4:
				return amount.Draw(t, name)
			}
			return good
		}
		lines := []any{}
		for i := range rapid.IntRange(0, 3).Draw(t, "lines") {
			lines = append(lines, maybe("line", map[string]any{
				"id": maybe("id", i), "text": maybe("text", anyText.Draw(t, "text")), "qty": maybe("qty", "1.5"),
				"price": maybe("price", amount.Draw(t, "price")), "total": maybe("total", "1.50"),
			}))
		}
		doc, err := json.Marshal(map[string]any{
			"number": maybe("number", "7"), "customer": maybe("customer", map[string]any{"id": maybe("cid", "c1"), "name": maybe("name", anyText.Draw(t, "name"))}),
			"issued_at": maybe("issued", "2026-11-23T01:15:00Z"), "due": maybe("due", "2026-12-23"), "status": maybe("status", "open"),
			"currency": maybe("currency", "BRL"), "total": maybe("total", amount.Draw(t, "total")), "lines": maybe("lines", lines),
			"amount": maybe("amount", 100), "paid": maybe("paid", 1763950000000), "invoice": maybe("invoice", 7), "kinds": maybe("kinds", []string{"C"}),
		})
		require.NoError(t, err)
		for _, entity := range []string{"invoice", "deal"} {
			m := message("erp", entity, rapid.StringMatching(`[a-z/é"]{1,5}`).Draw(t, "key"), topics.Upsert, string(doc))
			res := h.Handle(context.Background(), []processors.Message{m})[0]
			agree(t, valid, res)
			if res.Err == nil {
				passed++
			}
		}
	})
	require.Positive(t, passed)
}

func FuzzHandle(f *testing.F) {
	f.Add([]byte(benchInvoice), "1", false)
	f.Add([]byte(deal), "9/1", false)
	f.Add([]byte(`{"customer":{"name":"\ud83d\ude00"},"amount":1e400}`), "1", true)
	h, valid := normalize.New(load(f, benchMapping, kitchen)), schemas(f)
	f.Fuzz(func(t *testing.T, payload []byte, key string, remove bool) {
		op := topics.Upsert
		if remove {
			op = topics.Delete
		}
		for _, entity := range []string{"invoice", "deal"} {
			m := message("erp", entity, key, op, string(payload))
			res := h.Handle(t.Context(), []processors.Message{m})[0]
			if remove {
				continue
			}
			agree(t, valid, res)
		}
	})
}
