package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leat-io/leat/topics"
)

// Section is a part of the file that a process cannot do without.
type Section string

// The sections that Require knows.
const (
	NeedKafka     Section = "kafka.brokers"
	NeedSources   Section = "sources"
	NeedSourceURL Section = "sources[].url"
	NeedControl   Section = "control.url"
	NeedReporting Section = "publish.reporting.url"
)

// Require reports which of sections the file does not have. The error is Problems.
func (c *Config) Require(sections ...Section) error {
	v := validator{c: c}
	for _, s := range sections {
		switch s {
		case NeedKafka:
			v.need(len(c.Kafka.Brokers) > 0, string(s), "name at least one broker as host:port")
		case NeedSources:
			v.need(len(c.Sources) > 0, string(s), "name at least one source system, with name, url and entities")
		case NeedSourceURL:
			for i, src := range c.Sources {
				v.need(!src.URL.Empty(), fmt.Sprintf("sources[%d].url", i), remedyURL)
			}
		case NeedControl:
			v.need(!c.Control.URL.Empty(), string(s), remedyURL)
		case NeedReporting:
			v.need(!c.Publish.Reporting.URL.Empty(), string(s), remedyURL)
		}
	}
	return v.problems.sorted()
}

const (
	remedyURL    = "write the address of a Postgres database: postgres://user:password@host:5432/database"
	remedyStatic = "set instance beside it, another one for each process"
	remedyName   = "use 1 to 63 lower-case letters, digits, - and _, beginning and ending with a letter or digit"
)

// validator collects what is wrong with the values of a file. It runs before defaults are set: what is zero was not
// given, or given as a zero, which given tells.
type validator struct {
	c        *Config
	problems Problems
}

func (c *Config) validate() Problems {
	v := validator{c: c}
	v.kafka()
	v.sources()
	v.stages()
	v.url("control.url", c.Control.URL)
	v.incidents()
	v.notify()
	v.duration("verify.every", c.Verify.Every, time.Minute)
	v.duration("verify.window", c.Verify.Window, time.Minute)
	v.duration("verify.lag", c.Verify.Lag, 0)
	v.duration("verify.keep", c.Verify.Keep, 24*time.Hour)
	v.process()
	v.tracing()
	return v.problems
}

