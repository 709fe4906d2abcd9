package topics

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const sampleInvoice = `{"tenant":"acme","system":"shop","source_id":"98","type":"invoice","contact_id":"1",` +
	`"issue_date":"2026-11-23","currency":"USD","status":"open","lines":[` +
	`{"id":"531","description":"Walk On","item":"2","quantity":"1","unit_price":{"amount":"1.99","currency":"USD"},` +
	`"total":{"amount":"1.99","currency":"USD"}},` +
	`{"id":"532","description":"Koyaanisqatsi","item":"4","quantity":"1","unit_price":{"amount":"1.99","currency":"USD"},` +
	`"total":{"amount":"1.99","currency":"USD"}}],"total":{"amount":"3.98","currency":"USD"}}`

func BenchmarkContract_CheckRules(b *testing.B) {
	c, err := ContractFor("invoice", 1)
	require.NoError(b, err)
	doc := []byte(sampleInvoice)
	require.NoError(b, c.CheckRules(doc))
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.CheckRules(doc); err != nil {
			b.Fatal(err)
		}
	}
}
