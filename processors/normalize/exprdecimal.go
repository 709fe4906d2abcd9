package normalize

import (
	"errors"
	"reflect"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/cockroachdb/apd/v3"
)

// decimal is an exact number in CEL. It adds, subtracts, multiplies and compares with decimals and ints on its right; an
// int on the left needs decimal(x) around it, or CEL refuses. What cannot be exact within 60 digits is an error.
type decimal struct{ n *apd.Decimal }

//nolint:gochecknoglobals // the identity of a type, never changed
var decimalType = types.NewTypeValue("leat.decimal",
	traits.AdderType, traits.SubtractorType, traits.MultiplierType, traits.NegatorType, traits.ComparerType)

// parseDecimal reads plain digits; no exponents, which could stand for numbers of any length.
func parseDecimal(s string) (decimal, error) {
	digits, _, err := splitDecimal(make([]byte, 0, maxNumber), []byte(strings.TrimPrefix(s, "-")))
	if err != nil || len(digits) == 0 {
		return decimal{}, err
	}
	n, _, err := apd.NewFromString(s)
	if err != nil {
		return decimal{}, errNumber
	}
	return decimal{n}, nil
}

// nativeNumber converts a JSON number. One beyond the bounds becomes an error only where it is used.
func nativeNumber(s string) any {
	d, err := parseDecimal(s)
	if err != nil {
		return types.NewErr("number %s: want %s", quote([]byte(s)), err)
	}
	if whole, err := d.n.Int64(); err == nil {
		return whole
	}
	return d
}

// toDecimal is the function decimal of CEL.
func toDecimal(v ref.Val) ref.Val {
	switch v := v.(type) {
	case decimal:
		return v
	case types.Int:
		return decimal{apd.New(int64(v), 0)}
	case types.String:
		d, err := parseDecimal(string(v))
		if err != nil {
			return types.NewErr("decimal(%s): want %s", quote([]byte(v)), err)
		}
		return d
	default:
		return types.MaybeNoSuchOverloadErr(v)
	}
}

func exact() *apd.Context {
	return &apd.Context{
		Precision: maxNumber, MaxExponent: 100, MinExponent: -100,
		Traps: apd.DefaultTraps | apd.Inexact | apd.Rounded,
	}
}

type operation func(*apd.Context, *apd.Decimal, *apd.Decimal, *apd.Decimal) (apd.Condition, error)

func (d decimal) apply(op operation, other ref.Val) ref.Val {
	o, ok := toDecimal(other).(decimal)
	if _, isText := other.(types.String); !ok || isText {
		return types.MaybeNoSuchOverloadErr(other)
	}
	r := new(apd.Decimal)
	if _, err := op(exact(), r, d.n, o.n); err != nil {
		return types.NewErr("the result is not exact within %d digits", maxNumber)
	}
	return decimal{r}
}

// Add is + of CEL.
func (d decimal) Add(other ref.Val) ref.Val { return d.apply((*apd.Context).Add, other) }

// Subtract is - of CEL.
func (d decimal) Subtract(other ref.Val) ref.Val { return d.apply((*apd.Context).Sub, other) }

// Multiply is * of CEL.
func (d decimal) Multiply(other ref.Val) ref.Val { return d.apply((*apd.Context).Mul, other) }

// Negate is the minus sign of CEL.
func (d decimal) Negate() ref.Val { return decimal{new(apd.Decimal).Neg(d.n)} }

// Compare is <, <=, > and >= of CEL.
func (d decimal) Compare(other ref.Val) ref.Val {
	o, ok := toDecimal(other).(decimal)
	if _, isText := other.(types.String); !ok || isText {
		return types.MaybeNoSuchOverloadErr(other)
	}
	return types.Int(d.n.Cmp(o.n))
}

// Equal is == of CEL: by value, so that 1.50 equals 1.5.
func (d decimal) Equal(other ref.Val) ref.Val {
	o, ok := toDecimal(other).(decimal)
	_, isText := other.(types.String)
	return types.Bool(ok && !isText && d.n.Cmp(o.n) == 0)
}

// ConvertToType gives the text of the number to string().
func (d decimal) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.StringType:
		return types.String(d.n.Text('f'))
	case types.TypeType:
		return decimalType
	case decimalType:
		return d
	}
	return types.NewErr("a decimal does not convert to %s", t.TypeName())
}

// ConvertToNative is not used: expressions end in scalarOf.
func (d decimal) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("a decimal stays within CEL")
}

// Type names the type.
func (d decimal) Type() ref.Type { return decimalType }

// Value is the number itself.
func (d decimal) Value() any { return d.n }
