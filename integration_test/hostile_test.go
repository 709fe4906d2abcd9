package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// insertRow writes a row past every check but those of the table, as another program could.
const insertRow = `insert into leat.outbox (event_id, tenant, entity, key, operation, payload, headers)
	values (gen_random_uuid(), $1, 'invoice', $2, 'upsert', $3, $4::jsonb)`

// TestHostile_InputIsRefusedAndNobodyElseWaits sends what is meant to break something between good rows, through every stage. Each good row
// arrives, each hostile one is refused by the database or becomes a dead letter that says why, and the relay's memory stays bounded.
func TestHostile_InputIsRefusedAndNobodyElseWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{ownKafka: true})
	control := r.addControl()
	source := topics.Source(r.system, "invoice")
	r.hostileInserts()
	good := 0
	dead := r.hostileRows(func() {
		good++
		r.insertPayload(fmt.Sprintf("good-%d", good), invoicePayload(fmt.Sprintf("good-%d", good), state{1, 1250}), "{}")
	})
	strange := r.hostileRecords(source)

	relay := r.start("one", "relay", "run")
	for _, stage := range []string{"normalize", "publish", "index"} {
		r.start("one", stage, "run")
	}
	odd := []string{"'; drop table reporting.invoices; --", "=cmd|' /C calc'!A0", "../../etc/passwd", "a\x1b[2J\n\u202eb"}
	for _, key := range odd { // ids are the source's own affair: they arrive as they are
		r.insertPayload(key, invoicePayload(key, state{1, 1250}), "{}")
	}
	eventually(t, "every good row in the tables", func() bool { return len(r.booked()) == good+len(odd) })
	for _, key := range odd {
		require.Contains(t, r.booked(), key)
	}
	eventually(t, "every hostile one among the dead letters", func() bool {
		return rows(t, control, `select from leat_control.dead_letters where format in ('leat', 'relay')`) == len(dead)+strange
	})
	for key, want := range dead {
		var code, message string
		require.NoError(t, control.QueryRow(t.Context(), `select code, message from leat_control.dead_letters where source_id = $1`, key).
			Scan(&code, &message), key)
		require.Regexp(t, want, code+": "+message, key)
	}
	require.Less(t, peakMemory(t, relay), 400<<20, "bytes that the relay had at most, with the race detector; a row had 200 MB")
	r.showsPlainText(odd)
}

func (r *rig) insertPayload(key string, payload []byte, headers string) {
	r.t.Helper()
	_, err := r.source.Exec(r.t.Context(), insertRow, r.tenant, key, payload, headers)
	require.NoError(r.t, err, "%.80q", key)
}

// hostileInserts are refused by the table.
func (r *rig) hostileInserts() {
	r.t.Helper()
	for name, row := range map[string][4]any{
		"a name that is a path":       {"../x", "1", []byte("{}"), "{}"},
		"a name that is a statement":  {"x'; drop table leat.outbox; --", "1", []byte("{}"), "{}"},
		"a name that is a label bomb": {strings.Repeat("x", 64), "1", []byte("{}"), "{}"},
		"a name of two lines":         {"a\nb", "1", []byte("{}"), "{}"},
		"a key with NUL":              {"acme", "a\x00b", []byte("{}"), "{}"},
		"a key that is not UTF-8":     {"acme", "a\xffb", []byte("{}"), "{}"},
		"a key of 1,025 bytes":        {"acme", strings.Repeat("k", 1025), []byte("{}"), "{}"},
		"an empty key":                {"acme", "", []byte("{}"), "{}"},
		"no payload":                  {"acme", "1", nil, "{}"},
		"headers that are a list":     {"acme", "1", []byte("{}"), "[1]"},
		"headers with NUL":            {"acme", "1", []byte("{}"), `{"a": "\u0000"}`},
	} {
		_, err := r.source.Exec(r.t.Context(), insertRow, row[:]...)
		require.Error(r.t, err, name)
	}
	for name, payload := range map[string]string{
		"deep JSON": strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), "NUL": `{"a": "\u0000"}`, "half a surrogate": `{"a": "\ud800"}`,
	} {
		_, err := r.source.Exec(r.t.Context(), `select leat.emit('acme', 'invoice', '1', 'upsert', $1::text::jsonb)`, payload)
		require.Error(r.t, err, name)
	}
}

