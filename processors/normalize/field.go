package normalize

import (
	"context"
	"errors"
	"strconv"

	"github.com/leat-io/leat/topics"
)

// value is a scalar that a path or expression has given. text is decoded: no quotes, no escapes.
type value struct {
	kind kind
	text []byte
}

func (v value) absent() bool {
	return v.kind == missing || v.kind == null || v.kind == text && len(v.text) == 0
}

func (v value) String() string {
	if v.kind == text || v.kind == number || v.kind == boolean {
		return quote(v.text)
	}
	return v.kind.String()
}

// run is what a handler needs while it works on one record. It is reused from record to record.
type run struct {
	ctx   context.Context //nolint:containedctx // lives for one call of Handle, to stop expressions
	doc   document
	env   topics.Envelope
	vars  map[string]any
	index int64 // of the list's item
}

// getter gives a scalar.
type getter struct {
	path     path
	expr     *expression
	constant *value
	product  []path // of two numbers
}

func (g *getter) String() string {
	switch {
	case g.expr != nil:
		return "the expression"
	case g.constant != nil:
		return "the constant"
	case g.product != nil:
		return "product of " + g.product[0].text + " and " + g.product[1].text
	}
	return "path " + g.path.text
}

func (g *getter) get(r *run, at uint32) (value, error) {
	switch {
	case g.constant != nil:
		return *g.constant, nil
	case g.expr != nil:
		return r.eval(g.expr, at)
	case g.product != nil:
		return r.multiply(g, at)
	}
	return r.doc.scalar(r.doc.find(&g.path, at)), nil
}

// needsPayload reports whether g reads more of a record than its headers.
func (g *getter) needsPayload() bool {
	return g.constant == nil && (g.expr == nil || g.expr.payload)
}

// field writes one value of an output. Which of its parts are set depends on form and on the contract's kind.
type field struct {
	contract *topics.Field
	form     form
	prefix   []byte // "name":
	optional bool
	fallback []byte // default, as JSON; nil if there is none

	from     getter            // scalar; money: the amount
	constant []byte            // formConstant, as JSON
	trim     bool              // text
	values   map[string][]byte // enumeration: to JSON; nil: as it stands
	date     *dateRule
	decimal  decimalRule
	minor    bool   // money: the amount counts minor units of the currency
	currency getter // money

	base   path     // formObject, formEach: where fields and items begin; empty text: where they are
	fields []*field // formObject
	items  []*field // formItems; formEach: exactly one
}

type form uint8

const (
	formScalar form = iota
	formConstant
	formMoney
	formObject
	formEach
	formItems
)

// misfit is an input that does not fit the mapping or its contract.
type misfit struct {
	field string // of the output
	from  string // where it was read
	found string
	want  string
}

func (m *misfit) Error() string {
	s := "field " + m.field + ": found " + m.found
	if m.from != "" {
		s += " (" + m.from + ")"
	}
	return s + ", want " + m.want
}

// within puts name before the field that err is about.
func within(name string, err error) error {
	var m *misfit
	if errors.As(err, &m) && name != "" {
		if m.field != "" && m.field[0] != '[' {
			name += "."
		}
		m.field = name + m.field
	}
	return err
}

// emit appends the field's JSON to dst. ok is false if the field is left out.
func (f *field) emit(r *run, at uint32, dst []byte) (out []byte, ok bool, err error) {
	switch f.form {
	case formConstant:
		return append(dst, f.constant...), true, nil
	case formObject:
		return f.emitObject(r, at, dst)
	case formEach:
		return f.emitEach(r, at, dst)
	case formItems:
		return f.emitItems(r, at, dst)
	case formMoney:
		return f.emitMoney(r, at, dst)
	}
	v, err := f.from.get(r, at)
	if err != nil {
		return dst, false, f.explain(err)
	}
	if f.trim && v.kind == text {
		v.text = trimSpace(v.text)
	}
	if v.absent() && (f.optional || f.fallback != nil) {
		return append(dst, f.fallback...), f.fallback != nil, nil
	}
	if v.kind == missing || v.kind == null {
		return dst, false, f.misfit(v, "a value (the field is required)")
	}
	dst, err = f.convert(v, dst)
	return dst, true, err
}

