package verify

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// checkTables is the third layer: what the record by which a row is judged says, against what the row says. The finance topics are read
// a second time for it, so that only one version of each record needs to be understood, and none kept in memory.
func (v *run) checkTables(ctx context.Context) error {
	if v.tables == nil {
		return nil
	}
	all := books()
	err := v.scan(ctx, "comparing with the tables", v.financeTopics, func(_ context.Context, recs []*kgo.Record) error {
		var d digester
		for _, rec := range recs {
			entity := v.financeEntity[rec.Topic]
			if !v.ours(rec) {
				continue
			}
			env, err := decode(rec)
			if err != nil {
				continue
			}
			k := v.known(entity, env.Tenant, env.Subject)
			if k == nil || !k.judge || k.target != (place{int8(entity), rec.Partition, rec.Offset}) { //nolint:gosec // three entities
				continue
			}
			k.judged = true
			v.judge(&d, entity, &all[entity], k, rec, &env)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range v.state {
		k := &v.state[i]
		if !k.inWindow || !k.judge || k.judged {
			continue
		}
		at := k.target
		v.differ(2, Difference{
			Kind: Extra, Entity: topics.Entities()[at.entity], at: &at,
			What: fmt.Sprintf("the link row names the record at %s, partition %d, offset %d, which is no record of it",
				v.financeTopics[at.entity], at.partition, at.offset),
		})
	}
	return nil
}

// judge compares one row. It is called for different records at once.
func (v *run) judge(d *digester, entity int, b *book, k *keyState, rec *kgo.Record, env *topics.Envelope) {
	diff := Difference{
		Tenant: env.Tenant, Entity: topics.Entities()[entity], SourceID: env.Subject, EventID: env.ID, Sequence: env.Sequence, book: entity,
	}
	if env.Operation == topics.Delete {
		v.judgeDeletion(k, &diff)
		return
	}
	want, err := b.expect(rec.Value)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		diff.Kind, diff.What = Different, whereIs(rec)+" does not hold its contract: "+err.Error()
		v.differ(2, diff)
		return
	}
	a := &v.totals.pairs[v.totals.of(totalKey{env.Tenant, diff.Entity, want.total.kind, want.total.currency, want.total.status})][fromRecords]
	a.records++
	a.lines += int64(len(want.lines))
	a.total.add(want.total.total)
	for _, t := range want.total.lines {
		a.lineSum.add(t)
	}
	if k.judgeLost(&diff) {
		v.differ(2, diff)
		return
	}
	var lines Sum
	for _, line := range want.lines {
		lines.add(d.list(line))
	}
	content := v.contentHash(env, rec.Value)
	switch {
	case k.head.hash != headDigest(d, version{env.Epoch, env.Sequence}, env.Time.UnixMicro(), want.head) || k.head.deleted:
		diff.Kind, diff.What, diff.want = Different, "the row does not say what its finance record says", &want
	case k.head.lines != lines:
		diff.Kind, diff.What, diff.want = Different, "the lines do not say what their finance record says", &want
	case k.link.hash != content || k.link.event != half(env.ID) || k.link.deleted:
		diff.Kind, diff.What = Different, "the link row is not of the record that it names"
	default:
		if !k.why.explained() { // else it is counted as waiting
			v.layers[2].Matched++
		}
		return
	}
	v.differ(2, diff)
}

// judgeLost reports whether the row, or its link row, is not there or of an older version than it must be.
func (k *keyState) judgeLost(diff *Difference) bool {
	diff.Kind = Missing
	switch {
	case !k.link.have && k.head.have:
		diff.What = "the row stands in the table without its link row"
	case !k.link.have:
		diff.What = "publish has passed the record, but the tables do not have it, or only an older version of it"
	case k.target != k.link.place:
		diff.What = fmt.Sprintf("publish has passed the record, but the tables have an older one: change %d", k.link.version.sequence)
	case !k.head.have:
		diff.What = "the link row says that the record was published, but its row is gone from the table"
	default:
		return false
	}
	return true
}

func (v *run) judgeDeletion(k *keyState, diff *Difference) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// That there is no row says nothing: a record that was made and deleted within one batch never had one.
	switch {
	case !k.link.have || k.target != k.link.place:
		k.judgeLost(diff)
	case !k.link.deleted || k.head.have && (!k.head.deleted || k.head.version != k.link.version):
		diff.Kind, diff.What = Different, "the source has deleted the record; the tables show it as if it were there"
	case k.head.have && k.head.live:
		diff.Kind, diff.What = Different, "the source has deleted the record; the tables show lines of it as if they were there"
	default:
		if !k.why.explained() {
			v.layers[2].Matched++
		}
		return
	}
	v.differ(2, *diff)
}
