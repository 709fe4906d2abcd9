package integration_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/leat-io/leat/topics"
)

// attempt is something that must be refused.
type attempt struct {
	actor, what string
	do          func(ctx context.Context, cl *kgo.Client) error
}

func (o *office) client(actor string, more ...kgo.Opt) *kgo.Client {
	o.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(o.kafka.Listener("sasl")...), kgo.SASL(plain.Auth{User: "leat-" + actor, Pass: actor + "-password"}.AsMechanism()),
		kgo.RecordRetries(0),
	}, more...)...)
	require.NoError(o.t, err)
	o.t.Cleanup(cl.Close)
	return cl
}

// refusedByKafka tries more as each principal. Each attempt is one that somebody else may make, or nobody.
func (o *office) refusedByKafka() {
	o.t.Helper()
	source, finance := topics.Source(o.system, "invoice"), topics.Finance("invoice", 1)
	var tries []attempt
	add := func(what string, do func(context.Context, *kgo.Client) error, actors ...string) {
		for _, a := range actors {
			tries = append(tries, attempt{a, what, do})
		}
	}
	all := []string{"relay", "normalize", "publish", "index", "verify", "operator", "admin", "notify", "viewer", "stranger"}
	but := func(not ...string) (left []string) {
		for _, a := range all {
			if !strings.Contains(" "+strings.Join(not, " ")+" ", " "+a+" ") {
				left = append(left, a)
			}
		}
		return left
	}
	add("reads a source topic", fetch(source), but("normalize", "index", "verify", "operator")...)
	add("reads a finance topic", fetch(finance), but("publish", "index", "verify", "operator")...)
	add("reads the cursors", fetch(topics.Cursors), but("relay", "verify", "operator")...)
	add("reads what normalize has parked", fetch(topics.Retry(source, o.normalizeGroup)), but("normalize", "index", "verify", "operator", "admin")...)
	add("reads what publish has parked", fetch(topics.Retry(finance, o.publishGroup)), but("publish", "index", "verify", "operator", "admin")...)
	add("writes a source topic", produce(source), but("relay")...)
	add("writes a finance topic", produce(finance), but("normalize")...)
	add("writes the cursors", produce(topics.Cursors), but("relay", "operator")...)
	add("writes what normalize has parked", produce(topics.Retry(source, o.normalizeGroup)), but("normalize", "operator")...)
	add("writes a dead letter of publish", produce(topics.DLQ(finance, o.publishGroup)), but("publish")...)
	add("deletes a topic", deleteTopic(finance), all...)
	add("removes records", deleteRecords(finance), all...)
	add("makes a topic", createTopic("anything"), all...)
	add("makes a topic of the catalogue", createTopic(finance), but("admin")...)
	add("changes a topic's settings", alterTopic(finance), but("admin")...)
	add("takes the relay's transactional id", begin("leat-relay-"+o.system+"-0"), but("relay", "operator")...)
	add("takes normalize's transactional id", begin("leat."+o.normalizeGroup+".normalize"), but("normalize")...)
	add("takes publish's transactional id", begin("leat."+o.publishGroup+".publish"), but("publish")...)
	add("takes the transactional id of a redrive", begin("leat.redrive.1"), but("operator")...)
	add("commits offsets of normalize", commit(o.normalizeGroup, source), but("normalize", "operator")...)
	add("commits offsets of publish", commit(o.publishGroup, finance), but("publish", "operator")...)
	add("deletes a group", deleteGroup(o.publishGroup), but("operator")...)
	add("gives itself rights", giveItself(finance), all...)
	clients := map[string]*kgo.Client{}
	for _, a := range tries {
		if clients[a.actor] == nil {
			clients[a.actor] = o.client(a.actor)
		}
		ctx, cancel := context.WithTimeout(o.t.Context(), patience)
		err := a.do(ctx, clients[a.actor])
		cancel()
		check(o.t, refused(err), "not refused: %s %s: %v", a.actor, a.what, err)
	}
	o.t.Logf("%d attempts were refused", len(tries))
}

// check tells of everything that is wrong, not only of the first.
func check(t *testing.T, ok bool, format string, args ...any) {
	t.Helper()
	if !ok {
		t.Errorf(format, args...)
	}
}

func refused(err error) bool {
	for _, e := range []*kerr.Error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed,
	} {
		if isKafka(err, e) {
			return true
		}
	}
	return false
}

