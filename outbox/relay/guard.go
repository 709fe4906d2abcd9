package relay

import (
	"errors"
	"fmt"
)

// ErrRefused is the class of errors that only an operator can end: the cursor does not belong to the database as it is now.
var ErrRefused = errors.New("cursor refused")

// witness is what a database still knows about the row that was delivered last.
type witness struct {
	event   string // event id of the row with the cursor's last id; empty if there is no such row
	lowest  int64  // lowest id that a range partition can hold; 0 if there is none
	next    uint64 // xmax of a snapshot of now
	foreign bool   // rows carry transaction ids that this cluster has not given out yet
}

// guard decides whether a relay may go on from c in the database described by id and t. Nil means yes.
//
// The row with the highest delivered id is the witness. While it is there with its event id, the database has a history that
// contains the cursor's: it is the same one, or was promoted or recovered from a state after that row, its sequence
// continues above it, and every transaction that a snapshot of the cursor calls ended has ended. If the witness is below
// every partition, clean-up has dropped it, which happens after delivery only. Otherwise the database was set back.
//
// That the next transaction id is below the cursor's proves a restore only when there is no witness: a crash may forget the
// ids of transactions that were rolled back last.
func guard(c *cursor, id identity, t witness) error {
	switch {
	case t.foreign:
		return refuse(c, "leat.outbox holds rows with transaction ids that this cluster has not reached: "+
			"they come from another cluster and would be delivered again and again; remove them or set their transaction_id")
	case c.System == 0: // never written
		return nil
	case c.System != id.System:
		return refuse(c, fmt.Sprintf("the cursor belongs to the cluster with system identifier %d, this one is %d", c.System, id.System))
	case c.Table != id.Table:
		return refuse(c, fmt.Sprintf("the cursor belongs to the table with oid %d, leat.outbox is now %d: it was created anew",
			c.Table, id.Table))
	case id.Epoch < c.Epoch:
		return refuse(c, fmt.Sprintf("the cursor has source epoch %d, the database %d: it was restored", c.Epoch, id.Epoch))
	case c.LastEvent == "" && t.next < c.Snapshot.xmax:
		return refuse(c, fmt.Sprintf("the cursor has seen transactions up to %d, the database is at %d: it was restored",
			c.Snapshot.xmax, t.next))
	case c.LastEvent == "" || c.Last < t.lowest || t.event == c.LastEvent:
		return nil
	case t.event == "":
		return refuse(c, fmt.Sprintf("row %d (event %s) was delivered, but is not in the database: it was set back, "+
			"by a restore or by a promotion of a standby that lagged", c.Last, c.LastEvent))
	default:
		return refuse(c, fmt.Sprintf("row %d was delivered as event %s, but is now event %s: ids have begun anew",
			c.Last, c.LastEvent, t.event))
	}
}

func refuse(c *cursor, why string) error {
	return fmt.Errorf("%w for source %s: %s; when it is clear what was lost, continue with: "+
		"leat relay adopt --source %s --from beginning|end|id:N --reason REASON", ErrRefused, c.Source, why, c.Source)
}
