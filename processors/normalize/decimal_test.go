package normalize

import (
	"testing"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAppendDecimal(t *testing.T) {
	t.Parallel()
	two := decimalRule{least: 2, most: 2}
	rounded := decimalRule{least: 2, most: 2, round: true}
	for _, c := range []struct {
		in   string
		rule decimalRule
		want string // "": an error
	}{
		{"3000", two, "3000.00"},
		{"0012.5", two, "12.50"},
		{"-0.00", two, "0.00"},
		{"1.9800", two, "1.98"},
		{"1.981", two, ""},
		{"1.985", rounded, "1.98"},
		{"1.995", rounded, "2.00"},
		{"-1.9951", rounded, "-2.00"},
		{"0.005", rounded, "0.00"},
		{"0.015", rounded, "0.02"},
		{"0.0051", rounded, "0.01"},
		{"0.0009", rounded, "0.00"},
		{"9.999", rounded, "10.00"},
		{"5", decimalRule{shift: 2, least: 2, most: 2}, "0.05"},
		{"-12345", decimalRule{shift: 3, least: 3, most: 3}, "-12.345"},
		{"7", decimalRule{most: 10}, "7"},
		{"7.50", decimalRule{most: 10}, "7.5"},
		{"0", decimalRule{}, "0"},
		{"", two, ""},
		{"-", two, ""},
		{".5", two, ""},
		{"5.", two, ""},
		{"+5", two, ""},
		{"1e3", two, ""},
		{"1 000", two, ""},
		{"1,5", two, ""},
		{"NaN", two, ""},
		{"Infinity", two, ""},
		{"1.2.3", two, ""},
		{"--1", two, ""},
		{"٣", two, ""},
	} {
		got, err := appendDecimal(nil, []byte(c.in), c.rule)
		if c.want == "" {
			require.Error(t, err, c.in)
			continue
		}
		require.NoError(t, err, c.in)
		require.Equal(t, c.want, string(got), c.in)
	}
}

func TestAppendDecimal_IsExactOrRoundsHalfEvenAsApd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.StringMatching(`-?[0-9]{1,30}(\.[0-9]{1,15})?`).Draw(t, "in")
		places := rapid.IntRange(0, 6).Draw(t, "places")
		shift := rapid.IntRange(0, 4).Draw(t, "shift")
		got, err := appendDecimal(nil, []byte(in), decimalRule{shift: shift, least: places, most: places, round: true})
		require.NoError(t, err)
		want, _, err := apd.NewFromString(in)
		require.NoError(t, err)
		want.Exponent -= int32(shift)
		ctx := apd.BaseContext.WithPrecision(100)
		ctx.Rounding = apd.RoundHalfEven
		_, err = ctx.Quantize(want, want, int32(-places))
		require.NoError(t, err)
		if want.IsZero() {
			want.Negative = false
		}
		require.Equal(t, want.Text('f'), string(got))
	})
}

func TestMultiply_IsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.StringMatching(`-?[0-9]{1,12}(\.[0-9]{1,6})?`).Draw(t, "x")
		y := rapid.StringMatching(`-?[0-9]{1,12}(\.[0-9]{1,6})?`).Draw(t, "y")
		r := &run{}
		require.NoError(t, r.doc.parse([]byte(`{"x":"`+x+`","y":"`+y+`"}`)))
		g := getter{}
		for _, name := range []string{"x", "y"} {
			p, err := parsePath(name)
			require.NoError(t, err)
			g.product = append(g.product, p)
		}
		got, err := r.multiply(&g, root)
		require.NoError(t, err)
		dx, _, err := apd.NewFromString(x)
		require.NoError(t, err)
		dy, _, err := apd.NewFromString(y)
		require.NoError(t, err)
		_, err = apd.BaseContext.WithPrecision(100).Mul(dx, dx, dy)
		require.NoError(t, err)
		dgot, _, err := apd.NewFromString(string(got.text))
		require.NoError(t, err)
		require.Zero(t, dx.Cmp(dgot), "%s * %s = %s, got %s", x, y, dx, got.text)
	})
}
