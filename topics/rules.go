package topics

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// role is the part that a value plays in the rules of CheckRules.
type role uint8

const (
	roleNone role = iota
	roleCurrency
	roleLineID
	roleLineTotal // from here on: amounts that are summed
	roleSubtotal
	roleTaxTotal
	roleDiscountTotal
	roleTotal
	roleAmount
	roleUnapplied
	roleAllocated
	roleCount
)

// assignRoles says which property of which entity plays which part.
func assignRoles(entity string, root *Shape) {
	set := func(s *Shape, name string, r role) {
		if f := s.Field(name); f != nil {
			f.role = r
		}
	}
	set(root, "currency", roleCurrency)
	switch entity {
	case "invoice":
		set(root, "subtotal", roleSubtotal)
		set(root, "tax_total", roleTaxTotal)
		set(root, "discount_total", roleDiscountTotal)
		set(root, "total", roleTotal)
		if lines := root.Field("lines"); lines != nil && lines.Item.Shape != nil {
			set(lines.Item.Shape, "id", roleLineID)
			set(lines.Item.Shape, "total", roleLineTotal)
		}
	case "payment":
		set(root, "amount", roleAmount)
		set(root, "unapplied", roleUnapplied)
		if allocations := root.Field("allocations"); allocations != nil && allocations.Item.Shape != nil {
			set(allocations.Item.Shape, "amount", roleAllocated)
		}
	}
}

// ruling is what the rules remember of a document.
type ruling struct {
	on       bool
	currency [3]byte // of the document, or of the first money in it
	stated   bool
	places   int // of currency
	sums     [roleCount]sum
	has      [roleCount]bool
	ids      [32][]byte
	idCount  int
	moreIDs  map[string]struct{} // once ids is full
}

// sum adds amounts exactly. Neither part can overflow: 15 digits and 5000 amounts.
type sum struct {
	units    int64
	fraction int64 // in 1/10000
}

func (s *sum) add(t sum) { s.units += t.units; s.fraction += t.fraction }

// sign of s.
func (s sum) sign() int {
	units, fraction := s.units+s.fraction/10_000, s.fraction%10_000
	switch {
	case units > 0 || units == 0 && fraction > 0:
		return 1
	case units < 0 || fraction < 0:
		return -1
	}
	return 0
}

// String is for messages: 3000, 12.5.
func (s sum) String() string {
	sign := ""
	if s.sign() < 0 {
		sign, s = "-", sum{}.minus(s)
	}
	s.units, s.fraction = s.units+s.fraction/10_000, s.fraction%10_000
	if s.fraction < 0 {
		s.units, s.fraction = s.units-1, s.fraction+10_000
	}
	if s.fraction == 0 {
		return sign + strconv.FormatInt(s.units, 10)
	}
	return sign + strings.TrimRight(fmt.Sprintf("%d.%04d", s.units, s.fraction), "0")
}

func (s sum) minus(t sum) sum { return sum{s.units - t.units, s.fraction - t.fraction} }

// parseSum reads an amount that has passed the pattern, and the number of its places.
func parseSum(v []byte) (s sum, places int) {
	negative := v[0] == '-'
	if negative {
		v = v[1:]
	}
	whole, fraction, _ := bytes.Cut(v, []byte{'.'})
	s.units = int64(number(whole))
	for i := range 4 {
		s.fraction *= 10
		if i < len(fraction) {
			s.fraction += int64(fraction[i] - '0')
		}
	}
	if negative {
		s.units, s.fraction = -s.units, -s.fraction
	}
	return s, len(fraction)
}

// moneyText is the money that is being read.
type moneyText struct{ amount, currency text }

func (m *moneyText) set(name string, t text) {
	if name == "amount" {
		m.amount = t
	} else {
		m.currency = t
	}
}

