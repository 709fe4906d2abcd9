package verify

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/leat-io/leat/topics"
)

// book is how the tables show one entity: what is selected of them, as text, and what a finance record must have become there. It is
// written down here a second time, after the publisher, on purpose: a proof that asks the publisher what is right proves nothing.
type book struct {
	columns []string // of a header, behind those of headColumns
	heads   string
	lines   string   // "" where there are none
	line    []string // columns of a line
	expect  func(value []byte) (shown, error)
	total   func(head []string) bookTotal // without its lines
	amount  int                           // column of a line with its total
}

// shown is what the tables show of one record.
type shown struct {
	head  []string
	lines [][]string
	total bookTotal
}

// bookTotal is what a record contributes to the control totals.
type bookTotal struct {
	kind, currency, status string
	total                  string   // "" for contacts
	lines                  []string // their totals
}

// Each query of headers begins with these columns; $1 is the system, $2 the lowest sequence of the window. There is no index on
// the sequence: the tables are walked, and what is older than the window stays in the database.
const headColumns = `t.tenant, t.source_id, t.source_epoch::text, t.sequence::text, (t.deleted_at is not null)::text,
  (extract(epoch from t.source_changed_at) * 1000000)::bigint::text`

const headCount = 6

func books() []book {
	return []book{
		{ // contact
			columns: []string{
				"kinds", "display_name", "legal_name", "tax_id", "status", "email", "phone", "street", "city", "region", "postal_code", "country",
			},
			heads: `select ` + headColumns + `, array_to_string(t.kinds, ','), t.display_name, t.legal_name, t.tax_id, t.status, t.email,
  t.phone, t.street, t.city, t.region, t.postal_code, t.country::text from reporting.contacts t`,
			expect: expectContact,
			total:  func(c []string) bookTotal { return bookTotal{kind: "contact", status: c[4]} },
		},
		{ // invoice
			columns: []string{
				"type", "number", "contact_id", "issue_date", "due_date", "status", "currency", "subtotal", "discount_total", "tax_total", "total",
				"balance", "memo",
			},
			heads: `select ` + headColumns + `, t.type, t.number, t.contact_id, t.issue_date::text, t.due_date::text, t.status, t.currency::text,
  trim_scale(t.subtotal)::text, trim_scale(t.discount_total)::text, trim_scale(t.tax_total)::text, trim_scale(t.total)::text,
  trim_scale(t.balance)::text, t.memo from reporting.invoices t`,
			lines: `select t.tenant, t.source_id, l.line_no::text, l.line_id, l.description, l.item, trim_scale(l.quantity)::text,
  trim_scale(l.unit_price)::text, trim_scale(l.discount)::text, trim_scale(l.tax)::text, trim_scale(l.total)::text, l.currency::text,
  l.account, (l.deleted_at is not null)::text
  from reporting.invoices t join reporting.invoice_lines l on l.tenant = t.tenant and l.system = t.system and l.invoice_id = t.source_id`,
			line: []string{
				"line_no", "line_id", "description", "item", "quantity", "unit_price", "discount", "tax", "total", "currency", "account", "deleted",
			},
			expect: expectInvoice,
			total:  func(c []string) bookTotal { return bookTotal{kind: c[0], status: c[5], currency: c[6], total: c[10]} },
			amount: 8,
		},
		{ // payment
			columns: []string{"direction", "contact_id", "date", "method", "status", "currency", "amount", "unapplied", "reference"},
			heads: `select ` + headColumns + `, t.direction, t.contact_id, t.date::text, t.method, t.status, t.currency::text,
  trim_scale(t.amount)::text, trim_scale(t.unapplied)::text, t.reference from reporting.payments t`,
			lines: `select t.tenant, t.source_id, l.allocation_no::text, l.target_type, l.target_id, trim_scale(l.amount)::text,
  l.currency::text, (l.deleted_at is not null)::text
  from reporting.payments t join reporting.payment_allocations l
    on l.tenant = t.tenant and l.system = t.system and l.payment_id = t.source_id`,
			line:   []string{"allocation_no", "target_type", "target_id", "amount", "currency", "deleted"},
			expect: expectPayment,
			total:  func(c []string) bookTotal { return bookTotal{kind: c[0], status: c[4], currency: c[5], total: c[6]} },
			amount: 3,
		},
	}
}

