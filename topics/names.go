package topics

import (
	"fmt"
	"strconv"
	"strings"
)

// Cursors is the compacted topic that holds the position of every relayed source. A source's cursor is written in the
// same Kafka transaction as the records it covers.
const Cursors = "leat.cursors"

// RelayDLQ receives outbox rows that Kafka refuses (too large, no topic for the entity) with their outbox id.
const RelayDLQ = "leat.relay.dlq"

// Source names the topic that carries the changes of one entity of one source system.
func Source(system, entity string) string { return "source." + system + "." + entity }

// Finance names the topic that carries one entity of the finance model at one major version of its contract.
func Finance(entity string, major int) string {
	return "finance." + entity + ".v" + strconv.Itoa(major)
}

// EntityOf returns the entity of a source or finance topic, nothing for any other.
func EntityOf(topic string) string {
	parts := strings.Split(topic, ".")
	switch {
	case len(parts) == 3 && parts[0] == "source":
		return parts[2]
	case len(parts) == 3 && parts[0] == "finance":
		return parts[1]
	}
	return ""
}

// Retry names the compacted topic that holds the records which group has parked while reading topic.
func Retry(topic, group string) string { return topic + "." + group + ".retry" }

// DLQ names the topic that holds the records of topic on which group has given up.
func DLQ(topic, group string) string { return topic + "." + group + ".dlq" }

// ValidName reports whether s can be the name of a tenant, a system, an entity or a group: 1 to 63 lower-case letters,
// digits, '-' and '_', beginning and ending with a letter or digit. Such a name needs no escaping in a topic name, a
// record key, a header or a metric label.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case b >= 'a' && b <= 'z', b >= '0' && b <= '9':
		case (b == '-' || b == '_') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}

// Key is the record key on source and finance topics alike: "<tenant>/<system>/<id>". Tenant and system hold no '/'
// (ValidName); id may. With the murmur2 partitioner the two kinds of topic are co-partitioned.
func Key(tenant, system, id string) []byte {
	return []byte(tenant + "/" + system + "/" + id)
}

// SplitKey undoes Key.
func SplitKey(key []byte) (tenant, system, id string, err error) {
	tenant, rest, ok := strings.Cut(string(key), "/")
	if ok {
		system, id, ok = strings.Cut(rest, "/")
	}
	if !ok || id == "" || !ValidName(tenant) || !ValidName(system) {
		return "", "", "", fmt.Errorf("record key %.80q is not <tenant>/<system>/<id>", key)
	}
	return tenant, system, id, nil
}
