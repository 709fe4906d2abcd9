package integration_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGuarantees_NameTestsThatExist also demands that every promise has a proof.
func TestGuarantees_NameTestsThatExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w+)\(`)
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			known[string(m[1])] = true
		}
		return err
	}))
	page, err := os.ReadFile(filepath.Join("..", "docs", "guarantees.md"))
	require.NoError(t, err)
	named := regexp.MustCompile("`((?:Test|Fuzz|Example)\\w+)`")
	for _, m := range named.FindAllSubmatch(page, -1) {
		require.True(t, known[string(m[1])], "docs/guarantees.md names %s, which no test file declares", m[1])
	}
	sections := strings.Split(string(page), "\n### ")[1:]
	require.NotEmpty(t, sections)
	for _, s := range sections {
		title, _, _ := strings.Cut(s, "\n")
		require.Regexp(t, named, s, "guarantee %q names no test", title)
	}
}

// TestDocs_LinksLeadSomewhere checks the relative links of all pages.
func TestDocs_LinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join("..", "docs", "*.md"))
	require.NoError(t, err)
	link := regexp.MustCompile(`\]\(([\w./-]+)(?:#[\w-]*)?\)`)
	for _, page := range append(pages, filepath.Join("..", "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range link.FindAllSubmatch(text, -1) {
			_, err := os.Stat(filepath.Join(filepath.Dir(page), string(m[1])))
			require.NoError(t, err, "%s links to %s", page, m[1])
		}
	}
}
