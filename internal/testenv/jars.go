package testenv

import (
	"bytes"
	"cmp"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/broker"
)

// JavaTool runs a program of Apache Kafka's jars, as org.apache.kafka.tools.consumer.ConsoleConsumer or
// org.apache.kafka.tools.consumer.group.ConsumerGroupCommand, and returns what it printed to standard output.
// The test fails when the program does, or when it has not ended after two minutes.
func JavaTool(tb testing.TB, class string, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	libs, err := broker.Libs(ctx)
	if err != nil {
		missing(tb, "Kafka's Java tools", err)
	}
	cmd := broker.Java(ctx, libs, "-Xmx256m", class, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	err = cmd.Run()
	require.NoError(tb, cmp.Or(ctx.Err(), err), "%s: %s%s", class, stdout.String(), stderr.String())
	return stdout.String()
}

// JavaProgram returns a command that compiles and runs a Java program of one file with Kafka's jars. It needs a JDK.
func JavaProgram(tb testing.TB, file string, args ...string) *exec.Cmd {
	tb.Helper()
	libs, err := broker.Libs(tb.Context())
	if err == nil {
		_, err = exec.LookPath(broker.JavaProgram() + "c")
	}
	if err != nil {
		missing(tb, "a JDK and Kafka's jars", err)
	}
	return broker.Java(tb.Context(), libs, "-Xmx256m", file, args...)
}