// hostileRows inserts what the table takes and no stage can use, with good rows between them. It returns what is told of each, by key.
func (r *rig) hostileRows(between func()) map[string]string {
	r.t.Helper()
	with := func(key, field, value string) []byte {
		return regexp.MustCompile(`"`+field+`":("[^"]*"|\d+)`).ReplaceAllLiteral(invoicePayload(key, state{1, 1250}), []byte(`"`+field+`":`+value))
	}
	told := map[string]string{}
	for key, c := range map[string]struct {
		payload []byte
		headers string
		want    string
	}{
		"two-megabytes":   {bytes.Repeat([]byte("x"), 2<<20), "{}", `^too_large: the payload has 2097152 bytes, topic \S+ takes`},
		"deep":            {[]byte(strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)), "{}", `^decode: .*nested deeper than 64`},
		"exponent":        {with("exponent", "unit_price", "1e1000000"), "{}", `^mapping: .*unit_price.*1e1000000`},
		"digits":          {with("digits", "unit_price", strings.Repeat("9", 1000)), "{}", `^mapping: .*unit_price.*at most 60 digits`},
		"duplicate":       {with("duplicate", "status", `"open","status":"paid"`), "{}", `^decode: .*status`},
		"not-utf-8":       {with("not-utf-8", "billing_country", "\"\xff\xfe\""), "{}", `^decode: .*not UTF-8`},
		"nul":             {with("nul", "billing_country", `"\u0000"`), "{}", `^decode: .*NUL`},
		"surrogate":       {with("surrogate", "billing_country", `"\ud800"`), "{}", `^decode: .*half a surrogate pair`},
		"not-json":        {[]byte("=cmd|' /C calc'!A0"), "{}", `^decode: .*want a JSON value`},
		"forged-header":   {with("forged", "status", `"open"`), `{"ce_id": "0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11"}`, `^invalid_headers: .*reserved`},
		"header-bomb":     {with("bomb", "status", `"open"`), bomb(5_000), `^invalid_headers: headers have more than 65536 bytes`},
		"formula-in-enum": {with("formula", "status", `"=HYPERLINK(\"http://evil.example\")"`), "{}", `^mapping: .*status`},
	} {
		r.insertPayload(key, c.payload, c.headers)
		told[key] = c.want
		between()
	}
	_, err := r.source.Exec(r.t.Context(), `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		values (gen_random_uuid(), 'acme', 'invoice', 'two-hundred-megabytes', 'upsert', convert_to(repeat('x', 200 * 1024 * 1024), 'UTF8'))`)
	require.NoError(r.t, err)
	told["two-hundred-megabytes"] = `^too_large: the payload has 209715200 bytes`
	between()
	return told
}

// bomb is an object of n headers that do not compress.
func bomb(n int) string {
	headers := map[string]string{}
	for i := range n {
		headers["h"+strconv.Itoa(i)] = topics.KeyHash([]byte(strconv.Itoa(i)))
	}
	b, err := json.Marshal(headers)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// hostileRecords writes to Kafka what only a stranger would, and returns how many of it must become dead letters: what is on a topic that a
// stage reads. What stands on a retry or dead-letter topic, or among the cursors, is nobody's record and ignored.
func (r *rig) hostileRecords(source string) (letters int) {
	r.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.ProducerBatchMaxBytes(1_000_000))
	require.NoError(r.t, err)
	defer client.Close()
	var many, huge []kgo.RecordHeader
	for i := range 10_000 {
		many = append(many, kgo.RecordHeader{Key: "h" + strconv.Itoa(i), Value: []byte("x")})
	}
	huge = append(huge, kgo.RecordHeader{Key: strings.Repeat("n", 100_000), Value: bytes.Repeat([]byte{0xff}, 500_000)})
	twice := []kgo.RecordHeader{{Key: topics.HeaderID, Value: []byte("1")}, {Key: topics.HeaderID, Value: []byte("2")}}
	forged := []kgo.RecordHeader{{Key: topics.HeaderOriginalTopic, Value: []byte(source)}, {Key: topics.HeaderAttempt, Value: []byte("-1")}}
	read := []string{source, topics.Finance("invoice", 1), topics.Finance("contact", 1)}
	for _, topic := range append(read, topics.Retry(source, r.normalizeGroup), topics.Retry(read[1], r.publishGroup), topics.Cursors) {
		for i, headers := range [][]kgo.RecordHeader{nil, many, huge, twice, forged} {
			rec := &kgo.Record{Topic: topic, Key: []byte("stranger-" + strconv.Itoa(i)), Value: []byte("\x00\xff{"), Headers: headers}
			require.NoError(r.t, client.ProduceSync(r.t.Context(), rec).FirstErr())
		}
	}
	stranger := &kgo.Record{Topic: topics.DLQ(source, r.normalizeGroup), Value: []byte("{}"), Headers: many}
	require.NoError(r.t, client.ProduceSync(r.t.Context(), stranger).FirstErr())
	return 5 * len(read)
}

// peakMemory is the most that the process has had resident.
func peakMemory(t *testing.T, p *process) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(t, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	require.NotNil(t, m)
	kb, err := strconv.Atoi(string(m[1]))
	require.NoError(t, err)
	t.Logf("the relay had at most %d MiB", kb>>10)
	return kb << 10
}

// showsPlainText runs commands that show hostile records: nothing of them controls the terminal.
func (r *rig) showsPlainText(keys []string) {
	r.t.Helper()
	commands := [][]string{{"dlq", "list"}, {"dlq", "list", "-o", "json"}, {"incidents", "list"}, {"outcomes"}, {"status"}, {"audit"}}
	for _, key := range keys {
		commands = append(commands, []string{"trace", r.tenant + "/" + r.system + "/" + key})
	}
	for _, args := range commands {
		out, _ := r.try(args...) // an odd key may be refused
		require.NotRegexp(r.t, "[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u202a-\u202e\u2066-\u2069]", out, "%q", args)
	}
}
