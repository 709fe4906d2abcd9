package topics

import (
	"crypto/sha1" // UUIDv5 is defined by SHA-1; nothing secret is involved
	"encoding/hex"
	"strconv"
)

// outputSpace is the UUID namespace of the events that stages derive from others: c1ae5b1c-6f0e-5d2a-9c52-7d4f1b8e3a60.
const outputSpace = "\xc1\xae\x5b\x1c\x6f\x0e\x5d\x2a\x9c\x52\x7d\x4f\x1b\x8e\x3a\x60"

// OutputID is the id of the event that a stage derives as output number index from the event called input: UUIDv5 of
// "<input>/<index>" in a namespace of Leat's. Deriving again gives the same id, which is what makes replays recognisable.
func OutputID(input string, index int) string {
	var b [128]byte
	name := append(append(b[:0], outputSpace...), input...)
	name = strconv.AppendInt(append(name, '/'), int64(index), 10)
	sum := sha1.Sum(name)
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[:8], id[:4])
	for i, at := range [...]int{9, 14, 19} {
		out[at-1] = '-'
		hex.Encode(out[at:], id[4+2*i:6+2*i])
	}
	out[23] = '-'
	hex.Encode(out[24:], id[10:])
	return string(out[:])
}
