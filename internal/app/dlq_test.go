package app_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/operations/incidents"
)

func letter() deadletters.Letter {
	at := time.Date(2026, 11, 24, 21, 3, 11, 0, time.UTC)
	return deadletters.Letter{
		ID: deadletters.ID{Topic: "source.chinook.invoice.normalize.dlq", Partition: 3, Offset: 128}, At: at, Format: deadletters.Leat,
		Key: []byte("acme/chinook/inv-12"), EventID: "0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11", Group: "normalize", Stage: "normalize",
		OriginalTopic: "source.chinook.invoice", OriginalPartition: new(int32(3)), OriginalOffset: new(int64(9)), Class: "permanent", Code: "mapping",
		Disposition: "permanent", Fingerprint: "v1:8a1c0f2e55b1d9a7", Message: "lines[0].unit_price: found \"12,50\",\nwant a decimal " + strings.Repeat("x", 300),
		Attempts: 1, ReplayCount: 2, State: deadletters.Open, StateAt: at, Owner: "ana", Note: strings.Repeat("asks the shop ", 20),
	}
}

func text(t *testing.T, r interface{ WriteText(w io.Writer) error }) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, r.WriteText(&b))
	return b.String()
}

// TestDLQ_TextFitsIntoHundredColumns: what people look at at night is not cut by their terminal.
func TestDLQ_TextFitsIntoHundredColumns(t *testing.T) {
	t.Parallel()
	l := letter()
	refusals := []deadletters.Refusal{{
		Reason: "it was redriven 3 times and failed each time: the cause is not gone", Remedy: "look with --dry-run", Letters: 1, Example: l.ID,
	}}
	job := deadletters.Job{
		ID: "0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11", At: l.At, Actor: "ana@host", Reason: strings.Repeat("because ", 30), State: "stopped",
		Problem: strings.Repeat("the broker went away ", 20), Records: 10, Letters: 10, Waiting: 4, Moved: 6, Resolved: 3, Failed: 1, Refused: 1, Released: 1,
		Selection: deadletters.Selection{Group: "normalize", Fingerprint: l.Fingerprint, Since: l.At}, NotRedriven: refusals,
	}
	for name, out := range map[string]string{
		"list": text(t, app.DLQList{List: deadletters.List{
			Total: 412, States: []deadletters.Count{{Name: "open", Letters: 400}, {Name: "resolved", Letters: 12}},
			Fingerprints: []deadletters.Count{{Name: l.Fingerprint, Letters: 400, Stage: l.Stage, Code: l.Code, Example: l.Message, Newest: l.At}, {Letters: 12}},
			Letters:      []deadletters.Letter{l},
		}}),
		"job":  text(t, &app.DLQJob{Job: job}),
		"jobs": text(t, app.DLQJobs{job}),
		"dry run": text(t, app.DLQDryRun{DryRun: deadletters.DryRun{
			Letters: 415, Succeed: 412, Fail: 3, Outcomes: []deadletters.TriedGroup{{Group: "normalize", Outcome: "normalized", Letters: 412, Then: []deadletters.TriedThen{
				{Outcome: "applied", Records: 400}, {Outcome: "superseded", Records: 12},
			}}}, Failures: []deadletters.TriedFailed{{
				Group: "normalize", Class: "permanent", Code: "mapping", Fingerprint: l.Fingerprint, Letters: 3, Message: l.Message, Examples: []deadletters.ID{l.ID},
			}}, NotRedriven: refusals,
		}}),
	} {
		for line := range strings.SplitSeq(out, "\n") {
			require.LessOrEqual(t, len([]rune(line)), 100, "%s: %s", name, line)
		}
		t.Log(name + "\n" + out)
	}
}

func TestDLQ_ShowHidesTheValueUnlessAskedFor(t *testing.T) {
	t.Parallel()
	d := deadletters.Details{Letter: letter(), Found: true, Headers: []deadletters.Text{{Name: "ce_id", Value: "e"}}}
	out := text(t, app.DLQDetails{Details: d})
	require.Contains(t, out, "original   source.chinook.invoice/3 at offset 9")
	require.Contains(t, out, "ce_id: e")
	require.NotContains(t, out, "value\n")
	d.Value = []byte("{}")
	require.Contains(t, text(t, app.DLQDetails{Details: d}), "value\n{}")
}

// TestText_OfRecordsStaysInItsPlace: a key, a message or a name that somebody has chosen adds no line and moves no column.
func TestText_OfRecordsStaysInItsPlace(t *testing.T) {
	t.Parallel()
	const forged = "x\nPROBLEM: all is lost\tcall 555\r"
	l := letter()
	l.Key, l.Message, l.OriginalTopic, l.EventID, l.Owner = []byte(forged), forged, forged, forged, forged
	parked := app.ParkedList{{Topic: "t", Key: forged, Error: forged, Class: forged, Code: forged}}
	incident := app.Incidents{{Facts: incidents.Facts{Fingerprint: "v1:0", Stage: forged, Code: forged, Message: forged}}}
	for name, out := range map[string]string{
		"list": text(t, app.DLQList{List: deadletters.List{Total: 1, Letters: []deadletters.Letter{l}}}),
		"show": text(t, app.DLQDetails{Details: deadletters.Details{Letter: l}}), "parked": text(t, parked), "incidents": text(t, incident),
	} {
		for line := range strings.Lines(out) {
			require.False(t, strings.HasPrefix(strings.TrimSpace(line), "PROBLEM"), "%s:\n%s", name, out)
		}
	}
}
