package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// decoder fills a Config from a syntax tree. The library's own decoder stops at the first problem and expands nothing.
type decoder struct {
	file     string
	getenv   func(string) string
	keys     map[string]*keyState
	problems Problems
}

func (d *decoder) bad(line int, path, message, remedy string) {
	d.problems = append(d.problems, Problem{d.file, line, path, message, remedy})
	if k := d.keys[path]; k != nil {
		k.bad = true
	}
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 1
}

func (d *decoder) decode(n ast.Node, v reflect.Value, path string) {
	switch n := n.(type) {
	case *ast.NullNode:
		d.nothing(path)
		return
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.bad(lineOf(n), path, "anchors, aliases and tags are not supported", "write the value out")
		return
	}
	switch v.Interface().(type) {
	case Secret, DatabaseURL, time.Duration:
		d.scalar(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// nothing notes that a key has no value: it is as good as no key.
func (d *decoder) nothing(path string) {
	if k := d.keys[path]; k != nil {
		k.empty = true
	}
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.bad(lineOf(n), path, "is not a section", "write its keys on lines of their own: "+strings.Join(keysOf(v.Type()), ", "))
		return
	}
	for _, kv := range m.Values {
		key := kv.Key.GetToken().Value
		full, line := join(path, key), lineOf(kv.Key)
		field := fieldOf(v, key)
		switch {
		case !field.IsValid():
			d.bad(line, full, "unknown key", suggest(key, keysOf(v.Type())))
			continue
		case d.keys[full] != nil:
			d.bad(line, full, fmt.Sprintf("occurs twice, first on line %d", d.keys[full].line), "remove one")
			continue
		}
		d.keys[full] = &keyState{line: line}
		d.decode(kv.Value, field, full)
	}
}

// list also takes one text with commas, so that a list can come from one environment variable.
func (d *decoder) list(n ast.Node, v reflect.Value, path string) {
	if v.Type().Elem().Kind() == reflect.String {
		if text, ok := d.text(n, path); ok {
			for part := range strings.SplitSeq(text, ",") {
				if part = strings.TrimSpace(part); part != "" {
					v.Set(reflect.Append(v, reflect.ValueOf(part)))
				}
			}
			return
		}
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, scalar := n.(ast.ScalarNode); !scalar || v.Type().Elem().Kind() != reflect.String {
			d.bad(lineOf(n), path, "is not a list", "write each entry on a line of its own, after \"- \"")
		}
		return
	}
	for i, item := range seq.Values {
		full := path + "[" + strconv.Itoa(i) + "]"
		d.keys[full] = &keyState{line: lineOf(item)}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.decode(item, elem, full)
		v.Set(reflect.Append(v, elem))
	}
}

// text returns the expanded text of a scalar; false if n is none, or if it does not expand (which has been reported).
func (d *decoder) text(n ast.Node, path string) (string, bool) {
	var raw string
	switch n := n.(type) {
	case *ast.StringNode:
		raw = n.Value
	case *ast.LiteralNode:
		raw = n.Value.Value
	case ast.ScalarNode:
		raw = n.GetToken().Value
	default:
		return "", false
	}
	out, bad := expand(raw, d.getenv)
	for _, b := range bad {
		d.bad(lineOf(n), path, b[0], b[1])
	}
	return out, len(bad) == 0
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	before := len(d.problems)
	text, ok := d.text(n, path)
	if !ok {
		if len(d.problems) == before {
			d.bad(lineOf(n), path, "is not a single value", "write "+wanted(v))
		}
		return
	}
	text = strings.TrimSpace(text)
	if text == "" {
		d.nothing(path)
		return
	}
	if !set(v, text) {
		d.bad(lineOf(n), path, strconv.Quote(text)+" is not "+wanted(v), "write "+wanted(v))
	}
}

func set(v reflect.Value, text string) bool {
	var err error
	switch p := v.Addr().Interface().(type) {
	case *Secret:
		*p = NewSecret(text)
	case *DatabaseURL:
		*p = NewDatabaseURL(text)
	case *time.Duration:
		*p, err = parseDuration(text)
	case *string:
		*p = text
	case *int:
		*p, err = strconv.Atoi(text)
	case *float64:
		*p, err = strconv.ParseFloat(text, 64)
	case *bool:
		*p, err = strconv.ParseBool(text)
	default:
		panic(fmt.Sprintf("config: no decoder for %T", p)) // a new kind of field without its case
	}
	return err == nil
}

func wanted(v reflect.Value) string {
	switch v.Interface().(type) {
	case time.Duration:
		return "a duration such as 30s, 5m, 12h or 90d"
	case int:
		return "a whole number"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	default:
		return "a text"
	}
}

// parseDuration also knows days, which retention is told in.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n > 36500 || n < -36500 {
			return 0, fmt.Errorf("%q is not a number of days", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(s)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func fieldOf(v reflect.Value, key string) reflect.Value {
	for f, field := range v.Fields() {
		if f.Tag.Get("yaml") == key {
			return field
		}
	}
	return reflect.Value{}
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for f := range t.Fields() {
		if tag := f.Tag.Get("yaml"); tag != "" {
			keys = append(keys, tag)
		}
	}
	return keys
}

// suggest names the known key nearest to key, or all of them.
func suggest(key string, known []string) string {
	best := slices.MinFunc(known, func(a, b string) int { return distance(key, a) - distance(key, b) })
	if distance(key, best) <= 2 {
		return "did you mean " + best + "?"
	}
	return "known keys here: " + strings.Join(known, ", ")
}

// distance is the number of letters to insert, delete or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
