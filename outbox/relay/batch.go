package relay

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
)

// row is one outbox row of a batch. Its record stands at the same index in batch.recs.
type row struct {
	id          int64
	event       []byte // text of the event id
	system      string
	entity      string
	dest        *destination
	occurred    time.Time
	payloadSize int  // as the table has it
	bound       int  // no less than the wire size of the record
	cut         bool // the payload was too large to be read
	late        bool
	refused     *refusal
}

// rowSpan is the span of a row that belongs to a trace that is recorded.
type rowSpan struct {
	trace.Span
	row int // its index
}

// batch is what one read delivers, as Kafka records. It owns the memory of its records and is used again once they are
// produced.
type batch struct {
	rows  []row
	recs  []kgo.Record
	bytes int

	cursor cursor // the source's cursor after this batch
	oldest time.Time
	spans  []rowSpan

	arena   arena
	headers headerSlab
}

func (b *batch) reset() {
	clear(b.recs)
	clear(b.rows)
	clear(b.spans)
	b.rows, b.recs, b.spans = b.rows[:0], b.recs[:0], b.spans[:0]
	b.bytes, b.oldest = 0, time.Time{}
	b.arena.reset()
	b.headers.reset()
}

// full reports whether b takes no further row. A batch always takes one.
func (b *batch) full(maxRows, maxBytes int) bool {
	return len(b.rows) >= maxRows || b.bytes >= maxBytes
}

func (b *batch) late() (n int) {
	for i := range b.rows {
		if !b.rows[i].late {
			break
		}
		n++
	}
	return n
}

const arenaChunk = 1 << 20

// arena hands out byte slices that all end together. It never moves what it has handed out.
type arena struct {
	chunks [][]byte
	at     int
}

// take returns n bytes of undefined content.
func (a *arena) take(n int) []byte {
	if n > arenaChunk/4 {
		return make([]byte, n) // large and rare: not kept
	}
	for {
		if a.at == len(a.chunks) {
			a.chunks = append(a.chunks, make([]byte, 0, arenaChunk))
		}
		c := a.chunks[a.at]
		if len(c)+n <= cap(c) {
			a.chunks[a.at] = c[: len(c)+n : cap(c)]
			return c[len(c) : len(c)+n : len(c)+n]
		}
		a.at++
	}
}

func (a *arena) copy(p []byte) []byte {
	q := a.take(len(p))
	copy(q, p)
	return q
}

func (a *arena) reset() {
	for i := range a.chunks {
		a.chunks[i] = a.chunks[i][:0]
	}
	a.at = 0
}

const headerChunk = 1 << 14

// headerSlab hands out header slices, as arena does bytes.
type headerSlab struct {
	chunks [][]kgo.RecordHeader
	at     int
}

func (s *headerSlab) take(n int) []kgo.RecordHeader {
	if n > headerChunk/4 {
		return make([]kgo.RecordHeader, 0, n)
	}
	for {
		if s.at == len(s.chunks) {
			s.chunks = append(s.chunks, make([]kgo.RecordHeader, 0, headerChunk))
		}
		c := s.chunks[s.at]
		if len(c)+n <= cap(c) {
			s.chunks[s.at] = c[: len(c)+n : cap(c)]
			return c[len(c) : len(c) : len(c)+n]
		}
		s.at++
	}
}

func (s *headerSlab) reset() {
	for i := range s.chunks {
		clear(s.chunks[i])
		s.chunks[i] = s.chunks[i][:0]
	}
	s.at = 0
}
