package relay

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// answer is the model of Postgres's answer to one read from p, under the snapshot now: what the statements of reader select and take
// takes. rows are in the order of ids.
// TestAnswer_IsThatOfPostgres compares it with the reader on a real server.
func answer(rows []modelRow, committed func(xid uint64) bool, now view, p position, limit int) (f found, got []modelRow) {
	f.now = now
	through := p.Last
	if p.Pass != nil {
		through = min(p.Pass.Through+passWindow, p.Last)
	}
	for _, r := range rows {
		late := r.id <= through && !p.Snapshot.sees(r.xid) && r.xid < p.lateBelow()
		if p.Pass != nil {
			late = r.id <= through && !p.Snapshot.sees(r.xid) && p.Pass.Snapshot.sees(r.xid) && r.id > p.Pass.Through
		}
		if !late || !committed(r.xid) || !now.Snapshot.sees(r.xid) {
			continue
		}
		if f.lateMore = len(got) == limit; f.lateMore {
			break
		}
		got, f.lateLast = append(got, r), r.id
	}
	for _, r := range rows {
		if p.Pass != nil || r.id <= p.Last || !committed(r.xid) || !now.Snapshot.sees(r.xid) {
			continue
		}
		if f.freshMore = f.lateMore || len(got) == limit; f.freshMore {
			break
		}
		got, f.freshLast = append(got, r), r.id
	}
	return f, got
}

// pgWriter is a connection that writes, and what the model must know of its transaction.
type pgWriter struct {
	conn  *pgx.Conn
	xid   uint64 // 0: it has none open
	saved int64  // the highest id that was drawn before its savepoint, plus 1; 0: it has none
}

// TestAnswer_IsThatOfPostgres ties the model to a real server: transactions that overlap in any way, savepoints, reads of any size.
func TestAnswer_IsThatOfPostgres(t *testing.T) {
	t.Parallel()
	r := newDatabase(t)
	rnd := rand.New(rand.NewPCG(5, 25))
	var writers [4]pgWriter
	for i := range writers {
		conn, err := pgx.Connect(t.Context(), r.url)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
		writers[i].conn = conn
	}
	var rows []modelRow // by id, as one connection after the other writes
	committed := map[uint64]bool{}
	s := newSnapshotReader(t, r.url, 1)
	reads := map[string]int{}
	for range 400 {
		if rnd.IntN(3) > 0 {
			rows = writers[rnd.IntN(len(writers))].act(t, rnd, rows, committed)
			continue
		}
		s.lim.rows = 1 + rnd.IntN(4)
		var b batch
		p := s.cursor.position
		f, err := s.reader.read(t.Context(), p, s.enc, &b, s.lim)
		require.NoError(t, err)
		want, which := answer(rows, func(xid uint64) bool { return committed[xid] }, f.now, p, s.lim.rows)
		require.Equal(t, want, f, "from %+v", p)
		require.Len(t, b.rows, len(which))
		for i := range which {
			require.Equal(t, which[i].id, b.rows[i].id)
		}
		for i := range writers {
			require.False(t, writers[i].xid != 0 && f.now.Snapshot.sees(writers[i].xid), "a snapshot sees an open transaction")
			require.Less(t, writers[i].xid, f.now.Next)
		}
		s.cursor.position = p.after(f)
		for name, is := range map[string]bool{
			"late": f.lateLast > 0, "late left": f.lateMore, "pass": p.Pass != nil, "fresh": f.freshLast > 0, "fresh left": f.freshMore,
		} {
			if is {
				reads[name]++
			}
		}
	}
	require.Len(t, reads, 5, "every kind of read occurs: %v", reads)
}

// act does something that the transaction of w can do, and returns the rows that may be seen now or later.
func (w *pgWriter) act(t *testing.T, rnd *rand.Rand, rows []modelRow, committed map[uint64]bool) []modelRow {
	t.Helper()
	exec := func(sql string) {
		_, err := w.conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	if w.xid == 0 {
		exec("begin")
		require.NoError(t, w.conn.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&w.xid))
		return rows
	}
	switch n := rnd.IntN(10); {
	case n < 6:
		var id int64
		require.NoError(t, w.conn.QueryRow(t.Context(), `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
			values (gen_random_uuid(), 'acme', 'invoice', '1', 'upsert', '{}') returning id`).Scan(&id))
		return append(rows, modelRow{id, w.xid, "1"})
	case n < 7 && w.saved == 0:
		exec("savepoint s")
		if w.saved = 1; len(rows) > 0 {
			w.saved = rows[len(rows)-1].id + 1
		}
		return rows
	case n < 8 && w.saved > 0:
		exec("rollback to savepoint s")
		return slices.DeleteFunc(rows, func(r modelRow) bool { return r.xid == w.xid && r.id >= w.saved })
	case n < 9:
		exec("commit")
		committed[w.xid] = true
	default:
		exec("rollback")
	}
	w.xid, w.saved = 0, 0
	return rows
}
