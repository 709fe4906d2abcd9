package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// operator gives the rig a control database, with its index running.
func (r *rig) operator() *pgxpool.Pool {
	r.t.Helper()
	db := r.addControl()
	r.start("index", "index", "run")
	return db
}

// dlq runs a command of leat dlq and reads its JSON.
func dlq[T any](r *rig, args ...string) (result T) {
	r.t.Helper()
	out := r.run(append(append([]string{"dlq"}, args...), "-o", "json")...)
	out = out[strings.Index(out, "{"):] // progress comes first
	require.NoError(r.t, json.Unmarshal([]byte(out), &result), out)
	return result
}

// waitForLetters waits until the letters of a group are in exactly these states.
func (r *rig) waitForLetters(group, want string) deadletters.List {
	r.t.Helper()
	var list deadletters.List
	eventually(r.t, "dead letters "+want, func() bool {
		list = dlq[deadletters.List](r, "list", "--group", group, "--limit", "100")
		var got []string
		for _, c := range list.States {
			got = append(got, fmt.Sprintf("%s %d", c.Name, c.Letters))
		}
		return strings.Join(got, ", ") == want
	})
	return list
}

// TestRedrive_KilledHalfWayMovesEachOnce redrives 10,000 dead letters, kills the process with SIGKILL again and again, and resumes.
func TestRedrive_KilledHalfWayMovesEachOnce(t *testing.T) {
	t.Parallel()
	const n = 10_000
	r := newRig(t, rigOptions{ownKafka: true})
	control := r.operator()
	events := r.bury(n)
	r.waitForLetters(r.normalizeGroup, fmt.Sprintf("open %d", n))

	moving := regexp.MustCompile(`redrive ([0-9a-f-]{36}): (\d+) of ` + strconv.Itoa(n))
	p := r.start("one", "dlq", "redrive", "--group", r.normalizeGroup, "--reason", "the mapping is corrected", "--rate", "1500")
	var job string
	for kill := range 3 {
		var at int
		eventually(t, "a part to be moved", func() bool {
			if found := moving.FindAllStringSubmatch(p.log.Tail(1<<20), -1); len(found) > 0 {
				job = found[0][1]
				at, _ = strconv.Atoi(found[len(found)-1][2])
			}
			return at > 1000*(kill+1)
		})
		require.Less(t, at, n, "it was faster than the kill")
		p.kill()
		require.Equal(t, "running", dlqJob(r, job).State)
		p = r.start("one", "dlq", "redrive", "--resume", job, "--reason", "it was killed", "--rate", "1500")
	}
	p.kill()
	r.run("dlq", "redrive", "--resume", job, "--reason", "the last time", "--rate", "100000")
	j := dlqJob(r, job)
	require.Equal(t, []any{"done", int64(n), int64(n), int64(0)}, []any{j.State, j.Records, j.Moved, j.Waiting})

	moved := map[string]bool{}
	for _, rec := range r.read(topics.Retry(topics.Source(r.system, "invoice"), r.normalizeGroup)) {
		require.False(t, moved[string(rec.Key)], "%s was moved twice", rec.Key)
		moved[string(rec.Key)] = true
	}
	require.Len(t, moved, n, "each was moved")

	defer r.start("one", "normalize", "run").stop()
	r.waitForLetters(r.normalizeGroup, fmt.Sprintf("resolved %d", n))
	normalized := map[string]bool{}
	for _, rec := range r.read(topics.Finance("invoice", 1)) {
		if e := envelope(t, rec); e.System == r.system {
			require.False(t, normalized[e.ID], "%s was normalized twice", e.ID)
			normalized[e.ID] = true
		}
	}
	require.Len(t, normalized, len(events))

	before := dump(t, control)
	r.run("dlq", "reindex", "--reason", "to compare")
	eventually(t, "the index as it was", func() bool { return dump(t, control) == before })
}

func dump(t *testing.T, control *pgxpool.Pool) (sum string) {
	t.Helper()
	require.NoError(t, control.QueryRow(t.Context(), `select count(*) || ' ' || coalesce(md5(string_agg(d::text, e'\n' order by topic, partition, "offset")), '')
		from leat_control.dead_letters d`).Scan(&sum))
	return sum
}

func dlqJob(r *rig, id string) deadletters.Job {
	r.t.Helper()
	out := r.run("dlq", "jobs", id, "-o", "json")
	var jobs []deadletters.Job
	require.NoError(r.t, json.Unmarshal([]byte(out), &jobs), out)
	return jobs[0]
}

