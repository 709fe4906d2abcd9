package normalize_test

import (
	"strconv"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/topics"
)

const benchMapping = `
source: {system: erp, entity: invoice}
outputs:
  - to: invoice
    currency: currency
    fields:
      type: {const: invoice}
      number: number
      contact_id: customer.id
      issue_date: {path: issued_at, format: rfc3339, zone: America/Sao_Paulo}
      due_date: {path: due, optional: true}
      status: {path: status, values: {open: open, paid: paid, cancelled: void}}
      lines:
        each: lines
        fields:
          id: id
          description: {path: text, optional: true}
          quantity: qty
          unit_price: price
          total: total
      total: total
`

const benchInvoice = `{"id":918273,"number":"2026-000918273","customer":{"id":"c-48213","name":"Padaria Estrela do Norte Ltda"},` +
	`"issued_at":"2026-11-23T01:15:00Z","due":"2026-12-23","status":"open","currency":"BRL","total":"3000.00","lines":[` +
	`{"id":1,"text":"Farinha de trigo especial 25 kg","qty":"10","price":"129.90","total":"1299.00"},` +
	`{"id":2,"text":"Fermento biológico seco 500 g","qty":40,"price":18.25,"total":730.00},` +
	`{"id":3,"text":"Entrega e descarga","qty":"1","price":"971.00","total":"971.00"}]}`

// message is a record of a source topic as the relay writes it.
func message(system, entity, key string, op topics.Operation, payload string) processors.Message {
	env := topics.Envelope{
		ID: "01936f5e-7b1a-7c3e-9d55-0242ac120002", Tenant: "acme", System: system, Kind: topics.SourceKind(entity),
		Operation: op, Subject: key, Time: time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC), Sequence: 42, Epoch: 1,
		DataSchema: "1", ContentType: "application/json", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	m := processors.Message{
		Topic: topics.Source(system, entity), Key: topics.Key("acme", system, key), Headers: env.Append(nil), Attempt: 1,
	}
	if payload != "" {
		m.Value = []byte(payload)
	}
	return m
}

func load(tb testing.TB, files ...string) *normalize.Set {
	tb.Helper()
	fsys := fstest.MapFS{}
	for i, f := range files {
		fsys["m"+strconv.Itoa(i)+".yaml"] = &fstest.MapFile{Data: []byte(f)}
	}
	set, err := normalize.Load(fsys)
	require.NoError(tb, err)
	return set
}

// BenchmarkInvoice is the whole stage, with the contract checked, for invoices of about 500 bytes in batches of 500.
func BenchmarkInvoice(b *testing.B) {
	h := normalize.New(load(b, benchMapping))
	batch := make([]processors.Message, 500)
	for i := range batch {
		batch[i] = message("erp", "invoice", strconv.Itoa(i), topics.Upsert, benchInvoice)
	}
	b.SetBytes(int64(len(benchInvoice)))
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(batch) {
		for _, r := range h.Handle(b.Context(), batch) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}

// BenchmarkExpressions is a record with two outputs and four expressions: what CEL costs beside paths.
func BenchmarkExpressions(b *testing.B) {
	h := normalize.New(load(b, kitchen))
	batch := make([]processors.Message, 500)
	for i := range batch {
		batch[i] = message("erp", "deal", strconv.Itoa(i), topics.Upsert, deal)
	}
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(batch) {
		for _, r := range h.Handle(b.Context(), batch) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}
