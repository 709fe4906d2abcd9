// Package testenv finds or starts a Kafka and a PostgreSQL for tests. It is imported by tests only.
//
// Each is looked for in this order: the address in the environment (LEAT_TEST_POSTGRES_URL, LEAT_TEST_KAFKA_BROKERS);
// Docker, unless LEAT_TEST_DOCKER=0; programs of this machine (Apache Kafka from Maven's repository on Java 17, the
// newest installed PostgreSQL); and last an in-process Kafka, and a PostgreSQL that is downloaded. With CI=true a test
// that asks for a real server and gets none fails; it never skips.
//
// Servers are shared by all packages of one `go test` command and end with it: a keeper process starts them for the
// first test that asks, and stops them when the command has ended, however it ended.
package testenv

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strconv"
	"sync"
	"testing"
)

// Name returns a name that no other test uses: prefix and eight random hex digits.
func Name(prefix string) string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return prefix + "-" + hex.EncodeToString(b[:])
}

// Log keeps what is written to it, and can be read while others still write.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write keeps p.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Tail is the last n bytes that were written.
func (l *Log) Tail(n int) string {
	s := l.String()
	return s[max(0, len(s)-n):]
}

func ci() bool {
	on, _ := strconv.ParseBool(os.Getenv("CI"))
	return on
}

// missing skips a test that needs something this machine does not have; in CI it fails the test.
func missing(tb testing.TB, what string, err error) {
	tb.Helper()
	if ci() {
		tb.Fatalf("%s is demanded with CI=true: %v", what, err)
	}
	tb.Skipf("needs %s: %v", what, err)
}
