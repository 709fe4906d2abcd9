package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/outbox"
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

// TestFinancePage_ItsJavaProgramReads compiles the program of docs/finance.md as it stands there, but for the address and the group,
// and runs it: it sees every record with its version, deletions too, and commits its position.
func TestFinancePage_ItsJavaProgramReads(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	topic, group := topics.Finance("invoice", 1), testenv.Name("ledger")
	r.commitAt(group, r.ends(topic)) // the topic is shared: what others wrote before is not read
	l := newLedger()
	l.write(t, r, 2, 40, 10)
	r.emit(outbox.Event{ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: "gone", Operation: topics.Delete})
	for _, stage := range []string{"relay", "normalize"} {
		defer r.start("one", stage, "run").stop()
	}
	want := map[string][]string{} // key to what the program prints of its records, in order
	eventually(t, "every change on the finance topic", func() bool {
		clear(want)
		n := 0
		for _, rec := range r.read(topic) {
			if e := envelope(t, rec); e.System == r.system {
				line := fmt.Sprintf("%s %d %d %s", rec.Key, e.Epoch, e.Sequence, rec.Value)
				if rec.Value == nil {
					line = fmt.Sprintf("%s %d %d deleted", rec.Key, e.Epoch, e.Sequence)
				}
				want[string(rec.Key)] = append(want[string(rec.Key)], line)
				n++
			}
		}
		return n == l.count()+1
	})

	program := &process{
		t: t, log: &testenv.Log{}, done: make(chan struct{}),
		cmd: testenv.JavaProgram(t, financeProgram(t, r.brokers[0], group)),
	}
	program.launch()
	ends := r.ends(topic)
	eventually(t, "the program's position at the end", func() bool {
		at, err := r.adm.FetchOffsetsForTopics(t.Context(), group, topic)
		require.NoError(t, err)
		reached := true
		ends.Each(func(end kadm.ListedOffset) {
			o, ok := at.Lookup(topic, end.Partition)
			reached = reached && ok && o.At >= end.Offset
		})
		return reached
	})
	program.kill()
	got := map[string][]string{}
	for line := range strings.Lines(program.log.String()) {
		if key, _, _ := strings.Cut(line, " "); strings.HasPrefix(key, r.tenant+"/"+r.system+"/") {
			got[key] = append(got[key], strings.TrimSuffix(line, "\n"))
		}
	}
	require.Equal(t, want, got)
}

// financeProgram puts the Java of docs/finance.md into a class that prints what it is given, and returns its file.
func financeProgram(t *testing.T, broker, group string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "finance.md"))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(page), "```java\n")
	require.True(t, found)
	code, _, _ := strings.Cut(rest, "```")
	for from, to := range map[string]string{`"localhost:9092"`: `"` + broker + `"`, `"ledger"`: `"` + group + `"`} {
		require.Equal(t, 1, strings.Count(code, from), from)
		code = strings.Replace(code, from, to, 1)
	}
	body, methods, found := strings.Cut(code, "\nstatic ")
	require.True(t, found)
	file := filepath.Join(t.TempDir(), "Ledger.java")
	require.NoError(t, os.WriteFile(file, []byte(`import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;

public class Ledger {
public static void main(String[] args) {
`+body+`
}
static `+methods+`
static void markDeleted(String key, long epoch, long sequence) {
  System.out.println(key + " " + epoch + " " + sequence + " deleted");
}
static void upsertIfNewer(String key, long epoch, long sequence, String value) {
  System.out.println(key + " " + epoch + " " + sequence + " " + value);
}
}
`), 0o600))
	return file
}

func (r *rig) ends(topic string) kadm.ListedOffsets {
	r.t.Helper()
	ends, err := r.adm.ListCommittedOffsets(r.t.Context(), topic)
	require.NoError(r.t, err)
	require.NoError(r.t, ends.Error())
	return ends
}
