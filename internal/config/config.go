// Package config reads the configuration of a Leat process: one YAML file, strict, with ${ENV} in its values. Every problem
// of a file is reported at once, with its line, its key and what to do about it.
//
// It knows no Kafka and opens no connection: internal/app makes clients of it. Each process uses the sections it needs
// (Require); one file can serve all of them.
package config

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
)

// Config is the whole file. Zero values have been replaced by defaults.
type Config struct {
	Kafka     Kafka     `yaml:"kafka"`
	Sources   []Source  `yaml:"sources"`
	Control   Control   `yaml:"control"`
	Relay     Relay     `yaml:"relay"`
	Normalize Normalize `yaml:"normalize"`
	Publish   Publish   `yaml:"publish"`
	Retry     Retry     `yaml:"retry"`
	Index     Index     `yaml:"index"`
	Incidents Incidents `yaml:"incidents"`
	Notify    Notify    `yaml:"notify"`
	Redrive   Redrive   `yaml:"redrive"`
	Verify    Verify    `yaml:"verify"`
	HTTP      HTTP      `yaml:"http"`
	Log       Log       `yaml:"log"`
	Tracing   Tracing   `yaml:"tracing"`

	file string
	keys map[string]*keyState // of every key that the file has, by its dotted path
}

// keyState is what decoding found out about a key, for validation.
type keyState struct {
	line  int
	empty bool // nothing stands behind it, perhaps because a variable is empty
	bad   bool // has been reported already
}

// Kafka says where the brokers are, how to talk to them, and what new topics look like.
type Kafka struct {
	Brokers     []string `yaml:"brokers"`
	ClientID    string   `yaml:"client_id"` // default leat
	TLS         TLS      `yaml:"tls"`
	SASL        SASL     `yaml:"sasl"`
	Partitions  int      `yaml:"partitions"`  // of a new topic; default 8
	Replication int      `yaml:"replication"` // of a new topic; default 1, which survives no broker: production wants 3
}

// TLS is off unless enabled.
type TLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"`     // PEM; default: the system's roots
	CertFile   string `yaml:"cert_file"`   // PEM, with key_file: a client certificate
	KeyFile    string `yaml:"key_file"`    // PEM
	ServerName string `yaml:"server_name"` // default: the broker's host name
	Insecure   bool   `yaml:"insecure"`    // do not verify the broker's certificate
}

// SASL is off unless a mechanism is named.
type SASL struct {
	Mechanism string `yaml:"mechanism"` // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username  string `yaml:"username"`
	Password  Secret `yaml:"password"`
}

// Source is one source system: a database with an outbox.
type Source struct {
	Name      string        `yaml:"name"` // the system, as it stands in topic names and record keys
	URL       DatabaseURL   `yaml:"url"`
	Entities  []string      `yaml:"entities"`  // the entities its outbox may hold: a topic each
	Retention time.Duration `yaml:"retention"` // of its topics; default 90 days

	// OutboxRetention is how long rows stay in the outbox after they have been relayed; default 7 days.
	OutboxRetention time.Duration `yaml:"outbox_retention"`
}

// Control is Leat's own database.
type Control struct {
	URL DatabaseURL `yaml:"url"`
}

// Relay configures the relay stage.
type Relay struct {
	Group    string `yaml:"group"`    // the consumer group that spreads sources over relays; default leat-relay
	Instance string `yaml:"instance"` // names this process within the group; only a static member needs it

	// StaticMember gives a process that died its sources back as soon as it is started anew; else that takes 6 s, as it does for others.
	StaticMember bool `yaml:"static_member"`
}

// Normalize configures the normalize stage.
type Normalize struct {
	Mappings string `yaml:"mappings"` // directory of the mapping files; default mappings
	Group    string `yaml:"group"`    // default normalize
	Instance string `yaml:"instance"` // names this process within the group; default: a name of the host

	// StaticMember keeps the partitions of a process that restarts for it; one that dies is replaced no sooner than without.
	StaticMember bool `yaml:"static_member"`
}

// Publish configures the publish stage.
type Publish struct {
	Reporting Reporting `yaml:"reporting"`
	Group     string    `yaml:"group"`    // default reporting
	Instance  string    `yaml:"instance"` // names this process within the group; default: a name of the host

	StaticMember bool `yaml:"static_member"` // as of Normalize
}

// Reporting is a Postgres database with the reporting tables.
type Reporting struct {
	URL         DatabaseURL `yaml:"url"`
	Publication string      `yaml:"publication"` // name of this copy of the books in its link table; default reporting
}

// Retry says how a record is tried again after a failure that a retry can help.
type Retry struct {
	Attempts int           `yaml:"attempts"` // before the dead letter; default 8
	Backoff  time.Duration `yaml:"backoff"`  // before the second attempt, doubled each time; default 1s
	Max      time.Duration `yaml:"max"`      // the longest back-off; default 10m
}

