package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
)

// setup writes a configuration for a source of a name of its own, on a database and brokers of the test.
func setup(t *testing.T, brokers ...string) (environ map[string]string, database, system string) {
	t.Helper()
	database, system = testenv.Postgres(t), testenv.Name("shop")
	file := filepath.Join(t.TempDir(), "leat.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
kafka:
  brokers: ${BROKERS:-127.0.0.1:1}
  partitions: 4
sources:
  - name: `+system+`
    url: ${DATABASE}
    entities: [customer]
publish:
  group: `+testenv.Name("reporting")+`
  reporting:
    url: ${DATABASE}
normalize:
  group: `+testenv.Name("normalize")+`
`), 0o600))
	return map[string]string{
		"LEAT_CONFIG": file, "DATABASE": database, "BROKERS": strings.Join(brokers, ","),
	}, database, system
}

func execSQL(t *testing.T, database, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func TestOperate_SchemasAndTopicsFromNothing(t *testing.T) {
	t.Parallel()
	environ, _, system := setup(t, testenv.Kafka(t)...)
	out, _, err := leat(t, environ, "migrate", "status")
	require.NoError(t, err)
	require.Regexp(t, `outbox of `+system+` in postgres://\S+\n  00001_\S+ +pending\n`, out)
	out, _, err = leat(t, environ, "migrate", "up")
	require.NoError(t, err)
	require.Regexp(t, `(?s)outbox of .* 00001_\S+ +applied\n.*reporting in postgres://\S+\n  00001_\S+ +applied\n`, out)
	require.NotContains(t, out, "control in")
	out, _, err = leat(t, environ, "migrate", "up", "reporting", "-o", "json")
	require.NoError(t, err)
	var report struct{ Schemas []struct{ Schema string } }
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Len(t, report.Schemas, 1)
	out, _, err = leat(t, environ, "migrate", "down", "reporting", "--yes")
	require.NoError(t, err)
	require.Contains(t, out, "taken back")

	out, _, err = leat(t, environ, "topics", "plan")
	require.NoError(t, err)
	require.Contains(t, out, "source."+system+".customer")
	_, _, err = leat(t, environ, "topics", "apply")
	require.NoError(t, err)
	out, _, err = leat(t, environ, "topics", "plan", "-o", "json")
	require.NoError(t, err)
	require.Contains(t, out, `"changes": [`)
	require.NotContains(t, out, system, "nothing is left to change; topics of other tests do not count")
}

func TestOperate_CaptureOfATable(t *testing.T) {
	t.Parallel()
	environ, database, system := setup(t)
	execSQL(t, database, `create table clients (id int primary key, name text, secret text); insert into clients values (1, 'Ann', 'x')`)
	_, _, err := leat(t, environ, "outbox", "capture", "--table", "clients")
	require.ErrorContains(t, err, "--key, --entity is needed")
	require.Equal(t, 2, exitCode(err))
	capture := []string{"outbox", "capture", "--table", "clients", "--key", "id", "--entity", "client", "--tenant", "acme", "--omit", "secret"}
	_, _, err = leat(t, environ, capture...)
	require.Error(t, err, "there is no outbox yet")
	_, _, err = leat(t, environ, "migrate", "up", "outbox")
	require.NoError(t, err)
	out, _, err := leat(t, environ, append(capture, "--backfill")...)
	require.NoError(t, err)
	require.Contains(t, out, "is captured as entity client of source "+system+"; 1 rows were backfilled")
	require.Contains(t, out, "add it and run `leat topics apply`")
	out, _, err = leat(t, environ, "outbox", "list")
	require.NoError(t, err)
	require.Equal(t, "public.clients → entity client, key id, tenant acme, without secret\n", out)
	out, _, err = leat(t, environ, "outbox", "release", "clients")
	require.NoError(t, err)
	require.Contains(t, out, "no longer captured")
	out, _, err = leat(t, environ, "outbox", "list", "-o", "json")
	require.NoError(t, err)
	require.NotContains(t, out, "client\"")
	out, _, err = leat(t, environ, "outbox", "grant", "app", "writer", "--dry-run")
	require.NoError(t, err)
	require.Contains(t, out, `grant usage on schema leat to "app";`)
	_, _, err = leat(t, environ, "outbox", "grant", "app", "owner")
	require.ErrorContains(t, err, "use writer or relay")
	out, _, err = leat(t, environ, "outbox", "partitions", "--ahead", "4")
	require.NoError(t, err)
	require.Contains(t, out, "made ")
}
