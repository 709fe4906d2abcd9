package topics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const sampleInvoice = `{"tenant":"acme","system":"shop","source_id":"98","type":"invoice","contact_id":"1",` +
	`"issue_date":"2026-11-23","currency":"USD","status":"open","lines":[` +
	`{"id":"531","description":"Walk On","quantity":"1","unit_price":{"amount":"1.99","currency":"USD"},` +
	`"total":{"amount":"1.99","currency":"USD"}},` +
	`{"id":"532","description":"Koyaanisqatsi","quantity":"1","unit_price":{"amount":"1.99","currency":"USD"},` +
	`"total":{"amount":"1.99","currency":"USD"}}],"total":{"amount":"3.98","currency":"USD"}}`

const samplePayment = `{"tenant":"acme","system":"shop","source_id":"9","direction":"received","contact_id":"1",` +
	`"date":"2026-11-23","status":"posted","amount":{"amount":"10.00","currency":"BRL"},` +
	`"unapplied":{"amount":"2.50","currency":"BRL"},"allocations":[` +
	`{"target_type":"invoice","target_id":"98","amount":{"amount":"7.50","currency":"BRL"}}]}`

const sampleContact = `{"tenant":"acme","system":"shop","source_id":"1","kinds":["customer","vendor"],` +
	`"display_name":"Luís","status":"active","address":{"city":"São José","country":"BR"}}`

// everyKind has what the finance contracts do not use yet: booleans, integers, deeper nesting.
const everyKind = `{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"urn:test","type":"object",
	"additionalProperties":false,"required":["n"],"properties":{
	"n":{"type":"integer"},"b":{"type":"boolean"},"s":{"type":"string","maxLength":3},"e":{"type":"string","enum":["a","b c"]},
	"d":{"type":"string","format":"date"},
	"l":{"type":"array","minItems":1,"maxItems":3,"items":{"type":"array","items":{"type":"object","additionalProperties":false,
	"properties":{"x/y":{"type":"boolean"},"p":{"type":"string","pattern":"^(a|b{2,3})+c?$"}}}}}}}`

// validator is a general JSON Schema validator: what Check must agree with.
func validator(tb testing.TB, schema []byte) *jsonschema.Schema {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	require.NoError(tb, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(tb, c.AddResource("urn:schema", doc))
	s, err := c.Compile("urn:schema")
	require.NoError(tb, err)
	return s
}

type pair struct {
	contract *Contract
	schema   *jsonschema.Schema
}

func pairs(tb testing.TB) []pair {
	tb.Helper()
	var ps []pair
	for _, entity := range Entities() {
		c, err := ContractFor(entity, 1)
		require.NoError(tb, err)
		ps = append(ps, pair{c, validator(tb, c.Schema)})
	}
	c, err := newContract("test", 1, []byte(everyKind))
	require.NoError(tb, err)
	return append(ps, pair{c, validator(tb, c.Schema)})
}

// agree holds Check against the general validator, allowing for where Check is documented to be stricter.
func (p pair) agree(t require.TestingT, doc []byte) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err == nil {
		err = p.schema.Validate(v)
	}
	got := p.contract.Check(doc)
	if err != nil {
		require.Error(t, got, "%s\nthe schema refuses: %v", doc, err)
		return
	}
	if why := stricter(doc); why != "" {
		require.Error(t, got, "%s\nwant it refused: %s", doc, why)
		return
	}
	require.NoError(t, got, "%s\nthe schema accepts it", doc)
}

// stricter says why Check refuses a document that the schema accepts.
func stricter(doc []byte) string {
	switch {
	case !utf8.Valid(doc):
		return "invalid UTF-8"
	case repeats(json.NewDecoder(bytes.NewReader(doc))):
		return "a property occurs twice"
	case badEscape(doc):
		return "U+0000 or an unpaired surrogate"
	case strangeNumber(doc):
		return "an integer with point, exponent or more than 64 bits"
	}
	return ""
}