// What the window needs of the tables, and what a single record of the report needs.
const (
	sinceSQL = ` where t.system = $1 and t.sequence >= $2::bigint`
	oneSQL   = ` where t.system = $1 and t.tenant = $2 and t.source_id = $3`
)

func expectContact(value []byte) (shown, error) {
	var c topics.Contact
	if err := json.Unmarshal(value, &c); err != nil {
		return shown{}, fmt.Errorf("reading a contact: %w", err)
	}
	var a topics.Address
	if c.Address != nil {
		a = *c.Address
	}
	return shown{
		head: []string{
			strings.Join(c.Kinds, ","), c.DisplayName, c.LegalName, c.TaxID, c.Status, c.Email, c.Phone, a.Street, a.City, a.Region, a.PostalCode,
			a.Country,
		},
		total: bookTotal{kind: "contact", status: c.Status},
	}, nil
}

func expectInvoice(value []byte) (shown, error) {
	var i topics.Invoice
	if err := json.Unmarshal(value, &i); err != nil {
		return shown{}, fmt.Errorf("reading an invoice: %w", err)
	}
	s := shown{
		head: []string{
			i.Type, i.Number, i.ContactID, string(i.IssueDate), string(i.DueDate), i.Status, i.Currency, money(i.Subtotal), money(i.DiscountTotal),
			money(i.TaxTotal), decimal(i.Total.Amount), money(i.Balance), i.Memo,
		},
		lines: make([][]string, len(i.Lines)),
		total: bookTotal{kind: i.Type, currency: i.Currency, status: i.Status, total: string(i.Total.Amount), lines: make([]string, len(i.Lines))},
	}
	for n, l := range i.Lines {
		s.lines[n] = []string{
			strconv.Itoa(n + 1), l.ID, l.Description, l.Item, decimal(l.Quantity), decimal(l.UnitPrice.Amount), money(l.Discount), money(l.Tax),
			decimal(l.Total.Amount), i.Currency, l.Account, "false",
		}
		s.total.lines[n] = string(l.Total.Amount)
	}
	return s, nil
}

func expectPayment(value []byte) (shown, error) {
	var p topics.Payment
	if err := json.Unmarshal(value, &p); err != nil {
		return shown{}, fmt.Errorf("reading a payment: %w", err)
	}
	s := shown{
		head: []string{
			p.Direction, p.ContactID, string(p.Date), p.Method, p.Status, p.Amount.Currency, decimal(p.Amount.Amount), money(p.Unapplied), p.Reference,
		},
		lines: make([][]string, len(p.Allocations)),
		total: bookTotal{
			kind: p.Direction, currency: p.Amount.Currency, status: p.Status, total: string(p.Amount.Amount), lines: make([]string, len(p.Allocations)),
		},
	}
	for n, a := range p.Allocations {
		s.lines[n] = []string{strconv.Itoa(n + 1), a.TargetType, a.TargetID, decimal(a.Amount.Amount), a.Amount.Currency, "false"}
		s.total.lines[n] = string(a.Amount.Amount)
	}
	return s, nil
}

func money(m *topics.Money) string {
	if m == nil {
		return ""
	}
	return decimal(m.Amount)
}

// decimal writes a number as trim_scale does, so that 31.50 is 31.5 whoever wrote it.
func decimal(d topics.Decimal) string {
	s := string(d)
	if strings.IndexByte(s, '.') >= 0 {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		return "0"
	}
	return s
}
