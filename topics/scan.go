package topics

import (
	"encoding/json"
	"unicode/utf8"
)

// scanner reads JSON text from front to back. Its methods leave pos behind what they have read and return false where
// the text is not JSON; what is wrong is then in fault.
type scanner struct {
	doc   []byte
	pos   int
	fault string
}

// text is a JSON string as it stands in the document.
type text struct {
	raw     []byte // between the quotation marks
	runes   int    // characters it stands for
	escaped bool   // raw holds escape sequences
}

// value is the string itself. It allocates only if there are escape sequences.
func (t text) value() []byte {
	if !t.escaped {
		return t.raw
	}
	var s string
	if json.Unmarshal(append(append([]byte{'"'}, t.raw...), '"'), &s) != nil {
		return nil // unreachable: the scanner has read it
	}
	return []byte(s)
}

func (s *scanner) fail(what string) bool {
	if s.fault == "" {
		s.fault = what
	}
	return false
}

func (s *scanner) space() {
	for s.pos < len(s.doc) {
		switch s.doc[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.doc) && s.doc[s.pos] > ' ' { // compact documents come here
		return s.doc[s.pos]
	}
	s.space()
	if s.pos == len(s.doc) {
		return 0
	}
	return s.doc[s.pos]
}

// expect reads one byte of punctuation.
func (s *scanner) expect(b byte) bool {
	if s.peek() != b {
		return s.fail("expected " + string(rune(b)))
	}
	s.pos++
	return true
}

// string reads a JSON string; the next byte is its quotation mark.
func (s *scanner) string() (t text, ok bool) {
	doc, i := s.doc, s.pos+1
	start := i
	for i < len(doc) && doc[i] >= ' ' && doc[i] < utf8.RuneSelf && doc[i] != '"' && doc[i] != '\\' {
		i++
	}
	t.runes = i - start
	for i < len(doc) {
		b := doc[i]
		switch {
		case b == '"':
			t.raw, s.pos = doc[start:i], i+1
			return t, true
		case b == '\\':
			t.escaped = true
			n := s.escape(i)
			if n == 0 {
				return t, false
			}
			i += n
		case b < ' ':
			s.pos = i
			return t, s.fail("control character in a string")
		case b < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(doc[i:])
			if r == utf8.RuneError && n == 1 {
				s.pos = i
				return t, s.fail("string is not valid UTF-8")
			}
			i += n
		}
		t.runes++
	}
	s.pos = i
	return t, s.fail("string does not end")
}

// escape returns the length of the escape sequence at i, a surrogate pair counting as one, or 0.
func (s *scanner) escape(i int) int {
	s.pos = i
	if i+1 >= len(s.doc) {
		s.fail("string does not end")
		return 0
	}
	switch s.doc[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		s.fail("unknown escape sequence")
		return 0
	}
	r, ok := s.hex(i)
	switch {
	case !ok:
		s.fail("unknown escape sequence")
	case r == 0:
		s.fail("string holds U+0000")
	case r < 0xD800 || r > 0xDFFF:
		return 6
	case r < 0xDC00:
		if low, ok := s.hex(i + 6); ok && low >= 0xDC00 && low <= 0xDFFF {
			return 12
		}
		s.fail("unpaired surrogate in a string")
	default:
		s.fail("unpaired surrogate in a string")
	}
	return 0
}

// hex reads \uXXXX at i.
func (s *scanner) hex(i int) (r rune, ok bool) {
	if i+6 > len(s.doc) || s.doc[i] != '\\' || s.doc[i+1] != 'u' {
		return 0, false
	}
	for _, b := range s.doc[i+2 : i+6] {
		switch {
		case b >= '0' && b <= '9':
			r = r<<4 | rune(b-'0')
		case b >= 'a' && b <= 'f':
			r = r<<4 | rune(b-'a'+10)
		case b >= 'A' && b <= 'F':
			r = r<<4 | rune(b-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// literal reads a number, true, false or null, and returns its text; it does not judge it.
func (s *scanner) literal() ([]byte, bool) {
	start := s.pos
	for s.pos < len(s.doc) {
		switch b := s.doc[s.pos]; {
		case b >= 'a' && b <= 'z', b >= '0' && b <= '9', b == '-', b == '+', b == '.', b == 'E':
			s.pos++
			continue
		}
		break
	}
	if s.pos == start {
		return nil, s.fail("not a JSON value")
	}
	return s.doc[start:s.pos], true
}

// skip reads past a value that has already been found wrong and returns its text. It is lenient inside objects and arrays.
func (s *scanner) skip() ([]byte, bool) {
	b := s.peek()
	start := s.pos
	switch b {
	case '"':
		_, ok := s.string()
		return s.doc[start:s.pos], ok
	case '{', '[':
	default:
		return s.literal()
	}
	for depth := 0; s.pos < len(s.doc); {
		switch s.doc[s.pos] {
		case '"':
			if _, ok := s.string(); !ok {
				return nil, false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.pos++
		if depth == 0 {
			return s.doc[start:s.pos], true
		}
	}
	return nil, s.fail("document ends too soon")
}
