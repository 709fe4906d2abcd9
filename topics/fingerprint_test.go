package topics_test

import (
	"runtime/debug"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/topics"
)

func TestParameterize_ReplacesValuesAndKeepsCauses(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"mail to ana.lima+x@padaria.com.br bounced":                          "mail to ? bounced",
		"GET https://api.example.com/v1/invoices/77?x=1: EOF":                "GET ? EOF",
		"lookup db-1.prod.internal:5432: no such host":                       "lookup ?: no such host",
		"dial tcp 10.0.0.17:5432: connection refused":                        "dial tcp ?: connection refused",
		"dial tcp [::1]:5432: connection refused":                            "dial tcp ?: connection refused",
		"trace 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 lost": "trace ? lost",
		"no event 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11":                      "no event ?",
		"sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709":                      "sha? ?",
		"md5 d41d8cd98f00b204e9800998ecf8427e":                               "md? ?",
		"at 2026-11-23T10:00:00.123Z and 2026-11-23":                         "at ? and ?",
		"Date: Mon, 23 Nov 2026 10:00:00 GMT":                                "Date: ?",
		"timed out after 1m30.5s":                                            "timed out after ?",
		"pointer 0xc000123456":                                               "pointer ?",
		"commit 1a2b3c4":                                                     "commit ?",
		"found 12.50, want 13":                                               "found ?, want ?",
		"found -5":                                                           "found ?",
		"found 1.825e1":                                                      "found ?",
		`found "12,50" (path qty)`:                                           "found ? (path qty)",
		`found 'x y' of “z”`:                                                 "found ? of ?",
		"found true":                                                         "found ?",
		"found null":                                                         "found null",
		"field lines[3].unit_price":                                          "field lines[?].unit_price",
		"customer cus_N8kL2xQ is gone":                                       "customer ? is gone",
		"order 01ARZ3NDEKTSV4RRFFQ69G5FAV is gone":                           "order ? is gone",
		"no utf8 in address_line2":                                           "no utf? in address_line?",
		`ERROR: null value in column "due_date" of relation "invoices" (SQLSTATE 23502)`: `ERROR: null value in column "due_date" of relation "invoices" (SQLSTATE 23502)`,
		`ERROR: invalid input syntax for type numeric: "12,50" (SQLSTATE 22P02)`:         "ERROR: invalid input syntax for type numeric: ? (SQLSTATE 22P02)",
		"the API answers status 429":                       "the API answers status 429",
		"want one of 1, 2, 3":                              "want one of ?",
		"lines[0]: found 1; lines[1]: found 2; and 3 more": "lines[?]: found ?",
		"panic:\n\tindex out of range [5] with length 3":   "panic: index out of range [?] with length ?",
	}
	for message, want := range tests {
		require.Equal(t, want, topics.Parameterize(message), message)
	}
}

func TestFingerprint_GroupsFailuresOfOneCause(t *testing.T) {
	t.Parallel()
	same := [][]string{
		{
			`row 17 of "acme/1" at 2026-11-23T10:00:00Z: no customer 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11 (10.0.0.1:5432)`,
			`row 18 of "acme/2" at 2026-11-24T11:30:00Z: no customer 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a12 (10.0.0.2:5432)`,
		},
		{`field total: found 12 (path total)`, `field total: found 12.50 (path total)`, `field total: found "a \" b" (path total)`},
		{
			`contract finance.invoice.v1: lines[0].total: is missing`,
			`contract finance.invoice.v1: lines[0].total: is missing; lines[1].total: is missing; and 7 more`,
		},
		{"id 12345678 is unknown", "id 1234567a is unknown", "id a2345678 is unknown", "id 7 is unknown"},
		{"dial tcp 10.1.2.3:1: refused", "dial tcp [fe80::1%eth0]:1: refused", "dial tcp db.example.com:1: refused"},
		{strings.Repeat("same ", 300) + `"` + strings.Repeat("x", 10) + `"`, strings.Repeat("same ", 300) + `"` + strings.Repeat("y", 9000) + `"`},
	}
	of := func(message string) string { return topics.Fingerprint("normalize", "transient", "c", message, "") }
	for _, group := range same {
		for _, message := range group {
			require.Equal(t, of(group[0]), of(message), topics.Parameterize(message))
		}
	}
	different := []string{
		"no customer", "no invoice", "found null", "found nothing", "field total: found 12", "field quantity: found 12",
		`violates constraint "a" (SQLSTATE 23505)`, `violates constraint "b" (SQLSTATE 23505)`, `violates constraint "b" (SQLSTATE 23503)`,
		"status 404", "status 500",
	}
	seen := map[string]string{}
	for _, message := range different {
		require.Empty(t, seen[of(message)], message)
		seen[of(message)] = message
	}
	for _, f := range []string{
		topics.Fingerprint("publish", "transient", "c", "no customer", ""), topics.Fingerprint("normalize", "permanent", "c", "no customer", ""),
		topics.Fingerprint("normalize", "transient", "d", "no customer", ""),
	} {
		require.NotEqual(t, of("no customer"), f)
		require.Regexp(t, `^v1:[0-9a-f]{16}$`, f)
	}
}

// indexes and divides panic in two places with one message.
func indexes(s []int, i int) int { return s[i] }
func divides(s []int, i int) int { return s[i+1] }

func stackOf(f func([]int, int) int, i int) (stack string) {
	defer func() {
		_ = recover()
		stack = string(debug.Stack())
	}()
	f(nil, i)
	return ""
}

func TestFingerprint_TellsPanicsByTheirFunction(t *testing.T) {
	t.Parallel()
	of := func(f func([]int, int) int, i int) string {
		return topics.Fingerprint("normalize", "transient", "panic", "panic: index out of range", stackOf(f, i))
	}
	require.Equal(t, of(indexes, 1), of(indexes, 7))
	require.NotEqual(t, of(indexes, 1), of(divides, 1))
}

func FuzzParameterize(f *testing.F) {
	for _, s := range []string{`a "b" 1`, "x@y.z", "1m2s; 1m3s; and 4 more", "\xff\"", "“", "? ?, ?", `column "a"`, "0x", "1e9999", "[::]", "000 ; and 0 more"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, message string) {
		once := topics.Parameterize(message)
		require.LessOrEqual(t, len(once), 400)
		require.True(t, utf8.ValidString(once))
		if len(once) < 300 {
			require.Equal(t, once, topics.Parameterize(once), "what is parameterized stays as it is")
		}
	})
}
