package topics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kind is the type of a value in a contract.
type Kind uint8

// The kinds.
const (
	KindString  Kind = iota + 1
	KindEnum         // one of Field.Enum
	KindDate         // a business date as text, such as 2026-11-23
	KindMoney        // an object of amount and currency
	KindDecimal      // a decimal number as text
	KindObject       // Field.Shape
	KindList         // of Field.Item
	KindBool
	KindInt // fits 64 bits
)

func (k Kind) String() string {
	return [...]string{"none", "string", "enum", "date", "money", "decimal", "object", "list", "bool", "int"}[k]
}

// Shape is an object of a contract: its properties in the order of the schema. No others are allowed.
type Shape struct {
	Fields   []Field
	required uint64 // bit i: Fields[i]
}

// Field finds a property by name, or returns nil.
func (s *Shape) Field(name string) *Field {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return &s.Fields[i]
		}
	}
	return nil
}

// Field is one property of a Shape, or the item of a list. What does not apply to its kind is zero.
type Field struct {
	Name        string // "" for the item of a list
	Kind        Kind
	Required    bool
	Title       string
	Description string

	Enum                 []string
	Pattern              string // anchored regular expression over ASCII
	MinLength, MaxLength int    // in characters; MaxLength 0 is no limit

	Digits     int  // decimal and money: at most this many before the point
	Places     int  // decimal and money: at most this many after the point
	MinorUnits bool // money: moreover at most as many places as the currency has (rule currency_places)

	Shape              *Shape // object and money
	Item               *Field // list
	MinItems, MaxItems int    // list; MaxItems 0 is no limit

	match *matcher
	role  role
}

// schema is the part of JSON Schema 2020-12 that contracts are written in. Any other keyword is an error at the start,
// so that the schema can never promise what Check does not check.
type schema struct {
	Schema      string             `json:"$schema"`
	ID          string             `json:"$id"`
	Ref         string             `json:"$ref"`
	Defs        map[string]*schema `json:"$defs"`
	Title       string             `json:"title"`
	Description string             `json:"description"`
	Type        string             `json:"type"`
	Format      string             `json:"format"`
	Pattern     string             `json:"pattern"`
	Enum        []string           `json:"enum"`
	MinLength   int                `json:"minLength"`
	MaxLength   int                `json:"maxLength"`
	MinItems    int                `json:"minItems"`
	MaxItems    int                `json:"maxItems"`
	Required    []string           `json:"required"`
	Properties  properties         `json:"properties"`
	Additional  *bool              `json:"additionalProperties"`
	Items       *schema            `json:"items"`
}

type property struct {
	name   string
	schema *schema
}

// properties keeps the order of the file: Check guesses that documents follow it.
type properties []property

func (ps *properties) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields() // the outer decoder's setting does not reach here
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return errors.New("properties is not an object")
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		p := property{name: fmt.Sprint(tok), schema: new(schema)}
		if err := dec.Decode(p.schema); err != nil {
			return fmt.Errorf("property %s: %w", p.name, err)
		}
		*ps = append(*ps, p)
	}
	return nil
}

func parseSchema(file []byte) (*schema, error) {
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.DisallowUnknownFields()
	s := new(schema)
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("reading schema: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading schema: something follows it")
	}
	return s, nil
}

// maxDepth bounds how deep a contract nests, and with it what Check keeps of the path.
const maxDepth = 8

type compiler struct {
	defs     map[string]*schema
	matchers map[string]*matcher // by pattern
}

func compileSchema(s *schema) (*Field, error) {
	c := &compiler{defs: s.Defs, matchers: map[string]*matcher{}}
	f, err := c.field("", s, 0)
	if err == nil && f.Kind != KindObject {
		err = errors.New("the document is not an object")
	}
	return f, err
}

