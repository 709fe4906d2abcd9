package chinook

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// life decides what happens next in the shop. It depends on the seed and on the state of the tables at the start only:
// no clock, no order of events outside.
type life struct {
	desk desk
	rand *rand.Rand
	now  time.Time // the shop's business clock, a few hours further with each step
	last lastNumbers

	customers []known // with a correct export
	open      []due   // open invoices with a correct export
	repairs   []repair
}

type lastNumbers struct{ customer, invoice, line, payment int }

type known struct {
	ID      int
	Country *string
	Email   string
}

// due is an open invoice.
type due struct {
	ID, CustomerID int
	Balance        int // cents
	Untouched      bool
}

// repair is what will be done about a broken record, some steps later.
type repair struct {
	after int
	do    func(ctx context.Context) error
}

const lastNumbersSQL = `
select (select coalesce(max(customer_id), 0) from shop.customers), (select coalesce(max(invoice_id), 0) from shop.invoices),
  (select coalesce(max(invoice_line_id), 0) from shop.invoice_lines), (select coalesce(max(payment_id), 0) from shop.payments),
  greatest((select max(invoice_date) from shop.invoices), (select max(paid_at at time zone 'UTC') from shop.payments))`

const knownCustomersSQL = `select customer_id, country, email from shop.customers order by customer_id`

const openInvoicesSQL = `
select i.invoice_id, i.customer_id, ((i.total - coalesce(sum(p.amount), 0)) * 100)::integer, count(p.*) = 0
from shop.invoices i left join shop.payments p using (invoice_id)
where i.status = 'open'
group by i.invoice_id
having i.total > coalesce(sum(p.amount), 0)
order by i.invoice_id`

func newLife(ctx context.Context, d desk, seed uint64) (*life, error) {
	l := &life{desk: d}
	n, last := &l.last, (*time.Time)(nil)
	err := d.db.QueryRow(ctx, lastNumbersSQL).Scan(&n.customer, &n.invoice, &n.line, &n.payment, &last)
	if err != nil {
		return nil, fmt.Errorf("reading the shop's last numbers: %w", err)
	}
	l.now = time.Date(2026, 1, 2, 9, 0, 0, 0, time.UTC)
	if last != nil && last.After(l.now) {
		l.now = *last
	}
	l.rand = rand.New(rand.NewPCG(seed, uint64(l.last.invoice))) //nolint:gosec // a repeatable life is the purpose
	rows, err := d.db.Query(ctx, knownCustomersSQL)
	if err != nil {
		return nil, fmt.Errorf("reading the shop's customers: %w", err)
	}
	if l.customers, err = pgx.CollectRows(rows, pgx.RowToStructByPos[known]); err != nil {
		return nil, fmt.Errorf("reading the shop's customers: %w", err)
	}
	if rows, err = d.db.Query(ctx, openInvoicesSQL); err != nil {
		return nil, fmt.Errorf("reading the shop's open invoices: %w", err)
	}
	if l.open, err = pgx.CollectRows(rows, pgx.RowToStructByPos[due]); err != nil {
		return nil, fmt.Errorf("reading the shop's open invoices: %w", err)
	}
	return l, nil
}

// step does one business transaction and says which.
func (l *life) step(ctx context.Context) (string, error) {
	l.now = l.now.Add(time.Duration(20+l.rand.IntN(200)) * time.Minute)
	if what, done, err := l.repair(ctx); done {
		return what, err
	}
	roll := l.rand.IntN(100)
	untouched := l.untouched()
	switch {
	case roll < 4 || len(l.customers) == 0:
		return "new customer", l.newCustomer(ctx, pick(l.rand, countries()))
	case roll < 8:
		return "customer correction", l.correctCustomer(ctx)
	case roll < 10:
		return l.breakSomething(ctx)
	case roll < 50 && len(l.open) > 0:
		return "payment", gone(l.pay(ctx))
	case roll < 56 && len(untouched) > 0:
		return "correction", gone(l.correct(ctx, pick(l.rand, untouched)))
	case roll < 59 && len(untouched) > 0:
		id := l.open[pick(l.rand, untouched)].ID
		l.settled(id)
		return "cancellation", gone(l.desk.cancelInvoice(ctx, id))
	case roll < 61 && len(untouched) > 0:
		id := l.open[pick(l.rand, untouched)].ID
		l.settled(id)
		return "deletion", gone(l.desk.deleteInvoice(ctx, id))
	default:
		in := l.nextInvoice()
		_, err := l.desk.addInvoice(ctx, in, exact)
		l.opened(in)
		return "new invoice", err
	}
}

