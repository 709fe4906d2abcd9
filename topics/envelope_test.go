package topics

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func sampleEnvelope() Envelope {
	return Envelope{
		ID: "01976e3c-7a1b-7cc3-98c4-dc0c0c07398f", Tenant: "acme", System: "shop", Kind: SourceKind("invoice"), Operation: Upsert,
		Subject: "98", Time: time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC), Sequence: 42, Epoch: 1, DataSchema: "1",
		ContentType: "application/json", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
}

func TestEnvelope_RoundTrip(t *testing.T) {
	t.Parallel()
	e := sampleEnvelope()
	hs := e.Append([]Header{{"own", []byte{0xff}}})
	got, err := DecodeEnvelope(hs)
	require.NoError(t, err)
	require.Equal(t, e, got)
	require.Equal(t, "invoice", got.Entity())

	for i := range hs {
		clear(hs[i].Value) // the envelope does not alias the record
	}
	require.Equal(t, e, got)
}

func TestDecodeEnvelope_NamesEveryProblem(t *testing.T) {
	t.Parallel()
	with := func(name, value string) []Header {
		e := sampleEnvelope()
		hs := e.Append(nil)
		for i := range hs {
			if hs[i].Key == name {
				hs[i].Value = []byte(value)
				return hs
			}
		}
		return append(hs, Header{name, []byte(value)})
	}
	for _, tc := range []struct{ name, value, want string }{
		{HeaderSpecVersion, "0.3", "want 1.0"},
		{HeaderID, "", "1 to 64 bytes"},
		{HeaderSource, "shop", "is not /<system>"},
		{HeaderSource, "/Shop", "is not /<system>"},
		{HeaderType, ".upsert", "is not a kind"},
		{HeaderType, "source.invoice.insert", "is not a kind"},
		{HeaderSubject, "", "is empty"},
		{HeaderTime, "yesterday", "RFC 3339"},
		{HeaderTime, "9999-12-31T23:59:59-01:00", "years 1 to 9999"},
		{HeaderSequence, "0", "not a positive number"},
		{HeaderEpoch, "-1", "not a positive number"},
		{HeaderRevision, "1.0", "not a positive number"},
		{HeaderTenant, "a/b", "not a valid name"},
		{HeaderTenant, "\xff", "is not UTF-8"},
	} {
		_, err := DecodeEnvelope(with(tc.name, tc.value))
		require.ErrorContains(t, err, "header "+tc.name, tc.value)
		require.ErrorContains(t, err, tc.want)
	}
	_, err := DecodeEnvelope([]Header{{HeaderID, []byte("1")}, {HeaderID, []byte("2")}})
	require.ErrorContains(t, err, "header ce_id: occurs twice")
	require.Equal(t, 8, strings.Count(err.Error(), "is missing"))
}

// FuzzDecodeEnvelope: what is accepted is written back to the same envelope.
func FuzzDecodeEnvelope(f *testing.F) {
	e := sampleEnvelope()
	var lines []string
	for _, h := range e.Append(nil) {
		lines = append(lines, h.Key+"="+string(h.Value))
	}
	flat := strings.Join(lines, "\n") + "\n"
	f.Add(flat)
	f.Add(strings.Replace(flat, "2026-11-23T10:00:00.123456789Z", "0001-01-01T00:00:00,5+00:00", 1))
	f.Add(flat + "ce_revision=7\nce_id=2\n")
	f.Fuzz(func(t *testing.T, flat string) {
		var hs []Header
		for line := range strings.SplitSeq(flat, "\n") {
			k, v, _ := strings.Cut(line, "=")
			hs = append(hs, Header{k, []byte(v)})
		}
		e, err := DecodeEnvelope(hs)
		if err != nil {
			require.Equal(t, Envelope{}, e)
			return
		}
		again, err := DecodeEnvelope(e.Append(nil))
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}

func FuzzSplitKey(f *testing.F) {
	for _, key := range []string{"acme/shop/98", "acme/shop/a/b", "acme//98", "/", "", "acme/shop/", "A/b/c", "a/b/\xff"} {
		f.Add([]byte(key))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		tenant, system, id, err := SplitKey(key)
		if err != nil {
			return
		}
		require.True(t, ValidName(tenant) && ValidName(system))
		require.Equal(t, key, Key(tenant, system, id))
	})
}

func TestKey_RoundTrip(t *testing.T) {
	t.Parallel()
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		tenant, system, id := name.Draw(t, "tenant"), name.Draw(t, "system"), rapid.StringN(1, 20, -1).Draw(t, "id")
		require.True(t, ValidName(tenant), tenant)
		gotTenant, gotSystem, gotID, err := SplitKey(Key(tenant, system, id))
		require.NoError(t, err)
		require.Equal(t, []string{tenant, system, id}, []string{gotTenant, gotSystem, gotID})
	})
	for _, bad := range []string{"", "-a", "a-", "A", "a.b", "a/b", "é", strings.Repeat("a", 64)} {
		require.False(t, ValidName(bad), bad)
	}
}

func BenchmarkDecodeEnvelope(b *testing.B) {
	e := sampleEnvelope()
	hs := e.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeEnvelope(hs); err != nil {
			b.Fatal(err)
		}
	}
}
