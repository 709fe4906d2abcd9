// Package reporting publishes the finance topics to typed tables in Postgres (schema reporting, migrations/reporting),
// where finance reads them with SQL.
//
// It is idempotent by state, not by remembering events: beside each record stands a link row with the version and the
// content hash last applied, and one guarded statement decides for a whole batch what is new. A replay therefore changes
// nothing unless the content has changed, and an older version never overwrites a newer one, however many publishers run.
//
// It does not read Kafka, make tables or connect: the runtime gives it batches, migrations.Reporting makes the tables, and
// internal/app gives it a pool.
package reporting
