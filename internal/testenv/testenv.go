// Package testenv finds a Kafka and a Postgres for tests. It is imported by tests only.
package testenv

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Name returns a name that no other test uses: prefix and eight random hex digits.
func Name(prefix string) string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return prefix + "-" + hex.EncodeToString(b[:])
}

// Postgres returns the URL of a new, empty database that is dropped when the test ends.
func Postgres(t testing.TB) string {
	t.Helper()
	admin := os.Getenv("LEAT_TEST_POSTGRES_URL")
	require.NotEmpty(t, admin, "set LEAT_TEST_POSTGRES_URL")
	name := strings.ReplaceAll(Name("leat_test"), "-", "_")
	exec := func(sql string) {
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, admin)
		require.NoError(t, err)
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, sql)
		require.NoError(t, err)
	}
	exec("create database " + name)
	t.Cleanup(func() { exec("drop database " + name + " with (force)") })
	u, err := url.Parse(admin)
	require.NoError(t, err)
	u.Path = "/" + name
	return u.String()
}

// Kafka returns the addresses of a broker: the real one named by LEAT_TEST_KAFKA_BROKERS, else an in-process kfake.
func Kafka(t testing.TB) []string {
	t.Helper()
	if s := os.Getenv("LEAT_TEST_KAFKA_BROKERS"); s != "" {
		return strings.Split(s, ",")
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(4))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}
