package offsets

import (
	"errors"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

var errRefused = errors.New("refused")

func place(i int) tp { return tp{"t", int32(i)} }

// commits is what Kafka answers.
func (s *planState) commits() kadm.OffsetResponses {
	commits := kadm.OffsetResponses{}
	for i, at := range s.at {
		if at != none {
			commits.Add(kadm.OffsetResponse{Offset: kadm.Offset{Topic: "t", Partition: int32(i), At: int64(at), LeaderEpoch: -1}})
		}
	}
	return commits
}

func (s *planState) facts() []Facts {
	ends := []int64{2, 1}
	facts := make([]Facts, 2)
	for i := range facts {
		facts[i] = Facts{Topic: "t", Partition: int32(i), Committed: commitOf(s.commits(), "t", int32(i)), Stable: ends[i], End: ends[i]}
	}
	facts[0].LogStart = int64(s.start)
	return facts
}

func (s *planState) group() groupInfo {
	if s.member.phase == memberOut {
		return groupInfo{State: "Empty", Protocol: "classic"}
	}
	return groupInfo{State: "Stable", Protocol: "classic", Members: []Member{{ID: strconv.Itoa(int(s.member.life))}}}
}

func (s *planState) parkedOffsets() (offsets []int64) {
	for r, parked := range s.parked {
		if parked {
			offsets = append(offsets, int64(r))
		}
	}
	return offsets
}

func positionsOf(at [2]int8) []Position {
	positions := make([]Position, 2)
	for i := range at {
		positions[i] = Position{Topic: "t", Partition: int32(i)}
		if at[i] != none {
			positions[i].Commit = &Commit{Offset: int64(at[i]), LeaderEpoch: -1}
		}
	}
	return positions
}

// plan makes a plan of what stands in Kafka.
func (s *planState) plan() {
	for i := range s.plans {
		if !s.plans[i].made {
			s.plans[i] = planRow{made: true, state: Planned, from: s.at}
			if s.member.phase != memberOut {
				s.plans[i].life = s.member.life
			}
			return
		}
	}
}

// plan is the row as production reads it.
func (row *planRow) plan(sc *planScene) *Plan {
	p := &Plan{State: row.state, Cancelled: int64(row.cancelled), After: positionsOf(row.after), AppliedAt: new(time.Time)}
	p.GroupState, p.Parked = "Empty", ParkedKeep
	if row.life != 0 {
		p.GroupState, p.Members = "Stable", []Member{{ID: strconv.Itoa(int(row.life))}}
	}
	if sc.parked {
		p.Parked = ParkedCancel
	}
	then := planState{at: row.from}
	for i, f := range then.facts() {
		part, _ := aimAt(f, goal{offset: int64([2]int8{sc.target, 0}[i])}, false)
		p.Partitions = append(p.Partitions, part)
	}
	if row.state == Applied || row.state == Undone || row.state == Failed {
		p.Before = positionsOf(row.before)
	}
	return p
}
