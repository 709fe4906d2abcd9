package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/leat-io/leat/examples/chinook"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/devstack"
)

// desk is a configuration file for the operator's commands, so that all of them can be tried on a rehearsal from another terminal.
// It lives as long as the rehearsal: it has the addresses of its databases, perhaps with a password.
type desk struct {
	scratch *devstack.Scratch
	file    string
}

func newDesk(s *servers, cfg *config.Config) (*desk, error) {
	scratch, err := devstack.NewScratch()
	if err != nil {
		return nil, err
	}
	d := &desk{scratch: scratch, file: filepath.Join(scratch.Dir(), "leat.yaml")}
	mappings := filepath.Join(scratch.Dir(), "mappings")
	if err := os.CopyFS(mappings, chinook.Mappings()); err != nil {
		return nil, fmt.Errorf("writing the mappings for the operator's commands: %w", err)
	}
	text := fmt.Sprintf(`# Written by leat dev, for as long as it runs.
kafka:
  brokers: [%s]
  partitions: %d
sources:
  - name: %s
    url: %s
    entities: [%s]
    retention: %s
    outbox_retention: %s
control:
  url: %s
normalize:
  mappings: %s
publish:
  reporting:
    url: %s
http:
  listen: "off"
`, strings.Join(s.brokers, ", "), cfg.Kafka.Partitions, chinook.System, strconv.Quote(s.source), strings.Join(chinook.Entities(), ", "),
		cfg.Sources[0].Retention, cfg.Sources[0].OutboxRetention, strconv.Quote(s.control), strconv.Quote(mappings), strconv.Quote(s.reporting))
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("writing a configuration for the operator's commands: %w", err)
	}
	return d, nil
}

func (d *desk) close() error { return d.scratch.Remove() }
