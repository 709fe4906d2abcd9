package dev

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/config"
)

// The operator's commands must mean the same servers, databases, groups and mappings as the rehearsal itself.
func TestDesk_IsAConfigurationOfTheRehearsal(t *testing.T) {
	t.Parallel()
	s := &servers{
		brokers: []string{"127.0.0.1:1", "127.0.0.1:2"}, source: "postgres://leat:p%23w@127.0.0.1:5/chinook",
		control: "postgres://127.0.0.1:5/control", reporting: "postgres://127.0.0.1:5/reporting",
	}
	want := configure(Options{Listen: "off"}, s)
	d, err := newDesk(s, want)
	require.NoError(t, err)
	got, err := config.Load(d.file, func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, want.Kafka.Brokers, got.Kafka.Brokers)
	require.Equal(t, want.Kafka.Partitions, got.Kafka.Partitions)
	require.Equal(t, want.Sources, got.Sources)
	require.Equal(t, want.Control, got.Control)
	require.Equal(t, want.Publish, got.Publish)
	require.Equal(t, want.Normalize.Group, got.Normalize.Group)
	require.FileExists(t, filepath.Join(got.Normalize.Mappings, "invoice.yaml"))
	info, err := os.Stat(d.file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "it has the addresses of databases")
	require.NoError(t, d.close())
	require.NoFileExists(t, d.file)
}
