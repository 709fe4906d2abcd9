package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/config"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// documented is the example of docs/configuration.md.
func documented(t *testing.T) []byte {
	t.Helper()
	page, err := os.ReadFile("../../docs/configuration.md")
	require.NoError(t, err)
	_, rest, ok := bytes.Cut(page, []byte("```yaml\n"))
	require.True(t, ok)
	text, _, ok := bytes.Cut(rest, []byte("```"))
	require.True(t, ok)
	return text
}

func TestParse_ReadsTheDocumentedExample(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("leat.yaml", documented(t), env(
		"LEAT_KAFKA_BROKERS", "a:9092, b:9093", "LEAT_KAFKA_PASSWORD", "hunter2",
		"LEAT_CHINOOK_URL", "postgres://shop:hunter2@db:5432/chinook",
		"LEAT_REPORTING_URL", "host=db user=leat password=hunter2 dbname=books"))
	require.NoError(t, err)
	require.Equal(t, []string{"a:9092", "b:9093"}, c.Kafka.Brokers)
	require.Equal(t, "hunter2", c.Kafka.SASL.Password.Reveal())
	require.Equal(t, 3, c.Kafka.Replication)
	require.Equal(t, []string{"customer", "invoice", "payment"}, c.Source("chinook").Entities)
	require.Equal(t, 90*24*time.Hour, c.Source("chinook").Retention)
	require.Nil(t, c.Source("other"))
	require.True(t, c.Control.URL.Empty())
	require.Equal(t, 10*time.Minute, c.Retry.Max)
	require.NoError(t, c.Require(config.NeedKafka, config.NeedSources, config.NeedSourceURL, config.NeedReporting))
	require.EqualError(t, c.Require(config.NeedControl), "leat.yaml:26: control.url: is missing; "+
		"write the address of a Postgres database: postgres://user:password@host:5432/database")
}

func TestParse_TheExampleNamesEveryKey(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("leat.yaml", documented(t), func(string) string { return "postgres://u@h/d" })
	require.Error(t, err) // the URL is no broker: the point is only that no key is unknown
	require.Nil(t, c)
	require.NotContains(t, err.Error(), "unknown")
	for _, key := range config.Keys() {
		name := key[strings.LastIndex(key, ".")+1:]
		require.Contains(t, string(documented(t)), name+":", "docs/configuration.md does not show %s", key)
	}
}

func TestParse_AnEmptyFileMeansTheDefaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "kafka:\n", "---\nlog:\n  level: ${NONE:-}\n"} {
		c, err := config.Parse("leat.yaml", []byte(text), env())
		require.NoError(t, err, text)
		require.Equal(t, 8, c.Kafka.Partitions)
		require.Equal(t, "127.0.0.1:9464", c.HTTP.Listen)
		require.Equal(t, "info", c.Log.Level)
	}
}

func TestParse_ReportsEveryProblemAtOnce(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("leat.yaml", []byte(`kafka:
  broker: localhost:9092
  partitions: many
  sasl:
    username: leat
sources:
  - name: Chinook
    url: ${SHOP_URL}
log:
  level: loud
`), env())
	require.Equal(t, strings.Join([]string{
		`leat.yaml:2: kafka.broker: unknown key; did you mean brokers?`,
		`leat.yaml:3: kafka.partitions: "many" is not a whole number; write a whole number`,
		`leat.yaml:4: kafka.sasl: has a user, but no mechanism; write mechanism: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN`,
		`leat.yaml:7: sources[0].entities: is missing; name what its outbox holds, such as [customer, invoice]`,
		`leat.yaml:7: sources[0].name: "Chinook" is not a valid name; ` +
			`use 1 to 63 lower-case letters, digits, - and _, beginning and ending with a letter or digit`,
		`leat.yaml:8: sources[0].url: environment variable SHOP_URL is not set; ` +
			`set it, or give a default: ${SHOP_URL:-default}`,
		`leat.yaml:10: log.level: "loud" is unknown; use debug, info, warn, error`,
	}, "\n"), err.Error())
}

