package topics

import (
	"flag"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the tables of docs/finance.md anew")

// TestFinancePageDescribesEveryProperty: the tables of the page say what the schemas say. After a change of a schema:
// go test ./topics -run FinancePage -update.
func TestFinancePageDescribesEveryProperty(t *testing.T) {
	t.Parallel()
	const file = "../docs/finance.md"
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	text := string(page)
	for _, entity := range Entities() {
		c, err := ContractFor(entity, 1)
		require.NoError(t, err)
		re := regexp.MustCompile(`(?s)(<!-- contract ` + entity + ` -->\n).*?(<!-- end -->)`)
		require.Len(t, re.FindAllString(text, -1), 1, entity)
		var table strings.Builder
		table.WriteString("| Property | Form | Required | Meaning |\n|---|---|---|---|\n")
		describe(&table, "", c.Shape)
		text = re.ReplaceAllStringFunc(text, func(m string) string {
			head, _, _ := strings.Cut(m, "\n")
			return head + "\n" + table.String() + "<!-- end -->"
		})
	}
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	page, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, text, string(page), "run go test ./topics -run FinancePage -update")
	for _, code := range []string{
		"currency_unknown", "currency_places", "currency_mixed", "line_twice", "lines_sum", "total_sum", "allocations_sum", "allocations_exceed",
		HeaderID, HeaderSource, HeaderType, HeaderSubject, HeaderTime, HeaderSequence, HeaderEpoch, HeaderRevision, HeaderDataSchema,
		HeaderContentType, HeaderTenant, HeaderTraceParent, HeaderSpecVersion,
	} {
		require.Contains(t, text, "`"+code+"`")
	}
}

func describe(b *strings.Builder, prefix string, s *Shape) {
	for i := range s.Fields {
		f := &s.Fields[i]
		required := ""
		if f.Required {
			required = "yes"
		}
		b.WriteString("| `" + prefix + f.Name + "` | " + form(f) + " | " + required + " | " + f.Description + " |\n")
		switch {
		case f.Kind == KindObject:
			describe(b, prefix+f.Name+".", f.Shape)
		case f.Kind == KindList && f.Item.Shape != nil:
			describe(b, prefix+f.Name+"[].", f.Item.Shape)
		}
	}
}

func form(f *Field) string {
	switch f.Kind {
	case KindEnum:
		return "`" + strings.Join(f.Enum, "`, `") + "`"
	case KindList:
		if f.Item.Kind == KindEnum {
			return "list of " + form(f.Item)
		}
		return "list of up to " + strconv.Itoa(f.MaxItems)
	case KindMoney:
		if f.MinorUnits {
			return "money"
		}
		return "money, " + strconv.Itoa(f.Places) + " places"
	case KindString:
		if f.MaxLength > 0 {
			return "text, up to " + strconv.Itoa(f.MaxLength)
		}
		return "text `" + strings.ReplaceAll(f.Pattern, "|", `\|`) + "`"
	default:
		return f.Kind.String()
	}
}
