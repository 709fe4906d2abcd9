package safetext_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/safetext"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"plain":             {"Ana Sílva, 12.50\n\tok", "Ana Sílva, 12.50\n\tok"},
		"colours":           {"\x1b[31mred\x1b[0m", `\u001b[31mred\u001b[0m`},
		"title of a window": {"\x1b]0;gotcha\x07", `\u001b]0;gotcha\u0007`},
		"overwritten line":  {"failed\rok    ", `failed\u000dok    `},
		"8-bit CSI":         {"\u009b31m", `\u009b31m`},
		"right to left":     {"invoice\u202excod.exe", `invoice\u202excod.exe`},
		"isolates":          {"a\u2066b\u2069", `a\u2066b\u2069`},
		"line separator":    {"a\u2028b", `a\u2028b`},
		"not UTF-8":         {"a\xff\x9b", `a\xff\x9b`},
		"replaced":          {"a\uFFFDb", "a\uFFFDb"},
		"joined":            {"👩\u200d💻", "👩\u200d💻"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, safetext.Clean(c.in))
		})
	}
}

func TestLine_IsOne(t *testing.T) {
	t.Parallel()
	require.Equal(t, `1\n  2026-11-25  all is well\t!`, safetext.Line("1\n  2026-11-25  all is well\t!"))
}

func TestWriter_CleansAcrossWritesAndKeepsJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := safetext.NewWriter(&out)
	value := map[string]string{"key": "a\u202eb\u009bcé👩"}
	text, err := json.Marshal(value)
	require.NoError(t, err)
	for i := range text { // a byte at a time
		n, err := w.Write(text[i : i+1])
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	require.NotContains(t, out.String(), "\u202e")
	require.Contains(t, out.String(), "é👩")
	var again map[string]string
	require.NoError(t, json.Unmarshal(out.Bytes(), &again))
	require.Equal(t, value, again)
}

func TestHider_FindsSecretsInEveryForm(t *testing.T) {
	t.Parallel()
	h := safetext.NewHider("p@ss\"w rd<1>", "postgres://u:p@ss\"w rd<1>@h/db", "leat")
	var out bytes.Buffer
	w := safetext.NewWriter(&out)
	w.Hide(h)
	for in, want := range map[string]string{
		`password p@ss"w rd<1>, as JSON p@ss\"w rd\u003c1\u003e`: "password [secret], as JSON [secret]",
		`url postgres://u:p@ss"w rd<1>@h/db`:                     "url [secret]",
		`query p%40ss%22w+rd%3C1%3E`:                             "query [secret]",
		`path p@ss%22w%20rd%3C1%3E`:                              "path [secret]",
		`leat is too short to be looked for`:                     "leat is too short to be looked for",
	} {
		out.Reset()
		_, err := w.Write([]byte(in))
		require.NoError(t, err)
		require.Equal(t, want, out.String())
	}
	err := h.Error(fmt.Errorf("connecting with p@ss\"w rd<1>: %w", fs.ErrNotExist))
	require.EqualError(t, err, "connecting with [secret]: file does not exist")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, h.Error(nil))
	plain := errors.New("plain")
	require.Equal(t, plain, h.Error(plain))
}

func TestHider_ToldHasNoPasswords(t *testing.T) {
	t.Parallel()
	h := safetext.NewHider("a known secret")
	for in, want := range map[string]string{
		`moved to postgres://leat:pa:s@s@db.example.com:5432/leat?sslmode=require, see a@b.example`: `moved to postgres://leat:[secret]@db.example.com:5432/leat?sslmode=require, see a@b.example`,
		`http://:token@h and HTTPS://u:p@h/x`:                                                       `http://:[secret]@h and HTTPS://u:[secret]@h/x`,
		`{"note":"amqp://u:p@h","by":"ana@home"}`:                                                   `{"note":"amqp://u:[secret]@h","by":"ana@home"}`,
		`host=db user=leat password=hunter2 sslmode=require`:                                        `host=db user=leat password=[secret] sslmode=require`,
		`host=db password='hunter 2' user=leat`:                                                     `host=db password=[secret] user=leat`,
		`PlainLoginModule required username="leat" Password = "hunter2";`:                           `PlainLoginModule required username="leat" Password = [secret];`,
		`postgres://h/db?user=leat&password=hunter2&sslmode=require`:                                `postgres://h/db?user=leat&password=[secret]&sslmode=require`,
		`it is a known secret`:                                                                      `it is [secret]`,
		`see https://tickets.example.com:8443/browse/OPS-1 (ana@example.com): no password`:          `see https://tickets.example.com:8443/browse/OPS-1 (ana@example.com): no password`,
		`user leat@db:5432 cannot connect`:                                                          `user leat@db:5432 cannot connect`,
		`postgres://leat:[secret]@h password=[secret]`:                                              `postgres://leat:[secret]@h password=[secret]`,
	} {
		require.Equal(t, want, h.Told(in))
		require.Equal(t, want, h.Told(want), "once more changes nothing")
	}
}
