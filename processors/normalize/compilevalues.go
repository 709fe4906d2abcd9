package normalize

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/leat-io/leat/topics"
)

// money compiles an amount with its currency: a path alone, or amount and what belongs to it.
func (c *compiler) money(f *field, e entry, inList bool) {
	f.form = formMoney
	var currency entry
	if e.isScalar() {
		f.from = c.getter(e, inList)
	} else {
		keys := e.keys(c.problems, "amount", "currency", "minor_units", "scale", "round", "optional")
		f.optional = keys["optional"].flag(c.problems)
		f.minor = keys["minor_units"].flag(c.problems)
		f.decimal = decimalRule{round: c.round(keys), shift: c.scale(keys["scale"])}
		if f.minor && keys["scale"].ok {
			c.add(keys["scale"].at, keys["scale"].field, "makes no sense beside minor_units; remove one")
		}
		currency = keys["currency"]
		if a := keys["amount"]; a.ok {
			f.from = c.getter(a, inList)
		} else if e.isMap() {
			c.add(e.at, e.field+".amount", "is missing; give the path of the amount")
		}
	}
	switch {
	case currency.ok:
		f.currency = c.getter(currency, inList)
		if k := f.currency.constant; k != nil {
			if _, ok := topics.CurrencyPlaces(string(k.text)); !ok {
				c.add(currency.at, currency.field, "%s is not a current code of ISO 4217", quote(k.text))
			}
		}
	case c.currency != nil:
		f.currency = *c.currency
	default:
		c.add(e.at, e.field+".currency", "is missing; give it here, or for all money beside to and fields: "+
			"currency: <path> or currency: {const: BRL}")
	}
}

func (c *compiler) object(f *field, e entry, inList bool) {
	f.form = formObject
	keys := e.keys(c.problems, "path", "fields", "optional")
	f.optional = keys["optional"].flag(c.problems)
	if p := keys["path"]; p.ok {
		f.base = c.path(p)
	}
	if fs := keys["fields"]; fs.ok {
		f.fields = c.fields(fs, f.contract.Shape, inList, false)
	} else if e.isMap() {
		c.add(e.at, e.field+".fields", "is missing; map the fields of the object")
	}
}

// list compiles a list: each of a list of the record, fixed items, or a constant.
func (c *compiler) list(f *field, e entry, inList bool) {
	if !e.isMap() {
		c.add(e.at, e.field, "found %s, want each (a path) with fields or item, items, or const", describe(e.node))
		return
	}
	keys := e.keys(c.problems, "each", "fields", "item", "items", "const", "optional")
	f.optional = keys["optional"].flag(c.problems)
	each, items, constant := keys["each"], keys["items"], keys["const"]
	switch {
	case constant.ok:
		c.alone(keys, "const", "each", "fields", "item", "items", "optional")
		f.form, f.constant = formConstant, c.constant(constant, f.contract)
		n := 0
		if seq, ok := constant.node.(*ast.SequenceNode); ok {
			n = len(seq.Values)
		}
		c.length(f, constant, n)
	case items.ok:
		c.alone(keys, "items", "each", "fields", "item", "optional")
		f.form = formItems
		for _, item := range items.items(c.problems) {
			f.items = append(f.items, c.field(item, f.contract.Item, inList))
		}
		c.length(f, items, len(f.items))
	case each.ok:
		f.form, f.base = formEach, c.path(each)
		c.eachItem(f, e, keys)
	default:
		c.add(e.at, e.field, "want each (a path) with fields or item, items, or const")
	}
}

func (c *compiler) length(f *field, at entry, n int) {
	if n < f.contract.MinItems || f.contract.MaxItems > 0 && n > f.contract.MaxItems {
		c.add(at.at, at.field, "has %d items, the contract wants %d to %d", n, f.contract.MinItems, f.contract.MaxItems)
	}
}

