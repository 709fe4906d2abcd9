package chinook

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// customer is a row of shop.customers, and as JSON the payload of its event.
type customer struct {
	ID         int     `json:"customer_id"`
	FirstName  string  `json:"first_name"`
	LastName   string  `json:"last_name"`
	Company    *string `json:"company"`
	Address    *string `json:"address"`
	City       *string `json:"city"`
	State      *string `json:"state"`
	Country    *string `json:"country"`
	PostalCode *string `json:"postal_code"`
	Phone      *string `json:"phone"`
	Fax        *string `json:"fax"`
	Email      string  `json:"email"`
	SupportRep *int    `json:"support_rep_id"`
}

// invoice is a row of shop.invoices with its lines, and as JSON the payload of its event.
type invoice struct {
	ID         int     `json:"invoice_id"`
	CustomerID *int    `json:"customer_id"` // a pointer, because one kind of broken record has none
	Date       string  `json:"invoice_date"`
	Address    *string `json:"billing_address"`
	City       *string `json:"billing_city"`
	State      *string `json:"billing_state"`
	Country    *string `json:"billing_country"`
	PostalCode *string `json:"billing_postal_code"`
	Total      string  `json:"total"`
	Currency   string  `json:"currency"`
	Status     string  `json:"status"`
	Lines      []line  `json:"lines"`
}

// line is a row of shop.invoice_lines.
type line struct {
	ID        int    `json:"invoice_line_id"`
	InvoiceID int    `json:"invoice_id"`
	TrackID   int    `json:"track_id"`
	UnitPrice string `json:"unit_price"`
	Quantity  int    `json:"quantity"`
}

// payment is a row of shop.payments, and as JSON the payload of its event.
type payment struct {
	ID         int       `json:"payment_id"`
	InvoiceID  int       `json:"invoice_id"`
	CustomerID int       `json:"customer_id"`
	Amount     string    `json:"amount"`
	Currency   string    `json:"currency"`
	PaidAt     time.Time `json:"paid_at"`
	Method     string    `json:"method"`
}

const dateLayout = "2006-01-02 15:04:05"

// cents reads an amount of the shop's tables, which always have two decimal places.
func cents(amount string) (int, error) {
	n, err := strconv.Atoi(strings.Replace(amount, ".", "", 1))
	if err != nil {
		return 0, fmt.Errorf("reading amount %q: %w", amount, err)
	}
	return n, nil
}

func amount(cents int) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }
