package notify

import (
	"fmt"
	"strings"
	"time"

	"github.com/leat-io/leat/operations/incidents"
)

// title is a line that says what has happened.
func (n *Notification) title() string {
	i := &n.Incident
	what := i.Stage + " " + i.Code
	if i.Systemic {
		what = i.Stage + " waits for its target"
	}
	if n.Kind == Test {
		return "Leat: a test message"
	}
	return fmt.Sprintf("Leat %s, %s: %s", n.Severity, n.Kind, what)
}

// title is that of the notification, or a count of them.
func (m *Message) title() string {
	if !m.Digest {
		return m.Notifications[0].title()
	}
	counts := map[Kind]int{}
	for i := range m.Notifications {
		counts[m.Notifications[i].Kind]++
	}
	var parts []string
	for _, k := range []Kind{Opened, Escalated, Regressed, Closed} {
		if counts[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[k], k))
		}
	}
	return "Leat, incidents: " + strings.Join(parts, ", ")
}

// facts are the lines that every form shows, a name and a text each.
func (n *Notification) facts() [][2]string {
	i := &n.Incident
	var out [][2]string
	line := func(name, format string, args ...any) {
		out = append(out, [2]string{name, fmt.Sprintf(format, args...)})
	}
	line("Why", "%s", n.Why)
	line("Stage", "%s, group %s", i.Stage, strings.Join(i.Groups, ", "))
	if i.Systemic {
		line("Since", "%s", clock(i.FirstSeen))
		return out
	}
	line("Error", "%s %s", i.Class, i.Code)
	keys := fmt.Sprintf("%d keys", i.Keys)
	if i.MoreKeys {
		keys = "more than " + keys
	}
	line("Failures", "%d attempts of %s, %d records given up (%d of them open)", i.Failures, keys, i.DeadLetters, i.OpenDeadLetters)
	line("Seen", "%s to %s", clock(i.FirstSeen), clock(i.LastSeen))
	if len(i.Tenants) > 0 {
		line("Tenants", "%s", tenantList(i))
	}
	if e := i.Example; e.Topic != "" {
		line("Example", "event %s of %s, %s/%d@%d", orNone(e.Event), orNone(e.Tenant), e.Topic, e.Partition, e.Offset)
	}
	if i.Owner != "" {
		line("Owner", "%s", i.Owner)
	}
	return out
}

func tenantList(i *Subject) string {
	var parts []string
	for _, t := range i.Tenants {
		parts = append(parts, fmt.Sprintf("%s %d", orNone(t.Tenant), t.Failures))
	}
	if i.MoreTenants > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", i.MoreTenants))
	}
	return strings.Join(parts, ", ")
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// text is the body of a mail.
func text(m *Message) string {
	var b strings.Builder
	for i := range m.Notifications {
		n := &m.Notifications[i]
		if i > 0 {
			b.WriteString("\n----\n\n")
		}
		fmt.Fprintf(&b, "%s\n\n%s\n\n", n.title(), n.Incident.Message)
		for _, f := range n.facts() {
			fmt.Fprintf(&b, "%-9s %s\n", f[0], f[1])
		}
		b.WriteString("\n")
		for _, c := range n.Commands {
			b.WriteString("  " + c + "\n")
		}
		if n.Link != "" {
			b.WriteString("  " + n.Link + "\n")
		}
	}
	return b.String()
}

// object is a JSON object whose keys are written in the order of the alphabet.
type object = map[string]any

// slackMax bounds the blocks of a message (Slack takes 50), and the text of one (3000 characters).
const (
	slackMaxIncidents = 15
	slackMaxText      = 2800
)

// slackMessage is m in the form of Slack's incoming webhooks.
func slackMessage(m *Message) object {
	blocks := []object{}
	if m.Digest {
		blocks = append(blocks, section("*"+slackText(m.title())+"*"))
	}
	for i := range m.Notifications {
		n := &m.Notifications[i]
		if i == slackMaxIncidents {
			blocks = append(blocks, section(fmt.Sprintf("and %d more: `leat incidents list`", len(m.Notifications)-i)))
			break
		}
		if m.Digest {
			blocks = append(blocks, section(fmt.Sprintf("*%s*\n%s\n`%s`", slackText(n.title()), slackText(n.Why), slackText(n.Commands[0]))))
			continue
		}
		blocks = append(blocks, slackOne(n)...)
	}
	return object{"text": slackText(m.title()), "blocks": blocks}
}

