package deadletters_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// TestEdit_KeepsTheOriginalAndTheDifference redrives a record with another value, which the handler of now must take.
func TestEdit_KeepsTheOriginalAndTheDifference(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, s := r.group(func(m *processors.Message) error {
		if !bytes.Contains(m.Value, []byte("12.50")) {
			return processors.Permanent("contract", errors.New("field total"))
		}
		return nil
	})
	r.startIndex()
	require.NoError(t, r.client.ProduceSync(t.Context(), &kgo.Record{
		Topic: r.in, Key: topics.Key("acme", "shop", "1"), Value: []byte(`{"total": "12,50", "lines": [1]}`),
		Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("e1")}, {Key: "ce_time", Value: []byte("yesterday")}},
	}).FirstErr())
	r.waitFor(g, states{deadletters.Open: 1})
	l := r.letters(deadletters.Selection{Group: g})[0]
	try := func(edit deadletters.Edit, force bool) (deadletters.Job, error) {
		return r.office.Redrive(t.Context(), r.op, deadletters.Request{
			Selection: deadletters.Selection{IDs: []deadletters.ID{l.ID}}, Edit: &edit, Force: force,
		})
	}
	good := deadletters.Edit{Value: []byte(`{"total": "12.50", "lines": [1, 2]}`), Headers: map[string]string{"ce_time": "2026-11-24T00:00:00Z"}}

	r.office.AllowEdit = false
	_, err := try(good, false)
	require.ErrorContains(t, err, "redrive.allow_edit")
	r.office.AllowEdit = true
	_, err = try(deadletters.Edit{Value: []byte(`{"total": "12;50"}`)}, false)
	require.ErrorContains(t, err, "the edited record would fail: field total")
	for _, name := range []string{"leat_attempt", "ce_id", "ce_sequence", "tenant", "kafka_dlt-original-topic"} {
		_, err = try(deadletters.Edit{Headers: map[string]string{name: "x"}}, true)
		require.ErrorContains(t, err, "header \""+name+"\"")
	}
	_, err = try(deadletters.Edit{Value: []byte(`{"total": "12,50", "lines": [1]}`)}, true)
	require.ErrorContains(t, err, "the edit changes nothing")
	require.Equal(t, states{deadletters.Open: 1}, r.states(g), "nothing was claimed")

	j, err := try(good, false)
	require.NoError(t, err)
	r.waitFor(g, states{deadletters.Resolved: 1})
	require.Equal(t, []string{`acme/shop/1={"total": "12.50", "lines": [1, 2]}`}, s.seen())
	d, err := r.office.Show(t.Context(), l.ID, true)
	require.NoError(t, err)
	original := `{"total": "12,50", "lines": [1]}`
	require.Equal(t, original, string(d.Value), "the letter stays as it was")
	require.JSONEq(t, `{
		"value": {"before_sha256": "`+sha(`{"total": "12,50", "lines": [1]}`)+`", "after_sha256": "`+sha(`{"total": "12.50", "lines": [1, 2]}`)+`",
			"before_bytes": 32, "after_bytes": 35,
			"changes": [{"op": "add", "path": "/lines/1", "after": 2}, {"op": "replace", "path": "/total", "before": "12,50", "after": "12.50"}]},
		"headers": [{"name": "ce_time", "before": "yesterday", "after": "2026-11-24T00:00:00Z"}]}`, string(d.Replays[0].Edit))
	for _, rec := range r.read(topics.Retry(r.in, g)) {
		if rec.Value != nil {
			require.Contains(t, rec.Headers, kgo.RecordHeader{Key: topics.HeaderEdited, Value: []byte(j.ID)})
		}
	}
	entries, err := audit.List(t.Context(), r.db, audit.Filter{Action: "dlq redrive"})
	require.NoError(t, err)
	text, err := json.Marshal(entries)
	require.NoError(t, err)
	require.Contains(t, string(text), "replace /total")
	require.NotContains(t, string(text), "12.50", "no payload in the audit log")
	var kept int
	require.NoError(t, r.db.QueryRow(t.Context(), `select count(*) from leat_control.redrive_items where edited_value is not null`).Scan(&kept))
	require.Zero(t, kept, "the new value is kept until it is moved only")
}

