// Package app wires a Leat process: configuration to clients, clients to stages, stages to a lifecycle with metrics and
// health. cmd/leat and the integration tests call it; everything it puts together is usable without it.
//
// It decides nothing about records: that is the stages' work, and the runtime's.
package app
