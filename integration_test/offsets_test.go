package integration_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/topics"
)

// offsetsPlan is what the tests read of a plan as JSON.
type offsetsPlan struct {
	ID         string `json:"id"`
	GroupState string `json:"group_state"`
	Total      struct {
		Reread  offsetsCount `json:"reread"`
		Outlook struct {
			Records, Applied, Unchanged, Superseded, Failed, Silent int
		} `json:"outlook"`
	} `json:"total"`
	Forecast string `json:"forecast"`
}

type offsetsCount struct {
	N     int  `json:"n"`
	Exact bool `json:"exact"`
}

// offsetsReport is what the tests read of an apply or undo as JSON.
type offsetsReport struct {
	Partitions []struct {
		Topic         string
		Partition     int32
		Before, After *struct{ Offset int64 }
	}
	Drained bool
	Members []struct{ ID string }
}

// asJSON runs a command and decodes what it prints to standard output.
func (r *rig) asJSON(into any, args ...string) {
	r.t.Helper()
	out := r.run(append(args, "-o", "json")...)
	require.NoError(r.t, json.NewDecoder(strings.NewReader(out[strings.Index(out, "{"):])).Decode(into), out)
}

// TestOffsets_DrainOfARunningGroup rewinds the normalize group while two of its processes run and writers go on: its members step aside,
// the offsets move, the members come back, and every record below the old offsets was normalized once more, no other one.
func TestOffsets_DrainOfARunningGroup(t *testing.T) {
	t.Parallel()
	for name, static := range map[string]bool{"dynamic members": false, "static members": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drainARunningGroup(t, rigOptions{static: static})
		})
	}
}

func drainARunningGroup(t *testing.T, o rigOptions) {
	t.Helper()
	r := newRig(t, o)
	r.addControl()
	l := newLedger()
	l.write(t, r, 4, 200, 30)
	source := topics.Source(r.system, "invoice")
	defer r.start("one", "relay", "run").stop()
	defer r.start("one", "publish", "run").stop()
	first, second := r.start("one", "normalize", "run"), r.start("two", "normalize", "run")
	l.settled(t, r)
	eventually(t, "two members", func() bool {
		g, err := r.adm.DescribeGroups(t.Context(), r.normalizeGroup)
		return err == nil && g[r.normalizeGroup].State == "Stable" && len(g[r.normalizeGroup].Members) == 2
	})

	stopWriting := l.keepWriting(t, r)
	var plan offsetsPlan
	r.asJSON(&plan, "offsets", "plan", "--group", r.normalizeGroup, "--topic", source, "--to-earliest", "--reason", "a drill")
	require.Equal(t, "Stable", plan.GroupState)
	out, err := r.try("offsets", "apply", plan.ID)
	require.Error(t, err)
	require.Contains(t, out, "is active (Stable): its 2 members would go on from where they are")
	require.Contains(t, out, "--drain")
	var report offsetsReport
	r.asJSON(&report, "offsets", "apply", plan.ID, "--drain")
	require.True(t, report.Drained)
	require.NotEmpty(t, report.Members, "members are back without anybody's help")
	stopWriting()
	l.settled(t, r)

	before := map[int32]int64{}
	for _, p := range report.Partitions {
		require.Equal(t, source, p.Topic)
		require.Zero(t, p.After.Offset)
		if p.Before != nil {
			before[p.Partition] = p.Before.Offset
		}
	}
	again := 0
	for _, rec := range r.read(source) {
		if rec.Offset < before[rec.Partition] {
			again++
		}
	}
	require.GreaterOrEqual(t, again, plan.Total.Reread.N, "what the group had read when the plan was made, and what it has read since")
	eventually(t, "every record to be normalized", func() bool { return r.financeInvoices() == l.count()+again })
	for _, p := range []*process{first, second} {
		p.stop()
	}
	require.Equal(t, l.count()+again, r.financeInvoices(), "each once, and those that were read again once more")
	l.checkReporting(t, r)

	out = r.run("audit", "--action", "offsets", "--object", "group "+r.normalizeGroup)
	require.Contains(t, out, "a drill")
	out = r.run("offsets", "list", "--group", r.normalizeGroup)
	require.Contains(t, out, source+"/0")
}

// financeInvoices counts the finance records of the rig's invoices.
func (r *rig) financeInvoices() (n int) {
	r.t.Helper()
	prefix := r.tenant + "/" + r.system + "/"
	for _, rec := range r.read(topics.Finance("invoice", 1)) {
		if strings.HasPrefix(string(rec.Key), prefix) {
			n++
		}
	}
	return n
}
