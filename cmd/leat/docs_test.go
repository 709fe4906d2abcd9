package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// TestDocs_CommandsAreUnderstood: every `leat` command in a block of a page, and in the examples of --help, is one that the program
// takes, with the flags and arguments that it has.
func TestDocs_CommandsAreUnderstood(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```sh\n(.*?)```")
	found := 0
	for _, page := range append(pages, filepath.Join("..", "..", "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, b := range block.FindAllSubmatch(text, -1) {
			found += understood(t, page, string(b[1]))
		}
	}
	require.Greater(t, found, 5, "commands in the pages")
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		understood(t, c.CommandPath()+" --help", c.Example)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(&env{getenv: os.Getenv, stdout: io.Discard, stderr: io.Discard}))
}

// understood parses the lines of a script that begin with leat, and returns how many there are. It runs none.
func understood(t *testing.T, where, script string) (n int) {
	t.Helper()
	words := regexp.MustCompile(`(?:"[^"]*"|'[^']*'|[^\s"'])+`)
	for line := range strings.SplitSeq(strings.ReplaceAll(script, "\\\n", " "), "\n") {
		args := words.FindAllString(line, -1)
		if len(args) == 0 || args[0] != "leat" {
			continue
		}
		n++
		args = args[1:]
		for i, a := range args {
			if strings.HasPrefix(a, "#") || a == "|" || a == ">" || a == "<" || a == "&&" {
				args = args[:i]
				break
			}
			args[i] = strings.NewReplacer(`"`, "", `'`, "").Replace(a)
		}
		c, rest, err := newRoot(&env{getenv: os.Getenv, stdout: io.Discard, stderr: io.Discard}).Find(args)
		require.NoError(t, err, "%s: %s", where, line)
		require.NoError(t, c.ParseFlags(rest), "%s: %s", where, line)
		if c.HasSubCommands() {
			require.Empty(t, c.Flags().Args(), "%s: %s: no such command", where, line)
		}
		require.NoError(t, c.ValidateArgs(c.Flags().Args()), "%s: %s", where, line)
	}
	return n
}
