package normalize

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/leat-io/leat/topics"
)

// mapping is one file, compiled.
type mapping struct {
	file, system, entity string
	where                []condition
	outputs              []*output
}

// output is one record that a mapping may make of an input.
type output struct {
	contract *topics.Contract
	topic    string
	sourceID *getter // nil: the record's key
	when     *condition
	fields   []*field
}

// condition holds or does not hold for a record.
type condition struct {
	reason string
	getter
	oneOf  map[string]struct{} // the value's text is one of these
	noneOf bool                // ... none of these
	exists *bool
}

// compiler turns the text of one file into a mapping and collects what is wrong with it.
type compiler struct {
	*problems
	expressions *expressions
	contracts   map[string]*topics.Contract
	currency    *getter // of the output that is being compiled
}

func (c *compiler) mapping(src []byte) *mapping {
	e := read(c.problems, src)
	if !e.ok {
		return nil
	}
	m := &mapping{file: c.file}
	keys := e.keys(c.problems, "source", "where", "outputs")
	if s := keys["source"]; s.ok {
		ks := s.keys(c.problems, "system", "entity")
		m.system = c.name(s, ks["system"], "system")
		m.entity = c.name(s, ks["entity"], "entity")
	} else {
		c.add(e.at, "source", "is missing; say which records the file is about: source: {system: …, entity: …}")
	}
	if w := keys["where"]; w.ok {
		for _, item := range w.items(c.problems) {
			m.where = append(m.where, c.condition(item, true))
		}
	}
	out := keys["outputs"]
	if !out.ok {
		c.add(e.at, "outputs", "is missing; list what becomes of a record: outputs: [{to: invoice, fields: …}]")
		return m
	}
	items := out.items(c.problems)
	if len(items) == 0 {
		c.add(out.at, out.field, "is empty; a mapping makes at least one record")
	}
	for _, item := range items {
		if o := c.output(item); o != nil {
			m.outputs = append(m.outputs, o)
		}
	}
	return m
}

func (c *compiler) name(parent, e entry, key string) string {
	if !e.ok {
		c.add(parent.at, parent.field+"."+key, "is missing")
		return ""
	}
	s := e.text(c.problems, "a name")
	if !topics.ValidName(s) {
		c.add(e.at, e.field, "%s is not a name of lower-case letters, digits, '-' and '_'", quote([]byte(s)))
	}
	return s
}

func (c *compiler) output(e entry) *output {
	keys := e.keys(c.problems, "to", "source_id", "when", "currency", "fields")
	to := keys["to"]
	if !to.ok {
		c.add(e.at, e.field+".to", "is missing; want one of %s", strings.Join(topics.Entities(), ", "))
		return nil
	}
	contract := c.contracts[to.text(c.problems, "an entity of the finance model")]
	if contract == nil {
		c.add(to.at, to.field, "no such entity of the finance model; want one of %s", strings.Join(topics.Entities(), ", "))
		return nil
	}
	o := &output{contract: contract, topic: contract.Topic()}
	if id := keys["source_id"]; id.ok {
		g := c.getter(id, false)
		o.sourceID = &g
	}
	if w := keys["when"]; w.ok {
		cond := c.condition(w, false)
		o.when = &cond
	}
	c.currency = nil
	if cur := keys["currency"]; cur.ok {
		g := c.getter(cur, false)
		if g.path.text != "" && !g.path.root { // the money of lines reads it too
			g.path.root, g.path.text = true, "$."+g.path.text
		}
		c.currency = &g
	}
	fields := keys["fields"]
	if !fields.ok {
		c.add(e.at, e.field+".fields", "is missing; map the contract's fields to paths of the record")
		return o
	}
	o.fields = c.fields(fields, contract.Shape, false, true)
	return o
}

// fields compiles a map of contract fields, in the contract's order.
func (c *compiler) fields(e entry, shape *topics.Shape, inList, top bool) []*field {
	names, values := e.members(c.problems)
	given := make(map[string]entry, len(names))
	known := make([]string, 0, len(shape.Fields))
	for i := range shape.Fields {
		known = append(known, shape.Fields[i].Name)
	}
	for i, name := range names {
		switch {
		case top && (name == "tenant" || name == "system" || name == "source_id"):
			c.add(values[i].at, values[i].field, "is set by Leat; for another source_id write it beside to and fields")
		case shape.Field(name) == nil:
			c.add(values[i].at, values[i].field, "the contract has no such field; %s", suggest(name, known))
		default:
			given[name] = values[i]
		}
	}
	var out []*field
	for i := range shape.Fields {
		f := &shape.Fields[i]
		if top && i < 3 {
			continue // tenant, system and source_id
		}
		spec, ok := given[f.Name]
		switch {
		case ok:
			out = append(out, c.field(spec, f, inList))
		case top && f.Name == "currency" && c.currency != nil:
			out = append(out, &field{contract: f, prefix: prefixOf(f), from: *c.currency})
		case f.Required:
			c.add(e.at, e.field+"."+f.Name, "is required by the contract and missing: %s", f.Description)
		}
	}
	return out
}

func prefixOf(f *topics.Field) []byte {
	if f.Name == "" {
		return nil
	}
	return append(jsonText(f.Name), ':')
}

// field compiles the mapping of one contract field.
func (c *compiler) field(e entry, contract *topics.Field, inList bool) *field {
	f := &field{contract: contract, prefix: prefixOf(contract)}
	switch contract.Kind {
	case topics.KindMoney:
		c.money(f, e, inList)
	case topics.KindObject:
		c.object(f, e, inList)
	case topics.KindList:
		c.list(f, e, inList)
	default:
		c.scalar(f, e, inList)
	}
	if f.optional && f.fallback == nil && contract.Required && contract.Kind != topics.KindList {
		c.add(e.at, e.field, "the contract requires it: remove optional, or give a default")
	}
	return f
}

