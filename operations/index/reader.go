package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// reader reads topics for one projection: again and again a session, which ends with an error or because the topics have changed.
type reader struct {
	cfg     *Config
	p       Projection
	name    string
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	trouble string // why the last session ended, until one has applied records or waits for them
}

func newReader(cfg *Config, p Projection, m *metrics) *reader {
	r := &reader{cfg: cfg, p: p, name: p.Name(), log: cfg.Logger.With("projection", p.Name()), metrics: m}
	r.metrics.working.WithLabelValues(r.name).Set(0)
	r.metrics.records.WithLabelValues(r.name).Add(0)
	r.metrics.errors.WithLabelValues(r.name).Add(0)
	r.trouble = "has not begun yet"
	return r
}

var (
	errStandby = errors.New("another index works for this projection")
	errChanged = errors.New("the topics have changed")
	errFenced  = errors.New("the positions have been moved by another index or a rebuild")
)

const (
	minBackOff = 500 * time.Millisecond
	maxBackOff = 15 * time.Second
	closing    = 5 * time.Second // for what is done after the end of a context
)

func (r *reader) run(ctx context.Context) {
	wait := minBackOff
	for ctx.Err() == nil {
		begin := time.Now()
		err := r.session(ctx)
		r.metrics.working.WithLabelValues(r.name).Set(0)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errChanged):
		case errors.Is(err, errStandby):
			r.note("")
			sleep(ctx, r.cfg.Refresh)
		case errors.Is(err, errFenced):
			r.log.InfoContext(ctx, "reading the positions anew", "reason", err)
		default:
			r.note(err.Error())
			r.metrics.errors.WithLabelValues(r.name).Inc()
			r.log.WarnContext(ctx, "the index waits and tries again", "error", err, "wait", wait)
			sleep(ctx, wait)
			if wait = min(2*wait, maxBackOff); time.Since(begin) > time.Minute {
				wait = minBackOff
			}
		}
	}
}

func (r *reader) note(problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = problem
}

func (r *reader) problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble
}

// session is one connection to the database with one client of Kafka.
type session struct {
	*reader
	conn     *pgx.Conn
	client   *kgo.Client
	admin    *kadm.Client
	ids      map[string][16]byte // of the topics
	next     map[partition]int64 // the positions in the database
	upkeepAt time.Time
	looked   time.Time // when the topics were listed
}

type partition struct {
	topic     string
	partition int32
}

func (r *reader) session(ctx context.Context) error {
	conn, err := r.lead(ctx)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
		defer cancel()
		_ = conn.Close(end)
	}()
	client, err := kgo.NewClient(slices.Concat(r.cfg.Kafka, []kgo.Opt{
		// No topics: partitions are added with their positions.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the last record of a partition is often the marker of a transaction: positions pass it
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(16 << 20), kgo.FetchMaxPartitionBytes(4 << 20),
	})...)
	if err != nil {
		return fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	s := &session{reader: r, conn: conn, client: client, admin: kadm.NewClient(client)}
	if err := s.assign(ctx); err != nil {
		return err
	}
	r.metrics.working.WithLabelValues(r.name).Set(1)
	for {
		if err := s.step(ctx); err != nil {
			return err
		}
	}
}

// One index works for a projection, so that two do not hinder each other: exactness does not depend on it, but on the positions
// (movePositions). The lock is the connection's, so it ends with the process. It is tried, not waited for: a statement that waits
// would hold back vacuum.
const tryLead = `select pg_try_advisory_lock(hashtextextended('leat index ' || $1, 0))`

// lead connects to the database and takes the lock of the projection.
func (r *reader) lead(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, r.cfg.DB.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connecting to the control database: %w", err)
	}
	var mine bool
	err = conn.QueryRow(ctx, tryLead, r.name).Scan(&mine)
	switch {
	case err != nil:
		err = fmt.Errorf("asking whether another index works: %w", err)
	case !mine:
		err = errStandby
	default:
		return conn, nil
	}
	_ = conn.Close(ctx)
	return nil, err
}

// step takes in one batch, or finds that there is nothing to take in.
func (s *session) step(ctx context.Context) error {
	if time.Now().After(s.upkeepAt) {
		s.upkeep(ctx)
	}
	if time.Since(s.looked) > s.cfg.Refresh {
		if err := s.look(ctx); err != nil {
			return err
		}
	}
	pollCtx, cancel := context.WithTimeout(ctx, s.cfg.Refresh)
	defer cancel()
	fetches := s.client.PollRecords(pollCtx, s.cfg.Batch)
	b, err := s.gather(ctx, fetches)
	if err != nil {
		return err
	}
	s.note("")
	if len(b.moves) == 0 {
		return nil
	}
	if err := s.apply(ctx, b); err != nil {
		return err
	}
	if len(b.recs) < s.cfg.Batch/4 {
		sleep(ctx, s.cfg.Linger) // a transaction costs more than its rows
	}
	return ctx.Err()
}

// batch is what one transaction takes in.
type batch struct {
	recs  []*kgo.Record
	moves []move
}

// move is how far a partition's position goes.
type move struct {
	partition
	from, to int64
}

