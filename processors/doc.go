// Package processors is the runtime of all stages: it reads a topic in a consumer group, gives records to a Handler
// partition by partition and in order, and commits what the handler returns, the retries, the dead letters and the input
// offsets in one Kafka transaction.
//
// It knows no stage and no target: internal/app gives it handlers as values. A handler never sees Kafka.
package processors