func slackOne(n *Notification) []object {
	lines := []string{"*" + slackText(n.title()) + "*", "```" + slackText(strings.ReplaceAll(n.Incident.Message, "`", "'")) + "```"}
	for _, f := range n.facts() {
		lines = append(lines, "*"+f[0]+"*  "+slackText(f[1]))
	}
	var look []string
	for _, c := range n.Commands {
		look = append(look, "`"+slackText(c)+"`")
	}
	if n.Link != "" {
		look = append(look, slackText(n.Link))
	}
	return []object{
		section(strings.Join(lines, "\n")),
		{"type": "context", "elements": []object{{"type": "mrkdwn", "text": strings.Join(look, "\n")}}},
	}
}

func section(text string) object {
	if r := []rune(text); len(r) > slackMaxText {
		text = string(r[:slackMaxText]) + "…"
	}
	return object{"type": "section", "text": object{"type": "mrkdwn", "text": text}}
}

// slackText escapes what Slack would take for a mention or a link.
func slackText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// alertLife is how long Alertmanager keeps an alert that it does not hear of again. The notifier posts what is open every minute.
const alertLife = 5 * time.Minute

// alerts is m in the form of Alertmanager's API v2. The labels are bounded: no tenant, no key, no message.
func alerts(m *Message) []object {
	out := []object{}
	for i := range m.Notifications {
		n := &m.Notifications[i]
		s := &n.Incident
		end := n.At.Add(alertLife)
		if n.Kind == Closed || n.Kind == Test {
			end = n.At
		}
		facts := []string{s.Message}
		for _, f := range n.facts() {
			facts = append(facts, f[0]+": "+f[1])
		}
		alert := object{
			"labels": object{
				"alertname": "LeatIncident", "fingerprint": s.Fingerprint, "stage": s.Stage, "class": s.Class, "code": s.Code,
				"severity": string(n.Severity),
			},
			"annotations": object{
				"summary": n.title(), "description": strings.Join(facts, "\n"), "commands": strings.Join(n.Commands, "\n"),
				"state": string(s.State),
			},
			"startsAt": s.OpenedAt.UTC().Format(time.RFC3339Nano), "endsAt": end.UTC().Format(time.RFC3339Nano),
		}
		if n.Link != "" {
			alert["generatorURL"] = n.Link
		}
		out = append(out, alert)
	}
	return out
}

// Sample is a message like those that receivers get.
func Sample(at time.Time) *Message {
	const fp = "v1:0123456789abcdef"
	return &Message{Schema: Schema, ID: "00000000-0000-7000-8000-000000000000", Notifications: []Notification{{
		ID: "00000000-0000-7000-8000-000000000000", Kind: Test, At: at, Severity: incidents.Warning,
		Why: "somebody has run `leat notify test`; nothing has failed",
		Incident: Subject{
			Fingerprint: fp, Stage: "normalize", Groups: []string{"normalize"}, Class: "permanent", Code: "mapping",
			Message: "a sample of an error message: field total: found ?, want a decimal number", State: incidents.New, Episode: 1, OpenedAt: at,
			FirstSeen: at, LastSeen: at, Failures: 3, DeadLetters: 3, OpenDeadLetters: 3, Keys: 2,
			Tenants: []incidents.Tenant{{Tenant: "acme", Failures: 3, Dead: 3, Keys: 2, Last: at}},
			Example: incidents.Example{Event: "0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11", Tenant: "acme", Topic: "source.shop.invoice"},
		},
		Commands: commands(fp, false),
	}}}
}

func commands(fingerprint string, systemic bool) []string {
	if systemic {
		return []string{"leat incidents show " + fingerprint, "leat status"}
	}
	return []string{"leat incidents show " + fingerprint, "leat dlq list --fingerprint " + fingerprint}
}
