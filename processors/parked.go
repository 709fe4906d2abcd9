package processors

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Parked is a record that waits on a retry topic.
type Parked struct {
	Key     []byte
	Headers []topics.Header // the record's own
	Failure topics.Failure
}

// DecodeParked reads a record of the retry topic of topic. A tombstone is no such record: it says that the one parked under its key
// waits no longer.
func DecodeParked(topic string, rec *kgo.Record) (Parked, error) {
	e, err := decodeParked(topic, rec)
	if err != nil {
		return Parked{}, err
	}
	return Parked{e.msg.Key, e.msg.Headers, e.fail}, nil
}
