package offsets

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// log is a partition as Kafka keeps it: which offsets from start to end hold a record that a reader gets. The others are markers, aborted
// records and holes.
type log struct {
	start, end int64
	records    map[int64]bool
}

// after is what a reader that begins at an offset gets.
func (l *log) after(offset int64) map[int64]bool {
	got := map[int64]bool{}
	for o := range l.records {
		if o >= offset && o >= l.start && o < l.end {
			got[o] = true
		}
	}
	return got
}

// TestMove_SaysExactlyWhatIsReadAgainOrSkipped compares the arithmetic of a plan with what a reader does: what it gets when it goes on from
// its position, and what it gets from the target.
func TestMove_SaysExactlyWhatIsReadAgainOrSkipped(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := log{start: rapid.Int64Range(0, 20).Draw(t, "start"), records: map[int64]bool{}}
		l.end = l.start + rapid.Int64Range(0, 30).Draw(t, "length")
		for o := l.start; o < l.end; o++ {
			if rapid.IntRange(0, 3).Draw(t, "record") > 0 {
				l.records[o] = true
			}
		}
		// A committed offset may lie below the log, which retention has shortened, or beyond it, if the topic was made anew.
		committed := rapid.Int64Range(0, 60).Draw(t, "committed")
		f := Facts{Topic: "t", Committed: &Commit{Offset: committed}, LogStart: l.start, Stable: l.end, End: l.end}
		target, problem := f.fit(rapid.Int64Range(0, 60).Draw(t, "target"))
		require.GreaterOrEqual(t, target, l.start)
		require.LessOrEqual(t, target, l.end)
		again, same := f.fit(target)
		require.Equal(t, target, again)
		require.Empty(t, same, "the nearest offset fits: %s", problem)

		direction, from, to, gone := f.move(target)
		before, after := l.after(committed), l.after(target)
		between := int64(0)
		for o := from; o < to; o++ {
			if l.records[o] {
				between++
			}
			require.GreaterOrEqual(t, o, l.start)
			require.Less(t, o, l.end)
		}
		switch direction {
		case Reread:
			require.Less(t, target, committed)
			require.Len(t, after, len(before)+int(between), "the records between are read again, and no others")
		case Skip:
			require.Greater(t, target, committed)
			require.Len(t, before, len(after)+int(between), "the records between are not read, and all others are")
		case Stay:
			require.Equal(t, target, committed)
			require.Equal(t, before, after)
		default:
			t.Fatalf("direction %s with a commit", direction)
		}
		require.Equal(t, max(target, committed)-min(target, committed), gone+to-from, "every offset between is in the range or gone")

		// And back: the same records, the other way.
		back := Facts{Topic: "t", Committed: &Commit{Offset: target}, LogStart: l.start, Stable: l.end, End: l.end}
		if fits, problem := back.fit(committed); problem == "" {
			_, from2, to2, _ := back.move(fits)
			require.Equal(t, []int64{from, to}, []int64{from2, to2})
		}
	})
}

// TestExtrapolate_IsAnUpperBound reads any beginning of a range and demands that no record is beyond the count.
func TestExtrapolate_IsAnUpperBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int64Range(0, 10).Draw(t, "from")
		to := from + rapid.Int64Range(0, 40).Draw(t, "length")
		reached := from + rapid.Int64Range(0, to-from).Draw(t, "reached")
		var whole, read, bytes int64
		for o := from; o < to; o++ {
			if rapid.Bool().Draw(t, "record") {
				whole++
				if o < reached {
					read, bytes = read+1, bytes+10
				}
			}
		}
		records, size := extrapolate(read, bytes, from, reached, to)
		require.GreaterOrEqual(t, records.N, whole)
		require.Equal(t, reached == to, records.Exact)
		if records.Exact {
			require.Equal(t, whole, records.N)
			require.Equal(t, 10*whole, size.N)
		} else if read > 0 {
			require.Equal(t, 10*records.N, size.N)
		}
	})
}

func TestParseDuration_ReadsWhatKafkasToolReads(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{
		"P1D": 24 * time.Hour, "PT2H30M": 150 * time.Minute, "P1DT1H1M1.5S": 25*time.Hour + 61*time.Second + 500*time.Millisecond,
		"PT0S": 0, "pt10m": 10 * time.Minute, "P0DT0H0M0S": 0,
	} {
		d, err := parseDuration(s)
		require.NoError(t, err, s)
		require.Equal(t, want, d, s)
	}
	for _, s := range []string{"", "P", "PT", "1D", "P1H", "PT1D", "P1Y", "PT-1H", "P1DT", "PT1.5H", "P99999999D"} {
		_, err := parseDuration(s)
		require.Error(t, err, s)
	}
}

