package kafka

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/topics"
)

var update = flag.Bool("update", false, "write the table of ACLs in docs/security.md anew")

const (
	tableBegin = "<!-- acls: TestACLs_AreThoseOfTheDocumentation -->\n"
	tableEnd   = "<!-- /acls -->"
)

// example has one source with one entity; its names are those that the documentation speaks of.
func example() Installation {
	source := topics.Source("shop", "order")
	return Installation{
		Sources: []topics.SourceSpec{{System: "shop", Entities: []string{"order"}}}, RelayGroup: "leat-relay",
		Normalize: topics.GroupSpec{Group: "normalize", Reads: []string{source}},
		Publish:   topics.GroupSpec{Group: "reporting", Reads: []string{topics.Finance("contact", 1), topics.Finance("invoice", 1), topics.Finance("payment", 1)}},
		Foreign:   []string{"spring.dlt"},
	}
}

// TestACLs_AreThoseOfTheDocumentation: the table is made of the same list as the command. Write it anew with:
// go test ./internal/kafka -run TestACLs -update.
func TestACLs_AreThoseOfTheDocumentation(t *testing.T) {
	t.Parallel()
	const page = "../../docs/security.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), tableBegin)
	require.True(t, ok)
	was, after, ok := strings.Cut(rest, tableEnd)
	require.True(t, ok)
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(before+tableBegin+markdown(NewACLs(example()))+tableEnd+after), 0o600))
		return
	}
	require.Equal(t, markdown(NewACLs(example())), was)
}

func markdown(acls ACLs) string {
	var b strings.Builder
	b.WriteString("| Role | Resource | Operations |\n| --- | --- | --- |\n")
	rows := map[string][]string{}
	var order []string
	for _, a := range acls {
		name := a.Name
		for _, e := range topics.Entities() {
			name = strings.Replace(name, "finance."+e+".", "finance.*.", 1)
		}
		if a.Pattern == "prefixed" {
			name += "…"
		}
		key := fmt.Sprintf("| %s | %s %%s | %s |\n", a.Role, a.Resource, strings.Join(a.Operations, ", "))
		if rows[key] == nil {
			order = append(order, key)
		}
		if name = "`" + name + "`"; !strings.Contains(strings.Join(rows[key], " "), name) {
			rows[key] = append(rows[key], name)
		}
	}
	for _, key := range order {
		fmt.Fprintf(&b, key, strings.Join(rows[key], ", "))
	}
	return b.String()
}

// TestACLs_OfOneRoleAsCallsOfKafkasTool also quotes what a shell would read otherwise.
func TestACLs_OfOneRoleAsCallsOfKafkasTool(t *testing.T) {
	t.Parallel()
	acls, err := NewACLs(example()).As(VerifyRole, "User:CN=it's me")
	require.NoError(t, err)
	require.NotEmpty(t, acls)
	var b strings.Builder
	require.NoError(t, acls.WriteText(&b))
	const allow = `kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN_CONFIG" --add --allow-principal 'User:CN=it'\''s me'`
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, lines, 2, "a call for the topics, one for the groups")
	require.True(t, strings.HasPrefix(lines[0], allow+" --operation Read --topic 'source.shop.order' --topic 'finance.contact.v1'"), lines[0])
	require.Equal(t, allow+" --operation Describe --group 'normalize' --group 'reporting'", lines[1])
	b.Reset()
	relay, err := NewACLs(example()).As(RelayRole, "")
	require.NoError(t, err)
	require.NoError(t, relay.WriteText(&b))
	require.Contains(t, b.String(), "'User:leat-relay' --operation Write --resource-pattern-type prefixed --transactional-id 'leat-relay-shop-'")
	_, err = NewACLs(example()).As("notify", "")
	require.EqualError(t, err, `there is no role "notify"; there are: relay normalize publish index verify operator admin`)
}
