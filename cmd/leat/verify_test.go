package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/operations/verify"
)

func TestVerify_KeygenAndCheckNeedNoServices(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, report := filepath.Join(dir, "verify.key"), filepath.Join(dir, "report.json")
	out, _, err := leat(t, nil, "verify", "keygen", key)
	require.NoError(t, err)
	require.Regexp(t, `fingerprint of the public key: sha256:[0-9a-f]{32}\n$`, out)
	_, _, err = leat(t, nil, "verify", "keygen", key)
	require.ErrorContains(t, err, "exists")

	file := func(s verify.Signer) {
		doc, err := s.Sign(&verify.Report{Format: verify.Format, ID: "r1", Source: "shop", Agrees: true, Statement: []string{"Everything agrees."}})
		require.NoError(t, err)
		text, err := doc.JSON()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(report, text, 0o600))
	}
	signer, err := verify.LoadSigner(key)
	require.NoError(t, err)
	file(signer)
	out, _, err = leat(t, nil, "verify", "check", report, "--public-key", key+".pub")
	require.NoError(t, err)
	require.Contains(t, out, "the signature is good: unchanged, and made with the key sha256:")
	require.Contains(t, out, "Everything agrees.")
	out, _, err = leat(t, nil, "verify", "check", report, "-o", "json")
	require.NoError(t, err)
	var checked map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &checked))
	require.Equal(t, true, checked["valid"])
	require.Equal(t, false, checked["trusted"])

	file(verify.Signer{})
	_, _, err = leat(t, nil, "verify", "check", report, "--public-key", key+".pub")
	require.EqualError(t, err, "the report is not signed")
	_, _, err = leat(t, nil, "verify", "check", report, "--public-key", report)
	require.ErrorContains(t, err, "name the .pub file")
}

func TestVerify_RefusesAWindowThatCannotBeMeant(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--window", "1h", "--since", "2026-11-01"},
		{"--since", "yesterday"},
		{"--since", "2026-11-02", "--until", "2026-11-01"},
		{"--from-id", "5", "--to-id", "4"},
		{"chek", "report.json"},
	} {
		_, _, err := leat(t, nil, append([]string{"verify"}, args...)...)
		require.Error(t, err, "%v", args)
		require.Equal(t, 2, exitCode(err), "%v: %v", args, err)
	}
}