// refusedByPostgres tries more as each database role.
func (o *office) refusedByPostgres() {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	tried := 0
	try := func(address string, statements map[string][]string) {
		o.t.Helper()
		pools := map[string]*pgxpool.Pool{}
		for sql, actors := range statements {
			for _, a := range actors {
				if pools[a] == nil {
					pools[a] = o.database(a, address)
				}
				_, err := pools[a].Exec(ctx, sql)
				check(o.t, err != nil && strings.Contains(err.Error(), "42501"), "not refused: %s: %s: %v", a, sql, err)
				tried++
			}
		}
	}
	all := append(actors(), "writer", "reader")
	but := func(not ...string) (left []string) {
		for _, a := range all {
			if !strings.Contains(" "+strings.Join(not, " ")+" ", " "+a+" ") {
				left = append(left, a)
			}
		}
		return left
	}
	_, err := o.source.Exec(ctx, "create table invoice (id int)")
	require.NoError(o.t, err)
	const row = "(event_id, tenant, entity, key, operation) values (gen_random_uuid(), 'acme', 'invoice', '1', 'delete')"
	try(o.sourceURL, map[string][]string{
		"insert into leat.outbox " + row:   but("writer"),
		"insert into leat.outbox_1 " + row: all,
		"insert into leat.outbox (transaction_id, event_id, tenant, entity, key, operation) values ('1', gen_random_uuid(), 'acme', 'invoice', '1', 'delete')": all,
		"select payload from leat.outbox":                                    but("relay", "verify", "operator"),
		"update leat.outbox set payload = null":                              all,
		"delete from leat.outbox":                                            all,
		"truncate leat.outbox":                                               all,
		"drop table leat.outbox_1":                                           all,
		"update leat.source set epoch = 9":                                   all,
		"select leat.raise_epoch(9)":                                         all,
		"select leat.drop_partitions(0, pg_current_snapshot(), '0')":         but("relay", "verify", "operator"),
		"create table leat.mine ()":                                          all,
		"insert into invoice values (1)":                                     all,
		"select * from invoice":                                              all,
		"create function leat.emit() returns int language sql as 'select 1'": all,
		"create role leat_more superuser":                                    all,
	})
	try(o.reportingURL, map[string][]string{
		"select * from reporting.invoices":             but("publish", "reader", "verify", "operator"),
		"update reporting.invoices set total = 0":      but("publish"),
		"delete from reporting.invoices":               all,
		"truncate reporting.links":                     all,
		"drop view reporting.control_totals":           all,
		"create table reporting.mine ()":               all,
		"select reporting.grant_publisher('postgres')": all,
	})
	try(o.controlURL, map[string][]string{
		"insert into leat_control.pauses (scope, name, actor, reason) values ('stage', 'relay', 'x', 'x')": but("operator"),
		"update leat_control.audit_log set actor = 'x'":                                                    all,
		"delete from leat_control.audit_log":                                                               all,
		"insert into leat_control.audit_log (actor, action, object, reason) values ('x', 'x', 'x', 'x')":   but("operator"),
		"select * from leat_control.dead_letters":                                                          but("index", "notify", "operator", "viewer"),
		"insert into leat_control.incidents select * from leat_control.incidents":                          but("index", "notify"),
		"update leat_control.dead_letter_notes set owner = 'x'":                                            but("operator"),
		"update leat_control.redrive_items set edit = null":                                                but("operator"),
		"select edit, edited_value from leat_control.redrive_items":                                        but("index", "operator"),
		"select document from leat_control.verify_reports":                                                 but("verify", "operator"),
		"update leat_control.verify_reports set agrees = true":                                             all,
		"delete from leat_control.verify_reports":                                                          but("verify"),
		"update leat_control.notifications set state = 'sent'":                                             but("notify"),
		"update leat_control.plans set plan = '{}'":                                                        all,
		"delete from leat_control.outcomes":                                                                but("relay", "normalize", "publish", "index", "notify", "verify"),
		"select * from leat_control.rights":                                                                all,
		"update leat_control.rights set privileges = 'all'":                                                all,
		"select leat_control.grant_operator('postgres')":                                                   all,
		"create table leat_control.mine ()":                                                                all,
	})
	o.t.Logf("%d statements were refused", tried)
}
