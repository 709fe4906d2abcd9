package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/topics"
)

// Capture says which table's changes become events, for systems whose application cannot write them.
type Capture struct {
	Table  string   `json:"table"`  // schema.table or table
	Entity string   `json:"entity"` // as of topics.ValidName
	Key    []string `json:"key"`    // columns of the key; several are joined by '/'
	// Exactly one of Tenant, a constant, and TenantColumn.
	Tenant       string   `json:"tenant,omitempty"`
	TenantColumn string   `json:"tenant_column,omitempty"`
	Omit         []string `json:"omit,omitempty"` // columns that never leave the table, such as passwords
	// Backfill also writes an upsert for each row that is in the table already, in the same transaction.
	Backfill bool `json:"-"`
}

func (c *Capture) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Table == "" {
		bad("table is missing")
	}
	if !topics.ValidName(c.Entity) {
		bad("entity %.80q is not a valid name: use 1 to 63 lower-case letters, digits, '-' and '_'", c.Entity)
	}
	if len(c.Key) == 0 {
		bad("key is missing: name the column or columns that identify a row")
	}
	if (c.Tenant == "") == (c.TenantColumn == "") {
		bad("name either a tenant or a tenant column")
	} else if c.Tenant != "" && !topics.ValidName(c.Tenant) {
		bad("tenant %.80q is not a valid name: use 1 to 63 lower-case letters, digits, '-' and '_'", c.Tenant)
	}
	for _, k := range c.Key {
		if slices.Contains(c.Omit, k) {
			bad("column %s is part of the key and cannot be omitted", k)
		}
	}
	return errors.Join(errs...)
}

// Conn is a pgx connection or pool that can begin a transaction.
type Conn interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

const (
	// to_regclass resolves the name as the search path does, without an error for a missing table.
	captureTable = `
select c.oid::regclass::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind in ('r', 'p'),
       array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped),
       n.nspname = 'leat'
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)`

	// Taken first: no change slips between the backfill and the trigger. Readers go on, writers wait until the commit.
	captureLock = `lock table %s in share row exclusive mode`

	captureTriggers = `
create or replace trigger leat_capture after insert or update or delete on %[1]s
  for each row execute function leat.capture(%[2]s);
create or replace trigger leat_capture_truncate before truncate on %[1]s
  for each statement execute function leat.refuse_truncate()`

	// Rows of one table have one key each, so their order does not matter.
	captureBackfill = `
select count(leat.emit(coalesce($1, r ->> $2), $3, leat.captured_key(r, $4), 'upsert', r - $5::text[]))
from (select to_jsonb(t) as r from %s t) rows`

	captureRelease = `drop trigger leat_capture on %[1]s; drop trigger leat_capture_truncate on %[1]s`

	// tgargs holds the argument as bytes with a NUL behind it.
	captureList = `
select t.tgrelid::regclass::text, convert_from(substring(t.tgargs for length(t.tgargs) - 1), 'UTF8')
from pg_trigger t
where t.tgfoid = 'leat.capture'::regproc and t.tgparentid = 0
order by 1`
)

// Install makes the triggers that write an event for each change of the table, and returns how many rows it backfilled. Installing
// again replaces the former definition. The payload is the row as JSON, without the omitted columns; an UPDATE that changes nothing of
// it writes nothing; a changed key is a delete and an upsert. The caller must own the table.
func Install(ctx context.Context, db Conn, c Capture) (backfilled int64, err error) {
	if err := c.validate(); err != nil {
		return 0, fmt.Errorf("capturing table %s: %w", c.Table, err)
	}
	spec, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	err = inTable(ctx, db, c.Table, func(tx pgx.Tx, table string, columns []string) error {
		if err := c.check(columns); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(captureLock, table)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(captureTriggers, table, literal(string(spec)))); err != nil {
			return explain(err)
		}
		if !c.Backfill {
			return nil
		}
		return tx.QueryRow(ctx, fmt.Sprintf(captureBackfill, table), nullable(c.Tenant), c.TenantColumn, c.Entity, c.Key, c.Omit).
			Scan(&backfilled)
	})
	if err != nil {
		return 0, fmt.Errorf("capturing table %s: %w", c.Table, err)
	}
	return backfilled, nil
}

// Release removes the triggers of a captured table. Events that were written stay in the outbox.
func Release(ctx context.Context, db Conn, table string) error {
	err := inTable(ctx, db, table, func(tx pgx.Tx, table string, _ []string) error {
		captures, err := Captures(ctx, tx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(captures, func(c Capture) bool { return c.Table == table || "public."+c.Table == table }) {
			return errors.New("the table is not captured; leat outbox list shows those that are")
		}
		_, err = tx.Exec(ctx, fmt.Sprintf(captureRelease, table))
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing table %s: %w", table, err)
	}
	return nil
}

// Captures lists the captured tables by name.
func Captures(ctx context.Context, db Querier) ([]Capture, error) {
	rows, err := db.Query(ctx, captureList)
	if err != nil {
		return nil, fmt.Errorf("listing captured tables: %w", err)
	}
	captures, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Capture, err error) {
		var table, spec string
		if err := row.Scan(&table, &spec); err != nil {
			return c, err
		}
		err = json.Unmarshal([]byte(spec), &c)
		c.Table = table
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("listing captured tables: %w", err)
	}
	return captures, nil
}

// check finds columns that the table does not have.
func (c *Capture) check(columns []string) error {
	var errs []error
	named := slices.Concat(c.Key, c.Omit)
	if c.TenantColumn != "" {
		named = append(named, c.TenantColumn)
	}
	for _, name := range named {
		if !slices.Contains(columns, name) {
			errs = append(errs, fmt.Errorf("there is no column %q; the table has %s", name, strings.Join(columns, ", ")))
		}
	}
	return errors.Join(errs...)
}

// inTable runs do in a transaction, with the quoted, qualified name of the table and its columns.
func inTable(ctx context.Context, db Conn, table string, do func(tx pgx.Tx, table string, columns []string) error) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var short, full string
		var isTable, own bool
		var columns []string
		err := tx.QueryRow(ctx, captureTable, table).Scan(&short, &full, &isTable, &columns, &own)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return errors.New("there is no such table; write it as schema.table")
		case err != nil:
			return err
		case !isTable:
			return errors.New("it is not a table: only tables can be captured")
		case own:
			return errors.New("tables of schema leat cannot be captured")
		}
		return do(tx, full, columns)
	})
}

// literal quotes s for a place where SQL takes no parameter, such as the argument of a trigger. Standard strings need only their
// quotes doubled; E'' makes that hold under any setting of standard_conforming_strings.
func literal(s string) string {
	return " E'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `''`) + "'"
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