func (c *compiler) field(path string, s *schema, depth int) (*Field, error) {
	fail := func(format string, args ...any) (*Field, error) {
		return nil, fmt.Errorf("schema %s: %s", path, fmt.Sprintf(format, args...))
	}
	if depth > maxDepth {
		return fail("nests deeper than %d", maxDepth)
	}
	if s.Ref != "" {
		def := c.defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
		if def == nil || def.Ref != "" {
			return fail("$ref %q does not name one of $defs", s.Ref)
		}
		if s.Type != "" || s.Pattern != "" || s.Enum != nil || s.Properties != nil || s.Items != nil || s.Format != "" {
			return fail("only title and description may stand beside $ref")
		}
		f, err := c.field(path, def, depth)
		if err == nil && s.Title != "" {
			f.Title = s.Title
		}
		if err == nil && s.Description != "" {
			f.Description = s.Description
		}
		return f, err
	}
	f := &Field{Title: s.Title, Description: s.Description}
	switch s.Type {
	case "object":
		return f, c.object(f, path, s, depth)
	case "array":
		if s.Items == nil {
			return fail("array without items")
		}
		f.Kind, f.MinItems, f.MaxItems = KindList, s.MinItems, s.MaxItems
		item, err := c.field(path+"/*", s.Items, depth+1)
		f.Item = item
		return f, err
	case "string":
		return f, c.text(f, path, s)
	case "boolean":
		f.Kind = KindBool
	case "integer":
		f.Kind = KindInt
	default:
		return fail("type %q is not supported", s.Type)
	}
	return f, nil
}

func (c *compiler) object(f *Field, path string, s *schema, depth int) error {
	f.Kind, f.Shape = KindObject, &Shape{}
	if s.Additional == nil || *s.Additional {
		return fmt.Errorf("schema %s: additionalProperties must be false", path)
	}
	if len(s.Properties) == 0 || len(s.Properties) > 64 {
		return fmt.Errorf("schema %s: %d properties, want 1 to 64", path, len(s.Properties))
	}
	for i, p := range s.Properties {
		at := path + "/" + p.name
		child, err := c.field(at, p.schema, depth+1)
		if err != nil {
			return err
		}
		if f.Shape.Field(p.name) != nil {
			return fmt.Errorf("schema %s: occurs twice", at)
		}
		child.Name = p.name
		if child.Required = slices.Contains(s.Required, p.name); child.Required {
			f.Shape.required |= 1 << i
		}
		f.Shape.Fields = append(f.Shape.Fields, *child)
	}
	for _, name := range s.Required {
		if f.Shape.Field(name) == nil {
			return fmt.Errorf("schema %s: required property %q is not declared", path, name)
		}
	}
	amount, currency := f.Shape.Field("amount"), f.Shape.Field("currency")
	if len(f.Shape.Fields) == 2 && amount != nil && currency != nil && amount.Kind == KindDecimal {
		f.Kind, f.Digits, f.Places, f.MinorUnits = KindMoney, amount.Digits, amount.Places, amount.MinorUnits
	}
	return nil
}

func (c *compiler) text(f *Field, path string, s *schema) error {
	f.Kind, f.Enum, f.Pattern, f.MinLength, f.MaxLength = KindString, s.Enum, s.Pattern, s.MinLength, s.MaxLength
	switch {
	case s.Format == "date":
		f.Kind = KindDate
	case s.Format == "decimal" || s.Format == "amount":
		f.Kind, f.MinorUnits = KindDecimal, s.Format == "amount"
		var ok bool
		if f.Digits, f.Places, ok = decimalBounds(s.Pattern); !ok {
			return fmt.Errorf("schema %s: pattern %q is not that of a decimal number", path, s.Pattern)
		}
	case s.Format != "":
		return fmt.Errorf("schema %s: format %q is not supported", path, s.Format)
	case len(s.Enum) > 0:
		f.Kind = KindEnum
	}
	if s.Pattern == "" {
		return nil
	}
	if c.matchers[s.Pattern] == nil {
		m, err := compilePattern(s.Pattern)
		if err != nil {
			return fmt.Errorf("schema %s: %w", path, err)
		}
		c.matchers[s.Pattern] = m
	}
	f.match = c.matchers[s.Pattern]
	return nil
}

// decimalBounds reads the bounds out of the one pattern by which contracts describe decimal numbers.
func decimalBounds(pattern string) (digits, places int, ok bool) {
	re := regexp.MustCompile(`^\^-\?\(0\|\[1-9\]\[0-9\]\{0,(\d+)\}\)\(\\\.\[0-9\]\{1,(\d+)\}\)\?\$$`)
	m := re.FindStringSubmatch(pattern)
	if m == nil {
		return 0, 0, false
	}
	digits, _ = strconv.Atoi(m[1]) // the pattern made sure of digits
	places, _ = strconv.Atoi(m[2])
	return digits + 1, places, digits+1 <= maxDigits && places <= maxPlaces
}

// Bounds of decimal numbers in contracts: with them sums of 5000 amounts fit the integers that CheckRules adds with.
const (
	maxDigits = 15
	maxPlaces = 10
)
