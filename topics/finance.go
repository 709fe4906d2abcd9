package topics

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/apd/v3"
)

// The types below are the values of finance topics, property by property as the contracts have them (a test holds the two
// together). Marshalled and checked with Contract.CheckRules they are what normalize writes. What is optional is omitted
// when zero. Lists are required: leave them empty, not nil.

// Contact is the value of finance.contact.v1: a customer or a vendor.
type Contact struct {
	Tenant      string   `json:"tenant"`
	System      string   `json:"system"`
	SourceID    string   `json:"source_id"`
	Kinds       []string `json:"kinds"` // customer, vendor
	DisplayName string   `json:"display_name"`
	LegalName   string   `json:"legal_name,omitempty"`
	TaxID       string   `json:"tax_id,omitempty"`
	Status      string   `json:"status"` // active, inactive
	Email       string   `json:"email,omitempty"`
	Phone       string   `json:"phone,omitempty"`
	Address     *Address `json:"address,omitempty"`
}

// Address is the main postal address of a Contact.
type Address struct {
	Street     string `json:"street,omitempty"`
	City       string `json:"city,omitempty"`
	Region     string `json:"region,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"` // ISO 3166-1 alpha-2
}

// Invoice is the value of finance.invoice.v1: an invoice, a bill or a credit note.
type Invoice struct {
	Tenant        string        `json:"tenant"`
	System        string        `json:"system"`
	SourceID      string        `json:"source_id"`
	Type          string        `json:"type"` // invoice, bill, credit_note
	Number        string        `json:"number,omitempty"`
	ContactID     string        `json:"contact_id"`
	IssueDate     Date          `json:"issue_date"`
	DueDate       Date          `json:"due_date,omitempty"`
	Currency      string        `json:"currency"`
	Status        string        `json:"status"` // draft, open, partially_paid, paid, void, written_off
	Lines         []InvoiceLine `json:"lines"`
	Subtotal      *Money        `json:"subtotal,omitempty"`
	TaxTotal      *Money        `json:"tax_total,omitempty"`
	DiscountTotal *Money        `json:"discount_total,omitempty"`
	Total         Money         `json:"total"`
	Balance       *Money        `json:"balance,omitempty"`
	Memo          string        `json:"memo,omitempty"`
}

// InvoiceLine is one line of an Invoice.
type InvoiceLine struct {
	ID          string  `json:"id"`
	Description string  `json:"description,omitempty"`
	Item        string  `json:"item,omitempty"`
	Quantity    Decimal `json:"quantity"`
	UnitPrice   Money   `json:"unit_price"` // up to 10 places, whatever the currency
	Discount    *Money  `json:"discount,omitempty"`
	Tax         *Money  `json:"tax,omitempty"`
	Total       Money   `json:"total"`
	Account     string  `json:"account,omitempty"`
}

// Payment is the value of finance.payment.v1: money received or sent, and the documents it settles.
type Payment struct {
	Tenant      string       `json:"tenant"`
	System      string       `json:"system"`
	SourceID    string       `json:"source_id"`
	Direction   string       `json:"direction"` // received, sent
	ContactID   string       `json:"contact_id"`
	Date        Date         `json:"date"`
	Method      string       `json:"method,omitempty"`
	Status      string       `json:"status"` // posted, void
	Amount      Money        `json:"amount"`
	Unapplied   *Money       `json:"unapplied,omitempty"`
	Reference   string       `json:"reference,omitempty"`
	Allocations []Allocation `json:"allocations"`
}

// Allocation is the part of a Payment that settles one document.
type Allocation struct {
	TargetType string `json:"target_type"` // invoice, bill, credit_note
	TargetID   string `json:"target_id"`
	Amount     Money  `json:"amount"`
}

// Money is an amount in a currency (ISO 4217). The amount is text: it is never a float on its way through Leat.
type Money struct {
	Amount   Decimal `json:"amount"`
	Currency string  `json:"currency"`
}

