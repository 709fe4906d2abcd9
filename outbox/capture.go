package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
	// identities are the column lists of its unique indexes.
	captureTable = `
select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name, c.relkind in ('r', 'p') as is_table, n.nspname = 'leat' as own,
       array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped order by attnum) as columns,
       array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped and not attnotnull) as nullable,
       coalesce((
         select jsonb_agg((select jsonb_agg(a.attname) from pg_attribute a
                           where a.attrelid = c.oid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])))
         from pg_index i
         where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null), '[]') as identities,
       current_setting('transaction_isolation') = 'read committed' as read_committed
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)`

	// A tenant that is no name would fail the application's transaction at the row's next change.
	captureTenants = `select %[1]s::text from %[2]s where %[1]s::text !~ '^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$' limit 1`

	// The table is the application's: a lock that cannot be had soon is given up, or all its writers would queue behind it.
	captureTimeout = `set local lock_timeout = '5s'`

	// Taken first: no change slips between the backfill and the trigger. Readers go on, writers wait until the commit.
	captureLock = `lock table %s in share row exclusive mode`

	captureTriggers = `
create or replace trigger leat_capture after insert or update or delete on %[1]s
  for each row execute function leat.capture(%[2]s);
create or replace trigger leat_capture_truncate before truncate on %[1]s
  for each statement execute function leat.refuse_truncate()`

	// Rows of one table have one key each, so their order does not matter.
	captureBackfill = `
select count(leat.emit(coalesce($1, r ->> $2), $3, leat.captured_key(r, $4), 'upsert', r - coalesce($5::text[], '{}')))
from (select leat.captured_row(t) as r from %s t) rows`

	captureRelease = `drop trigger leat_capture on %[1]s; drop trigger leat_capture_truncate on %[1]s`

	// tgargs holds the argument as bytes with a NUL behind it.
	captureList = `
select quote_ident(n.nspname) || '.' || quote_ident(c.relname), convert_from(substring(t.tgargs for length(t.tgargs) - 1), 'UTF8')
from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
where t.tgfoid = 'leat.capture'::regproc and t.tgparentid = 0
order by 1`
)

// Install makes the triggers that write an event for each change of the table, and returns how many rows it backfilled. Installing
// again replaces the former definition. The payload is the row as JSON, without the omitted columns; an UPDATE that changes nothing of
// it writes nothing; a changed key or tenant is a delete and an upsert. The caller must own the table.
//
// An event that cannot be written fails the application's transaction, because the change would be lost to finance otherwise. What
// can be known of that is refused here: the key and the tenant must be declared not null, a unique index must cover them, and
// tenants must be valid names.
func Install(ctx context.Context, db Conn, c Capture) (backfilled int64, err error) {
	if err := c.validate(); err != nil {
		return 0, fmt.Errorf("capturing table %s: %w", c.Table, err)
	}
	spec, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	err = inTable(ctx, db, c.Table, func(tx pgx.Tx, t *table) error {
		if err := c.check(t); err != nil {
			return err
		}
		if err := c.checkTenants(ctx, tx, t); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(captureLock, t.Name)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(captureTriggers, t.Name, literal(string(spec)))); err != nil {
			return explain(err)
		}
		if !c.Backfill {
			return nil
		}
		return tx.QueryRow(ctx, fmt.Sprintf(captureBackfill, t.Name), nullable(c.Tenant), c.TenantColumn, c.Entity, c.Key, c.Omit).
			Scan(&backfilled)
	})
	if err != nil {
		return 0, fmt.Errorf("capturing table %s: %w", c.Table, err)
	}
	return backfilled, nil
}

// Release removes the triggers of a captured table. Events that were written stay in the outbox.
func Release(ctx context.Context, db Conn, name string) error {
	err := inTable(ctx, db, name, func(tx pgx.Tx, t *table) error {
		captures, err := Captures(ctx, tx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(captures, func(c Capture) bool { return c.Table == t.Name }) {
			return errors.New("the table is not captured; leat outbox list shows those that are")
		}
		_, err = tx.Exec(ctx, fmt.Sprintf(captureRelease, t.Name))
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing table %s: %w", name, err)
	}
	return nil
}

// Captures lists the captured tables by name, with their schema.
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

// table is what the catalogs say of a table.
type table struct {
	Name          string // with its schema, quoted
	IsTable       bool
	Own           bool // of schema leat
	Columns       []string
	Nullable      []string
	Identities    [][]string // columns of each unique index
	ReadCommitted bool       // isolation level of this transaction
}

// check finds columns that the table does not have, and what would fail the application's own transactions later.
func (c *Capture) check(t *table) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	identity := slices.Clone(c.Key)
	if c.TenantColumn != "" {
		identity = append(identity, c.TenantColumn)
	}
	for _, name := range slices.Concat(identity, c.Omit) {
		if !slices.Contains(t.Columns, name) {
			bad("there is no column %q; the table has %s", name, strings.Join(t.Columns, ", "))
		}
	}
	for _, name := range identity {
		if slices.Contains(t.Nullable, name) {
			bad("column %q may be null: a row without key or tenant cannot become an event; declare it not null", name)
		}
	}
	isUnique := slices.ContainsFunc(t.Identities, func(columns []string) bool {
		return !slices.ContainsFunc(columns, func(name string) bool { return !slices.Contains(identity, name) })
	})
	if len(errs) == 0 && !isUnique {
		bad("no unique index is on %s only: two rows with one key would overwrite each other", strings.Join(identity, ", "))
	}
	if c.Backfill && !t.ReadCommitted {
		bad("a backfill needs isolation level read committed: set default_transaction_isolation")
	}
	return errors.Join(errs...)
}

func (c *Capture) checkTenants(ctx context.Context, tx pgx.Tx, t *table) error {
	if c.TenantColumn == "" {
		return nil
	}
	column := pgx.Identifier{c.TenantColumn}.Sanitize()
	var tenant string
	switch err := tx.QueryRow(ctx, fmt.Sprintf(captureTenants, column, t.Name)).Scan(&tenant); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("column %s holds %.80q, which is not a valid tenant: use 1 to 63 lower-case letters, digits, '-' and '_'; "+
		"every change of such a row would be refused", column, tenant)
}

// inTable runs do in a transaction, with what is known of the table.
func inTable(ctx context.Context, db Conn, name string, do func(tx pgx.Tx, t *table) error) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, captureTimeout); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, captureTable, name)
		if err != nil {
			return err
		}
		t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[table])
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return errors.New("there is no such table; write it as schema.table")
		case err != nil:
			return err
		case !t.IsTable:
			return errors.New("it is not a table: only tables can be captured")
		case t.Own:
			return errors.New("tables of schema leat cannot be captured")
		}
		return busy(do(tx, t))
	})
}

// busy says what to do about a lock that could not be had.
func busy(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "55P03" { // lock_not_available
		return fmt.Errorf("the table is in use: a transaction that has changed it is open for more than 5 s; try again: %w", err)
	}
	return err
}

// literal quotes s for a place where SQL takes no parameter, such as the argument of a trigger. Standard strings need only their
// quotes doubled; E” makes that hold under any setting of standard_conforming_strings.
func literal(s string) string {
	return " E'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `''`) + "'"
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