// TestExport_IsByteForByte exports our letters and foreign ones, and compares them with the topics.
func TestExport_IsByteForByte(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	foreign := testenv.Name("orders.DLT")
	r.create(1, foreign)
	require.NoError(t, r.client.ProduceSync(t.Context(),
		&kgo.Record{Topic: foreign, Key: []byte{0, 0xff}, Value: []byte{0xfe, 0}, Headers: record(
			"", "kafka_dlt-original-topic", "orders", "kafka_dlt-original-partition", be32(1), "kafka_dlt-original-offset", be64(7),
			"kafka_dlt-exception-message", "a\x00\xff").Headers},
		&kgo.Record{Topic: foreign, Value: nil, Headers: []kgo.RecordHeader{{Key: "x", Value: nil}, {Key: "x", Value: []byte("twice")}}},
	).FirstErr())
	g, _ := r.group(broken)
	r.startIndex(foreign)
	r.source(0, 40, 3)
	r.waitFor(g, states{deadletters.Open: 40})
	eventually(t, "the foreign letters", func() bool { return len(r.letters(deadletters.Selection{Topic: foreign})) == 2 })

	for _, topic := range []string{foreign, topics.DLQ(r.in, g)} {
		var out bytes.Buffer
		e, err := r.office.Export(t.Context(), r.op, deadletters.Selection{Topic: topic}, &out)
		require.NoError(t, err)
		want := r.read(topic)
		require.Equal(t, int64(len(want)), e.Letters)
		byID := map[string]*kgo.Record{}
		for _, rec := range want {
			byID[deadletters.ID{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}.String()] = rec
		}
		lines := bufio.NewScanner(&out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var got deadletters.Exported
			require.NoError(t, json.Unmarshal(lines.Bytes(), &got))
			rec := byID[got.Letter.ID.String()]
			require.NotNil(t, rec)
			delete(byID, got.Letter.ID.String())
			require.Equal(t, rec.Key, got.Key)
			require.Equal(t, rec.Value, got.Value)
			require.Len(t, got.Headers, len(rec.Headers))
			for i, h := range rec.Headers {
				require.Equal(t, h.Key, got.Headers[i].Name)
				require.Equal(t, h.Value, got.Headers[i].Value)
			}
		}
		require.Empty(t, byID)
	}
	_, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Topic: foreign}})
	require.ErrorContains(t, err, "spring wrote it: its reader is none of Leat's groups")
	require.ErrorContains(t, err, "leat dlq export")
	_, err = r.office.DryRun(t.Context(), deadletters.Selection{Topic: foreign}, false, 0)
	require.NoError(t, err)
}

// TestSelection_CountsExactly selects in every way.
func TestSelection_CountsExactly(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, s := r.group(broken)
	r.startIndex()
	r.source(0, 30, 10)
	r.waitFor(g, states{deadletters.Open: 30})
	s.set(func(*processors.Message) error { return processors.Permanent("other", errors.New("another cause")) })
	middle := time.Now()
	r.source(30, 6, 2)
	r.waitFor(g, states{deadletters.Open: 36})
	all := r.letters(deadletters.Selection{Group: g})
	_, err := r.office.Assign(t.Context(), r.op, deadletters.Selection{Code: "other"}, deadletters.Assignment{Owner: new("bo")})
	require.NoError(t, err)
	d, err := r.office.Discard(t.Context(), r.op, deadletters.Selection{Key: "acme/shop/9"})
	require.NoError(t, err)
	require.Equal(t, int64(3), d.Letters)
	for name, tt := range map[string]struct {
		s    deadletters.Selection
		want int64
	}{
		"all":         {deadletters.Selection{}, 36},
		"group":       {deadletters.Selection{Group: g}, 36},
		"no group":    {deadletters.Selection{Group: g + "x"}, 0},
		"topic":       {deadletters.Selection{Topic: r.in}, 36},
		"dlq":         {deadletters.Selection{Topic: topics.DLQ(r.in, g), Tenant: "acme"}, 36},
		"tenant":      {deadletters.Selection{Tenant: "other"}, 0},
		"class":       {deadletters.Selection{Class: "permanent"}, 36},
		"code":        {deadletters.Selection{Code: "contract"}, 30},
		"fingerprint": {deadletters.Selection{Fingerprint: all[0].Fingerprint}, 6},
		"state":       {deadletters.Selection{States: []deadletters.State{deadletters.Open, deadletters.Redriven}}, 33},
		"since":       {deadletters.Selection{Since: middle}, 6},
		"until":       {deadletters.Selection{Until: middle}, 30},
		"key":         {deadletters.Selection{Key: "acme/shop/1"}, 6},
		"odd key":     {deadletters.Selection{Key: "1"}, 0},
		"event":       {deadletters.Selection{EventID: "event-17"}, 1},
		"owner":       {deadletters.Selection{Owner: "bo"}, 6},
		"ids":         {deadletters.Selection{IDs: []deadletters.ID{all[0].ID, all[35].ID}}, 2},
		"both":        {deadletters.Selection{Owner: "bo", Key: "acme/shop/1", EventID: "event-31"}, 1},
	} {
		l, err := r.office.List(t.Context(), tt.s, 5)
		require.NoError(t, err, name)
		require.Equal(t, tt.want, l.Total, name)
		require.Len(t, l.Letters, min(int(tt.want), 5), name)
		var states, prints int64
		for _, c := range l.States {
			states += c.Letters
		}
		for _, c := range l.Fingerprints {
			prints += c.Letters
		}
		require.Equal(t, []int64{tt.want, tt.want}, []int64{states, prints}, name)
	}
	for _, act := range []func() error{
		func() error { _, err := r.office.Discard(t.Context(), r.op, deadletters.Selection{}); return err },
		func() error {
			_, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{States: deadletters.States()}})
			return err
		},
	} {
		require.ErrorContains(t, act(), "every dead letter is refused")
	}
	_, err = r.office.Discard(t.Context(), audit.Operator{Name: "ana"}, deadletters.Selection{Group: g})
	require.ErrorIs(t, err, audit.ErrNoReason)
	d, err = r.office.Restore(t.Context(), r.op, deadletters.Selection{Group: g})
	require.NoError(t, err)
	require.Equal(t, []int64{3, 33}, []int64{d.Letters, d.Left})
	require.Equal(t, states{deadletters.Open: 36}, r.states(g))
}

