package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/safetext"
)

// TestDocs_CommandsAreUnderstood: every `leat` command in a block of a page or runbook, and in the examples of --help, is one that the
// program takes, with the flags that it needs and the arguments that it has. Between backticks, where it may be no more than a name, it
// is one with such flags.
func TestDocs_CommandsAreUnderstood(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	require.NoError(t, err)
	runbooks, err := filepath.Glob(filepath.Join("..", "..", "docs", "runbooks", "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, runbooks)
	pages = slices.Concat(pages, runbooks, []string{filepath.Join("..", "..", "README.md")})
	mention := regexp.MustCompile("`(leat [^`]+)`")
	block := regexp.MustCompile("(?s)```sh\n(.*?)```")
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, b := range block.FindAllSubmatch(text, -1) {
			found += understood(t, page, string(b[1]))
		}
		for _, m := range mention.FindAllSubmatch(block.ReplaceAll(text, nil), -1) {
			if line := string(m[1]); !strings.ContainsAny(line, "|…") { // leat dlq list|show is a pattern
				_, err := parsed(strings.Fields(line)[1:])
				require.NoError(t, err, "%s: %s", page, line)
			}
		}
	}
	require.Greater(t, found, 80, "commands in the pages")
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		understood(t, c.CommandPath()+" --help", c.Example)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(&env{getenv: os.Getenv, stdout: safetext.NewWriter(io.Discard), stderr: safetext.NewWriter(io.Discard)}))
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
		c, err := parsed(args)
		require.NoError(t, err, "%s: %s", where, line)
		c.Flags().VisitAll(func(f *pflag.Flag) {
			tried := c.Flags().Changed("dry-run") // and nobody asks why
			require.True(t, f.Changed || tried || !strings.Contains(f.Usage, "(needed)"), "%s: %s: --%s is needed", where, line, f.Name)
		})
		require.NoError(t, c.ValidateArgs(c.Flags().Args()), "%s: %s", where, line)
	}
	return n
}

// parsed finds the command of a line and gives it its flags.
func parsed(args []string) (*cobra.Command, error) {
	c, rest, err := newRoot(&env{getenv: os.Getenv, stdout: safetext.NewWriter(io.Discard), stderr: safetext.NewWriter(io.Discard)}).Find(args)
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err == nil && c.HasSubCommands() && c.Flags().NArg() > 0 {
		err = fmt.Errorf("no command %s", c.Flags().Arg(0))
	}
	return c, err
}
