// Package yamlbound refuses YAML that would keep a parser busy for hours or fill the memory: the time that the parser takes grows with the
// square of nesting and of the keys of one map. It does not parse and does not say whether something is YAML.
package yamlbound

import (
	"bytes"
	"fmt"
)

// Bounds of a file. They are far beyond what people write.
const (
	MaxBytes = 1 << 20
	MaxItems = 10_000 // lines, and entries of lists and maps
	MaxDepth = 100    // brackets within brackets
)

// Check returns why text is not to be parsed, or nil. Brackets and commas within texts count too.
func Check(text []byte) error {
	if len(text) > MaxBytes {
		return fmt.Errorf("the file has %d bytes, want at most %d", len(text), MaxBytes)
	}
	items, depth := 0, 0
	for line := range bytes.Lines(text) {
		items++
		rest := bytes.TrimLeft(line, " \t")
		if len(rest) > 0 && rest[0] == '#' {
			continue
		}
		for i, c := range rest {
			switch c {
			case ',':
				items++
			case '[', '{':
				items++
				if depth++; depth > MaxDepth {
					return fmt.Errorf("brackets are nested deeper than %d", MaxDepth)
				}
			case ']', '}':
				depth = max(0, depth-1)
			case '-', '?', ':':
				if i+1 < len(rest) && rest[i+1] == ' ' {
					items++
				}
			}
		}
	}
	if items > MaxItems {
		return fmt.Errorf("the file has %d lines and entries, want at most %d", items, MaxItems)
	}
	return nil
}