// TestProjection_ReadsTheTwoTopicsInAnyOrder gives the projection the records of a redrive that failed again, and of one that did
// well, in both orders of the two topics.
func TestProjection_ReadsTheTwoTopicsInAnyOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, s := r.group(broken)
	stop := r.startIndex()
	r.source(0, 2, 2)
	r.waitFor(g, states{deadletters.Open: 2})
	all := r.letters(deadletters.Selection{Group: g})
	stop()
	one := func(l deadletters.Letter) deadletters.Request {
		return deadletters.Request{Selection: deadletters.Selection{IDs: []deadletters.ID{l.ID}}}
	}
	_, err := r.office.Redrive(t.Context(), r.op, one(all[0]))
	require.NoError(t, err)
	eventually(t, "the record to fail again", func() bool { return len(r.read(topics.DLQ(r.in, g))) == 3 })
	s.set(healthy)
	_, err = r.office.Redrive(t.Context(), r.op, one(all[1]))
	require.NoError(t, err)
	eventually(t, "both tombstones", func() bool { return len(r.read(topics.Retry(r.in, g))) == 4 })
	retry, dead := r.read(topics.Retry(r.in, g)), r.read(topics.DLQ(r.in, g))
	p := deadletters.NewProjection(nil)
	var dumps []string
	for _, order := range [][][]*kgo.Record{{retry, dead}, {dead, retry}, {append(append([]*kgo.Record{}, retry...), dead...)}} {
		tx, err := r.db.Begin(t.Context())
		require.NoError(t, err)
		require.NoError(t, p.Reset(t.Context(), tx))
		for _, recs := range order {
			require.NoError(t, p.Apply(t.Context(), tx, recs))
		}
		var dump string
		require.NoError(t, tx.QueryRow(t.Context(), `select string_agg(d::text, e'\n' order by topic, partition, "offset") from leat_control.dead_letters d`).Scan(&dump))
		dumps = append(dumps, dump)
		require.NoError(t, tx.Rollback(t.Context()))
	}
	require.Equal(t, dumps[0], dumps[1])
	require.Equal(t, dumps[0], dumps[2])
	for _, state := range []string{"failed_again", "resolved", "open"} {
		require.Equal(t, 1, strings.Count(dumps[0], ","+state+","), "%s in %s", state, dumps[0])
	}
}

func TestMetrics_CountOpenLettersAndTheirExpiry(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, _ := r.group(broken)
	r.startIndex()
	r.source(0, 4, 4)
	r.waitFor(g, states{deadletters.Open: 4})
	// gauges waits until the metrics of the group are there, and returns them.
	gauges := func() map[string]float64 {
		reg, got := prometheus.NewRegistry(), map[string]float64{}
		m, err := deadletters.NewMetrics(r.db, r.client, reg, r.log())
		require.NoError(t, err)
		defer r.background(m.Run)()
		eventually(t, "the metrics", func() bool {
			families, err := reg.Gather()
			for _, f := range families {
				require.Equal(t, g, f.GetMetric()[0].GetLabel()[0].GetValue())
				got[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
			}
			return err == nil && len(got) > 0 // all at once
		})
		return got
	}
	got := gauges() // the broker's default retention is a week
	require.InDelta(t, 4, got["leat_dlq_open"], 0)
	require.Greater(t, got["leat_dlq_oldest_seconds"], 0.0)
	retention := func(ms string) {
		_, err := r.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "retention.ms", Value: new(ms)}}, topics.DLQ(r.in, g))
		require.NoError(t, err)
	}
	retention("86400000")
	eventually(t, "a day", func() bool {
		expires := gauges()["leat_dlq_expires_seconds"]
		return expires > 80_000 && expires <= 86_400
	})
	retention("-1")
	eventually(t, "no expiry", func() bool { return !hasKey(gauges(), "leat_dlq_expires_seconds") })
}

func hasKey(m map[string]float64, name string) bool {
	_, ok := m[name]
	return ok
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
