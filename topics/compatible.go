package topics

import (
	"fmt"
	"slices"
)

// Compatible lists what in the schema next breaks somebody who relies on the schema old of the same major version; none
// means that next may replace it. It returns an error if either is not a schema that a contract can be compiled from.
//
// Within a major version only this may change: titles and descriptions, new optional properties, new values of an
// enumeration. A reader must therefore skip properties that it does not know, and stop at a value of an enumeration that
// it does not know. Bounds of text, numbers and lists are frozen both ways: a wider one would overflow a reader's column,
// a narrower one would refuse a writer's record.
func Compatible(old, next []byte) ([]Problem, error) {
	var roots [2]*Field
	for i, file := range [2][]byte{old, next} {
		s, err := parseSchema(file)
		if err != nil {
			return nil, err
		}
		if roots[i], err = compileSchema(s); err != nil {
			return nil, err
		}
	}
	var ps []Problem
	compareFields(&ps, "", roots[0], roots[1])
	return ps, nil
}

func compareFields(ps *[]Problem, path string, old, next *Field) {
	add := func(code, format string, args ...any) {
		*ps = append(*ps, Problem{path, code, fmt.Sprintf(format, args...)})
	}
	if old.Kind != next.Kind {
		add("kind", "was %s, is %s", old.Kind, next.Kind)
		return
	}
	if old.Required != next.Required {
		add("required", "required was %t, is %t", old.Required, next.Required)
	}
	for _, v := range old.Enum {
		if !slices.Contains(next.Enum, v) {
			add("enum", "value %q is gone", v)
		}
	}
	if len(old.Enum) == 0 && len(next.Enum) > 0 {
		add("enum", "is now an enumeration")
	}
	if old.Pattern != next.Pattern {
		add("pattern", "was %q, is %q", old.Pattern, next.Pattern)
	}
	if old.MinorUnits != next.MinorUnits {
		add("format", "limited to the currency's places was %t, is %t", old.MinorUnits, next.MinorUnits)
	}
	if o, n := [4]int{old.MinLength, old.MaxLength, old.MinItems, old.MaxItems},
		[4]int{next.MinLength, next.MaxLength, next.MinItems, next.MaxItems}; o != n {
		add("bounds", "minLength, maxLength, minItems, maxItems were %v, are %v", o, n)
	}
	if old.Item != nil {
		compareFields(ps, path+"/*", old.Item, next.Item)
	}
	if old.Shape != nil {
		compareShapes(ps, path, old.Shape, next.Shape)
	}
}

func compareShapes(ps *[]Problem, path string, old, next *Shape) {
	for i := range old.Fields {
		f := &old.Fields[i]
		if g := next.Field(f.Name); g != nil {
			compareFields(ps, path+"/"+f.Name, f, g)
		} else {
			*ps = append(*ps, Problem{path + "/" + f.Name, "removed", "is gone or renamed"})
		}
	}
	for i := range next.Fields {
		if f := &next.Fields[i]; f.Required && old.Field(f.Name) == nil {
			*ps = append(*ps, Problem{path + "/" + f.Name, "required", "is new and required"})
		}
	}
}