func repeats(dec *json.Decoder) bool {
	tok, err := dec.Token()
	if err != nil {
		return false
	}
	d, ok := tok.(json.Delim)
	if !ok {
		return false
	}
	seen := map[string]bool{}
	for dec.More() {
		if d == '{' {
			key, err := dec.Token()
			if err != nil {
				return false
			}
			name, _ := key.(string)
			if seen[name] {
				return true
			}
			seen[name] = true
		}
		if repeats(dec) {
			return true
		}
	}
	_, _ = dec.Token()
	return false
}

// badEscape looks at escape sequences the slow way: a decoded U+FFFD or U+0000 that does not stand in the text itself.
func badEscape(doc []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(doc))
	decoded := 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) || err != nil {
			break
		}
		if s, ok := tok.(string); ok {
			if strings.Contains(s, "\x00") {
				return true
			}
			decoded += strings.Count(s, "\uFFFD")
		}
	}
	honest := strings.Count(string(doc), "\uFFFD") + strings.Count(strings.ToLower(string(doc)), `\ufffd`)
	return decoded > honest
}

func strangeNumber(doc []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	for {
		tok, err := dec.Token()
		if err != nil {
			return false
		}
		if n, ok := tok.(json.Number); ok {
			if _, err := n.Int64(); err != nil {
				return true
			}
		}
	}
}

func TestContract_CheckAgreesWithTheSchema(t *testing.T) {
	t.Parallel()
	ps := pairs(t)
	for i, doc := range []string{sampleContact, sampleInvoice, samplePayment, `{"n":7,"b":true,"l":[[{"x/y":false,"p":"abbc"}]]}`} {
		require.NoError(t, ps[i].contract.CheckRules([]byte(doc)))
		for _, p := range ps {
			p.agree(t, []byte(doc))
		}
		// Every document that lacks a byte, or has another byte in its place.
		for at := range len(doc) {
			ps[i].agree(t, slices.Concat([]byte(doc[:at]), []byte(doc[at+1:])))
			for _, b := range []byte("0\"\\,}x-\x00\xff ") {
				m := []byte(doc)
				m[at] = b
				ps[i].agree(t, m)
			}
		}
	}
	for _, doc := range corpus() {
		for _, p := range ps {
			p.agree(t, []byte(doc))
		}
	}
}

func corpus() []string {
	docs := []string{
		"", " ", "null", "[]", "{}", `""`, "{} {}", `{"n":1}`, "\ufeff{\"n\":1}", "{\"n\":1}\n\t ", `{"n":1,"n":2}`, `{"b":true,"n":1,"b":true}`, `{"n":1,"\u006e":2}`, `{"\u006e":1}`,
		`{"n":1.0}`, `{"n":1e2}`, `{"n":9223372036854775807}`, `{"n":9223372036854775808}`, `{"n":-0}`, `{"n":-9223372036854775808}`,
		`{"n":1E400}`, `{"n":01}`, `{"n":+1}`, `{"n":-}`, `{"n":1.5}`, `{"n":"1"}`, `{"n":null}`, `{"n":true}`, `{"n":tru}`, `{"n":1,"b":nul}`,
		`{"n":1,"s":"\ud83d\ude00ab"}`, `{"n":1,"s":"\ud83d"}`, `{"n":1,"s":"\ude00"}`, `{"n":1,"s":"\u0000"}`, `{"n":1,"s":"\ufffd"}`,
		`{"n":1,"s":"\ud83dx"}`, `{"n":1,"s":"\ud83d\u0041"}`, `{"n":1,"s":"😀😀😀"}`, `{"n":1,"s":"😀😀😀😀"}`, `{"n":1,"s":"\x41"}`, `{"n":1,"s":"\u12"}`,
		"{\"n\":1,\"s\":\"\xff\"}", "{\"n\":1,\"s\":\"\xed\xa0\x80\"}", "{\"n\":1,\"s\":\"\n\"}", "{\"n\":1,\"s\":\"\x7f\"}",
		`{"n":1,"e":"\u0061"}`, `{"n":1,"e":"b c"}`, `{"n":1,"e":"c"}`, `{"n":1,"e":""}`, `{"n":1,"e":0}`,
		`{"n":1,"d":"2026-02-29"}`, `{"n":1,"d":"2024-02-29"}`, `{"n":1,"d":"1900-02-29"}`, `{"n":1,"d":"2000-02-29"}`, `{"n":1,"d":"2026-2-1"}`,
		`{"n":1,"d":"2026-04-31"}`, `{"n":1,"d":"0000-01-01"}`, `{"n":1,"d":"2026-00-01"}`, `{"n":1,"d":"2026-01-00"}`, `{"n":1,"d":"2026-13-01"}`, `{"n":1,"d":"2026\u002d01-01"}`, `{"n":1,"d":"+026-01-01"}`,
		`{"n":1,"l":[]}`, `{"n":1,"l":[[]]}`, `{"n":1,"l":[[],[],[],[]]}`, `{"n":1,"l":[[{"p":"a"},{"p":"b"},{"p":"bbbbbc"}]]}`, `{"n":1,"l":[[{"p":""}]]}`,
		`{"n":1,"l":[[{"p":"a\n"}]]}`, `{"n":1,"l":[,]}`, `{"n":1,"l":[[],]}`, `{"n":1,}`, `{,"n":1}`, `{"n" 1}`, `{"n":1 "b":true}`, `{"n":1]`, `{n:1}`,
		`{"n":1,"unknown":{"a":[1,{"b":"}"}]}}`, strings.Repeat("[", 10_000), `{"n":1,"unknown":` + strings.Repeat(`{"a":`, 5_000),
	}
	for _, amount := range []string{"0", "-0", "-0.00", "+1", "01", "1.", ".5", "1e3", "1.12345", "1.1234", "NaN", "Infinity", "", " 1", "1 ", "1\\n", "123456789012345", "1234567890123456", "１", "1,5"} {
		docs = append(docs, strings.Replace(samplePayment, `"10.00"`, `"`+amount+`"`, 1))
	}
	return docs
}

