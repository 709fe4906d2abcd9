package normalize

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/leat-io/leat/internal/yamlbound"
)

// Problem is one thing wrong with a mapping file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Field   string `json:"field"` // where in the file: outputs[0].fields.total
	Message string `json:"message"`
}

func (p Problem) String() string {
	at := fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	if p.Field == "" {
		return at + ": " + p.Message
	}
	return at + ": " + p.Field + ": " + p.Message
}

// LoadError holds every problem of a set of mappings, in the order of files and lines.
type LoadError struct{ Problems []Problem }

func (e *LoadError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// problems collects what is wrong with one file.
type problems struct {
	file string
	list []Problem
}

func (p *problems) add(at *token.Token, field, format string, args ...any) {
	line, column := 1, 1
	if at != nil && at.Position != nil {
		line, column = at.Position.Line, at.Position.Column
	}
	p.list = append(p.list, Problem{p.file, line, column, field, fmt.Sprintf(format, args...)})
}

func (p *problems) sorted() []Problem {
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return p.list
}

// entry is a value of the file with the place that problems name.
type entry struct {
	node  ast.Node
	at    *token.Token // the key, or the value of a list's item
	field string
	ok    bool // false: the file does not have it
}

// read parses one file to its outermost value.
func read(p *problems, src []byte) entry {
	if err := yamlbound.Check(src); err != nil {
		p.add(nil, "", "%s; split the mapping into several files", err)
		return entry{}
	}
	f, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey()) // duplicates are found here, all of them
	if err != nil {
		p.add(errorToken(err), "", "not YAML: %s", firstLine(err))
		return entry{}
	}
	switch {
	case len(f.Docs) > 1 && f.Docs[1].Body != nil:
		p.add(f.Docs[1].Body.GetToken(), "", "a second document; write one mapping in each file")
		return entry{}
	case len(f.Docs) == 0 || f.Docs[0].Body == nil:
		p.add(nil, "", "the file is empty; want source and outputs")
		return entry{}
	}
	body := f.Docs[0].Body
	return entry{node: body, at: body.GetToken(), ok: true}
}

func errorToken(err error) *token.Token {
	if t, ok := err.(interface{ GetToken() *token.Token }); ok {
		return t.GetToken()
	}
	return nil
}

func firstLine(err error) string {
	type plain interface{ GetMessage() string }
	if m, ok := err.(plain); ok {
		return m.GetMessage()
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// isMap reports whether e is a map of keys.
func (e entry) isMap() bool {
	_, many := e.node.(*ast.MappingNode)
	_, one := e.node.(*ast.MappingValueNode)
	return many || one
}

// members lists a map's values in order. A key that occurs twice is a problem.
func (e entry) members(p *problems) (names []string, values []entry) {
	var pairs []*ast.MappingValueNode
	switch n := e.node.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		p.add(e.at, e.field, "found %s, want a map of keys", describe(e.node))
		return nil, nil
	}
	for _, pair := range pairs {
		name, ok := scalarText(pair.Key)
		at := pair.Key.GetToken()
		field := strings.TrimPrefix(e.field+"."+name, ".")
		switch {
		case !ok:
			p.add(at, e.field, "found %s as a key, want a name", describe(pair.Key))
		case slices.Contains(names, name):
			p.add(at, field, "the key occurs twice; keep one")
		default:
			names = append(names, name)
			values = append(values, entry{pair.Value, at, field, true})
		}
	}
	return names, values
}

// keys reads a map that has no other keys than those allowed.
func (e entry) keys(p *problems, allowed ...string) map[string]entry {
	names, values := e.members(p)
	m := make(map[string]entry, len(names))
	for i, name := range names {
		if !slices.Contains(allowed, name) {
			p.add(values[i].at, values[i].field, "unknown key; %s", suggest(name, allowed))
			continue
		}
		m[name] = values[i]
	}
	return m
}

func suggest(name string, allowed []string) string {
	for _, a := range allowed {
		if strings.EqualFold(a, name) || len(a) > 3 && len(name) > 3 && a[:3] == strings.ToLower(name[:3]) {
			return fmt.Sprintf("did you mean %q?", a)
		}
	}
	return "want " + strings.Join(allowed, ", ")
}

// items lists the values of a list.
func (e entry) items(p *problems) []entry {
	n, ok := e.node.(*ast.SequenceNode)
	if !ok {
		p.add(e.at, e.field, "found %s, want a list", describe(e.node))
		return nil
	}
	es := make([]entry, len(n.Values))
	for i, v := range n.Values {
		es[i] = entry{v, v.GetToken(), fmt.Sprintf("%s[%d]", e.field, i), true}
		if m, ok := v.(*ast.MappingNode); ok && len(m.Values) > 0 {
			es[i].at = m.Values[0].Key.GetToken()
		}
	}
	return es
}

// text reads a scalar as it is written: a number keeps its digits.
func (e entry) text(p *problems, want string) string {
	s, ok := scalarText(e.node)
	if !ok {
		p.add(e.at, e.field, "found %s, want %s", describe(e.node), want)
	}
	return s
}

func (e entry) isScalar() bool {
	_, ok := scalarText(e.node)
	return ok
}

func (e entry) flag(p *problems) bool {
	if !e.ok {
		return false
	}
	b, ok := e.node.(*ast.BoolNode)
	if !ok {
		p.add(e.at, e.field, "found %s, want true or false", describe(e.node))
		return false
	}
	return b.Value
}

// strings reads a list of scalars.
func (e entry) strings(p *problems) []string {
	var out []string
	for _, item := range e.items(p) {
		out = append(out, item.text(p, "text, a number, true or false"))
	}
	return out
}

func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func describe(n ast.Node) string {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a map"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias, which mappings do not use"
	case *ast.TagNode:
		return "a tag, which mappings do not use"
	default:
		return quote([]byte(n.GetToken().Value))
	}
}