// NewMoney writes amount with as many places as the currency has (3000 BRL is 3000.00). It never rounds: an amount with more
// places than its currency is an error, and so is an unknown currency.
func NewMoney(amount *apd.Decimal, currency string) (Money, error) {
	places, ok := CurrencyPlaces(currency)
	if !ok {
		return Money{}, fmt.Errorf("%.20q is not a currency of ISO 4217", currency)
	}
	d, err := NewDecimal(amount, places, places)
	if err != nil {
		return Money{}, fmt.Errorf("amount in %s: %w", currency, err)
	}
	return Money{d, currency}, nil
}

// NewPrice writes the price of one unit: with at least as many places as the currency has, and up to 10. It never rounds.
func NewPrice(amount *apd.Decimal, currency string) (Money, error) {
	places, ok := CurrencyPlaces(currency)
	if !ok {
		return Money{}, fmt.Errorf("%.20q is not a currency of ISO 4217", currency)
	}
	d, err := NewDecimal(amount, places, maxPlaces)
	if err != nil {
		return Money{}, fmt.Errorf("price in %s: %w", currency, err)
	}
	return Money{d, currency}, nil
}

// Decimal is a decimal number as text, of at most 15 digits before and 10 after the point, without plus, exponent or
// leading zeros: "-12.50".
type Decimal string

// NewDecimal writes d with at least least and at most most places. It drops zeros at the end, but never rounds: where other
// digits would be lost it returns an error. Minus zero becomes zero.
func NewDecimal(d *apd.Decimal, least, most int) (Decimal, error) {
	if d.Form != apd.Finite {
		return "", fmt.Errorf("%s is not a number", d)
	}
	var r apd.Decimal
	r.Reduce(d)
	places := max(int(-r.Exponent), least)
	if places > most {
		return "", fmt.Errorf("%.60s has %d decimal places, want at most %d", r.Text('f'), places, most)
	}
	if digits := r.NumDigits() + int64(r.Exponent); digits > maxDigits {
		return "", fmt.Errorf("number of %d digits before the point, want at most %d", digits, maxDigits)
	}
	// The precision cannot be exceeded after the checks above, so Quantize is exact.
	if _, err := apd.BaseContext.WithPrecision(maxDigits+maxPlaces+1).Quantize(&r, &r, int32(-places)); err != nil {
		return "", fmt.Errorf("writing %.60s with %d places: %w", d, places, err)
	}
	if r.IsZero() {
		r.Negative = false
	}
	return Decimal(r.Text('f')), nil
}

// Parse returns the number. It is exact, and refuses what a contract would refuse.
func (d Decimal) Parse() (*apd.Decimal, error) {
	if !d.valid() {
		return nil, fmt.Errorf("%.40q is not a decimal number of at most %d digits before and %d after the point",
			string(d), maxDigits, maxPlaces)
	}
	n, _, err := apd.NewFromString(string(d))
	if err != nil {
		return nil, fmt.Errorf("parsing decimal %q: %w", string(d), err)
	}
	return n, nil
}

func (d Decimal) valid() bool {
	s := string(d)
	if s != "" && s[0] == '-' {
		s = s[1:]
	}
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		digits++
	}
	if digits == 0 || digits > maxDigits || digits > 1 && s[0] == '0' {
		return false
	}
	if digits == len(s) {
		return true
	}
	places := s[digits+1:]
	if s[digits] != '.' || places == "" || len(places) > maxPlaces {
		return false
	}
	for i := range len(places) {
		if places[i] < '0' || places[i] > '9' {
			return false
		}
	}
	return true
}

// Date is a business date as text, 2026-11-23: a day of the business's calendar, not an instant.
type Date string

// NewDate is the day of t in t's own location.
func NewDate(t time.Time) Date { return Date(t.Format(time.DateOnly)) }

// Time is midnight UTC of the day, which is a convenience for calculating with days and says nothing of an instant.
func (d Date) Time() (time.Time, error) {
	if len(d) != 10 || !isDate([]byte(d)) {
		return time.Time{}, fmt.Errorf("%.40q is not a date such as 2026-11-23", string(d))
	}
	t, err := time.Parse(time.DateOnly, string(d))
	if err == nil && (t.Year() < 1900 || t.Year() > 2199) {
		err = errors.New("date " + string(d) + " is not of the years 1900 to 2199")
	}
	return t, err
}
