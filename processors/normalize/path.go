package normalize

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// path finds a value in a document: keys joined by dots, and numbers for the items of lists. "." is the value itself.
// In a list's item a path starts at the item; "$." at its beginning starts at the record.
type path struct {
	text  string
	root  bool // start at the record
	steps []step
}

type step struct {
	key   string
	index int // -1: not a number
}

// parsePath reads a path. A dot within a key is written "\.".
func parsePath(s string) (path, error) {
	p := path{text: s}
	if s == "." {
		return p, nil
	}
	if rest, ok := strings.CutPrefix(s, "$."); ok {
		p.root, s = true, rest
	}
	var key strings.Builder
	flush := func() error {
		if key.Len() == 0 {
			return fmt.Errorf("path %q has an empty part; write keys joined by dots, such as address.city", p.text)
		}
		st := step{key: key.String(), index: -1}
		if n, err := strconv.Atoi(st.key); err == nil && n >= 0 {
			st.index = n
		}
		p.steps = append(p.steps, st)
		key.Reset()
		return nil
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\':
			if i++; i == len(s) || s[i] != '.' && s[i] != '\\' {
				return p, fmt.Errorf(`path %q: a backslash stands before a dot or a backslash only`, p.text)
			}
			key.WriteByte(s[i])
		case '.':
			if err := flush(); err != nil {
				return p, err
			}
		case '*', '#', '[', ']', '|', '?', '@', '(', ')', ' ':
			return p, fmt.Errorf("path %q: %q is not used in paths; items of lists are read by each, anything else by expr", p.text, c)
		default:
			key.WriteByte(c)
		}
	}
	if s == "" {
		return p, errors.New("the path is empty; use . for the value itself")
	}
	return p, flush()
}

// find returns the index of the value that p leads to from at, or none.
func (d *document) find(p *path, at uint32) uint32 {
	if p.root {
		at = root
	}
	for i := range p.steps {
		if at = d.child(&p.steps[i], at); at == none {
			return none
		}
	}
	return at
}

func (d *document) child(s *step, at uint32) uint32 {
	if at == none || len(d.nodes) == 0 {
		return none
	}
	n := &d.nodes[at]
	switch n.kind {
	case object:
		for i := at + 1; i < n.next; i = d.nodes[i].next {
			m := &d.nodes[i]
			if string(d.src[m.keyStart:m.keyEnd]) == s.key || m.keyEscaped && string(d.key(m)) == s.key {
				return i
			}
		}
	case array:
		if s.index < 0 {
			return none
		}
		count := 0
		for i := at + 1; i < n.next; i = d.nodes[i].next {
			if count == s.index {
				return i
			}
			count++
		}
	}
	return none
}
