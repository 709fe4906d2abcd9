package integration_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// emit commits one event.
func (r *rig) emit(event outbox.Event) {
	r.t.Helper()
	ctx := r.t.Context()
	tx, err := r.source.Begin(ctx)
	require.NoError(r.t, err)
	defer tx.Rollback(context.WithoutCancel(ctx))
	require.NoError(r.t, outbox.Write(ctx, tx, event))
	require.NoError(r.t, tx.Commit(ctx))
}

// TestBrokenRecord_IsADeadLetterThatExplainsItself also shows that the records behind it go on.
func TestBrokenRecord_IsADeadLetterThatExplainsItself(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, brokenRecord)
}

func brokenRecord(t *testing.T, brokers []string) {
	t.Helper()
	r := newRig(t, rigOptions{brokers: brokers})
	broken := outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: "broken", Operation: topics.Upsert,
		Payload: bytes.ReplaceAll(invoicePayload("broken", state{1, 1250}), []byte(`"12.50"`), []byte(`"12,50"`)),
		Headers: map[string]string{"batch": "monday"},
	}
	r.emit(broken)
	l := newLedger()
	l.write(t, r, 2, 40, 10)
	for _, stage := range []string{"relay", "normalize", "publish"} {
		defer r.start("one", stage, "run").stop()
	}
	l.settled(t, r)

	source := topics.Source(r.system, "invoice")
	letters := r.read(topics.DLQ(source, r.normalizeGroup))
	require.Len(t, letters, 1)
	letter := letters[0]
	require.Equal(t, topics.Key(r.tenant, r.system, "broken"), letter.Key)
	require.Equal(t, broken.Payload, letter.Value)
	e := envelope(t, letter)
	require.Equal(t, broken.ID.String(), e.ID)
	headers := map[string]string{}
	for _, h := range letter.Headers {
		require.NotContains(t, headers, h.Key, "a header occurs once")
		headers[h.Key] = string(h.Value)
	}
	require.Equal(t, "monday", headers["batch"], "the source's own headers are kept")
	require.Equal(t, source, headers[topics.HeaderOriginalTopic])
	require.Equal(t, r.normalizeGroup, headers[topics.HeaderGroup])
	require.Equal(t, "1", headers[topics.HeaderAttempt])
	require.Equal(t, "permanent", headers[topics.HeaderErrorClass])
	require.Equal(t, string(topics.DispositionPermanent), headers[topics.HeaderDisposition])
	for _, name := range []string{
		topics.HeaderOriginalPartition, topics.HeaderOriginalOffset, topics.HeaderOriginalTime, topics.HeaderOriginalKeyHash,
		topics.HeaderFirstFailedAt, topics.HeaderLastFailedAt, topics.HeaderErrorCode, topics.HeaderFingerprint, topics.HeaderHandler,
		topics.HeaderAppVersion,
	} {
		require.NotEmpty(t, headers[name], name)
	}
	require.Contains(t, headers[topics.HeaderErrorMessage], "12,50", "the message shows what was found")
	require.Contains(t, headers[topics.HeaderErrorMessage], "unit_price", "the message names the field")
}

// TestReplay_WithACorrectedMapping moves normalize back to the beginning after its mapping was corrected: the tables change exactly as the
// plan has said, and nothing is counted twice.
func TestReplay_WithACorrectedMapping(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, replay)
}

