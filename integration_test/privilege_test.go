package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/internal/kafka"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// office is a rig whose Kafka asks everybody for a password and gives nobody more than `leat topics acls` says, and whose databases
// know each process as a role of its own, with what the grants give it.
type office struct {
	*rig
	kafka                *testenv.OwnKafka
	controlURL, mappings string
	control              *pgxpool.Pool
	roles                map[string]string // database role of an actor
}

// actors are those of the ACLs, and those who need no Kafka.
func actors() []string {
	return []string{"relay", "normalize", "publish", "index", "verify", "operator", "admin", "notify", "viewer", "stranger"}
}

func newOffice(t *testing.T) *office {
	t.Helper()
	var users strings.Builder
	for _, a := range actors() {
		fmt.Fprintf(&users, ` user_leat-%s="%s"`, a, a+"-password")
	}
	login := "org.apache.kafka.common.security.plain.PlainLoginModule required" + users.String()
	o := &office{roles: map[string]string{}}
	o.kafka = testenv.AuthorizingKafka(t, testenv.Listener{Name: "sasl", Protocol: "SASL_PLAINTEXT", Settings: map[string]string{
		"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": login + ";",
	}})
	o.rig = newRig(t, rigOptions{brokers: o.kafka.Brokers()})
	o.control = o.addControl()
	o.controlURL = o.control.Config().ConnString()
	o.mappings = filepath.Join(filepath.Dir(o.config), "mappings")
	o.allow()
	o.grant()
	o.rewriteConfig()
	return o
}

// allow gives the principals what `leat topics acls` says.
func (o *office) allow() {
	o.t.Helper()
	var acls kafka.ACLs
	require.NoError(o.t, json.Unmarshal([]byte(o.run("topics", "acls", "-o", "json")), &acls))
	for _, a := range acls {
		b := kadm.NewACLs().Allow(a.Principal).AllowHosts().ResourcePatternType(map[string]kadm.ACLPattern{
			"literal": kadm.ACLPatternLiteral, "prefixed": kadm.ACLPatternPrefixed,
		}[a.Pattern])
		switch a.Resource {
		case "topic":
			b = b.Topics(a.Name)
		case "group":
			b = b.Groups(a.Name)
		case "transactional-id":
			b = b.TransactionalIDs(a.Name)
		}
		for _, name := range a.Operations {
			operation, err := kmsg.ParseACLOperation(name)
			require.NoError(o.t, err)
			b = b.Operations(operation)
			results, err := o.adm.CreateACLs(o.t.Context(), b)
			require.NoError(o.t, err)
			for _, r := range results {
				require.NoError(o.t, r.Err)
			}
		}
	}
}

// grant makes a database role for each actor, with what docs/operations.md says.
func (o *office) grant() {
	o.t.Helper()
	ctx := o.t.Context()
	for _, a := range append(actors(), "writer", "reader") {
		role := strings.ReplaceAll(testenv.Name("leat_"+a), "-", "_")
		o.roles[a] = role
		_, err := o.control.Exec(ctx, "create role "+role+" login nosuperuser nocreatedb nocreaterole password 'p'")
		require.NoError(o.t, err)
	}
	o.t.Cleanup(o.dropRoles)
	for actor, function := range map[string]string{
		"relay": "grant_process", "normalize": "grant_process", "publish": "grant_process",
		"index": "grant_index", "notify": "grant_notify", "verify": "grant_verify", "operator": "grant_operator",
		"viewer": "grant_viewer",
	} {
		_, err := o.control.Exec(ctx, "select leat_control."+function+"($1)", o.roles[actor])
		require.NoError(o.t, err)
	}
	for actor, role := range map[string]string{"writer": "writer", "relay": "relay", "verify": "relay", "operator": "relay"} {
		o.run("outbox", "grant", o.roles[actor], role)
	}
	for actor, function := range map[string]string{
		"publish": "grant_publisher", "reader": "grant_reader", "verify": "grant_reader", "operator": "grant_reader",
	} {
		_, err := o.reporting.Exec(ctx, "select reporting."+function+"($1)", o.roles[actor])
		require.NoError(o.t, err)
	}
}

func (o *office) dropRoles() {
	ctx := context.Background()
	for _, address := range []string{o.sourceURL, o.reportingURL, o.controlURL} {
		db, err := pgx.Connect(ctx, address)
		require.NoError(o.t, err)
		for _, role := range o.roles {
			_, err := db.Exec(ctx, "drop owned by "+role)
			require.NoError(o.t, err)
			if address == o.controlURL { // the last one: it owns nothing any more
				_, err := db.Exec(ctx, "drop role "+role)
				require.NoError(o.t, err)
			}
		}
		require.NoError(o.t, db.Close(ctx))
	}
}