func TestParse_Problems(t *testing.T) {
	t.Parallel()
	const name = "use 1 to 63 lower-case letters, digits, - and _, beginning and ending with a letter or digit"
	tests := []struct{ text, want string }{
		{"kafka: [", "1: sequence end token ']' not found"},
		{"kafka:\n  brokers: a:1\n---\nlog: {}", "4: a second YAML document; write one document"},
		{"sorces: []", "1: sorces: unknown key; did you mean sources?"},
		{"zebra: 1", "1: zebra: unknown key; known keys here: kafka, sources, control, relay, normalize, publish, retry, index, incidents, notify, redrive, verify, http, log, tracing"},
		{"log:\n  level: info\n  level: warn", "3: log.level: occurs twice, first on line 2; remove one"},
		{"log: info", "1: log: is not a section; write its keys on lines of their own: level, format"},
		{"log:\n  level: [info]", "2: log.level: is not a single value; write a text"},
		{"log:\n  level: &a info", "2: log.level: anchors, aliases and tags are not supported; write the value out"},
		{"sources: chinook", `1: sources: is not a list; write each entry on a line of its own, after "- "`},
		{"kafka:\n  brokers: {a: 1}", `2: kafka.brokers: is not a list; write each entry on a line of its own, after "- "`},
		{"kafka:\n  brokers: ${B}", "2: kafka.brokers: environment variable B is not set; set it, or give a default: ${B:-default}"},
		{"log:\n  level: ${A-b}", `2: log.level: "A-b" is not the name of an environment variable; ` +
			`write ${NAME} or ${NAME:-default}, or $${ for ${ itself`},
		{"log:\n  level: ${A", "2: log.level: ${ without }; write ${NAME} or ${NAME:-default}, or $${ for ${ itself"},
		{"kafka:\n  brokers: localhost", `2: kafka.brokers[0]: "localhost" is not host:port; write it as host:9092`},
		{"kafka:\n  brokers:\n    - a:1\n    - b:x", `4: kafka.brokers[1]: "b:x" is not host:port; write it as host:9092`},
		{"kafka:\n  partitions: 0", "2: kafka.partitions: is not between 1 and 10000; 8 is a good start"},
		{"kafka:\n  replication: 0", "2: kafka.replication: is not between 1 and 32; " +
			"write 3 for a cluster in production, 1 for a single broker"},
		{"kafka:\n  tls:\n    enabled: yes please", `3: kafka.tls.enabled: "yes please" is not true or false; write true or false`},
		{"kafka:\n  tls:\n    enabled: true\n    cert_file: a", "2: kafka.tls: has one of cert_file and key_file; " +
			"a client certificate needs both"},
		{"kafka:\n  tls:\n    ca_file: a", "2: kafka.tls: has settings, but TLS is not enabled; write enabled: true, or remove them"},
		{
			"kafka:\n  sasl:\n    mechanism: GSSAPI\n    username: u\n    password: p",
			`3: kafka.sasl.mechanism: "GSSAPI" is unknown; use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512`,
		},
		{"kafka:\n  sasl:\n    mechanism: PLAIN\n    password: p", "2: kafka.sasl.username: is missing; a mechanism needs a user"},
		{"kafka:\n  sasl:\n    mechanism: PLAIN\n    username: u", "2: kafka.sasl.password: is missing; " +
			"write it as ${VARIABLE}, so that it does not stand in the file"},
		{"sources:\n  - entities: [a]", "2: sources[0].name: is missing; " + name},
		{"sources:\n  - {name: a, entities: [x]}\n  - {name: a, entities: [x]}", "3: sources[1].name: a is also the name of " +
			"sources[0]; a source has one outbox; give the other one a name of its own"},
		{"sources:\n  - name: a\n    entities: [x, X]", `3: sources[0].entities[1]: "X" is not a valid name; ` + name},
		{"sources:\n  - name: a\n    entities: [x, x]", "3: sources[0].entities[1]: x occurs twice; remove one"},
		{"sources:\n  - name: a\n    entities: [x]\n    retention: 90", `4: sources[0].retention: "90" is not a duration ` +
			"such as 30s, 5m, 12h or 90d; write a duration such as 30s, 5m, 12h or 90d"},
		{"sources:\n  - name: a\n    entities: [x]\n    retention: 1m", "4: sources[0].retention: 1m0s is shorter than 1h0m0s; " +
			"durations are written as 30s, 5m, 12h or 90d"},
		{"control:\n  url: postgres://u:hunter2@host:port/db", "2: control.url: cannot parse"},
		{"normalize:\n  group: A", `2: normalize.group: "A" is not a valid name; ` + name},
		{"retry:\n  attempts: 0", "2: retry.attempts: is not between 1 and 1000; 1 means no retry; 8 is the default"},
		{"retry:\n  backoff: 0s", "2: retry.backoff: 0s is shorter than 1ms; durations are written as 30s, 5m, 12h or 90d"},
		{"retry:\n  backoff: 2s\n  max: 1s", "3: retry.max: is shorter than retry.backoff; it is the longest wait of all"},
		{"incidents:\n  quiet: 1s", "2: incidents.quiet: 1s is shorter than 1m0s; durations are written as 30s, 5m, 12h or 90d"},
		{"incidents:\n  min_failures: 0", "2: incidents.min_failures: is below 1; leave it out for the default"},
		{"notify:\n  per_minute: 0", "2: notify.per_minute: is not between 1 and 600; 6 is the default"},
		{"notify:\n  link: https://x/", "2: notify.link: is no address with {fingerprint} in it; write https://…/{fingerprint}, or leave it out"},
		{"notify:\n  receivers:\n    - {kind: slack, url: 'https://h/hunter2'}", "3: notify.receivers[0].name: is missing; " + name},
		{
			"notify:\n  receivers:\n    - {name: a, kind: slack, url: 'https://h'}\n    - {name: a, kind: slack, url: 'https://h'}",
			"4: notify.receivers[1].name: a is also the name of receivers[0]; give each a name of its own",
		},
		{"notify:\n  receivers:\n    - {name: a, kind: pager, url: 'https://h'}", `3: notify.receivers[0].kind: "pager" is unknown; ` +
			"use webhook, slack, alertmanager, email"},
		{"notify:\n  receivers:\n    - name: a\n      kind: slack", "3: notify.receivers[0].url: is missing; write it as ${VARIABLE}, " +
			"so that it does not stand in the file"},
		{"notify:\n  receivers:\n    - name: a\n      kind: slack\n      url: hunter2", "5: notify.receivers[0].url: is not an address of the web; " +
			"write https://…, as ${VARIABLE}"},
		{
			"notify:\n  receivers:\n    - name: a\n      kind: email\n      url: https://h/hunter2\n      from: a@b\n      to: [c@d]",
			"5: notify.receivers[0].url: is not the address of a mail server; write smtp://user:password@host:587",
		},
		{
			"notify:\n  receivers:\n    - name: a\n      kind: email\n      url: smtp://h\n      from: a@b\n      to: [x]",
			`7: notify.receivers[0].to[0]: "x" is not a mail address; write name@example.com`,
		},
		{
			"notify:\n  receivers:\n    - name: a\n      kind: slack\n      url: https://h\n      secret: hunter2",
			"6: notify.receivers[0].secret: belongs to kind webhook; remove it",
		},
		{
			"notify:\n  receivers:\n    - name: a\n      kind: slack\n      url: https://h\n      min_severity: bad",
			`6: notify.receivers[0].min_severity: "bad" is unknown; use warning, error, critical`,
		},
		{"http:\n  listen: here", `2: http.listen: "here" is not host:port; write :9464 for every address of the host, or off`},
		{"tracing:\n  exporter: jaeger", `2: tracing.exporter: "jaeger" is unknown; use off, otlp_http, stdout`},
		{"tracing:\n  endpoint: http://leat:hunter2@host", "2: tracing.endpoint: is not an http:// or https:// address; write the collector's"},
		{"tracing:\n  sample_ratio: 2", "2: tracing.sample_ratio: is not between 0 and 1; 0.01 begins a trace for one event in a hundred"},
		{"tracing:\n  sample_ratio: all", `2: tracing.sample_ratio: "all" is not a number; write a number`},
		{"tracing:\n  headers:\n    - value: hunter2", "3: tracing.headers[0].name: is missing; name the HTTP header"},
		{"index:\n  dead_letter_topics: [orders.DLT, a/b]", `2: index.dead_letter_topics[1]: "a/b" is not the name of a topic; ` +
			`use up to 249 letters, digits, '.', '_' and '-'`},
		{"redrive:\n  max_replays: 0", "2: redrive.max_replays: is not between 1 and 1000; 3 is the default; --force goes beyond it once"},
		{"log:\n  format: xml", `2: log.format: "xml" is unknown; use json, text`},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("f", []byte(tt.text), env())
			var problems config.Problems
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1)
			require.True(t, strings.HasPrefix(err.Error(), "f:"+tt.want), "got  %s\nwant f:%s", err, tt.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestRequire_NamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("f", []byte("sources:\n  - name: a\n    entities: [x]\n"), env())
	require.NoError(t, err)
	err = c.Require(config.NeedKafka, config.NeedSources, config.NeedSourceURL, config.NeedControl, config.NeedReporting)
	const url = "write the address of a Postgres database: postgres://user:password@host:5432/database"
	require.EqualError(t, err, "f:1: control.url: is missing; "+url+
		"\nf:1: kafka.brokers: is missing; name at least one broker as host:port"+
		"\nf:1: publish.reporting.url: is missing; "+url+
		"\nf:2: sources[0].url: is missing; "+url)
	require.ErrorContains(t, config.Default().Require(config.NeedSources), "name at least one source system")
}

func TestExpansion(t *testing.T) {
	t.Parallel()
	tests := []struct{ value, want string }{
		{"${A}", "one"},
		{"x-${A}-${B:-two}", "x-one-two"},
		{"${EMPTY:-three}", "three"},
		{"$A and $5", "$A and $5"},
		{"$${A}", "${A}"},
		{"'${A}'", "one"},
		{"12345", "12345"},
		{"true", "true"},
	}
	for _, tt := range tests {
		t.Run(tt.value, func(t *testing.T) {
			t.Parallel()
			c, err := config.Parse("f", []byte("kafka:\n  client_id: "+tt.value), env("A", "one"))
			require.NoError(t, err)
			require.Equal(t, tt.want, c.Kafka.ClientID)
		})
	}
}

func TestSecret_NeverPrints(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.Kafka.SASL.Password = config.NewSecret("hunter2")
	c.Control.URL = config.NewDatabaseURL("postgres://leat:hunter2@db:5432/books?sslpassword=hunter2")
	hidden := struct{ s config.Secret }{c.Kafka.SASL.Password} // fmt cannot call methods of unexported fields
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		fmt.Fprintf(&out, verb+verb+verb+verb+"\n", c.Kafka.SASL.Password, c.Control.URL, *c, hidden)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "password", c.Kafka.SASL.Password, "url", c.Control.URL, "config", c)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	out.Write(text)
	require.NoError(t, c.WriteYAML(&out))
	require.Contains(t, out.String(), "    password: \"[secret]\"\n")
	require.NotContains(t, out.String(), "hunter2")
	require.NotContains(t, out.String(), fmt.Sprintf("%x", "hunter2"))
	require.Equal(t, "postgres://leat@db:5432/books", c.Control.URL.String())
	require.Equal(t, "[secret]", config.NewDatabaseURL("postgres://u:hunter2@host:x/").String())
	require.Empty(t, config.Secret{}.String())
}

