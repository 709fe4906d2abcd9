package normalize

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
	"github.com/cockroachdb/apd/v3"
)

// Bounds on an expression: what one evaluation may cost in CEL's units (about one for each step), and how deep
// comprehensions (all, exists, map, filter) may nest.
const (
	maxCost          = 100_000
	maxComprehension = 2
	maxExpression    = 4096 // bytes of an expression's text
)

// expressions compiles CEL for mappings. Both environments know the record; item is for lists.
type expressions struct{ record, item *cel.Env }

// expression is CEL, compiled and checked.
type expression struct {
	program cel.Program
	payload bool // it reads the payload, which a delete may lack
	item    bool
}

func newExpressions() (*expressions, error) {
	record, err := cel.NewEnv(
		cel.Variable("payload", cel.DynType),
		cel.Variable("key", cel.StringType),
		cel.Variable("tenant", cel.StringType),
		cel.Variable("system", cel.StringType),
		cel.Variable("occurred_at", cel.TimestampType),
		cel.Function("decimal", cel.Overload("decimal_dyn", []*cel.Type{cel.DynType}, cel.DynType,
			cel.UnaryBinding(toDecimal))),
		ext.Strings(ext.StringsVersion(2)),
		boundedReplace(), boundedJoin(),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxComprehension)),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	item, err := record.Extend(cel.Variable("item", cel.DynType), cel.Variable("index", cel.IntType))
	if err != nil {
		return nil, fmt.Errorf("preparing CEL for lists: %w", err)
	}
	return &expressions{record, item}, nil
}

// compile checks src. line and column are those of the first error within src, from 1.
func (x *expressions) compile(src string, inList, condition bool) (e *expression, line, column int, err error) {
	env := x.record
	if inList {
		env = x.item
	}
	if len(src) > maxExpression {
		return nil, 1, 1, fmt.Errorf("the expression is %d bytes, want at most %d", len(src), maxExpression)
	}
	checked, issues := env.Compile(src)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, first.Location.Line(), first.Location.Column() + 1, errors.New(strings.TrimSpace(first.Message))
	}
	if condition && checked.OutputType() != cel.BoolType && checked.OutputType() != cel.DynType {
		return nil, 1, 1, fmt.Errorf("the expression gives %s, want true or false", checked.OutputType())
	}
	e = &expression{}
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		switch {
		case x.Kind() == ast.LiteralKind && x.AsLiteral().Type() == types.DoubleType,
			x.Kind() == ast.CallKind && x.AsCall().FunctionName() == "double":
			err = errors.New(`floats are not exact: write decimal("0.5")`)
		case x.Kind() == ast.IdentKind:
			e.payload = e.payload || x.AsIdent() == "payload" || x.AsIdent() == "item"
			e.item = e.item || x.AsIdent() == "item"
		}
	}))
	if err != nil {
		return nil, 1, 1, err
	}
	e.program, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost),
		cel.CostTracking(textCost{}), cel.InterruptCheckFrequency(100))
	return e, 1, 1, err
}

// eval gives the expression's value as a scalar of a document.
func (r *run) eval(e *expression, at uint32) (value, error) {
	vars := r.variables(e)
	if e.item {
		vars["item"] = r.doc.native(at)
	}
	vars["index"] = r.index
	out, _, err := e.program.ContextEval(r.ctx, vars)
	if err != nil {
		if r.ctx.Err() != nil {
			return value{}, context.Cause(r.ctx)
		}
		return value{}, &misfit{found: bounded(err.Error()), want: "an expression that succeeds"}
	}
	return scalarOf(out)
}

func (r *run) variables(e *expression) map[string]any {
	if r.vars == nil {
		r.vars = map[string]any{
			"key": r.env.Subject, "tenant": r.env.Tenant, "system": r.env.System, "occurred_at": r.env.Time,
		}
	}
	if _, ok := r.vars["payload"]; !ok && e.payload {
		r.vars["payload"] = r.doc.native(root)
	}
	return r.vars
}

func scalarOf(v ref.Val) (value, error) {
	switch v := v.(type) {
	case types.String:
		if strings.IndexByte(string(v), 0) >= 0 {
			return value{}, &misfit{found: quote([]byte(v)), want: "text without NUL, which no target can hold"}
		}
		return value{text, []byte(v)}, nil
	case types.Bool:
		return value{boolean, fmt.Append(nil, bool(v))}, nil
	case types.Int:
		return value{number, fmt.Append(nil, int64(v))}, nil
	case types.Uint:
		return value{number, fmt.Append(nil, uint64(v))}, nil
	case decimal:
		return value{number, []byte(v.n.Text('f'))}, nil
	case types.Null:
		return value{kind: null}, nil
	case types.Timestamp:
		return value{text, v.UTC().AppendFormat(nil, time.RFC3339Nano)}, nil
	default:
		return value{}, &misfit{found: "a value of type " + v.Type().TypeName(), want: "text, a number, true, false or null"}
	}
}

// native converts a value for CEL. Whole numbers are ints, all others decimals: none becomes a float.
func (d *document) native(at uint32) any {
	if at == none || len(d.nodes) == 0 {
		return types.NullValue
	}
	n := &d.nodes[at]
	switch n.kind {
	case object:
		m := map[string]any{}
		for i := at + 1; i < n.next; i = d.nodes[i].next {
			m[string(d.key(&d.nodes[i]))] = d.native(i)
		}
		return m
	case array:
		list := []any{}
		for i := at + 1; i < n.next; i = d.nodes[i].next {
			list = append(list, d.native(i))
		}
		return list
	case text:
		return nativeText(d.scalar(at).text)
	case number:
		return nativeNumber(string(d.scalar(at).text))
	case boolean:
		return d.src[n.start] == 't'
	default:
		return types.NullValue
	}
}

// decimal is an exact number in CEL. It adds, subtracts, multiplies and compares with decimals and ints on its right; an
// int on the left needs decimal(x) around it, or CEL refuses. What cannot be exact within 60 digits is an error.
type decimal struct{ n *apd.Decimal }

//nolint:gochecknoglobals // the identity of a type, never changed
var decimalType = cel.ObjectType("leat.decimal",
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
		return types.NewErr("%s wanted in the number %s", err, quote([]byte(s)))
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