// TestContract_CheckAgreesOnRandomDocuments draws documents that follow the shape, with faults here and there.
func TestContract_CheckAgreesOnRandomDocuments(t *testing.T) {
	t.Parallel()
	ps := pairs(t)
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(ps).Draw(t, "contract")
		var b bytes.Buffer
		faults := rapid.SampledFrom([]int{0, 0, 20, 100}).Draw(t, "faults")
		drawValue(t, &b, &Field{Kind: KindObject, Shape: p.contract.Shape}, faults)
		p.agree(t, b.Bytes())
	})
}

// drawValue writes a value for f. One in faults choices goes wrong; 0 is never.
func drawValue(t *rapid.T, b *bytes.Buffer, f *Field, faults int) {
	if faults > 0 && rapid.IntRange(1, faults).Draw(t, "fault") == 1 {
		b.WriteString(rapid.SampledFrom([]string{
			"null", "true", "12", "1e5", `""`, `"x"`, "{}", "[]", `"2026-02-30"`, `"1.23456"`, `{"amount":"1","currency":"usd"}`,
		}).Draw(t, "wrong"))
		return
	}
	switch f.Kind {
	case KindObject, KindMoney:
		drawObject(t, b, f.Shape, faults)
	case KindList:
		n := rapid.IntRange(f.MinItems, min(f.MinItems+2, 5)).Draw(t, "items")
		b.WriteByte('[')
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			drawValue(t, b, f.Item, faults)
		}
		b.WriteByte(']')
	case KindBool:
		fmt.Fprint(b, rapid.Bool().Draw(t, "bool"))
	case KindInt:
		fmt.Fprint(b, rapid.Int64().Draw(t, "int"))
	default:
		drawText(t, b, f)
	}
}

func drawText(t *rapid.T, b *bytes.Buffer, f *Field) {
	var s string
	switch {
	case f.Enum != nil:
		s = rapid.SampledFrom(f.Enum).Draw(t, "enum")
	case f.Kind == KindDate:
		s = fmt.Sprintf("%d-%02d-%02d", rapid.IntRange(1899, 2201).Draw(t, "year"), rapid.IntRange(1, 12).Draw(t, "month"), rapid.IntRange(1, 31).Draw(t, "day"))
	case f.Pattern != "":
		s = rapid.StringMatching(f.Pattern).Draw(t, "pattern")
	default:
		s = rapid.StringN(0, 6, -1).Draw(t, "text")
	}
	out, err := json.Marshal(s)
	require.NoError(t, err)
	if rapid.IntRange(1, 10).Draw(t, "escape") == 1 && s != "" && s[0] < 128 {
		out = slices.Concat([]byte(fmt.Sprintf(`"\u%04X`, s[0])), bytes.TrimPrefix(mustMarshal(s[1:]), []byte{'"'}))
	}
	b.Write(out)
}

