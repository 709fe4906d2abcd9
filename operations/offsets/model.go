package offsets

import "fmt"

// Commit is what a group has committed in a partition.
type Commit struct {
	Offset      int64  `json:"offset"`
	LeaderEpoch int32  `json:"leader_epoch"` // -1: none
	Metadata    string `json:"metadata,omitempty"`
}

// Facts are what Kafka says about a partition and a group's position in it.
type Facts struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	TopicID   string  `json:"topic_id"`
	Committed *Commit `json:"committed"` // null: the group has committed nothing here
	LogStart  int64   `json:"log_start"`
	Stable    int64   `json:"last_stable_offset"`
	End       int64   `json:"high_watermark"`
}

func (f *Facts) name() string { return partitionName(f.Topic, f.Partition) }

func partitionName(topic string, partition int32) string {
	return fmt.Sprintf("%s/%d", topic, partition)
}

// Direction says what a move does to the records between where a group stands and where it is to stand.
type Direction string

// The directions.
const (
	Reread Direction = "reread" // the group will read them again
	Skip   Direction = "skip"   // the group will never read them
	Stay   Direction = "stay"   // the group stands there already
	Begin  Direction = "begin"  // the group has no position yet: it begins at the target
)

// move says which records lie between f's position and target: those with offsets from <= o < to that are still in the log. lost is how
// many offsets between the two are no longer there, below the log's start or beyond its end.
func (f *Facts) move(target int64) (d Direction, from, to, lost int64) {
	if f.Committed == nil {
		return Begin, target, target, 0
	}
	from, to = target, f.Committed.Offset
	switch {
	case from == to:
		return Stay, target, target, 0
	case from < to:
		d = Reread
	default:
		d, from, to = Skip, to, from
	}
	whole := to - from
	from, to = max(from, f.LogStart), min(to, f.End)
	if from > to { // all of it is gone
		to = from
	}
	return d, from, to, whole - (to - from)
}

// fit checks that target is an offset that the partition has: from its log start to its end, both included. Otherwise it returns the
// nearest one and what is wrong.
func (f *Facts) fit(target int64) (nearest int64, problem string) {
	switch {
	case target < f.LogStart:
		return f.LogStart, fmt.Sprintf("%s: offset %d is before the start of the log, %d: those records are gone", f.name(), target, f.LogStart)
	case target > f.End:
		return f.End, fmt.Sprintf("%s: offset %d is beyond the end of the log, %d", f.name(), target, f.End)
	}
	return target, ""
}

// lag is how many offsets f's group is behind the last stable offset, never negative; -1 without a commit.
func (f *Facts) lag() int64 {
	if f.Committed == nil {
		return -1
	}
	return max(f.Stable-max(f.Committed.Offset, f.LogStart), 0)
}

// Count is a number of records or bytes. Offsets are not records: markers of transactions, aborted records and holes left by compaction
// have offsets too. So a count is exact only if the range was read.
type Count struct {
	N     int64 `json:"n"`
	Exact bool  `json:"exact"` // false: records: an upper bound; bytes: an estimate from the records that were read
}

func (c Count) plus(d Count) Count { return Count{c.N + d.N, c.Exact && d.Exact} }

// extrapolate says how many records and bytes are between from and to when read records of bytes bytes were counted below reached, all
// there are up to there. What lies beyond was not read: each of its offsets may be a record.
func extrapolate(read, bytes, from, reached, to int64) (records, size Count) {
	if reached >= to || from >= to {
		return Count{read, true}, Count{bytes, true}
	}
	rest := to - reached
	records, size = Count{read + rest, false}, Count{bytes, false}
	if read > 0 {
		size.N += int64(float64(bytes) / float64(read) * float64(rest))
	}
	return records, size
}
