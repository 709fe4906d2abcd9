package verify

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/topics"
)

func digestOf(s string) digest {
	var d digester
	d.begin()
	d.text(s)
	return d.sum()
}

// TestSum_SeesEveryChangeOfASet: an exclusive or would miss the second and the third.
func TestSum_SeesEveryChangeOfASet(t *testing.T) {
	t.Parallel()
	sum := func(names ...string) (s Sum) {
		for _, n := range names {
			s.add(digestOf(n))
		}
		return s
	}
	base := sum("a", "b", "c")
	require.Equal(t, base, sum("c", "a", "b"), "order does not matter")
	for _, other := range []Sum{
		sum("a", "b"),                     // lost
		sum("a", "b", "c", "d", "d"),      // doubled, and of nothing
		sum("a", "c", "c"),                // lost and doubled
		sum("a", "b", "x"),                // changed
		sum("a", "a", "a", "b", "b", "c"), // odd copies
	} {
		require.NotEqual(t, base.Hash(), other.Hash())
	}
}

func TestDigester_TellsListsApart(t *testing.T) {
	t.Parallel()
	var d digester
	require.NotEqual(t, d.list([]string{"ab", "c"}), d.list([]string{"a", "bc"}))
	require.NotEqual(t, d.list([]string{"a"}), d.list([]string{"a", ""}))
	e := topics.Envelope{ID: "1", Tenant: "t", Kind: "source.invoice", Subject: "s", Operation: topics.Upsert, Sequence: 7, Time: time.Unix(1, 0)}
	same := d.event(&e, []byte("value"))
	for _, change := range []func(e *topics.Envelope){
		func(e *topics.Envelope) { e.ID = "2" },
		func(e *topics.Envelope) { e.Tenant = "u" },
		func(e *topics.Envelope) { e.Kind = "source.payment" },
		func(e *topics.Envelope) { e.Subject = "r" },
		func(e *topics.Envelope) { e.Operation = topics.Delete },
		func(e *topics.Envelope) { e.Sequence = 8 },
		func(e *topics.Envelope) { e.Time = e.Time.Add(time.Microsecond) },
	} {
		other := e
		change(&other)
		require.NotEqual(t, same, d.event(&other, []byte("value")))
	}
	require.NotEqual(t, same, d.event(&e, []byte("valuf")))
	e.Epoch = 9
	require.Equal(t, same, d.event(&e, []byte("value")), "the epoch is no property of a row")
}

// TestExact_SumsAsBigNumbersDo compares with arithmetic of unlimited precision.
func TestExact_SumsAsBigNumbersDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		amounts := rapid.SliceOf(rapid.StringMatching(`-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,10})?`)).Draw(t, "amounts")
		var e exact
		want := new(big.Rat)
		for _, a := range amounts {
			e.add(a)
			n, ok := new(big.Rat).SetString(a)
			require.True(t, ok)
			want.Add(want, n)
		}
		got, ok := new(big.Rat).SetString(e.String())
		require.True(t, ok, e.String())
		require.Zero(t, want.Cmp(got), "%v: %s, want %s", amounts, e.String(), want.FloatString(10))
		_, frac, _ := strings.Cut(e.String(), ".")
		require.GreaterOrEqual(t, len(frac), 2)
	})
	var e exact
	for range 1000 {
		e.add("999999999.9999")
	}
	require.Equal(t, "999999999999.90", e.String())
	e.add("")
	require.Equal(t, "999999999999.90", e.String(), "asking for it changes nothing")
}

func TestDecimal_IsWrittenAsPostgresTrimsIt(t *testing.T) {
	t.Parallel()
	for in, want := range map[topics.Decimal]string{
		"31.50": "31.5", "31.00": "31", "100": "100", "0.00": "0", "-0.00": "0", "-12.340": "-12.34", "0.0000000001": "0.0000000001", "": "",
	} {
		require.Equal(t, want, decimal(in))
	}
}

func TestRun_FindsRowsByID(t *testing.T) {
	t.Parallel()
	for _, ids := range [][]int64{{}, {5}, {1, 2, 3}, {10, 11, 13, 20, 21, 22, 100}} {
		v := &run{}
		for _, id := range ids {
			v.rows = append(v.rows, row{id: id})
		}
		for id := range int64(110) {
			i, ok := v.find(id)
			require.Equal(t, slices.Contains(ids, id), ok, "%d in %v", id, ids)
			if ok {
				require.Equal(t, id, v.rows[i].id)
			}
		}
	}
}

func TestWindow_RefusesWhatContradictsItself(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	require.NoError(t, Window{}.Validate())
	require.NoError(t, Window{FromID: 3, ToID: 3, Since: now, Until: now.Add(1)}.Validate())
	require.ErrorContains(t, Window{FromID: 4, ToID: 3}.Validate(), "ends with id 3, before it begins with id 4")
	require.ErrorContains(t, Window{Since: now, Until: now}.Validate(), "not after its beginning")
	require.ErrorContains(t, Window{FromID: -1}.Validate(), "positive")
	b := Window{FromID: 2, ToID: 4, Since: now, Until: now.Add(time.Hour)}.bounds()
	require.True(t, b.contain(2, now.UnixMicro()))
	require.False(t, b.contain(2, now.Add(time.Hour).UnixMicro()))
	require.False(t, b.contain(5, now.UnixMicro()))
}

// TestFold_IsTheGuardOfTheTables: the newest version wins, and of one version the last one with other content.
func TestFold_IsTheGuardOfTheTables(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var k keyState
		type state struct {
			version version
			hash    digest
		}
		var want state
		have := false
		for i := range 8 {
			o := output{env: topics.Envelope{Epoch: 1 + rnd.Int64N(2), Sequence: 1 + rnd.Int64N(3)}, content: digest{byte(rnd.IntN(2))}, rec: record(int64(i))}
			k.fold(&o)
			w := version{o.env.Epoch, o.env.Sequence}
			if n := w.compare(want.version); !have || n > 0 || n == 0 && o.content != want.hash {
				want, have = state{w, o.content}, true
			}
		}
		require.Equal(t, want, state{k.version, k.hash})
	}
}