// gone lets a step pass for which somebody else, such as a reader with psql, was faster.
func gone(err error) error {
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

func (l *life) untouched() []int {
	var is []int
	for i, d := range l.open {
		if d.Untouched {
			is = append(is, i)
		}
	}
	return is
}

// nextInvoice draws an invoice of one to five lines.
func (l *life) nextInvoice() invoice {
	c := pick(l.rand, l.customers)
	l.last.invoice++
	in := invoice{
		ID: l.last.invoice, CustomerID: &c.ID, Date: l.now.Format(dateLayout), Country: c.Country, Currency: "USD", Status: "open",
	}
	total := 0
	for range 1 + l.rand.IntN(5) {
		l.last.line++
		price, quantity := pick(l.rand, []int{99, 99, 99, 199}), 1+l.rand.IntN(3)
		total += price * quantity
		in.Lines = append(in.Lines, line{
			ID: l.last.line, InvoiceID: in.ID, TrackID: 1 + l.rand.IntN(3503), UnitPrice: amount(price), Quantity: quantity,
		})
	}
	in.Total = amount(total)
	return in
}

func (l *life) opened(in invoice) {
	total, _ := cents(in.Total) // made by amount
	l.open = append(l.open, due{in.ID, *in.CustomerID, total, true})
}

func (l *life) settled(id int) {
	l.open = slices.DeleteFunc(l.open, func(d due) bool { return d.ID == id })
}

// pay pays an open invoice: in full seven times in ten, otherwise about half of what is due.
func (l *life) pay(ctx context.Context) error {
	i := l.rand.IntN(len(l.open))
	d := l.open[i]
	l.last.payment++
	part := d.Balance
	if l.rand.IntN(10) >= 7 {
		part = (d.Balance + 1) / 2
	}
	settles := part == d.Balance
	l.open[i].Balance -= part
	l.open[i].Untouched = false
	if settles {
		l.settled(d.ID)
	}
	return l.desk.pay(ctx, payment{
		ID: l.last.payment, InvoiceID: d.ID, CustomerID: d.CustomerID, Amount: amount(part), Currency: "USD", PaidAt: l.now,
		Method: pick(l.rand, []string{"card", "card", "bank_transfer", "cash"}),
	}, settles)
}

func (l *life) correct(ctx context.Context, i int) error {
	total, err := l.desk.correctInvoice(ctx, l.open[i].ID, 1+l.rand.IntN(5))
	if err == nil {
		l.open[i].Balance = total
	}
	return err
}

func (l *life) newCustomer(ctx context.Context, country string) error {
	l.last.customer++
	email := "customer" + strconv.Itoa(l.last.customer) + "@example.com"
	c := customer{
		ID: l.last.customer, FirstName: pick(l.rand, []string{"Ana", "Björn", "Chloé", "Дарья", "Emre"}),
		LastName: pick(l.rand, []string{"Almeida", "Østergård", "Nguyễn", "O'Hara", "Żak"}),
		Country:  &country, Email: email,
	}
	if country != atlantis {
		l.customers = append(l.customers, known{c.ID, c.Country, email})
	}
	_, err := l.desk.addCustomer(ctx, c)
	return err
}

func (l *life) correctCustomer(ctx context.Context) error {
	c := &l.customers[l.rand.IntN(len(l.customers))]
	c.Email = "new" + strconv.Itoa(l.rand.IntN(1000)) + "." + strconv.Itoa(c.ID) + "@example.com"
	return l.desk.correctCustomer(ctx, c.ID, c.Country, c.Email)
}

func countries() []string {
	return []string{"Brazil", "Canada", "France", "Germany", "India", "Portugal", "USA"}
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
