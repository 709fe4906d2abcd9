package kafka

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/leat-io/leat/topics"
)

// Role is what a principal of Kafka does for Leat. Each process has its own; the notifier needs no Kafka.
type Role string

// The roles.
const (
	RelayRole     Role = "relay"
	NormalizeRole Role = "normalize"
	PublishRole   Role = "publish"
	IndexRole     Role = "index"
	VerifyRole    Role = "verify"
	OperatorRole  Role = "operator" // people at the command line
	AdminRole     Role = "admin"    // leat topics plan and apply
)

// Roles returns all of them, in the order in which they are listed.
func Roles() []Role {
	return []Role{RelayRole, NormalizeRole, PublishRole, IndexRole, VerifyRole, OperatorRole, AdminRole}
}

// ACL allows a role operations on a resource of Kafka, from any host. Names are Kafka's own, as kafka-acls.sh prints them. Read, Write
// and Alter include Describe, AlterConfigs includes DescribeConfigs.
type ACL struct {
	Role       Role     `json:"role"`
	Principal  string   `json:"principal"`
	Resource   string   `json:"resource"` // topic, group or transactional-id
	Name       string   `json:"name"`
	Pattern    string   `json:"pattern"` // literal or prefixed
	Operations []string `json:"operations"`
}

// ACLs are what an installation needs.
type ACLs []ACL

// Installation says which topics and groups there are.
type Installation struct {
	Sources    []topics.SourceSpec
	RelayGroup string
	Normalize  topics.GroupSpec
	Publish    topics.GroupSpec
	Foreign    []string // dead-letter topics of other tools, which the index reads
}

// NewACLs returns what each role needs, and no more. Topics are named one by one, because a prefix such as "source." would also let
// a group write what another one has parked. Transactional ids have a prefix: their ends are names of processes, or numbers.
func NewACLs(i Installation) ACLs {
	var b aclBuilder
	read, write := []string{"Read"}, []string{"Write"}

	b.role = RelayRole
	for _, s := range i.Sources {
		for _, e := range s.Entities {
			b.topic(topics.Source(s.System, e), "Write", "DescribeConfigs") // how large a record may be
		}
	}
	b.topic(topics.RelayDLQ, "Write", "DescribeConfigs")
	b.topic(topics.Cursors, "Read", "Write", "DescribeConfigs")
	b.group(i.RelayGroup, read...)
	b.relayTransactions(i.Sources)

	finance := make([]string, 0, len(topics.Entities()))
	for _, e := range topics.Entities() {
		finance = append(finance, topics.Finance(e, 1))
	}
	b.stage(NormalizeRole, i.Normalize)
	for _, t := range finance {
		b.topic(t, write...)
	}
	b.stage(PublishRole, i.Publish)

	all := append(i.sourceTopics(), finance...)
	var retry, dlq []string
	for _, g := range []topics.GroupSpec{i.Normalize, i.Publish} {
		for _, t := range g.Reads {
			retry, dlq = append(retry, topics.Retry(t, g.Group)), append(dlq, topics.DLQ(t, g.Group))
		}
	}
	dlq = append(dlq, topics.RelayDLQ)
	b.role = IndexRole
	b.topics(slices.Concat(all, retry), read...)
	b.topics(slices.Concat(dlq, i.Foreign), "Read", "DescribeConfigs") // when retention takes the first letter
	b.role = VerifyRole
	b.topics(slices.Concat(all, retry, dlq, []string{topics.Cursors}), read...)
	b.group(i.Normalize.Group, "Describe")
	b.group(i.Publish.Group, "Describe")
	b.operator(i, slices.Concat(all, dlq, i.Foreign), retry)
	b.role = AdminRole
	b.topics(slices.Concat(all, retry, dlq, []string{topics.Cursors}), "Create", "Alter", "AlterConfigs")
	b.topics(retry, read...) // whether anything is parked, before partitions are added
	return b.acls
}