// rewriteConfig makes the configuration ask the environment who is there.
func (o *office) rewriteConfig() {
	o.t.Helper()
	text, err := os.ReadFile(o.config)
	require.NoError(o.t, err)
	config := strings.ReplaceAll(string(text), strings.Join(o.brokers, ", "), o.kafka.Listener("sasl")[0])
	config = strings.Replace(config, "kafka:\n", "kafka:\n  sasl: {mechanism: PLAIN, username: \"${LEAT_USER}\", password: \"${LEAT_PASSWORD}\"}\n", 1)
	for _, address := range []string{o.sourceURL, o.reportingURL, o.controlURL} {
		u, err := url.Parse(address)
		require.NoError(o.t, err)
		config = strings.ReplaceAll(config, address, "postgres://${LEAT_ROLE}:p@"+u.Host+u.Path+"?"+u.RawQuery)
	}
	config += "verify: {every: 1m, window: 1h, lag: 0s}\nnotify:\n  receivers:\n    - {name: nobody, kind: webhook, url: \"http://127.0.0.1:1\"}\n"
	require.NoError(o.t, os.WriteFile(o.config, []byte(config), 0o600))
}

func (o *office) environment(actor string) []string {
	return append(os.Environ(), "LEAT_INSTANCE="+actor, "LEAT_USER=leat-"+actor, "LEAT_PASSWORD="+actor+"-password", "LEAT_ROLE="+o.roles[actor])
}

