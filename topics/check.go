package topics

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxProblems bounds what one document may report: enough to mend a mapping in one go.
const maxProblems = 20

// checker walks a document along the contract's shape. It lives on the stack: on success nothing is allocated.
type checker struct {
	scanner
	problems []Problem
	last     text // the text read last: the amount or currency of a money
	depth    int
	path     [2*maxDepth + 2]step
	rules    ruling
}

// step is a part of the path: a property, or (name empty) an index.
type step struct {
	name  string
	index int
}

func (c *Contract) check(doc []byte, withRules bool) error {
	ck := checker{scanner: scanner{doc: doc}}
	ck.rules.on = withRules
	root := Field{Kind: KindObject, Shape: c.Shape}
	ok := ck.value(&root)
	if ck.space(); ok && ck.pos < len(doc) {
		ok = ck.fail("something follows the document")
	}
	if !ok {
		ck.problem("syntax", fmt.Sprintf("%s at byte %d", ck.fault, ck.pos))
	}
	if withRules && len(ck.problems) == 0 {
		ck.judge()
	}
	if len(ck.problems) == 0 {
		return nil
	}
	return &ContractError{Topic: c.Topic(), Problems: ck.problems}
}

func (c *checker) push(name string, index int) {
	c.path[c.depth] = step{name, index}
	c.depth++
}

func (c *checker) pop() { c.depth-- }

// problem records a fault at the present path.
func (c *checker) problem(code, message string) {
	if len(c.problems) == maxProblems {
		return
	}
	var p strings.Builder
	for _, s := range c.path[:c.depth] {
		p.WriteByte('/')
		if s.name == "" {
			p.WriteString(strconv.Itoa(s.index))
		} else {
			p.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(s.name))
		}
	}
	c.problems = append(c.problems, Problem{Path: p.String(), Code: code, Message: message})
}

// value reads the next value and checks it against f. It returns false where the document cannot be read on.
func (c *checker) value(f *Field) bool {
	b := c.peek()
	switch f.Kind {
	case KindObject, KindMoney:
		if b == '{' {
			return c.object(f)
		}
	case KindList:
		if b == '[' {
			return c.list(f)
		}
	case KindBool, KindInt:
		return c.scalar(f)
	default:
		if b == '"' {
			return c.text(f)
		}
	}
	return c.wrong(f)
}

// wrong skips a value of the wrong type and reports it.
func (c *checker) wrong(f *Field) bool {
	found, ok := c.skip()
	if !ok {
		return false
	}
	want := map[Kind]string{KindObject: "an object", KindMoney: "an object of amount and currency", KindList: "a list"}[f.Kind]
	switch {
	case f.Kind == KindBool:
		want = "true or false"
	case f.Kind == KindInt:
		want = "a whole number of at most 64 bits"
	case want == "":
		want = "text (" + f.Kind.String() + ")"
	}
	c.problem("type", "want "+want+", found "+jsonType(found)+shown(found))
	return true
}

func jsonType(v []byte) string {
	switch v[0] {
	case '"':
		return "text "
	case '{':
		return "object "
	case '[':
		return "list "
	case 't', 'f', 'n':
		return ""
	default:
		return "number "
	}
}

// shown cuts what was found to a length that suits a message.
func shown(v []byte) string {
	const most = 60
	if len(v) <= most {
		return strings.ToValidUTF8(string(v), "\uFFFD")
	}
	n := most
	for n > 0 && !utf8.RuneStart(v[n]) {
		n--
	}
	return strings.ToValidUTF8(string(v[:n]), "\uFFFD") + "..."
}

func (c *checker) object(f *Field) bool {
	c.pos++ // {
	fields := f.Shape.Fields
	var seen uint64
	next := 0
	problems := len(c.problems)
	var money moneyText
	for first := true; ; first = false {
		b := c.peek()
		if b == '}' {
			c.pos++
			break
		}
		if !first {
			if !c.expect(',') {
				return false
			}
			b = c.peek()
		}
		if b != '"' {
			return c.fail("expected a property")
		}
		i := next
		if i == len(fields) || seen&(1<<i) != 0 || !c.named(fields[i].Name) {
			key, ok := c.string()
			if !ok || !c.expect(':') {
				return false
			}
			name := key.value()
			i = find(fields, name)
			if i < 0 || seen&(1<<i) != 0 {
				if !c.stray(name, i < 0) {
					return false
				}
				continue
			}
		}
		seen |= 1 << i
		next = i + 1
		c.push(fields[i].Name, 0)
		if !c.value(&fields[i]) {
			return false // path stays where reading ended
		}
		c.pop()
		if f.Kind == KindMoney {
			money.set(fields[i].Name, c.last)
		}
	}
	if missing := f.Shape.required &^ seen; missing != 0 {
		c.missing(f.Shape, missing)
	}
	if f.Kind == KindMoney && c.rules.on && len(c.problems) == problems {
		c.money(f, money)
	}
	return true
}