func replay(t *testing.T, brokers []string) {
	t.Helper()
	r := newRig(t, rigOptions{brokers: brokers})
	r.addControl()
	l := newLedger()
	l.write(t, r, 4, 200, 30)
	relay, publish := r.start("one", "relay", "run"), r.start("one", "publish", "run")
	normalize := r.start("one", "normalize", "run")
	l.settled(t, r)
	normalize.stop()
	before := r.totals()

	toEarliest := []string{
		"offsets", "plan", "--group", r.normalizeGroup, "--topic", topics.Source(r.system, "invoice"), "--to-earliest", "--reason", "ticket 12",
	}
	var plan offsetsPlan
	r.asJSON(&plan, toEarliest...)
	require.Equal(t, offsetsCount{l.count(), true}, plan.Total.Reread, "records, not offsets")
	require.Zero(t, plan.Total.Outlook.Applied, "the same mapping changes nothing")
	require.Equal(t, len(l.latest), plan.Total.Outlook.Unchanged)
	require.Equal(t, l.count()-len(l.latest), plan.Total.Outlook.Superseded)

	path := filepath.Join(filepath.Dir(r.config), "mappings", "invoice.yaml")
	mapping, err := os.ReadFile(path)
	require.NoError(t, err)
	corrected := strings.Replace(string(mapping), "open: open", "open: paid", 1)
	require.NotEqual(t, string(mapping), corrected)
	require.NoError(t, os.WriteFile(path, []byte(corrected), 0o600))
	r.asJSON(&plan, toEarliest...)
	require.Equal(t, len(l.latest), plan.Total.Outlook.Applied, "each invoice becomes another, as the mapping of now has it")
	require.Zero(t, plan.Total.Outlook.Unchanged)

	published := r.lastPublished()
	require.Contains(t, r.run("offsets", "apply", plan.ID, "--wait", "1m"), "is applied")
	normalize = r.start("one", "normalize", "run")
	eventually(t, "every invoice with the new status", func() bool {
		var open int
		require.NoError(t, r.reporting.QueryRow(t.Context(),
			`select count(*) from reporting.invoices where system = $1 and status <> 'paid'`, r.system).Scan(&open))
		return open == 0
	})
	for _, p := range []*process{relay, normalize, publish} {
		p.stop()
	}
	l.checkReporting(t, r)
	after := r.totals()
	require.Equal(t, before, after, "count and sum of the books")
	var applied int
	require.NoError(t, r.reporting.QueryRow(t.Context(), `select count(*) from reporting.links where system = $1 and published_at > $2`, r.system,
		published).Scan(&applied))
	require.Equal(t, plan.Total.Outlook.Applied, applied, "as many as the plan has said")
}

// lastPublished is when the newest record of the rig reached the reporting tables.
func (r *rig) lastPublished() (at time.Time) {
	r.t.Helper()
	require.NoError(r.t, r.reporting.QueryRow(r.t.Context(), `select max(published_at) from reporting.links where system = $1`, r.system).Scan(&at))
	return at
}

// totals is the count and the sum of all invoices, of any status.
func (r *rig) totals() (t struct {
	Invoices int64
	Cents    int64
	Lines    int64
},
) {
	r.t.Helper()
	require.NoError(r.t, r.reporting.QueryRow(r.t.Context(), `select count(*), (sum(total) * 100)::bigint,
			(select count(*) from reporting.invoice_lines where system = $1)
		from reporting.invoices where system = $1 and deleted_at is null`, r.system).Scan(&t.Invoices, &t.Cents, &t.Lines))
	return t
}

// commitAt makes a group that has no members go on from there.
func (r *rig) commitAt(group string, at kadm.ListedOffsets) {
	r.t.Helper()
	eventually(r.t, "the group to be empty", func() bool {
		responses, err := r.adm.CommitOffsets(r.t.Context(), group, at.Offsets())
		return err == nil && responses.Error() == nil
	})
}

// TestRestoredSource_IsRefused brings back an older copy of the source's database: the relay must not go on as if nothing had happened.
func TestRestoredSource_IsRefused(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, restoredSource)
}

func restoredSource(t *testing.T, brokers []string) {
	t.Helper()
	r := newRig(t, rigOptions{brokers: brokers})
	l := newLedger()
	l.write(t, r, 2, 100, 10)
	relay := r.start("one", "relay", "run")
	eventually(t, "the rows on the topic", func() bool { return r.sourceRecords() >= int64(l.count()) })
	relay.stop()

	other := testenv.Postgres(t) // another database: its outbox begins with small ids again
	text, err := os.ReadFile(r.config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.config, bytes.ReplaceAll(text, []byte(r.sourceURL), []byte(other)), 0o600))
	r.source = pool(t, other)
	r.run("migrate", "up", "outbox")
	l2 := newLedger()
	l2.write(t, r, 2, 20, 10)
	relay = r.start("one", "relay", "run")
	eventually(t, "the refusal that names the remedy", func() bool { return strings.Contains(relay.log.String(), "leat relay adopt") })
	relay.kill()
	l.checkSourceTopic(t, r)
}