func (f *field) misfit(v value, want string) error {
	return &misfit{from: f.from.String(), found: v.String(), want: want}
}

func (f *field) explain(err error) error {
	var m *misfit
	if errors.As(err, &m) && m.from == "" {
		m.from = f.from.String()
	}
	return err
}

// convert writes v as the contract's kind asks.
func (f *field) convert(v value, dst []byte) ([]byte, error) {
	if v.kind >= array {
		return dst, f.misfit(v, "a single value")
	}
	if f.values != nil {
		to, ok := f.values[string(v.text)]
		switch {
		case ok:
			return append(dst, to...), nil
		case f.fallback != nil:
			return append(dst, f.fallback...), nil
		}
		return dst, f.misfit(v, "one of the values of the mapping; add it to values, or a default")
	}
	switch f.contract.Kind {
	case topics.KindDecimal:
		return f.number(v, dst, f.decimal)
	case topics.KindDate:
		return f.day(v, dst)
	case topics.KindBool:
		if v.kind != boolean {
			return dst, f.misfit(v, "true or false")
		}
		return append(dst, v.text...), nil
	case topics.KindInt:
		n, err := strconv.ParseInt(string(v.text), 10, 64)
		if err != nil {
			return dst, f.misfit(v, "a whole number")
		}
		return strconv.AppendInt(dst, n, 10), nil
	default:
		if v.kind == number && !plainNumber(v.text) {
			return dst, f.misfit(v, "text, or a number without exponent")
		}
		if v.kind == boolean {
			return dst, f.misfit(v, "text")
		}
		return appendText(dst, v.text), nil
	}
}

func plainNumber(s []byte) bool {
	for _, c := range s {
		if c == 'e' || c == 'E' {
			return false
		}
	}
	return true
}

func (f *field) number(v value, dst []byte, rule decimalRule) ([]byte, error) {
	if v.kind == boolean {
		return dst, f.misfit(v, "a decimal number")
	}
	dst = append(dst, '"')
	out, err := appendDecimal(dst, v.text, rule)
	if err != nil {
		return dst, f.misfit(v, err.Error())
	}
	return append(out, '"'), nil
}

func (f *field) day(v value, dst []byte) ([]byte, error) {
	t, err := f.date.parse(string(v.text))
	if err != nil {
		return dst, f.misfit(v, err.Error())
	}
	y, m, d := t.Date()
	if y < 1900 || y > 2199 {
		return dst, f.misfit(v, "a date of the years 1900 to 2199")
	}
	return append(dst, '"', digit(y/1000), digit(y/100), digit(y/10), digit(y), '-', digit(int(m)/10), digit(int(m)), '-',
		digit(d/10), digit(d), '"'), nil
}

func digit(n int) byte { return byte('0' + n%10) }

func (f *field) emitMoney(r *run, at uint32, dst []byte) ([]byte, bool, error) {
	amount, err := f.from.get(r, at)
	if err != nil {
		return dst, false, f.explain(err)
	}
	if amount.absent() && f.optional {
		return dst, false, nil
	}
	if amount.absent() || amount.kind >= array {
		return dst, false, f.misfit(amount, "an amount")
	}
	code, err := f.currency.get(r, at)
	if err != nil {
		return dst, false, within("currency", err)
	}
	places, known := topics.CurrencyPlaces(string(code.text))
	if code.kind != text || !known {
		return dst, false, &misfit{"currency", f.currency.String(), code.String(), "a currency's code by ISO 4217, such as BRL"}
	}
	rule := f.decimal
	rule.least, rule.most = places, f.contract.Places
	if f.contract.MinorUnits {
		rule.most = places
	}
	if f.minor {
		rule.shift = places
	}
	if dst, err = f.number(amount, append(dst, `{"amount":`...), rule); err != nil {
		return dst, false, within("amount", err)
	}
	dst = append(dst, `,"currency":"`...)
	dst = append(dst, code.text...)
	return append(dst, `"}`...), true, nil
}
