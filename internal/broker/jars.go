package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/leat-io/leat/internal/devstack"
)

const log4jName = "log4j2.properties"

//go:embed pom.xml
var pom []byte

//go:embed log4j2.properties
var log4j []byte

// Libs returns the directory of Apache Kafka's jars. The first call of a machine has Maven fetch them to the user's cache
// directory. It needs Java, and says so.
func Libs(ctx context.Context) (string, error) {
	if _, err := exec.LookPath(JavaProgram()); err != nil {
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

// JavaProgram is the java of JAVA_HOME, else the one of the path.
func JavaProgram() string {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java")
	}
	return "java"
}

// Java runs a class of Kafka's jars in a JVM that starts quickly and never compiles for speed.
func Java(ctx context.Context, libs, heap, class string, args ...string) *exec.Cmd {
	return java(ctx, libs, []string{heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"}, class, args...)
}

func java(ctx context.Context, libs string, jvm []string, class string, args ...string) *exec.Cmd {
	all := append(append([]string{}, jvm...), "-Dlog4j2.configurationFile="+filepath.Join(libs, log4jName),
		"-cp", filepath.Join(libs, "*"), class)
	return exec.CommandContext(ctx, JavaProgram(), append(all, args...)...)
}