// bury writes n dead letters as normalize would: records of the source topic that it gave up. Each can be normalized now.
func (r *rig) bury(n int) (events []string) {
	r.t.Helper()
	source := topics.Source(r.system, "invoice")
	client, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(r.t, err)
	defer client.Close()
	recs := make([]*kgo.Record, n)
	for i := range recs {
		id := "inv-" + strconv.Itoa(i)
		e := topics.Envelope{
			ID: uuid.Must(uuid.NewV7()).String(), Tenant: r.tenant, System: r.system, Kind: topics.SourceKind("invoice"), Operation: topics.Upsert,
			Subject: id, Time: time.Now(), Sequence: int64(i + 1), Epoch: 1, ContentType: "application/json",
		}
		key, now := topics.Key(r.tenant, r.system, id), time.Now()
		f := topics.Failure{
			Topic: source, Partition: int32(i % 4), Offset: int64(i / 4), Time: now, KeyHash: topics.KeyHash(key), Group: r.normalizeGroup,
			Handler: "normalize", AppVersion: "before", Attempt: 1, FirstFailedAt: now, LastFailedAt: now, Class: "permanent", Code: "mapping",
			Disposition: topics.DispositionPermanent, Message: `field status: found "open", want one of paid`,
		}
		f.Fingerprint = topics.Fingerprint(f.Handler, f.Class, f.Code, f.Message, "")
		recs[i] = &kgo.Record{
			Topic: topics.DLQ(source, r.normalizeGroup), Partition: f.Partition, Key: key, Value: invoicePayload(id, state{1, 1250}),
		}
		for _, h := range f.Append(e.Append(nil)) {
			recs[i].Headers = append(recs[i].Headers, kgo.RecordHeader(h))
		}
		events = append(events, e.ID)
	}
	require.NoError(r.t, client.ProduceSync(r.t.Context(), recs...).FirstErr())
	return events
}

// TestDryRun_BeforeAndAfterAMappingIsCorrected follows an operator from the dead letters of a wrong mapping to the books.
func TestDryRun_BeforeAndAfterAMappingIsCorrected(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, dryRun)
}

func dryRun(t *testing.T, brokers []string) {
	t.Helper()
	r := newRig(t, rigOptions{brokers: brokers})
	r.operator()
	path := filepath.Join(filepath.Dir(r.config), "mappings", "invoice.yaml")
	right, err := os.ReadFile(path)
	require.NoError(t, err)
	wrong := strings.Replace(string(right), "open: open", "opened: open", 1)
	require.NotEqual(t, string(right), wrong)
	require.NoError(t, os.WriteFile(path, []byte(wrong), 0o600))
	normalize := r.start("one", "normalize", "run")
	r.start("one", "relay", "run")
	r.start("one", "publish", "run")
	const n = 25
	for i := range n {
		id := "inv-" + strconv.Itoa(i)
		r.emit(outbox.Event{
			ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: id, Operation: topics.Upsert, Payload: invoicePayload(id, state{1, 100}),
		})
	}
	list := r.waitForLetters(r.normalizeGroup, fmt.Sprintf("open %d", n))
	require.Len(t, list.Fingerprints, 1)
	require.Equal(t, "mapping", list.Fingerprints[0].Code)
	selected := []string{"redrive", "--group", r.normalizeGroup, "--fingerprint", list.Fingerprints[0].Name}
	would := dlq[deadletters.DryRun](r, append(selected, "--dry-run")...)
	require.Equal(t, []int64{n, 0, n}, []int64{would.Letters, would.Succeed, would.Fail})
	require.Equal(t, list.Fingerprints[0].Name, would.Failures[0].Fingerprint)

	require.NoError(t, os.WriteFile(path, right, 0o600))
	would = dlq[deadletters.DryRun](r, append(selected, "--dry-run")...)
	require.Equal(t, []int64{n, n, 0}, []int64{would.Letters, would.Succeed, would.Fail})
	require.Equal(t, []deadletters.TriedGroup{{
		Group: r.normalizeGroup, Outcome: "normalized", Letters: n, Then: []deadletters.TriedThen{{Outcome: "applied", Records: n}},
	}}, would.Outcomes)
	require.Empty(t, r.booked(), "nothing has changed")
	normalize.stop()
	r.start("one", "normalize", "run")
	job := dlq[deadletters.Job](r, append(selected, "--reason", "the mapping is corrected")...)
	require.Equal(t, []any{"done", int64(n)}, []any{job.State, job.Moved})
	r.waitForLetters(r.normalizeGroup, fmt.Sprintf("resolved %d", n))
	eventually(t, "every invoice in the books", func() bool { return len(r.booked()) == n })

	out, err := r.try("dlq", "redrive", "--group", r.normalizeGroup, "--reason", "again")
	require.Error(t, err)
	require.Contains(t, out, "no dead letter is selected")
	r.superseded(path, string(right))
}

// superseded shows that a dry run says when a newer version is in the books already.
func (r *rig) superseded(path, right string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	old := invoicePayload("inv-1", state{1, 100})
	r.emit(outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: "inv-1", Operation: topics.Upsert,
		Payload: []byte(strings.Replace(string(old), `"open"`, `"lost"`, 1)),
	})
	r.waitForLetters(r.normalizeGroup, "open 1, resolved 25")
	r.emit(outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: "inv-1", Operation: topics.Upsert,
		Payload: invoicePayload("inv-1", state{3, 700}),
	})
	eventually(r.t, "the newer version in the books", func() bool { return r.booked()["inv-1"] == state{3, 700} })
	require.NoError(r.t, ctx.Err())
	require.NoError(r.t, os.WriteFile(path, []byte(strings.Replace(right, "open: open", "open: open, lost: void", 1)), 0o600))
	would := dlq[deadletters.DryRun](r, "redrive", "--group", r.normalizeGroup, "--dry-run")
	require.Equal(r.t, []deadletters.TriedThen{{Outcome: "superseded", Records: 1}}, would.Outcomes[0].Then)
}
