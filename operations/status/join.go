package status

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/processors"
)

// join adds to the groups what processes and the index of dead letters know of them, and says what is wrong.
func (l *look) join() {
	r := l.report
	for i := range r.Groups {
		l.joinGroup(&r.Groups[i])
	}
	for _, p := range r.Processes {
		if p.Alive() && !p.Ready && p.PausedBy == "" {
			l.problem(p.Stage+" "+p.Instance, errors.New(p.Problem))
		}
	}
	for _, t := range r.Transactions {
		if t.Hung {
			l.problem("transaction "+cmp.Or(t.TransactionalID, fmt.Sprintf("of producer %d", t.ProducerID)),
				fmt.Errorf("hung for %.0f s: readers of %s/%d stand at offset %d", t.AgeSeconds, t.Topic, t.Partition, t.FirstOffset))
		}
	}
	for _, s := range r.Sources {
		for _, p := range s.Problem {
			l.problem("source "+s.Source, errors.New(p))
		}
	}
}

func (l *look) joinGroup(g *Group) {
	for _, d := range l.dead {
		if d.Group == g.Group {
			g.Dead, g.DeadOldest = d.Open, d.Oldest
		}
	}
	told := l.told(g)
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if t, ok := told[topicPartition{p.Topic, p.Partition}]; ok {
			p.State, p.ParkedKeys = t.State, t.ParkedKeys
			if !t.ParkedSince.IsZero() {
				p.ParkedSince = &t.ParkedSince
			}
		}
		g.Lag += p.Lag
		g.LagSeconds = max(g.LagSeconds, p.LagSeconds)
		g.ParkedKeys += p.ParkedKeys
		if p.ParkedSince != nil && (g.ParkedSince == nil || p.ParkedSince.Before(*g.ParkedSince)) {
			g.ParkedSince = p.ParkedSince
		}
	}
	if g.Lag > 0 && g.Members == 0 && !l.paused(g) {
		l.problem("group "+g.Group, fmt.Errorf("%d offsets wait and no member runs; start it with: leat %s run", g.Lag, g.Stage))
	}
}

// told is what the living processes of a group say of their partitions.
func (l *look) told(g *Group) map[topicPartition]processors.PartitionStatus {
	of := map[topicPartition]processors.PartitionStatus{}
	g.Breaker = processors.BreakerClosed
	for _, p := range l.report.Processes {
		if p.Group != g.Group || !p.Alive() {
			continue
		}
		var st processors.Status
		if err := json.Unmarshal(p.Status, &st); err != nil {
			l.problem(p.Stage+" "+p.Instance, fmt.Errorf("reading what it says of itself: %w", err))
			continue
		}
		if st.Breaker.State != processors.BreakerClosed {
			g.Breaker = st.Breaker.State
		}
		if st.Stuck {
			l.problem(p.Stage+" "+p.Instance, fmt.Errorf("a batch has been in flight since %s; the watchdog ends it, or the process",
				st.Batch.UTC().Format(time.RFC3339)))
		}
		for _, ps := range st.Partitions {
			of[topicPartition{ps.Topic, ps.Partition}] = ps
		}
	}
	return of
}

// paused reports whether somebody wants the group to stand still.
func (l *look) paused(g *Group) bool {
	for _, p := range l.report.Pauses {
		if p.Scope == control.Group && p.Name == g.Group || p.Scope == control.Stage && p.Name == g.Stage {
			return true
		}
	}
	return false
}