func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func drawObject(t *rapid.T, b *bytes.Buffer, s *Shape, faults int) {
	order := make([]int, len(s.Fields))
	for i := range order {
		order[i] = i
	}
	if rapid.Bool().Draw(t, "shuffle") {
		order = rapid.Permutation(order).Draw(t, "order")
	}
	b.WriteByte('{')
	first := true
	property := func(name string) {
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.Write(mustMarshal(name))
		b.WriteString(rapid.SampledFrom([]string{":", " : ", ":\n"}).Draw(t, "colon"))
	}
	for _, i := range order {
		f := &s.Fields[i]
		if !f.Required && rapid.Bool().Draw(t, "omit") || faults > 0 && rapid.IntRange(1, faults).Draw(t, "lose") == 1 {
			continue
		}
		property(f.Name)
		drawValue(t, b, f, faults)
		if faults > 0 && rapid.IntRange(1, faults).Draw(t, "twice") == 1 {
			property(rapid.SampledFrom([]string{f.Name, "other", ""}).Draw(t, "extra"))
			b.WriteString("1")
		}
	}
	b.WriteByte('}')
}

func FuzzContract_Check(f *testing.F) {
	ps := pairs(f)
	for _, doc := range append(corpus(), sampleContact, sampleInvoice, samplePayment) {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, p := range ps {
			p.agree(t, doc)
			_ = p.contract.CheckRules(doc) // must not panic
		}
	})
}

func TestContract_CheckSaysWhereAndWhat(t *testing.T) {
	t.Parallel()
	c, err := ContractFor("invoice", 1)
	require.NoError(t, err)
	doc := strings.NewReplacer(`"amount":"1.99","currency":"USD"}}],`, `"amount":1.99,"currency":"USD"}}],`,
		`"type":"invoice"`, `"type":"receipt","a/b":1`, `"source_id":"98",`, "").Replace(sampleInvoice)
	var ce *ContractError
	require.ErrorAs(t, c.Check([]byte(doc)), &ce)
	require.Equal(t, []Problem{
		{"/type", "enum", "want invoice or bill or credit_note, found receipt"},
		{"/a~1b", "unknown_property", "the contract has no such property; found 1"},
		{"/lines/1/total/amount", "type", "want text (decimal), found number 1.99"},
		{"/source_id", "missing", "is required and missing"},
	}, ce.Problems)
	require.ErrorAs(t, c.Check([]byte(sampleInvoice[:300])), &ce)
	require.Contains(t, ce.Error(), "at byte 300")
	require.ErrorAs(t, c.Check([]byte(`{"lines":[`+strings.Repeat("1,", 50)+`1]}`)), &ce)
	require.Len(t, ce.Problems, maxProblems)
}

func TestContract_CheckDoesNotAllocate(t *testing.T) {
	c, err := ContractFor("invoice", 1)
	require.NoError(t, err)
	doc := []byte(strings.Replace(sampleInvoice, "Walk On", `Walk \"On\"\nSão`, 1))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = c.CheckRules(doc) }))
}

func TestContractFor_UnknownContract(t *testing.T) {
	t.Parallel()
	for _, entity := range []string{"journal", "../doc", "", "released/contact"} {
		_, err := ContractFor(entity, 1)
		require.ErrorContains(t, err, "no contract")
	}
	_, err := ContractFor("invoice", 2)
	require.ErrorContains(t, err, "no contract")
}

func BenchmarkContract(b *testing.B) {
	c, err := ContractFor("invoice", 1)
	require.NoError(b, err)
	doc := []byte(sampleInvoice)
	for name, check := range map[string]func([]byte) error{"Check": c.Check, "CheckRules": c.CheckRules} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				if err := check(doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
