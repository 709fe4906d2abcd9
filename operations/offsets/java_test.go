package offsets_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/offsets"
)

const groupTool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"

// csvLines are the lines of a tool's output that are rows, sorted.
func csvLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.Count(line, ",") >= 2 && !strings.Contains(line, " ") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// TestCSV_IsThatOfKafkasOwnTool takes an export of Kafka's tool for a plan, and has Kafka's tool read ours.
func TestCSV_IsThatOfKafkasOwnTool(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.write(b.topic, 1, 5)
	b.commit(0, 8)
	b.commit(1, 5)
	theirs := testenv.JavaTool(t, groupTool, "--bootstrap-server", b.brokers[0], "--group", b.group, "--topic", b.topic,
		"--reset-offsets", "--shift-by", "-2", "--export", "--dry-run")
	rows, err := offsets.ParseCSV(strings.NewReader(strings.Join(csvLines(theirs), "\n")))
	require.NoError(t, err, theirs)
	p := b.plan(offsets.Request{Group: b.group, Target: offsets.Target{File: rows}})
	require.Equal(t, []int64{6, 3}, []int64{p.Partitions[0].Target, p.Partitions[1].Target})

	var ours strings.Builder
	require.NoError(t, offsets.WriteCSV(&ours, p.Rows()))
	require.Equal(t, csvLines(theirs), csvLines(ours.String()), "the very same lines")
	file := filepath.Join(t.TempDir(), "plan.csv")
	require.NoError(t, os.WriteFile(file, []byte(ours.String()), 0o600))
	read := testenv.JavaTool(t, groupTool, "--bootstrap-server", b.brokers[0], "--group", b.group,
		"--reset-offsets", "--from-file", file, "--export", "--dry-run")
	require.Equal(t, csvLines(ours.String()), csvLines(read))

	exported, err := b.Export(t.Context(), b.group)
	require.NoError(t, err)
	require.Equal(t, []offsets.Row{{Group: b.group, Topic: b.topic, Offset: 8}, {Group: b.group, Topic: b.topic, Partition: 1, Offset: 5}}, exported)
}

// TestApply_ToAGroupOfTheNextProtocol moves a group of KIP-848, made by Kafka's Java consumer.
func TestApply_ToAGroupOfTheNextProtocol(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	testenv.JavaTool(t, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", b.brokers[0], "--topic", b.topic,
		"--consumer-property", "group.protocol=consumer", "--group", b.group, "--from-beginning", "--timeout-ms", "15000")
	p := b.plan(offsets.Request{Group: b.group, Topics: []string{b.topic + ":0"}, Target: offsets.Target{Earliest: true}})
	require.Equal(t, "consumer", p.Protocol)
	require.Equal(t, offsets.Count{N: 10, Exact: true}, p.Total.Reread)
	b.apply(p)
	require.Equal(t, int64(0), b.committed()[0])
	_, err := b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.NoError(t, err)
	require.Equal(t, int64(10), b.committed()[0])
}