func (i Installation) sourceTopics() (names []string) {
	for _, s := range i.Sources {
		for _, e := range s.Entities {
			names = append(names, topics.Source(s.System, e))
		}
	}
	return names
}

type aclBuilder struct {
	role Role
	acls ACLs
}

func (b *aclBuilder) add(resource, name, pattern string, operations []string) {
	b.acls = append(b.acls, ACL{b.role, "User:leat-" + string(b.role), resource, name, pattern, operations})
}

func (b *aclBuilder) topic(name string, operations ...string) {
	b.add("topic", name, "literal", operations)
}

func (b *aclBuilder) topics(names []string, operations ...string) {
	for _, n := range names {
		b.topic(n, operations...)
	}
}

func (b *aclBuilder) group(name string, operations ...string) {
	b.add("group", name, "literal", operations)
}

func (b *aclBuilder) transactions(prefix string, operations ...string) {
	b.add("transactional-id", prefix, "prefixed", operations)
}

func (b *aclBuilder) relayTransactions(sources []topics.SourceSpec) {
	for _, s := range sources {
		b.transactions("leat-relay-"+s.System+"-", "Write")
	}
}

// stage is what a runner needs, but for its outputs.
func (b *aclBuilder) stage(r Role, g topics.GroupSpec) {
	b.role = r
	for _, t := range g.Reads {
		b.topic(t, "Read")
		b.topic(topics.Retry(t, g.Group), "Read", "Write")
		b.topic(topics.DLQ(t, g.Group), "Write")
	}
	b.group(g.Group, "Read")
	b.transactions("leat."+g.Group+".", "Write")
}

// operator is what people at the command line need: to see everything, to write what redrives and orders write, to move offsets.
func (b *aclBuilder) operator(i Installation, read, retry []string) {
	b.role = OperatorRole
	b.topics(read, "Read", "DescribeConfigs")
	b.topics(retry, "Read", "Write", "DescribeConfigs") // redrives, and parked records that a plan cancels
	b.topic(topics.Cursors, "Read", "Write")            // how far a redrive is; leat relay adopt
	b.group(i.RelayGroup, "Describe")
	for _, g := range []string{i.Normalize.Group, i.Publish.Group} {
		b.group(g, "Read", "Delete") // Read commits offsets, Delete takes back the first ones
		b.transactions("leat."+g+".", "Describe")
	}
	b.transactions("leat.redrive.", "Write")
	b.transactions("leat.offsets.", "Write")
	b.relayTransactions(i.Sources) // leat relay adopt fences the relay
}

// As keeps the ACLs of one role, for a principal such as User:CN=relay; "" leaves the principal as it is.
func (as ACLs) As(r Role, principal string) (ACLs, error) {
	if !slices.Contains(Roles(), r) {
		return nil, fmt.Errorf("there is no role %q; there are: %s", r, strings.Trim(fmt.Sprint(Roles()), "[]"))
	}
	var kept ACLs
	for _, a := range as {
		if a.Role == r {
			if principal != "" {
				a.Principal = principal
			}
			kept = append(kept, a)
		}
	}
	return kept, nil
}

// WriteText prints calls of kafka-acls.sh: one for all resources of a kind that a principal may do the same with.
func (as ACLs) WriteText(w io.Writer) error {
	var calls []string
	resources := map[string]string{}
	for _, a := range as {
		call := `kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN_CONFIG" --add --allow-principal ` + shell(a.Principal) +
			" --operation " + strings.Join(a.Operations, " --operation ")
		if a.Pattern != "literal" {
			call += " --resource-pattern-type " + a.Pattern
		}
		kind := call + " --" + a.Resource
		if resources[kind] == "" {
			calls = append(calls, kind)
			resources[kind] = call
		}
		resources[kind] += " --" + a.Resource + " " + shell(a.Name)
	}
	for _, kind := range calls {
		if _, err := io.WriteString(w, resources[kind]+"\n"); err != nil {
			return fmt.Errorf("writing ACLs: %w", err)
		}
	}
	return nil
}

// shell quotes s for a shell.
func shell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
