package deadletters

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Redrives and the index change the same items at the same time, each many in one statement. Whoever does so locks them first, in this
// order, and only then letters: so none waits in a circle. The index names its items by what it reads, a redrive by its job.
const (
	lockItems = `select 1 from leat_control.redrive_items i where `
	inOrder   = ` order by i.job, i.seq, i.topic, i.partition, i."offset" for update of i`
	ofJob     = `i.job = $1 and i.seq between $2 and $3 and i.state = 'claimed'`
	ofParked  = `(i.retry_topic, i.original_partition, i.original_offset) in (select * from unnest($1::text[], $2::int[], $3::bigint[]))`
)

// Whoever changes what the state of letters follows from refreshes them afterwards, in its transaction. Two at once: the second waits
// here for the first, and its next statement then sees what both have changed. In the order of the letters, so that none waits
// in a circle.
const lockLetters = `select d.topic, d.partition, d."offset" from leat_control.dead_letters d
  join unnest($1::text[], $2::int[], $3::bigint[]) as k(topic, partition, "offset")
    on d.topic = k.topic and d.partition = k.partition and d."offset" = k."offset"
 order by d.topic, d.partition, d."offset" for update of d`

// Letters are looked up in the primary key also while the table is new and has no statistics: Postgres has been seen to compare
// each of 20,000 letters with all.
const lookUp = `set local enable_seqscan = off`

// The state of a letter, from what survives a reindex: what a person decided; a later letter of the same record with a higher replay
// count; else how far its redrive has come. The tombstone of a record that failed again and its new letter may be read in any
// order: the letter counts more than the tombstone, so the end is the same. The topic of the later letter is compared as an
// expression: else Postgres takes the primary key instead of the index of originals, and reads all later letters of the partition
// for each one (86 s for 20,000 letters, where it now takes 10).
const refreshLetters = `update leat_control.dead_letters d
   set state = s.state, state_at = s.state_at, job = s.job,
       successor_topic = s.successor_topic, successor_partition = s.successor_partition, successor_offset = s.successor_offset
  from (
	select d.topic, d.partition, d."offset", i.job,
	       f.topic as successor_topic, f.partition as successor_partition, f."offset" as successor_offset,
	       case when n.discarded_at is not null then 'discarded'
	            when f.topic is not null then 'failed_again'
	            when i.state = 'settled' then 'resolved'
	            when i.state = 'moved' then 'redriven'
	            when i.state = 'claimed' then 'redriving'
	            else 'open' end as state,
	       case when n.discarded_at is not null then n.discarded_at
	            when f.topic is not null then f.at
	            when i.state = 'settled' then i.settled_at
	            when i.state = 'moved' then i.moved_at
	            when i.state = 'claimed' then r.at
	            else d.at end as state_at
	  from unnest($1::text[], $2::int[], $3::bigint[]) as k(topic, partition, "offset")
	  join leat_control.dead_letters d on d.topic = k.topic and d.partition = k.partition and d."offset" = k."offset"
	  left join leat_control.dead_letter_notes n
	    on n.topic = d.topic and n.partition = d.partition and n."offset" = d."offset" and n.at = d.at
	  left join leat_control.redrive_items i
	    on i.topic = d.topic and i.partition = d.partition and i."offset" = d."offset" and i.at = d.at and i.state not in ('released', 'refused')
	  left join leat_control.redrives r on r.id = i.job
	  left join lateral (
		select f.topic, f.partition, f."offset", f.at from leat_control.dead_letters f
		 where d.format = 'leat' and f.original_topic = d.original_topic and f.original_partition = d.original_partition
		   and f.original_offset = d.original_offset and f.group_name = d.group_name
		   and f.topic || '' = d.topic and f."offset" > d."offset" and f.replay_count > d.replay_count
		 order by f."offset" limit 1) f on true
  ) s
 where d.topic = s.topic and d.partition = s.partition and d."offset" = s."offset"
   and (d.state, d.state_at, d.job, d.successor_topic, d.successor_partition, d.successor_offset) is distinct from
       (s.state, s.state_at, s.job, s.successor_topic, s.successor_partition, s.successor_offset)`

// refresh brings the state of letters up to date with what it follows from.
func refresh(ctx context.Context, tx pgx.Tx, letters []ID) error {
	if len(letters) == 0 {
		return nil
	}
	slices.SortFunc(letters, ID.compare)
	letters = slices.Compact(letters)
	args := columns(letters)
	if _, err := tx.Exec(ctx, lookUp); err != nil {
		return fmt.Errorf("preparing to look up dead letters: %w", err)
	}
	if _, err := tx.Exec(ctx, lockLetters, args...); err != nil {
		return fmt.Errorf("locking dead letters: %w", err)
	}
	if _, err := tx.Exec(ctx, refreshLetters, args...); err != nil {
		return fmt.Errorf("refreshing the state of dead letters: %w", err)
	}
	return nil
}

// claimedItems locks the items of a job that are not moved yet, from one seq to another.
func claimedItems(ctx context.Context, tx pgx.Tx, job string, from, to int64) error {
	if _, err := tx.Exec(ctx, lockItems+ofJob+inOrder, job, from, to); err != nil {
		return fmt.Errorf("locking items: %w", err)
	}
	return nil
}

func columns(letters []ID) []any {
	topic, partition, offset := make([]string, len(letters)), make([]int32, len(letters)), make([]int64, len(letters))
	for i, id := range letters {
		topic[i], partition[i], offset[i] = id.Topic, id.Partition, id.Offset
	}
	return []any{topic, partition, offset}
}
