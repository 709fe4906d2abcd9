package verify

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

func record(offset int64) *kgo.Record {
	return &kgo.Record{Topic: "finance.invoice.v1", Offset: offset}
}

// sample is a report with everything in it. evil stands wherever text of records does.
func sample(evil string) *Report {
	r := &Report{
		Format: Format, ID: "0199c1d2-0000-7000-8000-000000000001", Source: "shop", By: "ana@books", Version: "v1.0.0",
		StartedAt: time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC), Seconds: 21.4,
		Window: Window{Since: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Until: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)},
		Rows:   1_000_000, FirstID: 4_000_001, LastID: 5_000_000,
		Looked:  Moments{At: time.Date(2026, 11, 24, 6, 0, 1, 0, time.UTC), OutboxSnapshot: "100:100:", TablesSnapshot: "7:7:", SourceEpoch: 1, RelayID: 5_000_000},
		Waiting: 3, Differences: 2,
		Layers: []Layer{
			{Name: "source", Expected: 1_000_000, Matched: 1_000_000},
			{Name: "finance", Expected: 999_000, Matched: 998_997, Pending: 1, Parked: 1, Dead: 1, Filtered: 1000},
			{Name: "tables", Expected: 900_000, Matched: 899_998, Missing: 1, Different: 1},
		},
		Groups: []Group{{Tenant: "acme", Entity: "invoice", OutboxRecords: 1_000_000, OutboxHash: strings.Repeat("ab", 16), TopicRecords: 1_000_000, TopicHash: strings.Repeat("ab", 16), Equal: true}},
		Totals: []Total{
			{
				Tenant: "acme", Entity: "invoice", Type: "invoice", Currency: "BRL", Status: "paid", Equal: true,
				Records: Amounts{812_345, 2_100_400, "98765432.10", "98765432.10"}, Tables: Amounts{812_345, 2_100_400, "98765432.10", "98765432.10"},
			},
			{
				Tenant: "acme", Entity: "invoice", Type: "invoice", Currency: "USD", Status: "open",
				Records: Amounts{87_655, 190_000, "-1200.05", "1200.05"}, Tables: Amounts{87_654, 190_000, "1200.06", "1200.05"},
			},
		},
		Listed: []Difference{
			{Layer: "tables", Kind: Different, Tenant: "acme", Entity: "invoice", SourceID: evil, EventID: "e", Sequence: 4_000_123, What: "the row does not say what its finance record says", Fields: []Field{{"memo", evil, evil}, {"total", "10.5", "10.51"}}, Trace: "leat trace acme/shop/412"},
			{Layer: "tables", Kind: Missing, Tenant: "acme", Entity: "invoice", SourceID: "413", Sequence: 4_000_124, What: "its row is gone", Trace: "leat trace acme/shop/413"},
		},
		Open:  []Open{{Layer: "finance", State: "dead", Tenant: "acme", Entity: "invoice", SourceID: evil, Sequence: 9, What: "is a dead letter: it waits for a person", Trace: "leat trace acme/shop/9"}},
		Notes: []string{"rows below id 4000001 have been cleaned up"},
	}
	r.Statement = r.words()
	return r
}

func TestSign_ADocumentThatWasChangedIsRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "verify.key")
	fingerprint, err := NewKey(file)
	require.NoError(t, err)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	_, err = NewKey(file)
	require.ErrorIs(t, err, os.ErrExist, "a key is never overwritten")

	signer, err := LoadSigner(file)
	require.NoError(t, err)
	doc, err := signer.Sign(sample("412 <&> é"))
	require.NoError(t, err)
	text, err := doc.JSON()
	require.NoError(t, err)
	pub, err := os.ReadFile(file + ".pub")
	require.NoError(t, err)
	key, err := PublicKey(pub)
	require.NoError(t, err)

	c, err := Check(text, key)
	require.NoError(t, err)
	require.True(t, c.Trusted, c.Problem)
	require.Equal(t, fingerprint, c.Fingerprint)
	var compact json.RawMessage = text
	again, err := json.Marshal(compact)
	require.NoError(t, err)
	c, err = Check(again, key)
	require.NoError(t, err)
	require.True(t, c.Trusted, "indentation is not signed")

	c, err = Check([]byte(strings.Replace(string(text), `"differences": 2`, `"differences": 0`, 1)), key)
	require.NoError(t, err)
	require.False(t, c.Valid)
	require.Contains(t, c.Problem, "was changed after it was signed")

	other := filepath.Join(t.TempDir(), "other.key")
	_, err = NewKey(other)
	require.NoError(t, err)
	pub, err = os.ReadFile(other + ".pub")
	require.NoError(t, err)
	wrong, err := PublicKey(pub)
	require.NoError(t, err)
	c, err = Check(text, wrong)
	require.NoError(t, err)
	require.True(t, c.Valid)
	require.False(t, c.Trusted)
	require.Contains(t, c.Problem, "signed with another key")
}

func TestSign_WithoutAKeyTheReportSaysSo(t *testing.T) {
	t.Parallel()
	signer, err := LoadSigner("")
	require.NoError(t, err)
	doc, err := signer.Sign(sample("412"))
	require.NoError(t, err)
	text, err := doc.JSON()
	require.NoError(t, err)
	c, err := Check(text, nil)
	require.NoError(t, err)
	require.False(t, c.Signed)
	require.Equal(t, "the report is not signed", c.Problem)
	var page strings.Builder
	require.NoError(t, doc.WritePage(&page))
	require.Contains(t, page.String(), "This report is not signed.")
	_, err = Check([]byte(`{"report":{"format":"x"}}`), nil)
	require.ErrorContains(t, err, "no report of `leat verify`")
}

// TestPage_TextOfRecordsStaysText: neither markup nor formulas.
func TestPage_TextOfRecordsStaysText(t *testing.T) {
	t.Parallel()
	for _, evil := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</style><b>`, `=HYPERLINK("http://x")`, `+1`, `-1`, `@SUM(A1)`, "\tx",
	} {
		doc, err := Signer{}.Sign(sample(evil))
		require.NoError(t, err)
		var b strings.Builder
		require.NoError(t, doc.WritePage(&b))
		page := b.String()
		for _, markup := range []string{"<script", "<img", "<b>x", "onerror=alert(1)>"} {
			require.NotContains(t, page, markup)
		}
		for _, first := range []string{"=", "+", "@", "\t"} {
			require.NotContains(t, page, "<td>"+first)
			require.NotContains(t, page, `<td class="bad">`+first)
		}
		require.NotContains(t, page, "<td>-")
		require.NotContains(t, page, "http-equiv=\"refresh\"")
	}
	require.Equal(t, "'=1", harmless("=1"))
	require.Equal(t, "a=1", harmless("a=1"))
}

func TestPage_SaysWhatTheReportSays(t *testing.T) {
	t.Parallel()
	doc, err := Signer{}.Sign(sample("412"))
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, doc.WritePage(&b))
	for _, want := range []string{
		"Does not agree", "2 differences were found", "changes from 2026-11-23 00:00:00 UTC to before 2026-11-24 00:00:00 UTC", "ana@books",
		"leat trace acme/shop/413", "98\u202f765\u202f432.10", "\u22121\u202f200.05", "not equal", "10.51", strings.Repeat("ab", 16), "waits for a person",
	} {
		require.Contains(t, b.String(), want)
	}
	require.NotContains(t, b.String(), "http://", "the page needs nothing from elsewhere")
	require.NotContains(t, b.String(), "https://")
}

func TestTrace_IsACommandThatAShellTakes(t *testing.T) {
	t.Parallel()
	v := &run{c: Config{Source: "shop"}}
	require.Equal(t, "leat trace acme/shop/412", v.trace("acme", "412"))
	require.Equal(t, `leat trace 'acme/shop/a b;rm $x'\''y'`, v.trace("acme", `a b;rm $x'y`))
	require.Empty(t, v.trace("", ""))
}
