package chinook

import "context"

// Loaded says how many records Load has added.
type Loaded struct{ Customers, Invoices, Lines int }

// Load puts the sample data into the business tables, one transaction with its event for each customer and invoice. What is
// there already is left alone, so it can be called again after an interruption.
func (s *Shop) Load(ctx context.Context) (Loaded, error) {
	var n Loaded
	customers, err := readCustomers()
	if err != nil {
		return n, err
	}
	invoices, err := readInvoices()
	if err != nil {
		return n, err
	}
	for _, c := range customers {
		added, err := s.desk.addCustomer(ctx, c)
		if err != nil {
			return n, err
		}
		if added {
			n.Customers++
		}
	}
	for _, in := range invoices {
		added, err := s.desk.addInvoice(ctx, in, exact)
		if err != nil {
			return n, err
		}
		if added {
			n.Invoices++
			n.Lines += len(in.Lines)
		}
	}
	s.opts.Logger.Info("sample data loaded", "customers", n.Customers, "invoices", n.Invoices, "lines", n.Lines)
	return n, nil
}

func exact(in invoice) invoice { return in }