// serve starts a long-lived process as an actor.
func (o *office) serve(actor string) *process {
	o.t.Helper()
	p := &process{t: o.t, log: &testenv.Log{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary(o.t), actor, "run", "--config", o.config)
	p.cmd.Env = o.environment(actor)
	p.launch()
	return p
}

// as runs a command as an actor.
func (o *office) as(actor string, args ...string) (string, error) {
	stdout, stderr, err := o.streams(actor, args...)
	return stdout + stderr, err
}

func (o *office) streams(actor string, args ...string) (string, string, error) {
	ctx, cancel := context.WithTimeout(o.t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary(o.t), append(args, "--config", o.config)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = o.environment(actor), &stdout, &stderr
	err := cmd.Run()
	return stdout.String(), stderr.String(), err
}

// operate runs a command as an operator, which must end well.
func (o *office) operate(args ...string) string {
	o.t.Helper()
	out, err := o.as("operator", args...)
	require.NoError(o.t, err, "leat %s: %s", strings.Join(args, " "), out)
	return out
}

func (o *office) decode(into any, args ...string) {
	o.t.Helper()
	out, log, err := o.streams("operator", append(args, "-o", "json")...)
	require.NoError(o.t, err, "leat %s: %s", strings.Join(args, " "), log)
	require.NoError(o.t, json.Unmarshal([]byte(out), into), out)
}

// database connects as an actor's role to the database with that address.
func (o *office) database(actor, address string) *pgxpool.Pool {
	o.t.Helper()
	u, err := url.Parse(address)
	require.NoError(o.t, err)
	u.User = url.UserPassword(o.roles[actor], "p")
	return pool(o.t, u.String())
}

// TestPrivileges_AreEnoughForEverythingAndNoMore runs the whole pipeline, each process as a principal of Kafka and a role of the
// databases of its own, from an outbox row to the reporting table, over a dead letter and its redrive to a plan of offsets. Then
// everybody tries more.
func TestPrivileges_AreEnoughForEverythingAndNoMore(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	processes := map[string]*process{}
	for _, actor := range []string{"relay", "normalize", "publish", "index", "notify", "verify"} {
		processes[actor] = o.serve(actor)
	}
	o.deliver()
	o.bringBack(processes)
	o.operateEverything()
	for name, p := range processes {
		for _, words := range []string{"permission denied", "AUTHORIZATION_FAILED", "not authorized"} {
			require.NotContains(t, p.log.String(), words, "log of %s", name)
		}
	}
	o.refusedByKafka()
	o.refusedByPostgres()
}

func (o *office) write(id string, payload []byte) {
	o.t.Helper()
	writer := o.database("writer", o.sourceURL)
	require.NoError(o.t, outbox.Write(o.t.Context(), writer, outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: o.tenant, Entity: "invoice", Key: id, Operation: topics.Upsert, Payload: payload,
	}))
}

// deliver waits for a row of the outbox in the reporting tables, and for a broken one among the dead letters.
func (o *office) deliver() {
	o.t.Helper()
	o.write("1", invoicePayload("1", state{1, 100}))
	o.write("2", []byte(strings.Replace(string(invoicePayload("2", state{1, 200})), `"open"`, `"lost"`, 1)))
	reader := o.database("reader", o.reportingURL)
	eventually(o.t, "the row, as an accountant sees it", func() bool {
		var n int
		return reader.QueryRow(o.t.Context(), "select count(*) from reporting.invoices where system = $1", o.system).Scan(&n) == nil && n == 1
	})
	o.letters("open 1")
	writer := o.database("writer", o.sourceURL)
	require.NoError(o.t, outbox.Write(o.t.Context(), writer, outbox.Event{ // its topic is none that the relay may ask about
		ID: uuid.Must(uuid.NewV7()), Tenant: o.tenant, Entity: "secret", Key: "1", Operation: topics.Upsert, Payload: []byte("{}"),
	}))
	eventually(o.t, "the dead letter of the relay", func() bool { return len(o.read(topics.RelayDLQ)) == 1 })
}

func (o *office) letters(want string) {
	o.t.Helper()
	eventually(o.t, "dead letters "+want, func() bool {
		var list deadletters.List
		o.decode(&list, "dlq", "list", "--group", o.normalizeGroup)
		var got []string
		for _, c := range list.States {
			got = append(got, fmt.Sprintf("%s %d", c.Name, c.Letters))
		}
		return strings.Join(got, ", ") == want
	})
}

// bringBack corrects the mapping and redrives the dead letter.
func (o *office) bringBack(processes map[string]*process) {
	o.t.Helper()
	file := filepath.Join(o.mappings, "invoice.yaml")
	text, err := os.ReadFile(file)
	require.NoError(o.t, err)
	require.NoError(o.t, os.WriteFile(file, []byte(strings.Replace(string(text), "open: open", "open: open, lost: void", 1)), 0o600))
	processes["normalize"].stop()
	processes["normalize"] = o.serve("normalize")
	out, err := o.as("operator", "dlq", "redrive", "--group", o.normalizeGroup, "--dry-run")
	require.Error(o.t, err, "a dry run writes to the reporting tables and takes it back: it needs a publisher's rights")
	require.Contains(o.t, out, "select reporting.grant_publisher")
	o.operate("dlq", "redrive", "--group", o.normalizeGroup, "--reason", "the mapping is corrected")
	o.letters("resolved 1")
	eventually(o.t, "both invoices in the books", func() bool { return len(o.booked()) == 2 })
}

// look is what people do at the command line who may only look: all that needs nothing but the control database.
func (o *office) look() {
	o.t.Helper()
	for _, args := range [][]string{
		{"pauses"},
		{"breaker", "list"},
		{"incidents", "list"},
		{"outcomes"},
		{"audit"},
		{"dlq", "list"},
		{"dlq", "jobs"},
		{"verify", "list"},
		{"migrate", "status", "control"},
	} {
		out, err := o.as("viewer", args...)
		check(o.t, err == nil, "leat %s: %v: %s", strings.Join(args, " "), err, out)
	}
	for _, args := range [][]string{{"pause", "group", o.publishGroup}, {"dlq", "discard", "--group", o.normalizeGroup}} {
		out, err := o.as("viewer", append(args, "--reason", "a drill")...)
		check(o.t, err != nil && strings.Contains(out, "permission denied"), "leat %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// operateEverything is what people do at the command line.
func (o *office) operateEverything() {
	o.t.Helper()
	source := topics.Source(o.system, "invoice")
	var plan offsetsPlan
	o.decode(&plan, "offsets", "plan", "--group", o.normalizeGroup, "--topic", source, "--to-earliest", "--reason", "a drill")
	o.operate("offsets", "apply", plan.ID, "--drain")
	eventually(o.t, "the records to be read again", func() bool { return o.financeInvoices() == 4 })
	for _, args := range [][]string{
		{"status"},
		{"relay", "status"},
		{"index", "status"},
		{"offsets", "list"},
		{"parked", "list", "--group", o.normalizeGroup},
		{"pause", "group", o.publishGroup, "--reason", "a drill"},
		{"pauses"},
		{"resume", "group", o.publishGroup, "--reason", "over"},
		{"breaker", "open", o.publishGroup, "--reason", "a drill"},
		{"breaker", "list"},
		{"breaker", "release", o.publishGroup, "--reason", "over"},
		{"trace", string(topics.Key(o.tenant, o.system, "1"))},
		{"dlq", "jobs"},
		{"dlq", "export", "--group", o.normalizeGroup, "--file", filepath.Join(o.t.TempDir(), "letters"), "--reason", "a drill"},
		{"incidents", "list"},
		{"outcomes"},
		{"audit"},
		{"migrate", "status", "control"},
		{"index", "rebuild", "--reason", "a drill"},
		{"relay", "adopt", "--source", o.system, "--from", "end", "--reason", "a drill"},
	} {
		out, err := o.as("operator", args...)
		check(o.t, err == nil, "leat %s: %v: %s", strings.Join(args, " "), err, out)
	}
	o.look()
	o.letters("resolved 1")
	eventually(o.t, "a report of the verifier", func() bool {
		var reports []struct{ Agrees bool }
		o.decode(&reports, "verify", "list")
		return len(reports) > 0
	})
	out, err := o.as("admin", "topics", "apply")
	require.NoError(o.t, err, out)
	out, err = o.as("admin", "topics", "plan")
	require.NoError(o.t, err, out)
	require.Contains(o.t, out, "The cluster is as the catalogue says.")
}
