package normalize

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Limits on a source record; a record beyond them is refused, whatever the mapping reads of it.
const (
	maxDocument = 16 << 20 // bytes
	maxDepth    = 64
	manyKeys    = 16 // members of an object from which on duplicates are found by a map
)

// kind is what a JSON value is.
type kind uint8

const (
	missing kind = iota
	null
	boolean
	number
	text
	array
	object
)

func (k kind) String() string {
	return [...]string{"nothing", "null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

// node is one value of a document. Children follow their parent; next is the index after the value's last descendant.
type node struct {
	kind             kind
	escaped          bool // a string with escapes
	keyEscaped       bool
	start, end       uint32 // the text of a scalar, without quotes
	keyStart, keyEnd uint32
	next             uint32
}

// document is a JSON text read in one pass, strictly: RFC 8259 without duplicate keys, lone surrogates or NUL. It is
// reused from record to record.
type document struct {
	src   []byte
	nodes []node
	pos   int
}

// root is the index of the document's outermost value.
const root = 0

// none is the index that stands for a missing value.
const none = ^uint32(0)

// parse reads src, which must stay unchanged while the document is in use.
func (d *document) parse(src []byte) error {
	d.src, d.pos, d.nodes = src, 0, d.nodes[:0]
	switch {
	case len(src) > maxDocument:
		return fmt.Errorf("the record is %d bytes, want at most %d", len(src), maxDocument)
	case !utf8.Valid(src):
		return fmt.Errorf("byte %d is not UTF-8", firstInvalid(src))
	}
	d.space()
	if err := d.value(node{}, 0); err != nil {
		return err
	}
	d.space()
	if d.pos < len(src) {
		return d.unexpected("the end of the record")
	}
	return nil
}

func (d *document) space() {
	for d.pos < len(d.src) {
		switch d.src[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

func (d *document) peek() byte {
	if d.pos < len(d.src) {
		return d.src[d.pos]
	}
	return 0
}

func (d *document) unexpected(want string) error {
	if d.pos >= len(d.src) {
		return fmt.Errorf("byte %d: the record ends, want %s", d.pos, want)
	}
	return fmt.Errorf("byte %d: found %s, want %s", d.pos, quote(d.src[d.pos:min(len(d.src), d.pos+10)]), want)
}

// value reads the value at pos into n, which holds its key if it has one.
func (d *document) value(n node, depth int) (err error) {
	if depth > maxDepth {
		return fmt.Errorf("byte %d: nested deeper than %d", d.pos, maxDepth)
	}
	at := len(d.nodes)
	switch c := d.peek(); {
	case c == '"':
		n.kind = text
		n.start, n.end, n.escaped, err = d.quoted()
	case c == '{':
		n.kind = object
		d.nodes = append(d.nodes, n)
		err = d.members(at, depth)
	case c == '[':
		n.kind = array
		d.nodes = append(d.nodes, n)
		err = d.elements(depth)
	case c == '-' || c >= '0' && c <= '9':
		n.kind = number
		n.start, n.end, err = d.number()
	case c == 't':
		n.kind = boolean
		n.start, n.end, err = d.word("true")
	case c == 'f':
		n.kind = boolean
		n.start, n.end, err = d.word("false")
	case c == 'n':
		n.kind = null
		n.start, n.end, err = d.word("null")
	default:
		err = d.unexpected("a JSON value")
	}
	if err != nil {
		return err
	}
	if n.kind < array {
		d.nodes = append(d.nodes, n)
	}
	d.nodes[at].next = uint32(len(d.nodes)) // at most one node a byte, bounded by maxDocument
	return nil
}

func (d *document) word(w string) (start, end uint32, err error) {
	if !bytes.HasPrefix(d.src[d.pos:], []byte(w)) {
		return 0, 0, d.unexpected("a JSON value")
	}
	start = uint32(d.pos)
	d.pos += len(w)
	return start, uint32(d.pos), nil
}

func (d *document) number() (start, end uint32, err error) {
	start = uint32(d.pos)
	if d.peek() == '-' {
		d.pos++
	}
	switch c := d.peek(); {
	case c == '0':
		d.pos++
	case c >= '1' && c <= '9':
		d.digits()
	default:
		return 0, 0, d.unexpected("a digit")
	}
	if d.peek() == '.' {
		d.pos++
		if !d.digits() {
			return 0, 0, d.unexpected("a digit")
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.pos++
		if c := d.peek(); c == '+' || c == '-' {
			d.pos++
		}
		if !d.digits() {
			return 0, 0, d.unexpected("a digit")
		}
	}
	return start, uint32(d.pos), nil
}

func (d *document) digits() bool {
	from := d.pos
	for c := d.peek(); c >= '0' && c <= '9'; c = d.peek() {
		d.pos++
	}
	return d.pos > from
}

// quoted reads the string at pos and returns where it stands, without its quotes.
func (d *document) quoted() (start, end uint32, escaped bool, err error) {
	d.pos++
	start = uint32(d.pos)
	for d.pos < len(d.src) {
		switch c := d.src[d.pos]; {
		case c == '"':
			end = uint32(d.pos)
			d.pos++
			return start, end, escaped, nil
		case c < ' ':
			return 0, 0, false, fmt.Errorf("byte %d: control character 0x%02x in a string, want an escape", d.pos, c)
		case c == '\\':
			escaped = true
			_, n, err := unescape(d.src[d.pos:])
			if err != nil {
				return 0, 0, false, fmt.Errorf("byte %d: %w", d.pos, err)
			}
			d.pos += n
		default:
			d.pos++
		}
	}
	return 0, 0, false, d.unexpected("a closing quote")
}

func (d *document) elements(depth int) error {
	d.pos++
	d.space()
	if d.peek() == ']' {
		d.pos++
		return nil
	}
	for {
		d.space()
		if err := d.value(node{}, depth+1); err != nil {
			return err
		}
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return nil
		default:
			return d.unexpected("',' or ']'")
		}
	}
}

func (d *document) members(at, depth int) error {
	d.pos++
	d.space()
	if d.peek() == '}' {
		d.pos++
		return nil
	}
	var seen map[string]struct{}
	for count := 0; ; count++ {
		d.space()
		if d.peek() != '"' {
			return d.unexpected("a key")
		}
		var n node
		var err error
		if n.keyStart, n.keyEnd, n.keyEscaped, err = d.quoted(); err != nil {
			return err
		}
		if count == manyKeys {
			seen = d.keysOf(at)
		}
		if d.duplicate(at, &n, seen) {
			return fmt.Errorf("byte %d: key %s occurs twice", n.keyStart, quote(d.key(&n)))
		}
		d.space()
		if d.peek() != ':' {
			return d.unexpected("':'")
		}
		d.pos++
		d.space()
		if err := d.value(n, depth+1); err != nil {
			return err
		}
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			return nil
		default:
			return d.unexpected("',' or '}'")
		}
	}
}

func (d *document) keysOf(at int) map[string]struct{} {
	seen := make(map[string]struct{}, 4*manyKeys)
	for i := at + 1; i < len(d.nodes); i = int(d.nodes[i].next) {
		seen[string(d.key(&d.nodes[i]))] = struct{}{}
	}
	return seen
}

// duplicate reports whether n's key is already one of the object's at index at.
func (d *document) duplicate(at int, n *node, seen map[string]struct{}) bool {
	k := d.key(n)
	if seen != nil {
		_, twice := seen[string(k)]
		seen[string(k)] = struct{}{}
		return twice
	}
	for i := at + 1; i < len(d.nodes); i = int(d.nodes[i].next) {
		if m := &d.nodes[i]; m.keyEnd-m.keyStart == uint32(len(k)) && !m.keyEscaped || m.keyEscaped {
			if bytes.Equal(d.key(m), k) {
				return true
			}
		}
	}
	return false
}

func (d *document) key(n *node) []byte {
	k := d.src[n.keyStart:n.keyEnd]
	if n.keyEscaped {
		return unescapeAll(k)
	}
	return k
}

// value of a scalar; the text of a string is decoded.
func (d *document) scalar(i uint32) value {
	if i == none {
		return value{}
	}
	n := &d.nodes[i]
	v := value{kind: n.kind, text: d.src[n.start:n.end]}
	if n.escaped {
		v.text = unescapeAll(v.text)
	}
	return v
}