// TestParse_ProblemsShowNoSecret: what is wrong with an address is told without the address.
func TestParse_ProblemsShowNoSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"control: {url: 'postgres://u:pa%sshunter2@h/db'}",
		"control: {url: 'postgres://u:p hunter2@h:x/db'}",
		"control: {url: 'postgres://u:x/hunter2@h/db'}",
		"control: {url: 'postgres://h/db?password=hunter2&sslmode=nope'}",
		"control: {url: 'host=h password=hunter2 sslmode=nope'}",
		"control: {url: \"host=h password='hunter2 port=5\"}",
		"control: {url: 'postgresql//u:hunter2@h/db'}",
		"control: {url: hunter2}",
		"control: {url: \"postgres://u:hunter2@h/db}",
		"control:\n  url: postgres://u:hunter2@h/db\n url: x",
		"kafka: {brokers: ['u:hunter2@h']}",
		"kafka: {sasl: {mechanism: PLAIN, username: u, password: [hunter2]}}",
		"tracing: {exporter: otlp_http, endpoint: 'http://u:hunter2@h:4318'}",
		"notify: {receivers: [{name: x, kind: slack, url: 'hunter2'}]}",
		"notify: {receivers: [{name: x, kind: email, url: 'http://u:hunter2@h', from: a@b.c, to: [a@b.c]}]}",
	} {
		_, err := config.Parse("f", []byte(text+"\n"), env())
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// TestParse_RefusesWhatWouldKeepItBusy: the parser needs minutes and gigabytes for some of these.
func TestParse_RefusesWhatWouldKeepItBusy(t *testing.T) {
	t.Parallel()
	var laughs strings.Builder
	laughs.WriteString("a: &a [x, x, x, x, x, x, x, x, x]\n")
	for c := 'b'; c < 'k'; c++ {
		fmt.Fprintf(&laughs, "%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9))
	}
	for name, c := range map[string]struct{ text, want string }{
		"billion laughs":  {laughs.String() + "kafka: {client_id: *j}\n", "anchors, aliases and tags are not supported"},
		"deep brackets":   {"kafka: " + strings.Repeat("[", 100_000), "nested deeper than 100"},
		"many keys":       {strings.Repeat("k: 1\n", 50_000), "lines and entries"},
		"a large file":    {"kafka: {client_id: " + strings.Repeat("x", 2<<20) + "}", "bytes, want at most"},
		"lists in a line": {"kafka: " + strings.Repeat("- ", 50_000) + "x", "lines and entries"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("f", []byte(c.text), env())
			require.ErrorContains(t, err, c.want)
			require.Less(t, len(err.Error()), 10_000)
		})
	}
}

func TestSecrets_AreAllOfThemAndWhatIsSecretWithin(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("f", []byte(`
kafka: {brokers: ["a:1"], sasl: {mechanism: PLAIN, username: u, password: sasl-password}}
sources: [{name: shop, url: "postgres://u:source%40password@h/db?sslpassword=key-password", entities: [invoice]}]
control: {url: host=h password=control-password}
publish: {reporting: {url: "postgres://u:reporting-password@h/db"}}
notify:
  receivers:
    - {name: a, kind: slack, url: "https://hooks.example.com/services/T0/token-of-the-webhook"}
    - {name: b, kind: webhook, url: "https://h/x?token=token-of-the-query", secret: signature-key}
    - {name: c, kind: email, url: "smtp://u:mail-password@h", from: a@b.c, to: [a@b.c]}
tracing: {headers: [{name: Authorization, value: Bearer token-of-the-collector}]}
`), env())
	require.NoError(t, err)
	require.Subset(t, c.Secrets(), []string{
		"sasl-password", "source@password", "key-password", "control-password", "reporting-password", "postgres://u:reporting-password@h/db",
		"token-of-the-webhook", "token-of-the-query", "signature-key", "mail-password", "token-of-the-collector",
	})
}

func TestLoad_PathsAreRelativeToTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "leat.yaml")
	require.NoError(t, os.WriteFile(file, []byte("kafka:\n  tls: {enabled: true, ca_file: tls/ca.pem}\n"), 0o600))
	c, err := config.Load(file, env())
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "tls/ca.pem"), c.Kafka.TLS.CAFile)
	require.Equal(t, filepath.Join(dir, "mappings"), c.Normalize.Mappings)
	require.Empty(t, c.Kafka.TLS.KeyFile)
	require.NoError(t, os.WriteFile(file, []byte("normalize:\n  mappings: /etc/leat/mappings\n"), 0o600))
	c, err = config.Load(file, env())
	require.NoError(t, err)
	require.Equal(t, "/etc/leat/mappings", c.Normalize.Mappings)
}

func TestLoad_NamesTheMissingFileAndTheRemedy(t *testing.T) {
	t.Parallel()
	_, err := config.Load(t.TempDir()+"/none.yaml", env())
	require.ErrorContains(t, err, "there is no file")
	require.ErrorContains(t, err, "--config or LEAT_CONFIG")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("kafka:\n  brokers: [a:1]\nsources:\n  - {name: x, url: '${A:-b}', entities: [y]}"))
	f.Add([]byte("a: &b [*b]"))
	f.Add([]byte("? [x]\n: y"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = config.Parse("f", text, func(string) string { return "" })
	})
}
