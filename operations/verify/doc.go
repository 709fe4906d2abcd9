// Package verify proves that what a source wrote into its outbox stands, once and unchanged, on the source topics, on the finance
// topics and in the reporting tables. It compares a window of the outbox layer by layer and writes a signed report that
// names each record that is missing, too many or different.
//
// It reads only, and needs no running process of Leat. What it expects of a layer it computes itself, from the layer before: with the
// mapping of now for the finance topics, with its own reading of the finance model for the tables. It does not correct anything.
//
// While records flow, a record in flight must not look like a lost one. See docs/design.md for the order of its observations, on
// which everything here depends, and boundaries.go for where they are made.
package verify
