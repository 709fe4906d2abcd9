package normalize

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// unescape reads the escape at the beginning of s and returns its rune and length.
func unescape(s []byte) (r rune, n int, err error) {
	if len(s) < 2 {
		return 0, 0, errors.New("the record ends in an escape")
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2, nil
	case 'b':
		return '\b', 2, nil
	case 'f':
		return '\f', 2, nil
	case 'n':
		return '\n', 2, nil
	case 'r':
		return '\r', 2, nil
	case 't':
		return '\t', 2, nil
	case 'u':
	default:
		return 0, 0, fmt.Errorf("escape %s is not JSON", quote(s[:2]))
	}
	r = hex4(s[2:])
	switch {
	case r < 0:
		return 0, 0, fmt.Errorf("escape %s is not JSON", quote(s[:min(len(s), 6)]))
	case r == 0:
		return 0, 0, errors.New("a NUL character, which no target can hold")
	case !utf16.IsSurrogate(r):
		return r, 6, nil
	}
	if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if full := utf16.DecodeRune(r, hex4(s[8:])); full != utf8.RuneError {
			return full, 12, nil
		}
	}
	return 0, 0, fmt.Errorf("escape %s is half a surrogate pair", quote(s[:6]))
}

func hex4(s []byte) rune {
	if len(s) < 4 {
		return -1
	}
	v, err := strconv.ParseUint(string(s[:4]), 16, 32)
	if err != nil {
		return -1
	}
	return rune(v)
}

func unescapeAll(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		r, n, err := unescape(s[i:])
		if err != nil {
			return out // not reached: quoted has read the same escapes
		}
		out = utf8.AppendRune(out, r)
		i += n
	}
	return out
}

func firstInvalid(src []byte) int {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(src)
}

// appendText writes s, which is UTF-8, as a JSON string.
func appendText(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i, c := range s {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		if c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
		} else {
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

func trimSpace(s []byte) []byte { return []byte(strings.TrimSpace(string(s))) }

// quote shows what was found, in at most about 80 characters: enough to find it, not the whole of it.
func quote(b []byte) string { return strconv.Quote(bounded(string(b))) }

func bounded(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func jsonText(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		return []byte(`""`) // not reached: a string always marshals
	}
	return b
}
