package config

import (
	"fmt"
	"regexp"
	"strings"
)

var nameRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} and ${NAME:-default} by the environment; $${ stands for ${ itself. A variable that is empty counts
// as not set, as in a shell's :-. Every variable that is missing gives a problem: message and remedy.
func expand(s string, getenv func(string) string) (string, [][2]string) {
	var out strings.Builder
	var bad [][2]string
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			out.WriteString(s)
			return out.String(), bad
		}
		if i > 0 && s[i-1] == '$' {
			out.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		out.WriteString(s[:i])
		inner, rest, ok := strings.Cut(s[i+2:], "}")
		if !ok {
			return out.String(), append(bad, [2]string{"${ without }", "write ${NAME} or ${NAME:-default}, or $${ for ${ itself"})
		}
		s = rest
		name, def, hasDefault := strings.Cut(inner, ":-")
		v := getenv(name)
		switch {
		case !nameRE.MatchString(name):
			bad = append(bad, [2]string{
				fmt.Sprintf("%q is not the name of an environment variable", name),
				"write ${NAME} or ${NAME:-default}, or $${ for ${ itself",
			})
		case v == "" && !hasDefault:
			bad = append(bad, [2]string{
				"environment variable " + name + " is not set",
				"set it, or give a default: ${" + name + ":-default}",
			})
		case v == "":
			out.WriteString(def)
		default:
			out.WriteString(v)
		}
	}
}
