package integration_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// The marks of this test. Secrets of the configuration may stand nowhere but in the configuration. What is in a payload stands where the
// record stands; the part of it that a failure names, in the message of that failure too: in the headers of the record on retry and
// dead-letter topics, and in the tables and commands that show these messages.
const (
	secretMark  = "PLANTED-secret-" // and more
	payloadMark = "PLANTED-payload"
	foundMark   = "PLANTED-found"
)

// listener is a receiver of notifications and a collector of traces, which refuses what it gets the first time and repeats it in its answer.
type listener struct {
	mu     sync.Mutex
	bodies []string
	paths  map[string]int
}

func (l *listener) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bodies = append(l.bodies, string(body))
	if l.paths[req.URL.Path]++; l.paths[req.URL.Path] == 1 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "cannot take %s with %s", req.URL, req.Header.Get("Authorization"))
	}
}

func (l *listener) count(path string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paths[path]
}

// TestSecrets_AreNowhere plants secrets in the configuration, in payloads and in the errors of others, runs every stage with failures, and looks
// through every log, topic, table, metric, span, notification and command.
func TestSecrets_AreNowhere(t *testing.T) {
	t.Parallel()
	kafka := testenv.KafkaServer(t, testenv.Listener{Name: "sasl", Protocol: "SASL_PLAINTEXT", Settings: map[string]string{
		"sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-512",
		"plain.sasl.jaas.config":         `org.apache.kafka.common.security.plain.PlainLoginModule required user_leat="` + secretMark + `sasl";`,
		"scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
	}})
	r := newRig(t, rigOptions{brokers: kafka.Brokers()})
	control := r.addControl()
	l := &listener{paths: map[string]int{}}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	r.plant(control, server.URL, kafka.Listener("sasl")[0])
	_, err := r.reporting.Exec(t.Context(), `create function reporting.refuse() returns trigger language plpgsql as $$ begin
		raise exception '`+foundMark+` refused by postgres://u:`+secretMark+`database@h/db'; end $$;
		create trigger refuse before insert on reporting.invoices for each row when (new.source_id = 'refused') execute function reporting.refuse()`)
	require.NoError(t, err)

	marked := func(key, from, to string) []byte {
		text := strings.Replace(string(invoicePayload(key, state{1, 1250})), `"billing_country"`, `"remark":"`+payloadMark+`","billing_country"`, 1)
		return []byte(strings.Replace(text, from, to, 1))
	}
	r.insertPayload("good", marked("good", "", ""), "{}")
	r.insertPayload("refused", marked("refused", "", ""), "{}")
	r.insertPayload("broken", marked("broken", `"unit_price":"12.50"`, `"unit_price":"`+foundMark+`"`), "{}")
	_, err = r.source.Exec(t.Context(), `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		values (gen_random_uuid(), 'acme', 'nonesuch', 'lost', 'upsert', convert_to($1, 'UTF8'))`, payloadMark)
	require.NoError(t, err)

	var logs, shown strings.Builder
	var processes []*process
	var addresses []string
	for _, stage := range []string{"relay", "normalize", "publish", "index", "notify"} {
		addresses = append(addresses, freeAddress(t))
		processes = append(processes, r.start("one", stage, "run", "--listen", addresses[len(addresses)-1]))
	}
	eventually(t, "three dead letters", func() bool { return rows(t, control, `select from leat_control.dead_letters`) == 3 })
	eventually(t, "messages about them", func() bool { return l.count("/"+secretMark+"webhook-token") >= 3 })
	eventually(t, "spans", func() bool { return l.count("/v1/traces") >= 2 })
	for _, address := range addresses {
		for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
			logs.WriteString(r.get("http://" + address + path))
		}
	}
	for _, p := range processes {
		p.stop()
		logs.WriteString(p.log.String())
	}
	require.Contains(t, logs.String(), `"level":"DEBUG"`)
	r.tell(control, &logs)
	r.wrongPasswords(&logs)
	commands := [][]string{
		{"config", "check"},
		{"status"},
		{"status", "-o", "json"},
		{"incidents", "list"},
		{"incidents", "list", "-o", "json"},
		{"outcomes"},
		{"audit"},
		{"audit", "-o", "json"},
		{"relay", "status"},
		{"offsets", "list"},
		{"topics", "plan"},
		{"trace", r.tenant + "/" + r.system + "/good"},
		{"verify", "--source", r.system, "--window", "1h"},
		{"--help"},
		{"notify", "--help"},
		{"migrate", "up", "nothing"},
	}
	for _, args := range commands {
		out, _ := r.try(args...) // some have nothing to show, or are wrong
		logs.WriteString(out)
	}
	for _, args := range [][]string{{"dlq", "list"}, {"dlq", "list", "-o", "json"}, {"trace", r.tenant + "/" + r.system + "/broken"}} {
		shown.WriteString(r.run(args...)) // they show the messages of failures
	}
	require.Contains(t, shown.String(), foundMark)
	noMark(t, "logs, metrics and commands", logs.String(), secretMark, payloadMark, foundMark)
	noMark(t, "commands that show failures", shown.String(), secretMark, payloadMark)
	noMark(t, "notifications and spans", strings.Join(l.bodies, "\n"), secretMark, payloadMark, foundMark)
	r.noMarkOnTopics()
	noMarkInTables(t, r.source, []string{"leat.outbox"}, []string{"leat.outbox"})
	noMarkInTables(t, r.reporting, nil, nil)
	noMarkInTables(t, control, nil, []string{"leat_control.dead_letters", "leat_control.attempts"})
}

