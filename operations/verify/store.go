package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Summary is a stored report in a line.
type Summary struct {
	ID          string     `json:"id"`
	Source      string     `json:"source"`
	StartedAt   time.Time  `json:"started_at"`
	FinishedAt  time.Time  `json:"finished_at"`
	Since       *time.Time `json:"since"`
	Until       *time.Time `json:"until"`
	Changes     int64      `json:"changes"`
	Agrees      bool       `json:"agrees"`
	Differences int64      `json:"differences"`
	Waiting     int64      `json:"waiting"`
}

const insertReportSQL = `insert into leat_control.verify_reports
  (id, source, started_at, since, until, changes, agrees, differences, waiting, document) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

// Store keeps a report in the control database.
func Store(ctx context.Context, db *pgxpool.Pool, r *Report, d *Document) error {
	text, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("storing the report: %w", err)
	}
	_, err = db.Exec(ctx, insertReportSQL, r.ID, r.Source, r.StartedAt, optional(r.Window.Since), optional(r.Window.Until), r.Rows, r.Agrees,
		r.Differences, r.Waiting, text)
	if err != nil {
		return fmt.Errorf("storing the report: %w", err)
	}
	return nil
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

const summaryColumns = `id::text, source, started_at, finished_at, since, until, changes, agrees, differences, waiting`

const listReportsSQL = `select ` + summaryColumns + ` from leat_control.verify_reports where $1 = '' or source = $1
order by finished_at desc, id desc limit $2`

// List returns the newest stored reports, of one source or of all.
func List(ctx context.Context, db *pgxpool.Pool, source string, limit int) ([]Summary, error) {
	return summaries(ctx, db, listReportsSQL, source, limit)
}

// The index gives the latest of each source at once.
const latestReportsSQL = `select distinct on (source) ` + summaryColumns + ` from leat_control.verify_reports order by source, finished_at desc`

// Latest returns the newest stored report of each source.
func Latest(ctx context.Context, db *pgxpool.Pool) ([]Summary, error) {
	return summaries(ctx, db, latestReportsSQL)
}

func summaries(ctx context.Context, db *pgxpool.Pool, sql string, args ...any) ([]Summary, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading stored reports: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Summary])
	if err != nil {
		return nil, fmt.Errorf("reading stored reports: %w", err)
	}
	return out, nil
}

const documentSQL = `select document from leat_control.verify_reports where id = $1`

// Load returns a stored report as it was signed.
func Load(ctx context.Context, db *pgxpool.Pool, id string) (*Document, error) {
	if _, err := uuid.Parse(id); err != nil {
		return nil, fmt.Errorf("%.80q is no id of a report: see `leat verify list`", id)
	}
	var text []byte
	err := db.QueryRow(ctx, documentSQL, id).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("there is no report %s: see `leat verify list`", id)
	}
	var d Document
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		return nil, fmt.Errorf("reading report %s: %w", id, err)
	}
	return &d, nil
}

const forgetSQL = `delete from leat_control.verify_reports where finished_at < now() - make_interval(secs => $1)`

// forget removes reports older than keep.
func forget(ctx context.Context, db *pgxpool.Pool, keep time.Duration) error {
	if _, err := db.Exec(ctx, forgetSQL, keep.Seconds()); err != nil {
		return fmt.Errorf("removing old reports: %w", err)
	}
	return nil
}
