package chinook

import (
	"context"
	"slices"
	"strings"
)

const atlantis = "Atlantis"

// breakSomething makes one of the mistakes that real systems make. The business tables stay right, except for the
// country; the event is what is broken, and must end in the dead letters with a message that finance understands. Some
// steps later the shop notices, and exports the record again.
func (l *life) breakSomething(ctx context.Context) (string, error) {
	kind := l.rand.IntN(4)
	if kind == 0 {
		err := l.newCustomer(ctx, atlantis)
		id, greece := l.last.customer, "Greece"
		l.later(func(ctx context.Context) error {
			email := "found@example.com"
			l.customers = append(l.customers, known{id, &greece, email})
			return l.desk.correctCustomer(ctx, id, &greece, email)
		})
		return "broken: unknown country", err
	}
	in := l.nextInvoice()
	what, export := "broken: no customer", withoutCustomer
	switch kind {
	case 1:
		what, export = "broken: decimal comma", withComma
	case 2:
		what, export = "broken: no price", withoutPrice
	}
	_, err := l.desk.addInvoice(ctx, in, export)
	l.later(func(ctx context.Context) error {
		l.opened(in)
		return l.desk.reexport(ctx, in.ID)
	})
	return what, err
}

func withoutCustomer(in invoice) invoice {
	in.CustomerID = nil
	return in
}

func withComma(in invoice) invoice {
	in.Total = strings.Replace(in.Total, ".", ",", 1)
	return in
}

func withoutPrice(in invoice) invoice {
	in.Lines = slices.Clone(in.Lines)
	in.Lines[0].UnitPrice = "n/a"
	return in
}

const repairAfter = 40 // steps

func (l *life) later(do func(ctx context.Context) error) {
	l.repairs = append(l.repairs, repair{repairAfter, do})
}

// repair does the repair that is due, if any.
func (l *life) repair(ctx context.Context) (what string, done bool, err error) {
	for i := range l.repairs {
		l.repairs[i].after--
	}
	if len(l.repairs) == 0 || l.repairs[0].after > 0 {
		return "", false, nil
	}
	do := l.repairs[0].do
	l.repairs = l.repairs[1:]
	return "repair of a broken record", true, do(ctx)
}