// noteText judges a text that plays a part.
func (c *checker) noteText(f *Field, t text) {
	switch f.role {
	case roleCurrency:
		c.noteCurrency(t.value())
	case roleLineID:
		if c.seenLine(t.value()) {
			c.problem("line_twice", "another line has the id "+shown(t.raw)+" too")
		}
	}
}

// noteCurrency compares a currency with that of the document; the first one is looked up.
func (c *checker) noteCurrency(code []byte) bool {
	r := &c.rules
	if r.stated {
		if string(code) != string(r.currency[:]) {
			c.problem("currency_mixed", "found "+string(code)+" in a document in "+string(r.currency[:]))
			return false
		}
		return r.places >= 0
	}
	r.stated = true
	copy(r.currency[:], code)
	var ok bool
	if r.places, ok = CurrencyPlaces(string(code)); !ok {
		r.places = -1
		c.problem("currency_unknown", string(code)+" is not a currency of ISO 4217")
	}
	return ok
}

// seenLine reports whether an earlier line has this id.
func (c *checker) seenLine(id []byte) bool {
	r := &c.rules
	for _, other := range r.ids[:r.idCount] {
		if bytes.Equal(other, id) {
			return true
		}
	}
	if r.idCount < len(r.ids) {
		r.ids[r.idCount] = id
		r.idCount++
		return false
	}
	if _, ok := r.moreIDs[string(id)]; ok {
		return true
	}
	if r.moreIDs == nil {
		r.moreIDs = make(map[string]struct{})
	}
	r.moreIDs[string(id)] = struct{}{}
	return false
}

// money judges one money and adds it to the sum that its part belongs to.
func (c *checker) money(f *Field, m moneyText) {
	c.push("currency", 0)
	known := c.noteCurrency(m.currency.value())
	c.pop()
	if !f.MinorUnits {
		return
	}
	amount := m.amount.value()
	s, places := parseSum(amount)
	if known && places > c.rules.places {
		c.push("amount", 0)
		c.problem("currency_places", "found "+string(amount)+": "+string(c.rules.currency[:])+" has "+
			placesText(c.rules.places))
		c.pop()
	}
	if f.role > roleLineID {
		c.rules.sums[f.role].add(s)
		c.rules.has[f.role] = true
	}
}

func placesText(n int) string {
	return [...]string{"no decimal places", "1 decimal place", "2 decimal places", "3 decimal places", "4 decimal places"}[n]
}

// judge applies the rules that need the whole document.
func (c *checker) judge() {
	r := &c.rules
	at := func(name, code, message string) {
		c.push(name, 0)
		c.problem(code, message)
		c.pop()
	}
	if r.has[roleSubtotal] && r.sums[roleSubtotal].minus(r.sums[roleLineTotal]).sign() != 0 {
		at("subtotal", "lines_sum", "found "+r.sums[roleSubtotal].String()+", the lines sum to "+r.sums[roleLineTotal].String())
	}
	if r.has[roleSubtotal] && r.has[roleTaxTotal] {
		want := r.sums[roleSubtotal].minus(r.sums[roleDiscountTotal])
		want.add(r.sums[roleTaxTotal])
		if r.sums[roleTotal].minus(want).sign() != 0 {
			at("total", "total_sum", "found "+r.sums[roleTotal].String()+
				", subtotal less discount_total plus tax_total is "+want.String())
		}
	}
	rest := r.sums[roleAmount].minus(r.sums[roleAllocated])
	switch {
	case r.has[roleUnapplied]:
		if rest.minus(r.sums[roleUnapplied]).sign() != 0 {
			at("amount", "allocations_sum", "found "+r.sums[roleAmount].String()+", allocations are "+
				r.sums[roleAllocated].String()+" and unapplied is "+r.sums[roleUnapplied].String())
		}
	case r.has[roleAllocated] && rest.sign() != 0 && rest.sign() != r.sums[roleAmount].sign():
		at("allocations", "allocations_exceed", "they sum to "+r.sums[roleAllocated].String()+
			", more than the amount of "+r.sums[roleAmount].String())
	}
}