func (c *compiler) scalar(f *field, e entry, inList bool) {
	if e.isScalar() {
		c.kindOptions(f, nil, e)
		f.from = c.getter(e, inList)
		return
	}
	allowed := []string{"path", "const", "expr", "optional", "default"}
	switch f.contract.Kind {
	case topics.KindDecimal:
		allowed = append(allowed, "round", "scale")
	case topics.KindDate:
		allowed = append(allowed, "format", "zone", "from_zone")
	default:
		allowed = append(allowed, "values", "trim")
	}
	keys := e.keys(c.problems, allowed...)
	f.optional = keys["optional"].flag(c.problems)
	f.trim = keys["trim"].flag(c.problems)
	if d := keys["default"]; d.ok {
		f.fallback = c.constant(d, f.contract)
	}
	if v := keys["values"]; v.ok {
		f.values = map[string][]byte{}
		names, values := v.members(c.problems)
		for i, name := range names {
			f.values[name] = c.constant(values[i], f.contract)
		}
	}
	c.kindOptions(f, keys, e)
	if k := keys["const"]; k.ok {
		f.form, f.constant = formConstant, c.constant(k, f.contract)
		c.alone(keys, "const", "path", "expr", "optional", "default", "values", "trim", "format", "zone", "from_zone", "round", "scale")
		return
	}
	f.from = c.source(e, keys, inList)
}

// alone reports the keys that make no sense beside key.
func (c *compiler) alone(keys map[string]entry, key string, others ...string) {
	for _, other := range others {
		if o := keys[other]; o.ok {
			c.add(o.at, o.field, "makes no sense beside %s; remove one", key)
		}
	}
}

// kindOptions reads how numbers and dates are written. keys is nil for the short form, a path alone.
func (c *compiler) kindOptions(f *field, keys map[string]entry, e entry) {
	switch f.contract.Kind {
	case topics.KindDecimal:
		f.decimal = decimalRule{most: f.contract.Places, round: c.round(keys), shift: c.scale(keys["scale"])}
	case topics.KindDate:
		format := ""
		at := e
		if k := keys["format"]; k.ok {
			format, at = k.text(c.problems, "a format"), k
		}
		rule, err := newDateRule(format, c.zone(keys["zone"]), c.zone(keys["from_zone"]))
		if err != nil && (!keys["zone"].ok || c.zoneKnown(keys["zone"])) {
			c.add(at.at, at.field, "%s", err)
		}
		f.date = rule
	}
}

func (c *compiler) round(keys map[string]entry) bool {
	r := keys["round"]
	if !r.ok {
		return false
	}
	if s := r.text(c.problems, "half_even"); s != "half_even" {
		c.add(r.at, r.field, "found %s, want half_even, the one way of rounding", quote([]byte(s)))
	}
	return true
}

func (c *compiler) scale(e entry) int {
	if !e.ok {
		return 0
	}
	n, ok := e.node.(*ast.IntegerNode)
	if !ok || len(n.GetToken().Value) != 1 {
		c.add(e.at, e.field, "found %s, want 0 to 9: how many places the point moves to the left", describe(e.node))
		return 0
	}
	return int(n.GetToken().Value[0] - '0')
}

func (c *compiler) zoneKnown(e entry) bool {
	s, _ := scalarText(e.node)
	_, err := time.LoadLocation(s)
	return err == nil && s != "" && s != "Local"
}

func (c *compiler) zone(e entry) *time.Location {
	if !e.ok {
		return nil
	}
	s := e.text(c.problems, "a time zone")
	if !c.zoneKnown(e) {
		c.add(e.at, e.field, "unknown time zone %s; want a name of the IANA database, such as America/Sao_Paulo", quote([]byte(s)))
		return nil
	}
	loc, _ := time.LoadLocation(s) // zoneKnown has loaded it
	return loc
}

// constant renders a constant of a mapping as JSON, checked against the contract as far as one value can be.
func (c *compiler) constant(e entry, contract *topics.Field) []byte {
	if contract.Kind == topics.KindList {
		out := []byte{'['}
		for i, item := range e.items(c.problems) {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, c.constant(item, contract.Item)...)
		}
		return append(out, ']')
	}
	s := e.text(c.problems, "a constant")
	f := &field{contract: contract, decimal: decimalRule{most: contract.Places}, date: &dateRule{layout: time.DateOnly}}
	out, err := f.convert(value{text, []byte(s)}, nil)
	if contract.Kind == topics.KindBool {
		return []byte(s)
	}
	if err != nil || !fits(contract, s) {
		c.add(e.at, e.field, "%s does not fit the contract, which wants %s", quote([]byte(s)), wanted(contract))
	}
	return out
}

func fits(contract *topics.Field, s string) bool {
	if contract.Kind == topics.KindDecimal {
		return true // convert has checked it
	}
	if contract.Enum != nil {
		return slices.Contains(contract.Enum, s)
	}
	n := len([]rune(s))
	ok := n >= contract.MinLength && (contract.MaxLength == 0 || n <= contract.MaxLength) && !strings.ContainsRune(s, 0)
	if contract.Pattern != "" {
		ok = ok && regexp.MustCompile(contract.Pattern).MatchString(s) // contracts are compiled: the pattern is valid
	}
	return ok
}

func wanted(contract *topics.Field) string {
	switch {
	case contract.Enum != nil:
		return "one of " + strings.Join(contract.Enum, ", ")
	case contract.Kind == topics.KindDate:
		return "a date such as 2026-11-23"
	case contract.Pattern != "":
		return "text of the form " + contract.Pattern
	}
	return "a " + contract.Kind.String()
}
