package verify

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
)

// totals are control totals of the window: by company, entity, kind, currency and status, once from the records on the finance
// topics and once from the tables.
type totals struct {
	index map[totalKey]int
	pairs [][2]amounts
}

type totalKey struct {
	tenant, entity, kind, currency, status string
}

// Sides of a total.
const (
	fromRecords = iota
	fromTables
)

type amounts struct {
	records, lines int64
	total, lineSum exact
}

// of is the index of a pair.
func (t *totals) of(k totalKey) int {
	i, ok := t.index[k]
	if !ok {
		if t.index == nil {
			t.index = map[totalKey]int{}
		}
		i = len(t.pairs)
		t.index[k] = i
		t.pairs = append(t.pairs, [2]amounts{})
	}
	return i
}

// places is how many decimal places amounts can have; see topics.Decimal.
const places = 10

// exact is a sum of decimal numbers. Small ones, which nearly all are, are added up in an integer first.
type exact struct {
	small int64    // in units of 10^-4
	big   *big.Int // in units of 10^-10
}

// add adds a decimal number as text; "" is none.
func (e *exact) add(s string) {
	if s == "" {
		return
	}
	whole, frac, _ := strings.Cut(s, ".")
	negative := strings.HasPrefix(whole, "-")
	whole = strings.TrimPrefix(whole, "-")
	if len(frac) <= 4 && len(whole) <= 9 { // up to a billion, in units of 10^-4: no sum of a hundred thousand of them overflows
		n := int64(0)
		for i := range len(whole) {
			n = n*10 + int64(whole[i]-'0')
		}
		for i := range 4 {
			n *= 10
			if i < len(frac) {
				n += int64(frac[i] - '0')
			}
		}
		if negative {
			n = -n
		}
		if e.small += n; e.small > 1<<61 || e.small < -1<<61 {
			e.spill()
		}
		return
	}
	n, ok := new(big.Int).SetString(whole+frac+strings.Repeat("0", max(0, places-len(frac))), 10)
	if !ok {
		return // not a number: Postgres and the contract would both have refused it
	}
	if negative {
		n.Neg(n)
	}
	e.grow().Add(e.big, n)
}

func (e *exact) grow() *big.Int {
	if e.big == nil {
		e.big = new(big.Int)
	}
	return e.big
}

// spill moves the small sum, in units of 10^-4, into the large one, in units of 10^-10.
func (e *exact) spill() {
	e.grow().Add(e.big, new(big.Int).Mul(big.NewInt(e.small), big.NewInt(1_000_000)))
	e.small = 0
}

// String is the sum with at least two places.
func (e *exact) String() string {
	e.spill()
	s := new(big.Int).Abs(e.big).String()
	if len(s) <= places {
		s = strings.Repeat("0", places-len(s)+1) + s
	}
	whole, frac := s[:len(s)-places], strings.TrimRight(s[len(s)-places:], "0")
	frac += strings.Repeat("0", max(0, 2-len(frac)))
	if e.big.Sign() < 0 {
		return "-" + whole + "." + frac
	}
	return whole + "." + frac
}

// Total compares one control total.
type Total struct {
	Tenant   string  `json:"tenant"`
	Entity   string  `json:"entity"`
	Type     string  `json:"type"`
	Currency string  `json:"currency"`
	Status   string  `json:"status"`
	Records  Amounts `json:"records"` // as the records on the finance topics say
	Tables   Amounts `json:"tables"`  // as the tables say
	Equal    bool    `json:"equal"`
}

// Amounts are counts and exact sums.
type Amounts struct {
	Records    int64  `json:"records"`
	Lines      int64  `json:"lines"`
	Total      string `json:"total"`
	LinesTotal string `json:"lines_total"`
}

func (a *amounts) public(hasMoney bool) Amounts {
	p := Amounts{Records: a.records, Lines: a.lines}
	if hasMoney {
		p.Total, p.LinesTotal = a.total.String(), a.lineSum.String()
	}
	return p
}

func (t *totals) public() []Total {
	out := make([]Total, 0, len(t.pairs))
	for k, i := range t.index {
		pair := &t.pairs[i]
		money := k.currency != ""
		p := Total{
			Tenant: k.tenant, Entity: k.entity, Type: k.kind, Currency: k.currency, Status: k.status,
			Records: pair[fromRecords].public(money), Tables: pair[fromTables].public(money),
		}
		p.Equal = p.Records == p.Tables
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Total) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Entity, b.Entity), cmp.Compare(a.Type, b.Type),
			cmp.Compare(a.Currency, b.Currency), cmp.Compare(a.Status, b.Status))
	})
	return out
}
