package offsets

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Request asks for a plan.
type Request struct {
	Group     string
	Topics    []string // topic, or topic:0,1,2 for some of its partitions
	AllTopics bool     // every partition in which the group has committed an offset
	Target    Target
	Parked    ParkedMode // default Keep

	// AllowTruncated takes the nearest offset that the log has where the target is outside of it, instead of refusing.
	AllowTruncated bool
	// Create allows a group that Kafka does not know.
	Create bool

	Expires time.Duration // how long the plan may be applied; default 1 h
	Limit   int64         // how many records are read at most to count and judge them; default 500,000
}

// Target says where a group is to stand. Exactly one kind of target is given.
type Target struct {
	Earliest  bool
	Latest    bool
	Current   bool
	Offset    *int64
	ShiftBy   *int64
	Datetime  string // YYYY-MM-DDTHH:mm:SS.sss, in UTC unless it ends in Z or an offset as +01:00
	Duration  string // PnDTnHnMnS before now
	File      []Row  // as ParseCSV returns them; not nil
	EventID   string // ce_id of a record: its offset
	EventKey  string // with EventID: the record's key, to look in one partition only
	EventTime string // with EventID: about when the event happened, as Datetime; a version 7 UUID tells it by itself
	Group     string // where another group stands

	FirstDeadLetter bool   // the first record that the group has given up, of each partition
	Fingerprint     string // with FirstDeadLetter: only failures of this kind
}

// String is the target as it is written on a command line.
func (t Target) String() string {
	names := t.kinds()
	if len(names) != 1 {
		return strings.Join(names, " ")
	}
	value := ""
	switch {
	case t.Offset != nil:
		value = strconv.FormatInt(*t.Offset, 10)
	case t.ShiftBy != nil:
		value = fmt.Sprintf("%+d", *t.ShiftBy)
	case t.FirstDeadLetter && t.Fingerprint != "":
		value = "--fingerprint " + t.Fingerprint
	default:
		value = cmp.Or(t.Datetime, t.Duration, t.EventID, t.Group)
	}
	return strings.TrimSpace(names[0] + " " + value)
}

func (t Target) kinds() (names []string) {
	for _, k := range []struct {
		given bool
		name  string
	}{
		{t.Earliest, "--to-earliest"},
		{t.Latest, "--to-latest"},
		{t.Current, "--to-current"},
		{t.Offset != nil, "--to-offset"},
		{t.ShiftBy != nil, "--shift-by"},
		{t.Datetime != "", "--to-datetime"},
		{t.Duration != "", "--by-duration"},
		{t.File != nil, "--from-file"},
		{t.EventID != "", "--to-event"},
		{t.Group != "", "--to-group"},
		{t.FirstDeadLetter, "--to-first-dead-letter"},
	} {
		if k.given {
			names = append(names, k.name)
		}
	}
	return names
}

// Validate reports every problem of the request that can be seen without Kafka.
func (r Request) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.Group == "" {
		bad("--group is needed")
	}
	switch kinds := r.Target.kinds(); len(kinds) {
	case 1:
		errs = append(errs, r.validateTarget(kinds[0]))
	case 0:
		bad("a target is needed: --to-earliest, --to-latest, --to-current, --to-offset, --shift-by, --to-datetime, --by-duration, " +
			"--from-file, --to-event, --to-group or --to-first-dead-letter")
	default:
		bad("%s exclude each other", strings.Join(kinds, " and "))
	}
	if r.AllTopics && len(r.Topics) > 0 {
		bad("--topic and --all-topics exclude each other")
	}
	for _, t := range r.Topics {
		if _, _, err := parseScope(t); err != nil {
			errs = append(errs, err)
		}
	}
	if !slices.Contains([]ParkedMode{"", ParkedKeep, ParkedDrain, ParkedCancel}, r.Parked) {
		bad("--parked %s: want keep, drain or cancel", r.Parked)
	}
	if r.Expires < 0 {
		bad("--expires %s: want more than 0", r.Expires)
	}
	if r.Limit < 0 {
		bad("--limit %d: want more than 0", r.Limit)
	}
	return errors.Join(errs...)
}

func (r Request) validateTarget(kind string) error {
	t := r.Target
	scoped := len(r.Topics) > 0 || r.AllTopics
	switch kind {
	case "--from-file":
		if scoped {
			return errors.New("--from-file names its partitions itself: leave out --topic and --all-topics")
		}
	case "--to-event", "--to-first-dead-letter":
	default:
		if !scoped {
			return errors.New("--topic or --all-topics is needed")
		}
	}
	var err error
	switch {
	case t.Datetime != "":
		_, err = parseDatetime(t.Datetime)
	case t.Duration != "":
		_, err = parseDuration(t.Duration)
	case t.EventTime != "":
		_, err = parseDatetime(t.EventTime)
	case t.Group == r.Group && t.Group != "":
		err = errors.New("--to-group names the group itself")
	}
	if t.Fingerprint != "" && !t.FirstDeadLetter {
		err = errors.Join(err, errors.New("--fingerprint goes with --to-first-dead-letter"))
	}
	if (t.EventKey != "" || t.EventTime != "") && t.EventID == "" {
		err = errors.Join(err, errors.New("--event-key and --event-time go with --to-event"))
	}
	return err
}

// parseScope reads topic or topic:0,1,2. No partitions means all.
func parseScope(s string) (topic string, partitions []int32, err error) {
	topic, list, some := strings.Cut(s, ":")
	if topic == "" {
		return "", nil, fmt.Errorf("--topic %q: want topic or topic:0,1,2", s)
	}
	if !some {
		return topic, nil, nil
	}
	for p := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseInt(p, 10, 32)
		if err != nil || n < 0 {
			return "", nil, fmt.Errorf("--topic %q: %q is not a partition; want topic or topic:0,1,2", s, p)
		}
		partitions = append(partitions, int32(n))
	}
	return topic, partitions, nil
}

// parseDatetime reads what Kafka's tool reads: YYYY-MM-DDTHH:mm:SS.sss, in UTC if it names no zone.
func parseDatetime(s string) (time.Time, error) {
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05Z07"} {
		if t, err := time.Parse(layout, s); err == nil { // fractions of a second are accepted by every layout
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: want YYYY-MM-DDTHH:mm:SS.sss, in UTC, or with a zone behind it: Z, +01:00", s)
}

// parseDuration reads what Kafka's tool reads: an ISO 8601 duration of days, hours, minutes and seconds.
func parseDuration(s string) (time.Duration, error) {
	re := regexp.MustCompile(`^P(?:(\d+)D)?(T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d{1,9})?)S)?)?$`)
	m := re.FindStringSubmatch(strings.ToUpper(s))
	if m == nil || m[2] == "T" || m[1]+m[2] == "" {
		return 0, fmt.Errorf("%q is not a duration: want PnDTnHnMnS, as P1D or PT2H30M", s)
	}
	var d time.Duration
	for i, unit := range map[int]time.Duration{1: 24 * time.Hour, 3: time.Hour, 4: time.Minute, 5: time.Second} {
		if m[i] == "" {
			continue
		}
		n, err := strconv.ParseFloat(m[i], 64)
		if err != nil || n > float64(100*365*24*time.Hour/unit) {
			return 0, fmt.Errorf("%q is longer than 100 years", s)
		}
		d += time.Duration(n * float64(unit))
	}
	return d, nil
}