func (v *validator) kafka() {
	k := v.c.Kafka
	for i, b := range k.Brokers {
		v.check(isAddress(b), fmt.Sprintf("kafka.brokers[%d]", i), shown(b)+" is not host:port", "write it as host:9092")
	}
	if v.given("kafka.partitions") {
		v.check(k.Partitions >= 1 && k.Partitions <= 10000, "kafka.partitions", "is not between 1 and 10000", "8 is a good start")
	}
	if v.given("kafka.replication") {
		v.check(k.Replication >= 1 && k.Replication <= 32, "kafka.replication",
			"is not between 1 and 32", "write 3 for a cluster in production, 1 for a single broker")
	}
	v.check((k.TLS.CertFile == "") == (k.TLS.KeyFile == ""), "kafka.tls",
		"has one of cert_file and key_file", "a client certificate needs both")
	if t := k.TLS; !t.Enabled && (t.CAFile+t.CertFile+t.KeyFile+t.ServerName != "" || t.Insecure) {
		v.check(false, "kafka.tls", "has settings, but TLS is not enabled", "write enabled: true, or remove them")
	}
	if k.SASL.Mechanism == "" {
		v.check(k.SASL.Username == "" && k.SASL.Password.Empty(), "kafka.sasl",
			"has a user, but no mechanism", "write mechanism: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN")
		return
	}
	v.oneOf("kafka.sasl.mechanism", k.SASL.Mechanism, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
	v.need(k.SASL.Username != "", "kafka.sasl.username", "a mechanism needs a user")
	v.need(!k.SASL.Password.Empty(), "kafka.sasl.password", "write it as ${VARIABLE}, so that it does not stand in the file")
}

func (v *validator) sources() {
	seen := map[string]int{}
	for i, s := range v.c.Sources {
		at := fmt.Sprintf("sources[%d].", i)
		if s.Name == "" {
			v.need(false, at+"name", remedyName)
		} else {
			v.name(at+"name", s.Name)
		}
		if first, twice := seen[s.Name]; twice && s.Name != "" {
			v.check(false, at+"name", fmt.Sprintf("%s is also the name of sources[%d]", s.Name, first),
				"a source has one outbox; give the other one a name of its own")
		}
		seen[s.Name] = i
		v.url(at+"url", s.URL)
		v.need(len(s.Entities) > 0, at+"entities", "name what its outbox holds, such as [customer, invoice]")
		for j, e := range s.Entities {
			key := fmt.Sprintf("%sentities[%d]", at, j)
			v.name(key, e)
			v.check(slices.Index(s.Entities, e) == j, key, e+" occurs twice", "remove one")
		}
		v.duration(at+"retention", s.Retention, time.Hour)
		v.duration(at+"outbox_retention", s.OutboxRetention, time.Minute)
	}
}

func (v *validator) stages() {
	c := v.c
	v.name("relay.group", c.Relay.Group)
	v.name("relay.instance", c.Relay.Instance)
	v.check(!c.Relay.StaticMember || c.Relay.Instance != "", "relay.static_member", "needs a name that outlives a restart", remedyStatic)
	v.name("normalize.group", c.Normalize.Group)
	v.name("normalize.instance", c.Normalize.Instance)
	v.check(!c.Normalize.StaticMember || c.Normalize.Instance != "", "normalize.static_member", "needs a name that outlives a restart", remedyStatic)
	v.name("publish.group", c.Publish.Group)
	v.name("publish.instance", c.Publish.Instance)
	v.check(!c.Publish.StaticMember || c.Publish.Instance != "", "publish.static_member", "needs a name that outlives a restart", remedyStatic)
	v.name("publish.reporting.publication", c.Publish.Reporting.Publication)
	v.url("publish.reporting.url", c.Publish.Reporting.URL)
	if v.given("retry.attempts") {
		v.check(c.Retry.Attempts >= 1 && c.Retry.Attempts <= 1000, "retry.attempts", "is not between 1 and 1000",
			"1 means no retry; 8 is the default")
	}
	v.duration("retry.backoff", c.Retry.Backoff, time.Millisecond)
	v.duration("retry.max", c.Retry.Max, time.Millisecond)
	v.duration("index.journal_retention", c.Index.JournalRetention, 24*time.Hour)
	v.duration("index.attempts_retention", c.Index.AttemptsRetention, 24*time.Hour)
	for i, t := range c.Index.DeadLetterTopics {
		key := fmt.Sprintf("index.dead_letter_topics[%d]", i)
		v.check(validTopic(t), key, strconv.Quote(t)+" is not the name of a topic", "use up to 249 letters, digits, '.', '_' and '-'")
		v.check(slices.Index(c.Index.DeadLetterTopics, t) == i, key, t+" occurs twice", "remove one")
	}
	if v.given("redrive.max_replays") {
		v.check(c.Redrive.MaxReplays >= 1 && c.Redrive.MaxReplays <= 1000, "redrive.max_replays", "is not between 1 and 1000",
			"3 is the default; --force goes beyond it once")
	}
	if c.Retry.Backoff > 0 && c.Retry.Max > 0 {
		v.check(c.Retry.Max >= c.Retry.Backoff, "retry.max", "is shorter than retry.backoff", "it is the longest wait of all")
	}
}

func (v *validator) process() {
	if l := v.c.HTTP.Listen; l != "" && l != "off" {
		v.check(isAddress(l), "http.listen", strconv.Quote(l)+" is not host:port", "write :9464 for every address of the host, or off")
	}
	v.oneOf("log.level", v.c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", v.c.Log.Format, "json", "text")
}

func (v *validator) tracing() {
	t := v.c.Tracing
	v.oneOf("tracing.exporter", t.Exporter, "off", "otlp_http", "stdout")
	if t.Endpoint != "" {
		u, err := url.Parse(t.Endpoint)
		v.check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil, "tracing.endpoint",
			"is not an http:// or https:// address", "write the collector's, such as http://localhost:4318, and passwords under headers")
	}
	v.check(t.SampleRatio >= 0 && t.SampleRatio <= 1, "tracing.sample_ratio", "is not between 0 and 1",
		"0.01 begins a trace for one event in a hundred")
	for i, h := range t.Headers {
		v.need(h.Name != "", fmt.Sprintf("tracing.headers[%d].name", i), "name the HTTP header, such as Authorization")
	}
}

func (v *validator) check(ok bool, key, message, remedy string) {
	if k := v.c.keys[key]; !ok && (k == nil || !k.bad) {
		v.problems = append(v.problems, Problem{v.c.file, v.line(key), key, message, remedy})
	}
}

func (v *validator) need(ok bool, key, remedy string) { v.check(ok, key, "is missing", remedy) }

func (v *validator) name(key, s string) {
	if s != "" {
		v.check(topics.ValidName(s), key, strconv.Quote(s)+" is not a valid name", remedyName)
	}
}

func (v *validator) oneOf(key, s string, allowed ...string) {
	if s != "" {
		v.check(slices.Contains(allowed, s), key, strconv.Quote(s)+" is unknown", "use "+strings.Join(allowed, ", "))
	}
}

func (v *validator) url(key string, u DatabaseURL) {
	if u.Empty() {
		return
	}
	if err := u.check(); err != nil {
		v.check(false, key, err.Error(), remedyURL)
	}
}

func (v *validator) duration(key string, d, least time.Duration) {
	if v.given(key) {
		v.check(d >= least, key, d.String()+" is shorter than "+least.String(), "durations are written as 30s, 5m, 12h or 90d")
	}
}

func (v *validator) given(key string) bool {
	k := v.c.keys[key]
	return k != nil && !k.empty && !k.bad
}

// line is that of key, or of the innermost section around it that the file has.
func (v *validator) line(key string) int {
	for key != "" {
		if k := v.c.keys[key]; k != nil {
			return k.line
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return 1
}

// validTopic reports whether Kafka takes s as the name of a topic.
func validTopic(s string) bool {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	return s != "" && s != "." && s != ".." && len(s) <= topics.MaxNameLength && !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
}

func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 0 && n < 65536
}

// shown is a value for a message. What has an "@" may be a password before a host.
func shown(value string) string {
	if strings.Contains(value, "@") {
		return redacted
	}
	return strconv.Quote(value)
}
