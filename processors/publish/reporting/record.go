package reporting

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// layout is part of every content hash. Raise it when a migration gives the tables a column that old records fill: without
// it a replay would find the same content and leave the column empty.
const layout = "1"

// entity is one kind of record and how its tables are written.
type entity struct {
	name     string
	contract *topics.Contract
	body     func() body
	// upsert queues the statements that write the header rows and replace the lines of records, all of them applied.
	upsert func(b *pgx.Batch, records []*record)
	// erase are the statements that mark one header and its lines as deleted: $1 to $3 are the key, $4 and $5 the version,
	// $6 is when the source deleted it. Deletions are rare, so they go one by one, in the same round trip.
	erase []string
}

// body is a decoded payload.
type body interface {
	identity() (tenant, system, sourceID string)
}

type identity struct {
	entity         *entity
	tenant, system string
	sourceID       string
}

func (a identity) compare(b identity) int {
	return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.system, b.system), cmp.Compare(a.sourceID, b.sourceID))
}

// version orders the changes of one record.
type version struct{ epoch, sequence int64 }

func (a version) compare(b version) int {
	return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.sequence, b.sequence))
}

// record is a message that has been understood.
type record struct {
	identity
	version
	message  *processors.Message
	envelope topics.Envelope
	eventID  uuid.UUID
	hash     [16]byte
	body     body // nil for a deletion

	result  *processors.Result
	refused bool // the database refuses this very record for good
}

// decode reads a message strictly: what the contract does not allow never reaches the database.
func (h *handler) decode(m *processors.Message) (*record, error) {
	e, err := topics.DecodeEnvelope(m.Headers)
	if err != nil {
		return nil, processors.Permanent("envelope", fmt.Errorf("reading the headers: %w", err))
	}
	r := &record{message: m, envelope: e, version: version{e.Epoch, e.Sequence}}
	r.identity = identity{h.byKind[e.Kind], e.Tenant, e.System, e.Subject}
	switch r.eventID, err = uuid.Parse(e.ID); {
	case err != nil:
		return nil, processors.Permanent("envelope", fmt.Errorf("header %s: %.80q is not a UUID", topics.HeaderID, e.ID))
	case r.entity == nil:
		return nil, processors.Permanent("kind", fmt.Errorf("header %s: no reporting table takes %.80q", topics.HeaderType, e.Kind))
	case strings.IndexByte(e.Subject, 0) >= 0:
		return nil, processors.Permanent("envelope",
			fmt.Errorf("header %s: holds U+0000, which Postgres cannot store", topics.HeaderSubject))
	case e.Operation == topics.Upsert:
		if err := r.decodeBody(m.Value); err != nil {
			return nil, err
		}
		r.hash = hash(m.Value)
	default:
		// What a deletion may carry along is the last known payload; the tables keep theirs.
		r.hash = hash(nil)
	}
	return r, nil
}

func (r *record) decodeBody(value []byte) error {
	if value == nil {
		return processors.Permanent("contract", errors.New("an upsert has no value"))
	}
	if err := r.entity.contract.CheckRules(value); err != nil {
		return processors.Permanent("contract", err)
	}
	r.body = r.entity.body()
	if err := json.Unmarshal(value, r.body); err != nil {
		return processors.Permanent("contract", fmt.Errorf("decoding the value: %w", err))
	}
	tenant, system, sourceID := r.body.identity()
	if tenant != r.tenant || system != r.system || sourceID != r.sourceID {
		return processors.Permanent("identity", fmt.Errorf("the value is of %.200q, the headers are of %.200q",
			topics.Key(tenant, system, sourceID), topics.Key(r.tenant, r.system, r.sourceID)))
	}
	return nil
}

// ContentHash is what a link row keeps of the value of a finance record; of nil for a deletion.
func ContentHash(value []byte) [16]byte { return hash(value) }

// hash tells contents apart. Payloads are written compactly and with their properties in the order of the contract, so
// equal content has equal bytes.
func hash(content []byte) (sum [16]byte) {
	d := sha256.New()
	d.Write([]byte(layout + "\n"))
	d.Write(content)
	copy(sum[:], d.Sum(nil))
	return sum
}