// named reads past a property's name if it is this one, written plainly: it mostly is the one that the schema has next.
func (c *checker) named(name string) bool {
	end := c.pos + 1 + len(name)
	if end+1 < len(c.doc) && string(c.doc[c.pos+1:end]) == name && c.doc[end] == '"' && c.doc[end+1] == ':' {
		c.pos = end + 2
		return true
	}
	return false
}

// find returns the index of the field called name, or -1.
func find(fields []Field, name []byte) int {
	for i := range fields {
		if string(name) == fields[i].Name {
			return i
		}
	}
	return -1
}

// stray skips a property that the contract does not have, or that occurs again.
func (c *checker) stray(name []byte, unknown bool) bool {
	found, ok := c.skip()
	if !ok {
		return false
	}
	c.push(string(name), 0)
	if unknown {
		c.problem("unknown_property", "the contract has no such property; found "+shown(found))
	} else {
		c.problem("duplicate_property", "occurs twice; found again "+shown(found))
	}
	c.pop()
	return true
}

func (c *checker) missing(s *Shape, missing uint64) {
	for i := range s.Fields {
		if missing&(1<<i) != 0 {
			c.push(s.Fields[i].Name, 0)
			c.problem("missing", "is required and missing")
			c.pop()
		}
	}
}

func (c *checker) list(f *Field) bool {
	c.pos++ // [
	n := 0
	for {
		b := c.peek()
		if b == ']' {
			c.pos++
			break
		}
		if n > 0 && !c.expect(',') {
			return false
		}
		c.push("", n)
		if !c.value(f.Item) {
			return false
		}
		c.pop()
		n++
	}
	if n < f.MinItems || f.MaxItems > 0 && n > f.MaxItems {
		c.problem("length", fmt.Sprintf("want %s items, found %d", bounds(f.MinItems, f.MaxItems), n))
	}
	return true
}

func bounds(least, most int) string {
	switch {
	case most == 0:
		return "at least " + strconv.Itoa(least)
	case least == 0:
		return "at most " + strconv.Itoa(most)
	default:
		return strconv.Itoa(least) + " to " + strconv.Itoa(most)
	}
}

func (c *checker) text(f *Field) bool {
	t, ok := c.string()
	if !ok {
		return false
	}
	if t.runes < f.MinLength || f.MaxLength > 0 && t.runes > f.MaxLength {
		c.problem("length", fmt.Sprintf("want %s characters, found %d", bounds(f.MinLength, f.MaxLength), t.runes))
		return true
	}
	c.last = t
	v := t.raw
	if t.escaped && (f.match != nil || f.Enum != nil || f.Kind == KindDate) {
		v = t.value()
	}
	switch {
	case f.Enum != nil && !slices.Contains(f.Enum, string(v)):
		c.problem("enum", "want "+strings.Join(f.Enum, " or ")+", found "+shown(v))
	case f.match != nil && !f.match.match(v):
		c.problem(badPattern(f, v))
	case f.Kind == KindDate && !isDate(v):
		c.problem("date", "want a date such as 2026-11-23, found "+shown(v))
	case c.rules.on && f.role != 0:
		c.noteText(f, t)
	}
	return true
}

func badPattern(f *Field, v []byte) (code, message string) {
	found := ", found " + strconv.Quote(shown(v))
	switch f.Kind {
	case KindDate:
		return "date", "want a date such as 2026-11-23, of the years 1900 to 2199" + found
	case KindDecimal:
		return "decimal", fmt.Sprintf("want a decimal number of at most %d digits before and %d after the point, "+
			"without plus, exponent or leading zeros%s", f.Digits, f.Places, found)
	default:
		return "pattern", "want text of the form " + f.Pattern + found
	}
}

// isDate reports whether v is YYYY-MM-DD and that day exists.
func isDate(v []byte) bool {
	if len(v) != 10 || v[4] != '-' || v[7] != '-' {
		return false
	}
	year, month, day := number(v[:4]), number(v[5:7]), number(v[8:])
	if year < 0 || month < 1 || month > 12 || day < 1 {
		return false
	}
	return day <= 28 || day <= time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func number(v []byte) int {
	n := 0
	for _, b := range v {
		if b < '0' || b > '9' {
			return -1
		}
		n = n*10 + int(b-'0')
	}
	return n
}

// scalar checks a boolean or a whole number.
func (c *checker) scalar(f *Field) bool {
	start := c.pos
	if b := c.peek(); b == '"' || b == '{' || b == '[' {
		return c.wrong(f)
	}
	v, ok := c.literal()
	if !ok {
		return false
	}
	good := bytes.Equal(v, []byte("true")) || bytes.Equal(v, []byte("false"))
	if f.Kind == KindInt {
		digits := bytes.TrimPrefix(v, []byte("-"))
		_, err := strconv.ParseInt(string(v), 10, 64)
		good = err == nil && v[0] != '+' && (len(digits) == 1 || digits[0] != '0')
	}
	if !good {
		c.pos = start
		return c.wrong(f)
	}
	return true
}
