package testenv

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/devstack"
)

const log4jName = "log4j2.properties"

//go:embed pom.xml
var pom []byte

//go:embed log4j2.properties
var log4j []byte

// kafkaLibs returns the directory of Apache Kafka's jars. The first call of a machine has Maven fetch them to the
// user's cache directory.
func kafkaLibs(ctx context.Context) (string, error) {
	if _, err := exec.LookPath(javaProgram()); err != nil {
		return "", fmt.Errorf("looking for Java: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.Sum256(bytes.Join([][]byte{pom, log4j}, nil))
	dir := filepath.Join(cache, "leat", "kafka-"+hex.EncodeToString(sum[:4]))
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return "", fmt.Errorf("making the cache of Kafka: %w", err)
	}
	unlock, err := devstack.LockFile(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, log4jName)); err == nil {
		return dir, nil
	}
	return dir, fetchJars(ctx, dir)
}

func fetchJars(ctx context.Context, dir string) error {
	// Fetched beside its place, so that an interrupted fetch is never taken for a whole one.
	part := dir + ".part"
	err := errors.Join(
		os.RemoveAll(part), os.RemoveAll(dir), os.MkdirAll(part, 0o750),
		os.WriteFile(filepath.Join(part, "pom.xml"), pom, 0o600),
		os.WriteFile(filepath.Join(part, log4jName), log4j, 0o600),
	)
	if err != nil {
		return fmt.Errorf("making the cache of Kafka: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy-dependencies",
		"-DoutputDirectory=.", "-DincludeScope=runtime")
	cmd.Dir = part
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetching Kafka with Maven: %w: %s", err, out)
	}
	if err := os.Rename(part, dir); err != nil {
		return fmt.Errorf("keeping Kafka: %w", err)
	}
	return nil
}

func javaProgram() string {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java")
	}
	return "java"
}

// JavaTool runs a program of Apache Kafka's jars, as org.apache.kafka.tools.consumer.ConsoleConsumer or
// org.apache.kafka.tools.consumer.group.ConsumerGroupCommand, and returns what it printed to standard output.
// The test fails when the program does, or when it has not ended after two minutes.
func JavaTool(tb testing.TB, class string, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	libs, err := kafkaLibs(ctx)
	if err != nil {
		missing(tb, "Kafka's Java tools", err)
	}
	cmd := java(ctx, libs, "-Xmx256m", class, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	err = cmd.Run()
	require.NoError(tb, cmp.Or(ctx.Err(), err), "%s: %s%s", class, stdout.String(), stderr.String())
	return stdout.String()
}

// JavaProgram returns a command that compiles and runs a Java program of one file with Kafka's jars. It needs a JDK.
func JavaProgram(tb testing.TB, file string, args ...string) *exec.Cmd {
	tb.Helper()
	libs, err := kafkaLibs(tb.Context())
	if err == nil {
		_, err = exec.LookPath(javaProgram() + "c")
	}
	if err != nil {
		missing(tb, "a JDK and Kafka's jars", err)
	}
	return java(tb.Context(), libs, "-Xmx256m", file, args...)
}
