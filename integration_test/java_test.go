package integration_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// TestJavaTools_ReadWhatLeatWrites runs Kafka's own console consumer and consumer-groups tool.
func TestJavaTools_ReadWhatLeatWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	l := newLedger()
	l.write(t, r, 2, 40, 10)
	for _, stage := range []string{"relay", "normalize", "publish"} {
		defer r.start("one", stage, "run").stop()
	}
	l.settled(t, r)

	out := testenv.JavaTool(t, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", r.brokers[0],
		"--topic", topics.Finance("invoice", 1), "--from-beginning", "--isolation-level", "read_committed",
		"--property", "print.key=true", "--timeout-ms", "10000")
	own := 0
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, r.tenant+"/"+r.system+"/") {
			require.Contains(t, line, `"type":"invoice"`)
			own++
		}
	}
	require.Equal(t, l.count(), own, "records that the Java consumer printed")

	out = testenv.JavaTool(t, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", r.brokers[0],
		"--describe", "--group", r.normalizeGroup)
	require.Contains(t, out, topics.Source(r.system, "invoice"))
}
