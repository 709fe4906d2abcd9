package reporting_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/publish/reporting"
)

const benchBatch = 1000

// benchBatches makes n invoices of two or three lines, dealt to partitions in batches.
func (b *bundle) benchBatches(n, partitions int, sequence int64, status string) [][][]processors.Message {
	parts := make([][][]processors.Message, partitions)
	for p := range parts {
		for from := p * n / partitions; from < (p+1)*n/partitions; from += benchBatch {
			var batch []processors.Message
			for i := from; i < min(from+benchBatch, (p+1)*n/partitions); i++ {
				lines := []string{"1049.90", "25.00", "7.35"}[:2+i%2]
				total := []string{"1074.90", "1082.25"}[i%2]
				v := invoice("inv-"+strconv.Itoa(i*7919%n+1000000), status, total, lines...)
				v.Number, v.DueDate = "2026/"+strconv.Itoa(i), "2026-12-23"
				balance, subtotal := brl(total), brl(total)
				v.Balance, v.Subtotal = &balance, &subtotal
				m := b.message(upsert(sequence+int64(i), v))
				m.Partition = int32(p)
				batch = append(batch, m)
			}
			parts[p] = append(parts[p], batch)
		}
	}
	return parts
}

// publish hands the batches of each partition to handle, the partitions side by side.
func publish(b *testing.B, parts [][][]processors.Message, outcome string,
	handle func(context.Context, []processors.Message) []processors.Result,
) {
	b.Helper()
	var wg sync.WaitGroup
	for _, batches := range parts {
		wg.Go(func() {
			for _, batch := range batches {
				for _, r := range handle(b.Context(), batch) {
					if r.Err != nil || r.Outcome != outcome {
						b.Errorf("outcome %q, want %q: %v", r.Outcome, outcome, r.Err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkHandler publishes b.N invoices of two or three lines into empty tables (insert), then a newer version of each
// with another status and amounts of the lines unchanged (status) or changed (update), then the same again (replay).
func BenchmarkHandler(b *testing.B) {
	for _, partitions := range []int{1, 2} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			for _, pass := range []string{"insert", "status", "update", "replay"} {
				b.Run(pass, func(b *testing.B) {
					s := setup(b)
					_, err := s.db.Exec(b.Context(), "analyze")
					require.NoError(b, err)
					parts := s.benchBatches(b.N, partitions, 1, "open")
					outcome := "applied"
					if pass != "insert" {
						publish(b, parts, outcome, s.handler.Handle)
					}
					switch pass {
					case "status":
						parts = s.benchBatches(b.N, partitions, int64(b.N)+1, "paid")
					case "update":
						parts = s.benchBatches(b.N, partitions, int64(b.N)+1, "paid")
						for _, batches := range parts {
							for _, batch := range batches {
								changeLines(batch)
							}
						}
					case "replay":
						outcome = "unchanged"
					}
					b.ReportAllocs()
					b.ResetTimer()
					publish(b, parts, outcome, s.handler.Handle)
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "invoices/s")
				})
			}
		})
	}
}

// changeLines gives every line another description.
func changeLines(batch []processors.Message) {
	for i := range batch {
		batch[i].Value = bytes.ReplaceAll(batch[i].Value, []byte("line of"), []byte("item at"))
	}
}

// BenchmarkBareUpsert writes the same rows without contract, guard and link rows: what is left is the price of the tables.
func BenchmarkBareUpsert(b *testing.B) {
	for _, partitions := range []int{1, 2} {
		for _, pass := range []string{"insert", "update"} {
			b.Run(fmt.Sprintf("partitions=%d/%s", partitions, pass), func(b *testing.B) {
				s := setup(b)
				bare := func(ctx context.Context, batch []processors.Message) []processors.Result {
					results := make([]processors.Result, len(batch))
					if err := reporting.BareUpsert(ctx, s.db, batch); err != nil {
						b.Error(err)
					}
					return results
				}
				parts := s.benchBatches(b.N, partitions, 1, "open")
				if pass == "update" {
					publish(b, parts, "", bare)
					for _, batches := range parts {
						for _, batch := range batches {
							changeLines(batch)
						}
					}
				}
				b.ResetTimer()
				publish(b, parts, "", bare)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "invoices/s")
			})
		}
	}
}
