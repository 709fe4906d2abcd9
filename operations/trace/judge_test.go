package trace

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	place := func(topic string, committed int64) Place {
		return Place{Topic: topic, Offset: 7, At: at, ChangedAt: at, EventID: topic, Groups: []Progress{{Group: "g", Committed: committed, Past: committed > 7}}}
	}
	source, done := place("source.shop.invoice", 8), place("finance.invoice.v1", 8)
	former := place("finance.invoice.v1", -1)
	former.Former = true
	link := func(compared string) Link { return Link{Compared: compared, PublishedAt: at.Add(2 * time.Second)} }
	letter := func(state string) []DeadLetter { return []DeadLetter{{State: state, Topic: "dlq", Group: "g"}} }
	tests := []struct {
		name string
		j    Journey
		want string
	}{
		{"nothing is known", Journey{}, StateUnknown},
		{"only in the outbox", Journey{Outbox: Outbox{Found: true}}, StateWaitingInOutbox},
		{"the group is behind", Journey{Places: []Place{place("source.shop.invoice", 7)}}, StateWaiting},
		{"the group never came", Journey{Places: []Place{place("source.shop.invoice", -1)}}, StateWaiting},
		{"a filtered record", Journey{Places: []Place{source}}, StateEnded},
		{"publish is behind", Journey{Places: []Place{source, place("finance.invoice.v1", 3)}}, StateWaiting},
		{"no target", Journey{Places: []Place{source, done}}, StateOnKafka},
		{"applied", Journey{Places: []Place{source, done}, Links: []Link{link("this")}}, StatePublished},
		{"one of two is newer", Journey{Places: []Place{source, done}, Links: []Link{link("newer"), link("this")}}, StatePublished},
		{"all are newer", Journey{Places: []Place{source, done}, Links: []Link{link("newer")}}, StateSuperseded},
		{"the target is older", Journey{Places: []Place{source, done}, Links: []Link{link("older")}}, StateOnKafka},
		{"offsets of a topic that is gone", Journey{Places: []Place{source, former}, Links: []Link{link("this")}}, StatePublished},
		{"parked", Journey{Places: []Place{source}, Attempts: []Attempt{{Disposition: "retry"}}}, StateParked},
		{"was parked", Journey{Places: []Place{source, done}, Links: []Link{link("this")}, Attempts: []Attempt{{Disposition: "retry", SettledAt: &at}}}, StatePublished},
		{"dead, by the attempts", Journey{Places: []Place{source}, Attempts: []Attempt{{Disposition: "exhausted"}}}, StateDeadLetter},
		{"dead", Journey{Places: []Place{source}, DeadLetters: letter("open")}, StateDeadLetter},
		{"on its way back", Journey{Places: []Place{source}, DeadLetters: letter("redriving")}, StateDeadLetter},
		{"discarded", Journey{Places: []Place{source}, DeadLetters: letter("discarded")}, StateDiscarded},
		{"redriven and handled", Journey{
			Places: []Place{source, done}, Links: []Link{link("this")}, DeadLetters: letter("resolved"),
			Attempts: []Attempt{{Disposition: "permanent"}},
		}, StatePublished},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.j.judge()
			require.Equal(t, tt.want, tt.j.State, tt.j.Meaning)
			require.NotEmpty(t, tt.j.Meaning)
			if tt.want == StatePublished {
				require.InDelta(t, 2, *tt.j.Took, 1e-9)
			}
		})
	}
}

func TestCompareVersions_TheEpochCountsFirst(t *testing.T) {
	t.Parallel()
	require.Equal(t, 1, compareVersions(2, 1, 1, 1<<40))
	require.Equal(t, -1, compareVersions(1, 1, 1, 1<<40))
	require.Zero(t, compareVersions(3, 4, 3, 4))
}
