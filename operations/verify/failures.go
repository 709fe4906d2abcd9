package verify

import (
	"context"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// waiting says why something is not where it should be, though nothing was lost.
type waiting struct {
	parked bool // waits for a retry
	dead   bool // is a dead letter: waits for a person
	freed  bool // waited when the stage's position was looked at, and was handled since
}

func (w waiting) explained() bool { return w.parked || w.dead || w.freed }

func (v *run) stall(id int64) {
	if v.stalls == nil {
		v.stalls = map[int64]*waiting{}
	}
	if v.stalls[id] == nil {
		v.stalls[id] = &waiting{}
	}
}

// explainRows looks among the relay's dead letters for rows that are not on their topics.
func (v *run) explainRows(ctx context.Context) error {
	defer func() { v.stalls = nil }()
	if len(v.stalls) == 0 {
		return nil
	}
	var mu sync.Mutex
	err := v.scan(ctx, "reading dead letters of the relay", []string{topics.RelayDLQ}, func(_ context.Context, recs []*kgo.Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, rec := range recs {
			f, err := topics.DecodeFailure(appendHeaders(nil, rec))
			if err != nil || f.SourceSystem != v.c.Source {
				continue
			}
			if w := v.stalls[f.OutboxID]; w != nil {
				w.dead = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	l := &v.layers[0]
	for id, w := range v.stalls {
		if w.dead {
			l.Dead++
			v.open(0, "dead", id, "Kafka refused the change; it is a dead letter of the relay")
			continue
		}
		v.differ(0, Difference{Kind: Missing, Sequence: id, What: "the relay says that it has delivered the change, but it is not on its source topic"})
	}
	return nil
}

// explainOutputs looks for source records that normalize has passed without output among what it has parked and given up.
func (v *run) explainOutputs(ctx context.Context) error {
	defer func() { v.stalls = nil }()
	if len(v.stalls) == 0 {
		return nil
	}
	err := v.failures(ctx, "reading what normalize could not do", v.normalizeFailures, func(f *failure) *waiting {
		if f.env.System != v.c.Source {
			return nil
		}
		return v.stalls[f.env.Sequence]
	})
	if err != nil {
		return err
	}
	for id, w := range v.stalls {
		i, _ := v.find(id)
		r := &v.rows[i]
		lost := int64(0)
		for _, o := range v.outsOf(r) {
			if o.copies == 0 {
				lost++
			}
		}
		if r.is(refused) {
			lost++
		}
		v.explain(1, lost, id, *w, v.lostOutput(r))
	}
	return nil
}

func (v *run) lostOutput(r *row) string {
	switch {
	case r.is(refused) && r.is(strayed):
		return "" // said already: the finance record is one that the mapping of now does not make
	case r.is(refused):
		return "normalize has passed the change, and the mapping of now refuses it, but it is not among the dead letters"
	}
	return "normalize has passed the change, but there is neither a finance record of it nor a dead letter"
}

// explain enters n records that are not there: as waiting, or as missing.
func (v *run) explain(layer int, n, id int64, w waiting, missing string) {
	l := &v.layers[layer]
	switch {
	case w.parked:
		l.Parked += n
		v.open(layer, "parked", id, "waits for its next attempt")
	case w.dead:
		l.Dead += n
		v.open(layer, "dead", id, "is a dead letter: it waits for a person")
	case w.freed:
		l.Pending += n
	case missing != "":
		for range n {
			v.differ(layer, Difference{Kind: Missing, Sequence: id, What: missing})
		}
	}
}

// failure is a record of a retry or dead-letter topic.
type failure struct {
	topics.Failure
	env topics.Envelope
}

// failures reads retry and dead-letter topics and marks what of returns for their records. A retry topic holds for each parked record
// its last state; a tombstone frees it. What was freed after the positions were looked at was waiting then.
func (v *run) failures(ctx context.Context, step string, names []string, of func(*failure) *waiting) error {
	var mu sync.Mutex
	parked := map[string]*waiting{} // by retry topic and parked id
	return v.scan(ctx, step, names, func(_ context.Context, recs []*kgo.Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, rec := range recs {
			retry := strings.HasSuffix(rec.Topic, ".retry")
			id := rec.Topic + "/" + string(rec.Key)
			if retry && rec.Value == nil {
				if w := parked[id]; w != nil {
					w.parked = false
					w.freed = w.freed || rec.Offset >= v.parked.at(rec.Topic, rec.Partition)
				}
				continue
			}
			hs := appendHeaders(nil, rec)
			var f failure
			var err error
			if f.Failure, err = topics.DecodeFailure(hs); err != nil {
				continue
			}
			f.env, _ = topics.DecodeEnvelope(hs) // without it, it is no record of the window
			w := of(&f)
			switch {
			case w == nil:
			case retry:
				w.parked = true
				parked[id] = w
			default:
				w.dead = true
			}
		}
		return nil
	})
}