func TestParseDatetime_IsInUTCUnlessItSaysOtherwise(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 11, 24, 9, 30, 0, 500e6, time.UTC)
	for _, s := range []string{
		"2026-11-24T09:30:00.500", "2026-11-24T09:30:00.500Z", "2026-11-24T10:30:00.500+01:00", "2026-11-24T06:30:00.500-0300", "2026-11-24T10:30:00.5+01",
	} {
		at, err := parseDatetime(s)
		require.NoError(t, err, s)
		require.Equal(t, want, at, s)
	}
	for _, s := range []string{"", "2026-11-24", "yesterday", "2026-11-24 09:30:00"} {
		_, err := parseDatetime(s)
		require.ErrorContains(t, err, "is not a time", s)
	}
}

func TestParseCSV_ReportsEveryLine(t *testing.T) {
	t.Parallel()
	rows, err := ParseCSV(strings.NewReader("h,orders,1,12\ng,orders,1,7\n\n"))
	require.NoError(t, err)
	require.Equal(t, []Row{{"h", "orders", 1, 12}, {"g", "orders", 1, 7}}, rows)
	_, err = ParseCSV(strings.NewReader("orders,0,12\ng,orders,1,7\n"))
	require.EqualError(t, err, "reading the CSV: line 2: some lines have a group and some have none")
	_, err = ParseCSV(strings.NewReader("orders,0,12\norders,x,1\norders,0,13\n,1,1\norders,1\norders,1,-5\n"))
	require.EqualError(t, err, `reading the CSV: line 2: "x" is not a partition
line 3: orders/0 stands in line 1 already
line 4: want topic,partition,offset or group,topic,partition,offset
line 5: want topic,partition,offset or group,topic,partition,offset
line 6: "-5" is not an offset`)
	_, err = ParseCSV(strings.NewReader(""))
	require.ErrorContains(t, err, "it has no line")
	var out strings.Builder
	require.NoError(t, WriteCSV(&out, []Row{{"g", "orders", 1, 7}}))
	require.NoError(t, WriteCSV(&out, []Row{{"g", "orders", 1, 7}, {"h", "orders", 1, 8}}))
	require.Equal(t, "orders,1,7\ng,orders,1,7\nh,orders,1,8\n", out.String())
}

func FuzzParseCSV(f *testing.F) {
	f.Add("orders,0,12\ng,orders,1,7\n")
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := ParseCSV(strings.NewReader(text))
		if err != nil {
			return
		}
		var out strings.Builder
		require.NoError(t, WriteCSV(&out, rows))
		again, err := ParseCSV(strings.NewReader(out.String()))
		require.NoError(t, err)
		require.Len(t, again, len(rows))
	})
}

func TestRequest_ValidateNamesEveryProblem(t *testing.T) {
	t.Parallel()
	one := int64(1)
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{Topics: []string{"t"}, Target: Target{Earliest: true}}, "--group is needed"},
		{Request{Group: "g", Topics: []string{"t"}}, "a target is needed: --to-earliest"},
		{Request{Group: "g", Topics: []string{"t"}, Target: Target{Earliest: true, Offset: &one}}, "--to-earliest and --to-offset exclude each other"},
		{Request{Group: "g", Target: Target{Earliest: true}}, "--topic or --all-topics is needed"},
		{Request{Group: "g", Topics: []string{"t"}, AllTopics: true, Target: Target{Earliest: true}}, "--topic and --all-topics exclude each other"},
		{Request{Group: "g", Topics: []string{"t:a"}, Target: Target{Earliest: true}}, `--topic "t:a": "a" is not a partition; want topic or topic:0,1,2`},
		{Request{Group: "g", Topics: []string{"t"}, Target: Target{Datetime: "now"}}, `"now" is not a time`},
		{Request{Group: "g", Topics: []string{"t"}, Target: Target{Group: "g"}}, "--to-group names the group itself"},
		{Request{Group: "g", Topics: []string{"t"}, Target: Target{File: []Row{}}}, "--from-file names its partitions itself"},
		{Request{Group: "g", Topics: []string{"t"}, Target: Target{Earliest: true, Fingerprint: "f"}}, "--fingerprint goes with --to-first-dead-letter"},
		{Request{Group: "g", Topics: []string{"t"}, Target: Target{Earliest: true, EventKey: "k"}}, "--event-key and --event-time go with --to-event"},
		{Request{Group: "g", Topics: []string{"t"}, Target: Target{Earliest: true}, Parked: "x"}, "--parked x: want keep, drain or cancel"},
	} {
		require.ErrorContains(t, c.r.Validate(), c.want)
	}
	require.NoError(t, Request{Group: "g", Topics: []string{"t:0,2"}, Target: Target{ShiftBy: &one}}.Validate())
	require.Equal(t, "--shift-by +1", Target{ShiftBy: &one}.String())
	require.Equal(t, "--to-first-dead-letter --fingerprint f", Target{FirstDeadLetter: true, Fingerprint: "f"}.String())
}
