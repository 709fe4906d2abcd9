package normalize

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Bounds on the text in expressions. CEL counts the steps of an evaluation, but some steps make texts: a few of them could fill the
// memory of the process. What a record brings along is bounded, and what is made of it, before it is made where one step can multiply.
const (
	maxExprText   = 64 << 10 // bytes of a text of the record
	maxMadeText   = 1 << 20  // bytes of a text that a function makes
	bytesPerCost  = 10       // of made text, as CEL charges for texts of which it knows the type
	errMadeTooBig = "the result is longer than %d bytes"
)

// nativeText converts a text. One beyond the bound becomes an error only where it is used: a path takes any.
func nativeText(s []byte) any {
	if len(s) > maxExprText {
		return types.NewErr("a text of %d bytes, want at most %d in an expression; take it with a path", len(s), maxExprText)
	}
	return string(s)
}

// boundedReplace is replace of CEL's strings extension, bounded.
func boundedReplace() cel.EnvOption {
	return cel.Function("replace",
		cel.MemberOverload("string_replace_string_string", []*cel.Type{cel.StringType, cel.StringType, cel.StringType}, cel.StringType,
			cel.FunctionBinding(func(args ...ref.Val) ref.Val { return replaced(args, -1) })),
		cel.MemberOverload("string_replace_string_string_int", []*cel.Type{cel.StringType, cel.StringType, cel.StringType, cel.IntType},
			cel.StringType, cel.FunctionBinding(func(args ...ref.Val) ref.Val {
				n, ok := args[3].(types.Int)
				if !ok {
					return types.MaybeNoSuchOverloadErr(args[3])
				}
				return replaced(args, int(n))
			})))
}

func replaced(args []ref.Val, n int) ref.Val {
	s, ok1 := args[0].(types.String)
	before, ok2 := args[1].(types.String)
	after, ok3 := args[2].(types.String)
	if !ok1 || !ok2 || !ok3 {
		return types.MaybeNoSuchOverloadErr(args[0])
	}
	count := strings.Count(string(s), string(before))
	if n >= 0 {
		count = min(count, n)
	}
	if len(s)+count*(len(after)-len(before)) > maxMadeText {
		return types.NewErr(errMadeTooBig, maxMadeText)
	}
	return types.String(strings.Replace(string(s), string(before), string(after), n))
}

// boundedJoin is join of CEL's strings extension, bounded.
func boundedJoin() cel.EnvOption {
	return cel.Function("join",
		cel.MemberOverload("list_join", []*cel.Type{cel.ListType(cel.StringType)}, cel.StringType,
			cel.UnaryBinding(func(list ref.Val) ref.Val { return joined(list, "") })),
		cel.MemberOverload("list_join_string", []*cel.Type{cel.ListType(cel.StringType), cel.StringType}, cel.StringType,
			cel.BinaryBinding(func(list, separator ref.Val) ref.Val {
				s, ok := separator.(types.String)
				if !ok {
					return types.MaybeNoSuchOverloadErr(separator)
				}
				return joined(list, string(s))
			})))
}

func joined(v ref.Val, separator string) ref.Val {
	list, ok := v.(traits.Lister)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	var b strings.Builder
	for it, first := list.Iterator(), true; it.HasNext() == types.True; first = false {
		if !first {
			b.WriteString(separator)
		}
		s, ok := it.Next().(types.String)
		if !ok {
			return types.NewErr("join: the list holds something that is not text")
		}
		b.WriteString(string(s))
		if b.Len() > maxMadeText {
			return types.NewErr(errMadeTooBig, maxMadeText)
		}
	}
	return types.String(b.String())
}

// textCost charges for texts and lists that functions make: CEL knows the price of what has a type when it is compiled, and of no function
// of an extension, so that a text could be doubled again and again for one unit each time.
type textCost struct{}

// CallCost implements CEL's estimator. nil: what CEL charges.
func (textCost) CallCost(function, _ string, _ []ref.Val, result ref.Val) *uint64 {
	switch function {
	case "_+_", "charAt", "format", "join", "lowerAscii", "replace", "split", "string", "strings.quote", "substring", "trim", "upperAscii":
	default:
		return nil
	}
	cost := uint64(1)
	switch v := result.(type) {
	case types.String:
		cost += uint64(len(v)) / bytesPerCost
	case traits.Lister:
		if n, ok := v.Size().(types.Int); ok {
			cost += uint64(n) / bytesPerCost
		}
	}
	return &cost
}