// tell has an operator who types secrets: one of the configuration, and a password of something else in its address.
func (r *rig) tell(control *pgxpool.Pool, logs *strings.Builder) {
	r.t.Helper()
	said := "after " + secretMark + "sasl, see amqp://ana:" + secretMark + "elsewhere@mq.example.com/leat password=" + secretMark + "typed"
	var list []struct{ Fingerprint string }
	out, err := r.try("incidents", "list", "-o", "json")
	require.NoError(r.t, err, out)
	require.NoError(r.t, json.Unmarshal([]byte(out[strings.Index(out, "["):]), &list), out)
	require.NotEmpty(r.t, list)
	source := topics.Source(r.system, "invoice")
	for _, args := range [][]string{
		{"pause", "tenant", r.tenant, "--reason", said},
		{"resume", "tenant", r.tenant, "--reason", said},
		{"breaker", "open", r.publishGroup, "--reason", said},
		{"breaker", "release", r.publishGroup, "--reason", said},
		{"incidents", "assign", list[0].Fingerprint, "--owner", said, "--note", said, "--reason", said},
		{"incidents", "mute", list[0].Fingerprint, "--for", "1h", "--reason", said},
		{"dlq", "assign", "--group", r.normalizeGroup, "--assign-to", said, "--note", said, "--reason", said},
		{"dlq", "redrive", "--group", r.normalizeGroup, "--reason", said},
		{"offsets", "plan", "--group", r.normalizeGroup, "--topic", source, "--to-earliest", "--reason", said},
		{"relay", "adopt", "--source", r.system, "--from", "end", "--reason", said},
	} {
		out, err := r.try(args...)
		check(r.t, err == nil, "leat %s: %v: %s", strings.Join(args, " "), err, out)
		logs.WriteString(out)
	}
	var kept int
	require.NoError(r.t, control.QueryRow(r.t.Context(), `select count(*) from leat_control.audit_log
		where reason = 'after [secret], see amqp://ana:[secret]@mq.example.com/leat password=[secret]'`).Scan(&kept))
	require.GreaterOrEqual(r.t, kept, 9, "what is no secret is kept")
}

// wrongPasswords runs processes and commands that are refused by Kafka or by the databases.
func (r *rig) wrongPasswords(logs *strings.Builder) {
	r.t.Helper()
	text, err := os.ReadFile(r.config)
	require.NoError(r.t, err)
	const kafkaSays, databaseSays = "check kafka.sasl: username, password and mechanism", "check user and password"
	for name, c := range map[string]struct {
		from, to, remedy string
		stages           []string
	}{
		"PLAIN":     {secretMark + "sasl", secretMark + "wrong-sasl", kafkaSays, []string{"relay", "normalize", "index"}},
		"SCRAM":     {"mechanism: PLAIN", "mechanism: SCRAM-SHA-512", kafkaSays, []string{"publish"}}, // which does not know the user
		"databases": {secretMark + "database", secretMark + "wrong-database", databaseSays, []string{"relay", "publish", "index", "notify"}},
	} {
		require.Contains(r.t, string(text), c.from)
		wrong := *r
		wrong.config = filepath.Join(r.t.TempDir(), "leat.yaml")
		require.NoError(r.t, os.WriteFile(wrong.config, []byte(strings.ReplaceAll(string(text), c.from, c.to)), 0o600))
		for _, stage := range c.stages {
			address := freeAddress(r.t)
			p := wrong.start("wrong", stage, "run", "--listen", address)
			eventually(r.t, stage+" to say what is wrong with "+name, func() bool { return strings.Contains(p.log.String(), c.remedy) })
			for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
				logs.WriteString(r.get("http://" + address + path))
			}
			p.kill()
			logs.WriteString(p.log.String())
		}
		for _, args := range [][]string{{"status"}, {"topics", "plan"}, {"audit"}, {"relay", "status"}} {
			out, _ := wrong.try(args...)
			logs.WriteString(out)
		}
	}
}

