package chinook

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
)

//go:embed customer.csv
var customerCSV []byte

//go:embed invoice.csv
var invoiceCSV []byte

//go:embed invoice_line.csv
var lineCSV []byte

// table reads a CSV file whose first row names the columns.
type table struct {
	name string
	cols map[string]int
	rows [][]string
	err  error // the first one; the files are embedded, so a test shows that there is none
}

func readTable(name string, text []byte) *table {
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) == 0 {
		return &table{err: fmt.Errorf("reading %s: %w", name, err)}
	}
	t := &table{name: name, cols: map[string]int{}, rows: rows[1:]}
	for i, c := range rows[0] {
		t.cols[c] = i
	}
	return t
}

func (t *table) text(row []string, col string) string {
	i, ok := t.cols[col]
	if !ok {
		t.err = fmt.Errorf("reading %s: there is no column %s", t.name, col)
		return ""
	}
	return row[i]
}

// optional is nil for an empty cell.
func (t *table) optional(row []string, col string) *string {
	if s := t.text(row, col); s != "" {
		return &s
	}
	return nil
}

func (t *table) number(row []string, col string) int {
	n, err := strconv.Atoi(t.text(row, col))
	if err != nil {
		t.err = fmt.Errorf("reading %s: column %s: %w", t.name, col, err)
	}
	return n
}

func readCustomers() ([]customer, error) {
	t := readTable("customer.csv", customerCSV)
	out := make([]customer, 0, len(t.rows))
	for _, r := range t.rows {
		rep := t.number(r, "support_rep_id")
		out = append(out, customer{
			ID: t.number(r, "customer_id"), FirstName: t.text(r, "first_name"), LastName: t.text(r, "last_name"),
			Company: t.optional(r, "company"), Address: t.optional(r, "address"), City: t.optional(r, "city"),
			State: t.optional(r, "state"), Country: t.optional(r, "country"), PostalCode: t.optional(r, "postal_code"),
			Phone: t.optional(r, "phone"), Fax: t.optional(r, "fax"), Email: t.text(r, "email"), SupportRep: &rep,
		})
	}
	return out, t.err
}

func readInvoices() ([]invoice, error) {
	lt := readTable("invoice_line.csv", lineCSV)
	lines := map[int][]line{}
	for _, r := range lt.rows {
		l := line{
			ID: lt.number(r, "invoice_line_id"), InvoiceID: lt.number(r, "invoice_id"), TrackID: lt.number(r, "track_id"),
			UnitPrice: lt.text(r, "unit_price"), Quantity: lt.number(r, "quantity"),
		}
		lines[l.InvoiceID] = append(lines[l.InvoiceID], l)
	}
	if lt.err != nil {
		return nil, lt.err
	}
	t := readTable("invoice.csv", invoiceCSV)
	out := make([]invoice, 0, len(t.rows))
	for _, r := range t.rows {
		id, customerID := t.number(r, "invoice_id"), t.number(r, "customer_id")
		out = append(out, invoice{
			ID: id, CustomerID: &customerID, Date: t.text(r, "invoice_date"),
			Address: t.optional(r, "billing_address"), City: t.optional(r, "billing_city"), State: t.optional(r, "billing_state"),
			Country: t.optional(r, "billing_country"), PostalCode: t.optional(r, "billing_postal_code"),
			Total: t.text(r, "total"), Currency: "USD", Status: "open", Lines: lines[id],
		})
	}
	return out, t.err
}
