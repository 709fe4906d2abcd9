package reporting

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-io/leat/processors"
)

type faultKind int

const (
	faultUnknown  faultKind = iota // an error we do not know: isolate the record, and retry it
	faultRecord                    // the database refuses the data: isolate the record, and give it up
	faultConflict                  // a concurrent transaction was in the way: the same again may succeed
	faultTarget                    // the database is down, full, read-only or not set up: no record is to blame
)

// fault says what an error of the database means.
type fault struct {
	kind   faultKind
	code   string
	remedy string
}

// diagnose decides what an error means, by its SQLSTATE (PostgreSQL documentation, appendix A). It is the only place that
// does.
func diagnose(err error) fault {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		// Anything else happened on the way: refused, reset, timed out, the pool closed, our context ended. A commit whose answer
		// was lost is among these; its records turn out unchanged when they come again.
		return fault{kind: faultTarget, code: "connection"}
	}
	switch pg.Code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock timeout
		return fault{kind: faultConflict, code: "conflict"}
	case "57014": // statement timeout, or cancelled by an administrator
		return fault{kind: faultTarget, code: "timeout"}
	case "25006": // read-only transaction
		return fault{faultTarget, "read_only", "connect to the primary, which takes writes"}
	case "42501": // insufficient privilege
		return fault{faultTarget, "privilege", "as owner: select reporting.grant_publisher('<role>')"}
	case "3D000": // no such database
		return fault{faultTarget, "database", "create the database, then leat migrate up reporting"}
	case "0A000", "26000": // cached plan must not change result type; prepared statement is gone (a pooler between)
		return fault{kind: faultConflict, code: "prepared_statement"}
	case "P0001": // raised by a trigger or rule that somebody added
		return fault{kind: faultRecord, code: "refused"}
	}
	switch pg.Code[:2] {
	case "22", "23", "44", "54": // data exception, integrity constraint, check option, program limit (key too long)
		return fault{kind: faultRecord, code: "refused"}
	case "42", "3F": // missing or other table, column, schema
		return fault{faultTarget, "schema", "leat migrate up reporting"}
	case "28": // invalid authorization
		return fault{faultTarget, "authentication", "check user, password and pg_hba.conf"}
	case "53": // out of disk, memory or connections
		return fault{kind: faultTarget, code: "resources"}
	case "08", "55", "57", "58", "XX", "F0": // connection, object in use, shutdown, input/output, corruption, configuration
		return fault{kind: faultTarget, code: "unavailable"}
	}
	return fault{kind: faultUnknown, code: "unknown"}
}

// raised is an error whose text somebody's trigger has written: quoted, because it may hold values of the record, which are taken out of
// texts for people by their quotes (topics.Parameterize).
type raised struct {
	text string
	err  error
}

func (e *raised) Error() string { return e.text }
func (e *raised) Unwrap() error { return e.err }

func quoteRaised(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.Routine != "exec_stmt_raise" && pg.Code != "P0001" {
		return err
	}
	return &raised{strings.Replace(err.Error(), pg.Message, strconv.Quote(pg.Message), 1), err}
}

// err marks err for the runtime.
func (f fault) err(err error) error {
	err = quoteRaised(err)
	if f.remedy != "" {
		err = fmt.Errorf("%w (remedy: %s)", err, f.remedy)
	}
	switch f.kind {
	case faultRecord:
		return processors.Permanent(f.code, err)
	case faultTarget:
		return processors.Systemic(f.code, err)
	default:
		return processors.Transient(f.code, err)
	}
}
