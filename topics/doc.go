// Package topics is the catalogue of everything that stands on Kafka: names, settings, record headers, contracts and
// the types of the finance model. Both sides of every topic import it, so that a name or a header is spelled once.
//
// It does not talk to Kafka: internal/kafka compares the catalogue with a cluster and applies it. It imports nothing of
// ours.
package topics