func (c *compiler) eachItem(f *field, e entry, keys map[string]entry) {
	want := f.contract.Item
	fields, item := keys["fields"], keys["item"]
	switch {
	case want.Kind == topics.KindObject && fields.ok && !item.ok:
		f.items = []*field{{contract: want, form: formObject, fields: c.fields(fields, want.Shape, true, false)}}
	case want.Kind != topics.KindObject && item.ok && !fields.ok:
		f.items = []*field{c.field(item, want, true)}
	case want.Kind == topics.KindObject:
		c.add(e.at, e.field, "the items are objects: give fields beside each")
	default:
		c.add(e.at, e.field, "the items are single values: give item beside each, such as item: .")
	}
}

// getter compiles a scalar: a path alone, or path, const or expr.
func (c *compiler) getter(e entry, inList bool) getter {
	if e.isScalar() {
		return getter{path: c.path(e)}
	}
	keys := e.keys(c.problems, "path", "const", "expr", "product")
	if k := keys["product"]; k.ok {
		c.alone(keys, "product", "path", "const", "expr")
		return getter{product: c.product(k)}
	}
	if k := keys["const"]; k.ok {
		c.alone(keys, "const", "path", "expr")
		return getter{constant: &value{text, []byte(k.text(c.problems, "a constant"))}}
	}
	return c.source(e, keys, inList)
}

// source compiles path or expr.
func (c *compiler) source(e entry, keys map[string]entry, inList bool) getter {
	p, x := keys["path"], keys["expr"]
	switch {
	case p.ok && x.ok:
		c.add(x.at, x.field, "makes no sense beside path; remove one")
	case p.ok:
		return getter{path: c.path(p)}
	case x.ok:
		return getter{expr: c.expression(x, inList, false)}
	case e.isMap():
		c.add(e.at, e.field, "want path, expr or const")
	}
	return getter{}
}

func (c *compiler) product(e entry) []path {
	items := e.items(c.problems)
	if len(items) != 2 {
		c.add(e.at, e.field, "has %d factors, want two paths", len(items))
		return make([]path, 2)
	}
	return []path{c.path(items[0]), c.path(items[1])}
}

func (c *compiler) path(e entry) path {
	p, err := parsePath(e.text(c.problems, "a path"))
	if err != nil && e.isScalar() {
		c.add(e.at, e.field, "%s", err)
	}
	return p
}

func (c *compiler) expression(e entry, inList, condition bool) *expression {
	x, line, column, err := c.expressions.compile(e.text(c.problems, "an expression"), inList, condition)
	if err == nil {
		return x
	}
	at := *e.node.GetToken()
	pos := *at.Position
	switch _, block := e.node.(*ast.LiteralNode); {
	case block:
		pos.Line += line // its text begins on the next line
	case line == 1:
		pos.Column += column - 1
	}
	at.Position = &pos
	c.add(&at, e.field, "expression, line %d, column %d: %s", line, column, err)
	return nil
}

// condition compiles an entry of where (with its reason), or when.
func (c *compiler) condition(e entry, withReason bool) condition {
	allowed := []string{"path", "expr", "equals", "in", "not_in", "exists"}
	if withReason {
		allowed = append([]string{"reason"}, allowed...)
	}
	keys := e.keys(c.problems, allowed...)
	var cond condition
	if withReason {
		cond.reason = c.name(e, keys["reason"], "reason")
	}
	if x := keys["expr"]; x.ok {
		c.alone(keys, "expr", "path", "equals", "in", "not_in", "exists")
		cond.expr = c.expression(x, false, true)
		return cond
	}
	p := keys["path"]
	if !p.ok {
		c.add(e.at, e.field, "want path with equals, in, not_in or exists, or expr")
		return cond
	}
	cond.path = c.path(p)
	var tests int
	for _, test := range []string{"equals", "in", "not_in", "exists"} {
		k := keys[test]
		if !k.ok {
			continue
		}
		tests++
		switch test {
		case "exists":
			b := k.flag(c.problems)
			cond.exists = &b
		case "equals":
			cond.oneOf = map[string]struct{}{k.text(c.problems, "text, a number, true or false"): {}}
		default:
			cond.noneOf = test == "not_in"
			cond.oneOf = map[string]struct{}{}
			for _, s := range k.strings(c.problems) {
				cond.oneOf[s] = struct{}{}
			}
		}
	}
	if tests != 1 {
		c.add(e.at, e.field, "has %d tests beside path, want one of equals, in, not_in, exists", tests)
	}
	return cond
}