func noMark(t *testing.T, where, text string, marks ...string) {
	t.Helper()
	for _, mark := range marks {
		for _, form := range []string{mark, hex.EncodeToString([]byte(mark)), url.QueryEscape(mark)} {
			if i := strings.Index(text, form); i >= 0 {
				t.Errorf("%s tell %s: … %s …", where, form, text[max(0, i-300):min(len(text), i+100)])
			}
		}
	}
}

// plant writes secrets into the configuration: passwords of the databases and of Kafka, which the servers take; and those of receivers and
// collector.
func (r *rig) plant(control *pgxpool.Pool, server, listener string) {
	r.t.Helper()
	role, password := testenv.Name("planted"), secretMark+"database"
	_, err := r.source.Exec(r.t.Context(), `create role "`+role+`" login superuser password '`+password+`'`)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _, _ = r.source.Exec(context.Background(), `drop role "`+role+`"`) })
	text, err := os.ReadFile(r.config)
	require.NoError(r.t, err)
	config := strings.Replace(string(text), "http:\n  listen: \"off\"\n", "log: {level: debug}\n", 1)
	require.Contains(r.t, config, strings.Join(r.brokers, ", "))
	config = strings.Replace(config, strings.Join(r.brokers, ", "), listener, 1)
	config = strings.Replace(config, "kafka:\n", "kafka:\n  sasl: {mechanism: PLAIN, username: leat, password: "+secretMark+"sasl}\n", 1)
	for _, address := range []string{r.sourceURL, r.reportingURL, control.Config().ConnString()} {
		u, err := url.Parse(address)
		require.NoError(r.t, err)
		u.User = url.UserPassword(role, password)
		require.Contains(r.t, config, address)
		config = strings.ReplaceAll(config, address, u.String())
	}
	config += fmt.Sprintf(`incidents: {wait: 100ms}
notify:
  per_minute: 600
  receivers:
    - {name: ops, kind: webhook, url: "%s/%swebhook-token", secret: %[2]ssignature}
tracing:
  exporter: otlp_http
  endpoint: %[1]s
  sample_ratio: 1
  headers: [{name: Authorization, value: Bearer %[2]scollector}]
`, server, secretMark)
	require.NoError(r.t, os.WriteFile(r.config, []byte(config), 0o600))
}

func (r *rig) get(address string) string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, address, nil)
	require.NoError(r.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return string(text)
}

// noMarkOnTopics reads every topic of the cluster: no secret anywhere; payloads only as the values of records of topics that carry them, and
// what a failure names also in its message.
func (r *rig) noMarkOnTopics() {
	r.t.Helper()
	listed, err := r.adm.ListTopics(r.t.Context())
	require.NoError(r.t, err)
	require.Greater(r.t, len(listed), 10)
	for topic := range listed {
		carries := strings.HasPrefix(topic, "source.") || strings.HasPrefix(topic, "finance.") || strings.HasSuffix(topic, ".dlq")
		for _, rec := range r.read(topic) {
			noMark(r.t, "values of "+topic, string(rec.Value), secretMark)
			if !carries {
				noMark(r.t, "values of "+topic, string(rec.Value), payloadMark, foundMark)
			}
			noMark(r.t, "headers of "+topic, headersText(rec, ""), secretMark, payloadMark)
			noMark(r.t, "headers of "+topic, headersText(rec, "leat_error_message"), foundMark)
		}
	}
}

// headersText is the key and all headers of a record but one.
func headersText(rec *kgo.Record, but string) string {
	lines := []string{string(rec.Key)}
	for _, h := range rec.Headers {
		if h.Key != but {
			lines = append(lines, h.Key+": "+string(h.Value))
		}
	}
	return strings.Join(lines, "\n")
}

// noMarkInTables reads every table of a database; those named may hold payloads, or what failures name.
func noMarkInTables(t *testing.T, db *pgxpool.Pool, payloads, found []string) {
	t.Helper()
	var names []string
	require.NoError(t, db.QueryRow(t.Context(), `select array_agg(c.oid::regclass::text) from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'`).Scan(&names))
	require.NotEmpty(t, names)
	has := func(list []string, name string) bool {
		return strings.Contains(" "+strings.Join(list, " ")+" ", " "+name+" ")
	}
	for _, name := range names {
		var text string
		require.NoError(t, db.QueryRow(t.Context(), `select coalesce(string_agg(t::text, E'\n'), '') from `+name+` t`).Scan(&text))
		noMark(t, "rows of "+name, text, secretMark)
		if !has(payloads, name) {
			noMark(t, "rows of "+name, text, payloadMark)
		}
		if !has(found, name) {
			noMark(t, "rows of "+name, text, foundMark)
		}
	}
}