// gather puts the records of fetches in order, without the markers of transactions.
func (s *session) gather(ctx context.Context, fetches kgo.Fetches) (batch, error) {
	var b batch
	var errs []error
	if err := ctx.Err(); err != nil {
		return b, err
	}
	fetches.EachError(func(topic string, p int32, err error) {
		if topic != "" { // else it is the end of the wait
			errs = append(errs, fmt.Errorf("reading %s/%d: %w", topic, p, err))
		}
	})
	if len(errs) > 0 {
		return b, errors.Join(errs[:min(len(errs), 3)]...)
	}
	fetches.EachPartition(func(tp kgo.FetchTopicPartition) {
		if len(tp.Records) == 0 {
			return
		}
		at := partition{tp.Topic, tp.Partition}
		b.moves = append(b.moves, move{at, s.next[at], tp.Records[len(tp.Records)-1].Offset + 1})
		for _, rec := range tp.Records {
			if !rec.Attrs.IsControl() {
				b.recs = append(b.recs, rec)
			}
		}
	})
	return b, nil
}

// What a crash of the server may lose, it loses as a whole: rows and positions. They are read again then, so no commit has to wait
// for the disk.
const relaxCommit = `set local synchronous_commit to off`

// The fence: a position moves only from where this index believes it to be. Whoever else has moved it, be it another index that believes to
// be alone or a rebuild, makes the count differ, and the transaction is taken back. It stands before the rows are written, so that a
// rebuild, which locks this table first, is either seen here or waits for the end of the transaction.
const movePositions = `update leat_control.positions p set next_offset = m.till, at = now()
from unnest($2::text[], $3::uuid[], $4::int[], $5::bigint[], $6::bigint[]) as m (topic, topic_id, partition, since, till)
where p.projection = $1 and p.topic = m.topic and p.topic_id = m.topic_id and p.partition = m.partition and p.next_offset = m.since`

// apply writes the rows of b and moves the positions, in one transaction.
func (s *session) apply(ctx context.Context, b batch) error {
	bounded, cancel := context.WithTimeout(WithTopicIDs(ctx, s.ids), s.cfg.Patience)
	defer cancel()
	begin := time.Now()
	err := pgx.BeginFunc(bounded, s.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(bounded, relaxCommit); err != nil {
			return err
		}
		if err := s.move(bounded, tx, b.moves); err != nil {
			return err
		}
		if len(b.recs) == 0 {
			return nil
		}
		return s.p.Apply(bounded, tx, b.recs)
	})
	if err != nil {
		return fmt.Errorf("writing rows: %w", err)
	}
	for _, m := range b.moves {
		s.next[m.partition] = m.to
	}
	s.metrics.records.WithLabelValues(s.name).Add(float64(len(b.recs)))
	s.metrics.seconds.WithLabelValues(s.name).Observe(time.Since(begin).Seconds())
	return nil
}

func (s *session) move(ctx context.Context, tx pgx.Tx, moves []move) error {
	n := len(moves)
	names, ids, parts := make([]string, n), make([][16]byte, n), make([]int32, n)
	from, to := make([]int64, n), make([]int64, n)
	for i, m := range moves {
		names[i], ids[i], parts[i], from[i], to[i] = m.topic, s.ids[m.topic], m.partition.partition, m.from, m.to
	}
	tag, err := tx.Exec(ctx, movePositions, s.name, names, ids, parts, from, to)
	if err != nil {
		return fmt.Errorf("moving the positions: %w", err)
	}
	if tag.RowsAffected() != int64(n) {
		return errFenced
	}
	return nil
}

// upkeep lets the projection remove what is old. It may fail, for instance because somebody reads what it wants to drop.
func (s *session) upkeep(ctx context.Context) {
	s.upkeepAt = time.Now().Add(s.cfg.Upkeep)
	k, ok := s.p.(Keeper)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	if err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error { return k.Upkeep(ctx, tx) }); err != nil && ctx.Err() == nil {
		s.metrics.errors.WithLabelValues(s.name).Inc()
		s.log.WarnContext(ctx, "removing old rows", "error", err)
	}
}

// look ends the session when a topic has come, gone, been made anew or got partitions, or when a rebuild has taken the positions away
// while there was nothing to read.
func (s *session) look(ctx context.Context) error {
	details, err := s.topics(ctx)
	if err != nil {
		return err
	}
	s.looked = time.Now()
	n := 0
	for _, t := range details {
		if s.ids[t.Topic] != [16]byte(t.ID) {
			return fmt.Errorf("%w: %s", errChanged, t.Topic)
		}
		n += len(t.Partitions)
	}
	if n != len(s.next) {
		return errChanged
	}
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	known, err := positions(bounded, s.conn, s.name)
	if err != nil {
		return err
	}
	for p, next := range s.next {
		if known[p].next != next {
			return errFenced
		}
	}
	return nil
}

// topics are the topics of the projection that exist.
func (s *session) topics(ctx context.Context) (kadm.TopicDetails, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	all, err := s.cfg.Topics(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the topics of the installation: %w", err)
	}
	names := slices.DeleteFunc(slices.Clone(all), func(t string) bool { return !s.p.Reads(t) })
	return existing(ctx, s.admin, names)
}

// existing describes those of the named topics that exist and can be read.
func existing(ctx context.Context, admin *kadm.Client, names []string) (kadm.TopicDetails, error) {
	if len(names) == 0 {
		return kadm.TopicDetails{}, nil
	}
	details, err := admin.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	for name, t := range details {
		if t.Err != nil || len(t.Partitions) == 0 {
			delete(details, name)
		}
	}
	return details, nil
}

func (p partition) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

func quoteAll(ps []partition) string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}
