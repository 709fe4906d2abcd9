package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"math/bits"

	"github.com/leat-io/leat/topics"
)

// digest is the first half of a SHA-256.
type digest [16]byte

// Sum is an order-independent hash of a set of records: their count, and the sum of their digests modulo 2^128.
//
// It is a sum and not an exclusive or, in which a record that stands twice cancels itself out, and two records that are both lost and
// both doubled leave no trace. In the sum a record counts as often as it stands; that two different sets of the same size have
// the same sum would need digests chosen for it, and they are hashes.
type Sum struct {
	Records int64
	hi, lo  uint64
}

func (s *Sum) add(d digest) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, binary.BigEndian.Uint64(d[8:]), 0)
	s.hi, _ = bits.Add64(s.hi, binary.BigEndian.Uint64(d[:8]), carry)
	s.Records++
}

// Hash is the sum as 32 hex digits.
func (s Sum) Hash() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], s.hi)
	binary.BigEndian.PutUint64(b[8:], s.lo)
	return hex.EncodeToString(b[:])
}

// digester makes digests of lists of texts; each goroutine has its own. Lengths stand before the texts, so that no two lists
// have the same bytes.
type digester struct{ buf []byte }

func (d *digester) begin() { d.buf = d.buf[:0] }

func (d *digester) bytes(b []byte) {
	d.buf = binary.BigEndian.AppendUint32(d.buf, uint32(len(b))) //nolint:gosec // a record is far below 4 GiB
	d.buf = append(d.buf, b...)
}

func (d *digester) text(s string) {
	d.buf = binary.BigEndian.AppendUint32(d.buf, uint32(len(s))) //nolint:gosec // a record is far below 4 GiB
	d.buf = append(d.buf, s...)
}

func (d *digester) number(n int64) {
	d.buf = binary.BigEndian.AppendUint64(d.buf, uint64(n)) //nolint:gosec // only to be told apart
}

func (d *digester) sum() (out digest) {
	s := sha256.Sum256(d.buf)
	copy(out[:], s[:])
	return out
}

// event is the digest of a change as the outbox and the source topic both show it. The epoch is not part of it: it is a property of
// the outbox at the time of delivery, not of the row.
func (d *digester) event(e *topics.Envelope, value []byte) digest {
	d.begin()
	d.text(e.ID)
	d.text(e.Tenant)
	d.text(e.Entity())
	d.text(e.Subject)
	d.text(string(e.Operation))
	d.text(e.ContentType)
	d.text(e.DataSchema)
	d.number(e.Sequence)
	d.number(e.Time.UnixMicro())
	d.bytes(value)
	return d.sum()
}

// output is the digest of a finance record, without what differs from one emission of it to the next.
func (d *digester) output(e *topics.Envelope, key, value []byte) digest {
	d.begin()
	d.text(e.ID)
	d.text(e.Kind)
	d.text(string(e.Operation))
	d.bytes(key)
	d.text(e.Tenant)
	d.text(e.System)
	d.text(e.Subject)
	d.number(e.Sequence)
	d.number(e.Epoch)
	d.number(e.Time.UnixMicro())
	d.text(e.DataSchema)
	d.text(e.ContentType)
	if value == nil {
		d.text("null")
	} else {
		d.text("value")
		d.bytes(value)
	}
	return d.sum()
}

// list is the digest of the columns of a table's row.
func (d *digester) list(columns []string) digest {
	d.begin()
	for _, c := range columns {
		d.text(c)
	}
	return d.sum()
}

// keyHash names a record of an entity in 64 bits. That two of 20 million share a name has a chance of one in a hundred thousand, and
// would show as a difference, not hide one.
func keyHash(seed maphash.Seed, entity int, tenant, id string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	_ = h.WriteByte(byte(entity))
	_, _ = h.WriteString(tenant)
	_ = h.WriteByte('/')
	_, _ = h.WriteString(id)
	return h.Sum64()
}
