package topics

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/currency"
	"pgregory.net/rapid"
)

func TestContract_CheckRules(t *testing.T) {
	t.Parallel()
	money := func(amount string) string { return `{"amount":"` + amount + `","currency":"USD"}` }
	totals := func(extra string) string {
		return strings.Replace(sampleInvoice, `"total":{"amount":"3.98"`, extra+`"total":{"amount":"3.98"`, 1)
	}
	for name, tc := range map[string]struct {
		entity, doc string
		want        []Problem
	}{
		"invoice": {"invoice", sampleInvoice, nil},
		"payment": {"payment", samplePayment, nil},
		"unknown currency": {"invoice", strings.ReplaceAll(sampleInvoice, "USD", "XTS"), []Problem{
			{"/currency", "currency_unknown", "XTS is not a currency of ISO 4217"},
		}},
		"yen have no cents": {"invoice", strings.ReplaceAll(strings.Replace(sampleInvoice, `"3.98"`, `"4"`, 1), "USD", "JPY"), []Problem{
			{"/lines/0/total/amount", "currency_places", "found 1.99: JPY has no decimal places"},
			{"/lines/1/total/amount", "currency_places", "found 1.99: JPY has no decimal places"},
		}},
		"unit price may be finer": {"invoice", strings.Replace(sampleInvoice, money("1.99"), money("1.9899999999"), 1), nil},
		"line in another currency": {"invoice", strings.Replace(sampleInvoice, `"1.99","currency":"USD"`, `"1.99","currency":"EUR"`, 1), []Problem{
			{"/lines/0/unit_price/currency", "currency_mixed", "found EUR in a document in USD"},
		}},
		"allocation in another currency": {"payment", strings.Replace(samplePayment, `"7.50","currency":"BRL"`, `"7.50","currency":"USD"`, 1), []Problem{
			{"/allocations/0/amount/currency", "currency_mixed", "found USD in a document in BRL"},
		}},
		"line twice":              {"invoice", strings.Replace(sampleInvoice, `"532"`, `"53\u0031"`, 1), []Problem{{"/lines/1/id", "line_twice", `another line has the id 53\u0031 too`}}},
		"subtotal fits":           {"invoice", totals(`"subtotal":` + money("3.98") + `,`), nil},
		"subtotal a cent off":     {"invoice", totals(`"subtotal":` + money("3.97") + `,`), []Problem{{"/subtotal", "lines_sum", "found 3.97, the lines sum to 3.98"}}},
		"totals fit":              {"invoice", totals(`"subtotal":` + money("3.98") + `,"tax_total":` + money("0.3") + `,"discount_total":` + money("0.30") + `,`), nil},
		"totals a cent off":       {"invoice", totals(`"subtotal":` + money("3.98") + `,"tax_total":` + money("0.01") + `,`), []Problem{{"/total", "total_sum", "found 3.98, subtotal less discount_total plus tax_total is 3.99"}}},
		"total alone is believed": {"invoice", strings.Replace(sampleInvoice, "3.98", "1000000.00", 1), nil},
		"allocations a cent off": {"payment", strings.Replace(samplePayment, `"2.50"`, `"2.49"`, 1), []Problem{
			{"/amount", "allocations_sum", "found 10, allocations are 7.5 and unapplied is 2.49"},
		}},
		"allocations exceed": {"payment", strings.NewReplacer(`"unapplied":{"amount":"2.50","currency":"BRL"},`, "", "7.50", "10.01").Replace(samplePayment), []Problem{
			{"/allocations", "allocations_exceed", "they sum to 10.01, more than the amount of 10"},
		}},
		"allocations less": {"payment", strings.Replace(samplePayment, `"unapplied":{"amount":"2.50","currency":"BRL"},`, "", 1), nil},
		"one fault once":   {"payment", strings.NewReplacer(`"posted"`, `"pending"`, "2.50", "2.49").Replace(samplePayment), []Problem{{"/status", "enum", "want posted or void, found pending"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := ContractFor(tc.entity, 1)
			require.NoError(t, err)
			err = c.CheckRules([]byte(tc.doc))
			if ce, ok := errors.AsType[*ContractError](err); ok {
				require.Equal(t, tc.want, ce.Problems)
				return
			}
			require.NoError(t, err)
			require.Empty(t, tc.want)
		})
	}
}

func TestContract_CheckRulesFindsARepeatedLineAmongMany(t *testing.T) {
	t.Parallel()
	c, err := ContractFor("invoice", 1)
	require.NoError(t, err)
	inv := Invoice{
		Tenant: "a", System: "b", SourceID: "1", Type: "invoice", ContactID: "1", IssueDate: "2026-01-01", Currency: "BRL", Status: "open",
		Total: Money{"0", "BRL"},
	}
	for i := range 100 {
		inv.Lines = append(inv.Lines, InvoiceLine{ID: strconv.Itoa(i), Quantity: "1", UnitPrice: Money{"0", "BRL"}, Total: Money{"0", "BRL"}})
	}
	require.NoError(t, c.CheckRules(mustMarshal(inv)))
	inv.Lines[99].ID = "70"
	require.ErrorContains(t, c.CheckRules(mustMarshal(inv)), "/lines/99/id")
}

// TestSum_IsExact compares the sums of CheckRules with apd's.
func TestSum_IsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var got sum
		var want apd.Decimal
		ctx := apd.BaseContext.WithPrecision(60)
		for range rapid.IntRange(0, 50).Draw(t, "n") {
			text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,4})?`).Draw(t, "amount")
			s, _ := parseSum([]byte(text))
			d, _, err := apd.NewFromString(text)
			require.NoError(t, err)
			if rapid.Bool().Draw(t, "minus") {
				got = got.minus(s)
				_, err = ctx.Sub(&want, &want, d)
			} else {
				got.add(s)
				_, err = ctx.Add(&want, &want, d)
			}
			require.NoError(t, err)
		}
		require.Equal(t, want.Sign(), got.sign())
		back, _, err := apd.NewFromString(got.String())
		require.NoError(t, err)
		require.Zero(t, want.Cmp(back), "%s, want %s", got, &want)
	})
}

// TestCurrencyPlaces_AgreesWithCLDR compares our table of ISO 4217 with the list of currencies in x/text, whose places are those of
// customary use and differ where inflation has made cents useless.
func TestCurrencyPlaces_AgreesWithCLDR(t *testing.T) {
	t.Parallel()
	const centsUnusual = "AFN ALL IRR KPW LAK LBP MGA MMK PKR RSD SOS SYP TZS YER COP CRC CZK HUF IDR NOK SEK TWD UZS AMD GYD MNT MUR UYW " +
		"BYN IQD SLE LUF ITL TRY TMT TJS STN SLL ZMK ZMW ISK UYI CLF UGX MRO STD ZWL VEF"
	for it := currency.Query(); it.Next(); {
		code := it.Unit().String()
		places, ok := CurrencyPlaces(code)
		if !ok {
			continue
		}
		if scale, _ := currency.Standard.Rounding(it.Unit()); scale != places {
			require.Contains(t, centsUnusual, code, "CLDR has %d places, our table %d", scale, places)
		}
	}
	for code, want := range map[string]int{"BRL": 2, "JPY": 0, "KWD": 3, "CLF": 4, "ALL": 2, "RSD": 2} {
		places, ok := CurrencyPlaces(code)
		require.True(t, ok)
		require.Equal(t, want, places)
	}
	for _, code := range []string{"XXX", "XTS", "XAU", "brl", "", "BR"} {
		_, ok := CurrencyPlaces(code)
		require.False(t, ok, code)
	}
	missing := ""
	for it := currency.Query(); it.Next(); { // tender somewhere today
		if code := it.Unit().String(); !strings.Contains(missing, code) {
			if _, ok := CurrencyPlaces(code); !ok {
				missing += code + " "
			}
		}
	}
	require.Empty(t, missing)
}
