package config

import (
	"fmt"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (v *validator) incidents() {
	c := v.c.Incidents
	v.duration("incidents.quiet", c.Quiet, time.Minute)
	v.duration("incidents.ongoing_after", c.OngoingAfter, time.Minute)
	v.duration("incidents.wait", c.Wait, time.Millisecond)
	for key, n := range map[string]int{
		"escalation_factor": c.EscalationFactor, "escalation_floor": c.EscalationFloor, "min_failures": c.MinFailures,
	} {
		if key = "incidents." + key; v.given(key) {
			v.check(n >= 1, key, "is below 1", "leave it out for the default")
		}
	}
}

func (v *validator) notify() {
	n := v.c.Notify
	if v.given("notify.per_minute") {
		v.check(n.PerMinute >= 1 && n.PerMinute <= 600, "notify.per_minute", "is not between 1 and 600", "6 is the default")
	}
	v.check(n.Link == "" || strings.Contains(n.Link, "{fingerprint}") && isWeb(n.Link), "notify.link",
		"is no address with {fingerprint} in it", "write https://…/{fingerprint}, or leave it out")
	seen := map[string]int{}
	for i, r := range n.Receivers {
		at := fmt.Sprintf("notify.receivers[%d].", i)
		if r.Name == "" {
			v.need(false, at+"name", remedyName)
		}
		v.name(at+"name", r.Name)
		if first, twice := seen[r.Name]; twice && r.Name != "" {
			v.check(false, at+"name", fmt.Sprintf("%s is also the name of receivers[%d]", r.Name, first), "give each a name of its own")
		}
		seen[r.Name] = i
		v.need(r.Kind != "", at+"kind", "use webhook, slack, alertmanager or email")
		v.oneOf(at+"kind", r.Kind, "webhook", "slack", "alertmanager", "email")
		v.need(!r.URL.Empty(), at+"url", "write it as ${VARIABLE}, so that it does not stand in the file")
		v.receiver(at, &r)
	}
}

// receiver checks what depends on the kind.
func (v *validator) receiver(at string, r *Receiver) {
	if address := r.URL.Reveal(); r.Kind == "email" {
		ok := slices.ContainsFunc([]string{"smtp", "smtps", "smtp-plain"}, func(scheme string) bool { return isURL(address, scheme) })
		v.check(ok || r.URL.Empty(), at+"url", "is not the address of a mail server",
			"write smtp://user:password@host:587, smtps://… for TLS from the beginning, or smtp-plain://localhost:25")
		v.need(r.From != "", at+"from", "write the address that the mail is from")
		v.need(len(r.To) > 0, at+"to", "write the addresses that the mail is for")
		for i, a := range append([]string{r.From}, r.To...) {
			key := at + "from"
			if i > 0 {
				key = fmt.Sprintf("%sto[%d]", at, i-1)
			}
			_, err := mail.ParseAddress(a)
			v.check(err == nil || a == "", key, strconv.Quote(a)+" is not a mail address", "write name@example.com")
		}
	} else if r.Kind != "" {
		v.check(isWeb(address) || r.URL.Empty(), at+"url", "is not an address of the web", "write https://…, as ${VARIABLE}")
		v.check(r.From == "", at+"from", "belongs to kind email", "remove it")
		v.check(len(r.To) == 0, at+"to", "belongs to kind email", "remove it")
	}
	v.check(r.Secret.Empty() || r.Kind == "webhook", at+"secret", "belongs to kind webhook", "remove it")
	v.check(r.Template == "" || r.Kind != "alertmanager", at+"template", "is not of kind alertmanager, whose form is fixed", "remove it")
	v.oneOf(at+"min_severity", r.MinSeverity, "warning", "error", "critical")
	for i, t := range r.Tenants {
		v.name(fmt.Sprintf("%stenants[%d]", at, i), t)
	}
}

func isWeb(address string) bool { return isURL(address, "http") || isURL(address, "https") }

func isURL(address, scheme string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == scheme && u.Host != ""
}