// Index configures what operators can look up.
type Index struct {
	JournalRetention  time.Duration `yaml:"journal_retention"`  // of where each event stands on Kafka; default 90 days
	AttemptsRetention time.Duration `yaml:"attempts_retention"` // of failed attempts; default 90 days

	// DeadLetterTopics are those of other tools: Spring, Kafka Connect, Kafka Streams. They are listed, shown and exported with ours.
	DeadLetterTopics []string `yaml:"dead_letter_topics"`
}

// Redrive says what operators may do with dead letters.
type Redrive struct {
	AllowEdit  bool `yaml:"allow_edit"`  // whether a redrive may change a record; default false
	MaxReplays int  `yaml:"max_replays"` // how often a record may be redriven before it takes --force; default 3
}

// Incidents has the rules by which failures of one cause become new, ongoing, escalating, resolved.
type Incidents struct {
	Quiet            time.Duration `yaml:"quiet"`             // without a failure it counts as resolved; default 24h
	OngoingAfter     time.Duration `yaml:"ongoing_after"`     // default 1h
	EscalationFactor int           `yaml:"escalation_factor"` // times the failures that an hour usually has; default 4
	EscalationFloor  int           `yaml:"escalation_floor"`  // failures of an hour that are no escalation; default 50
	MinFailures      int           `yaml:"min_failures"`      // failed attempts before anybody is told, if none was the last; default 5
	Wait             time.Duration `yaml:"wait"`              // before anybody is told, so that the numbers say something; default 10s
}

// Notify says who is told of incidents.
type Notify struct {
	Link      string     `yaml:"link"`       // an address that shows an incident, with {fingerprint} in it
	PerMinute int        `yaml:"per_minute"` // messages to one receiver; what is more goes into a digest; default 6
	Receivers []Receiver `yaml:"receivers"`
}

// Receiver is one who is told.
type Receiver struct {
	Name        string   `yaml:"name"`
	Kind        string   `yaml:"kind"`         // webhook, slack, alertmanager or email
	URL         Secret   `yaml:"url"`          // http(s)://; of email smtp://, smtps:// or smtp-plain://
	Secret      Secret   `yaml:"secret"`       // of webhook: the key of its signature
	From        string   `yaml:"from"`         // of email
	To          []string `yaml:"to"`           // of email
	Template    string   `yaml:"template"`     // file with a Go template of the body; not of alertmanager
	MinSeverity string   `yaml:"min_severity"` // warning (default), error or critical
	Tenants     []string `yaml:"tenants"`      // only of these; default all
}

// Verify says when delivery is verified, and who vouches for the reports.
type Verify struct {
	Every  time.Duration `yaml:"every"`  // between two verifications of a source; default 1h
	Window time.Duration `yaml:"window"` // how much of the outbox each of them covers; default 24h
	Lag    time.Duration `yaml:"lag"`    // how long before now the window ends; default 5m
	Keep   time.Duration `yaml:"keep"`   // of reports in the control database; default 400 days

	SigningKeyFile string `yaml:"signing_key_file"` // of `leat verify keygen`; without it reports are not signed
	Directory      string `yaml:"directory"`        // where reports are also written as files
}

// HTTP is where metrics and health are served.
type HTTP struct {
	Listen string `yaml:"listen"` // default 127.0.0.1:9464; "off" serves nothing
}

// Log configures the log on standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn or error
	Format string `yaml:"format"` // json (default) or text
}

// Tracing says where spans go: OpenTelemetry. What a span says never includes a payload.
type Tracing struct {
	Exporter string `yaml:"exporter"` // off (default), otlp_http or stdout
	Endpoint string `yaml:"endpoint"` // of otlp_http; default http://localhost:4318
	// SampleRatio is the share of events that the relay begins a trace for, of those whose source began none. 0, the default: none.
	SampleRatio float64       `yaml:"sample_ratio"`
	Headers     []TraceHeader `yaml:"headers"`      // sent with each request of otlp_http
	ServiceName string        `yaml:"service_name"` // default leat
}

// TraceHeader is an HTTP header, such as one with a token.
type TraceHeader struct {
	Name  string `yaml:"name"`
	Value Secret `yaml:"value"`
}

// Default returns what an empty file means.
func Default() *Config {
	c := &Config{}
	c.setDefaults()
	return c
}

// Source returns the source with that name, or nil.
func (c *Config) Source(name string) *Source {
	i := slices.IndexFunc(c.Sources, func(s Source) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Sources[i]
}

// WriteYAML writes what c means as a file of the same shape, with defaults and without secrets.
func (c *Config) WriteYAML(w io.Writer) error {
	o := yaml.CustomMarshaler(func(d time.Duration) ([]byte, error) { return []byte(d.String()), nil })
	if err := yaml.NewEncoder(w, o, yaml.IndentSequence(true)).Encode(c); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// MarshalJSON writes the same as WriteYAML.
func (c *Config) MarshalJSON() ([]byte, error) {
	var text bytes.Buffer
	if err := c.WriteYAML(&text); err != nil {
		return nil, err
	}
	out, err := yaml.YAMLToJSON(text.Bytes())
	if err != nil {
		return nil, fmt.Errorf("writing the configuration as JSON: %w", err)
	}
	return out, nil
}
