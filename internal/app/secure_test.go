package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

const password = "correct-horse-battery-staple"

// secure is an Apache Kafka that asks who is there: by SASL over TLS, by a client certificate, and with a certificate of its own that
// has expired.
type secure struct {
	*testenv.OwnKafka
	dir           string
	ours, foreign *authority
}

func newSecure(t *testing.T) *secure {
	t.Helper()
	dir := t.TempDir()
	s := &secure{dir: dir, ours: newAuthority(t, dir, "ours"), foreign: newAuthority(t, dir, "foreign")}
	broker := s.ours.issue(t, "broker", time.Hour)
	const plainLogin = `org.apache.kafka.common.security.plain.PlainLoginModule required user_relay="` + password + `";`
	const scramLogin = `org.apache.kafka.common.security.scram.ScramLoginModule required;`
	tls := func(server pair, more map[string]string) map[string]string {
		settings := map[string]string{
			"ssl.keystore.type": "PEM", "ssl.keystore.location": server.both,
			"ssl.truststore.type": "PEM", "ssl.truststore.location": s.ours.file,
		}
		maps.Copy(settings, more)
		return settings
	}
	s.OwnKafka = testenv.KafkaServer(t,
		testenv.Listener{Name: "sasl", Protocol: "SASL_SSL", Settings: tls(broker, map[string]string{
			"sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
			"plain.sasl.jaas.config":         plainLogin,
			"scram-sha-256.sasl.jaas.config": scramLogin,
			"scram-sha-512.sasl.jaas.config": scramLogin,
		})},
		testenv.Listener{Name: "mutual", Protocol: "SSL", Settings: tls(broker, map[string]string{"ssl.client.auth": "required"})},
		testenv.Listener{Name: "expired", Protocol: "SSL", Settings: tls(s.ours.issue(t, "old-broker", -time.Hour), nil)},
	)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers()...))
	require.NoError(t, err)
	defer client.Close()
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		altered, err := kadm.NewClient(client).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{
			{User: "relay", Mechanism: mechanism, Iterations: 4096, Password: password},
		})
		require.NoError(t, err)
		require.NoError(t, altered.Error())
	}
	return s
}

func (s *secure) sasl(mechanism string) config.Kafka {
	return config.Kafka{
		Brokers: s.Listener("sasl"), TLS: config.TLS{Enabled: true, CAFile: s.ours.file},
		SASL: config.SASL{Mechanism: mechanism, Username: "relay", Password: config.NewSecret(password)},
	}
}

func (s *secure) mutual(client pair) config.Kafka {
	return config.Kafka{
		Brokers: s.Listener("mutual"),
		TLS:     config.TLS{Enabled: true, CAFile: s.ours.file, CertFile: client.cert, KeyFile: client.key},
	}
}

// TestSecureKafka_TakesWhatIsRightAndSaysWhatIsWrong: what the configuration offers to prove who we are, and who the broker is,
// works with the real one; what is wrong is refused with words that say what to change, and show no password.
func TestSecureKafka_TakesWhatIsRightAndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	for name, right := range map[string]config.Kafka{
		"plain": s.sasl("PLAIN"), "scram-sha-256": s.sasl("SCRAM-SHA-256"), "scram-sha-512": s.sasl("scram-sha-512"),
		"certificate": s.mutual(s.ours.issue(t, "client", time.Hour)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _ := withKafkaConfig(right)
			_, err := a.TopicsApply(t.Context())
			require.NoError(t, err)
			useTransaction(t, a)
		})
	}
	for name, refused := range s.refusals(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, log := withKafkaConfig(refused.config)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := a.TopicsPlan(ctx)
			require.ErrorContains(t, err, refused.remedy)
			require.Contains(t, log.String(), refused.logged)
			require.NotContains(t, err.Error()+log.String(), password)
		})
	}
}

type refusal struct {
	config config.Kafka
	remedy string // in the error of a command
	logged string // in the log: a process that waits tells no more; the client's own guess where the broker just hangs up
}

func (s *secure) refusals(t *testing.T) map[string]refusal {
	t.Helper()
	const (
		user        = "check kafka.sasl: username, password and mechanism"
		listener    = "compare kafka.tls and kafka.sasl with what the listener asks for"
		noTLS       = "the listener speaks TLS: set kafka.tls.enabled"
		authority   = "kafka.tls.ca_file must hold the certificate of the authority"
		name        = "kafka.tls.server_name must say that name"
		expired     = "the broker's certificate must be renewed"
		certificate = "set kafka.tls.cert_file and kafka.tls.key_file"
		refused     = "who signed it, and until when is it valid?"
	)
	with := func(mechanism string, change func(*config.Kafka)) config.Kafka {
		c := s.sasl(mechanism)
		change(&c)
		return c
	}
	wrong := func(c *config.Kafka) { c.SASL.Password = config.NewSecret("wrong-" + password) }
	return map[string]refusal{
		"plain, wrong password":         {with("plain", wrong), user, user},
		"scram-sha-256, wrong password": {with("scram-sha-256", wrong), user, user},
		"scram-sha-512, unknown user":   {with("scram-sha-512", func(c *config.Kafka) { c.SASL.Username = "nobody" }), user, user},
		"no sasl":                       {with("plain", func(c *config.Kafka) { c.SASL = config.SASL{} }), listener, "is SASL missing?"},
		"no tls":                        {with("plain", func(c *config.Kafka) { c.TLS = config.TLS{} }), noTLS, noTLS},
		"tls where there is none":       {with("plain", func(c *config.Kafka) { c.Brokers = s.Brokers() }), listener, "is TLS misconfigured?"},
		"wrong authority":               {with("plain", func(c *config.Kafka) { c.TLS.CAFile = s.foreign.file }), authority, authority},
		"system's authorities":          {with("plain", func(c *config.Kafka) { c.TLS.CAFile = "" }), authority, authority},
		"wrong server name":             {with("plain", func(c *config.Kafka) { c.TLS.ServerName = "other.example.com" }), name, name},
		"expired broker":                {with("", func(c *config.Kafka) { c.Brokers, c.SASL = s.Listener("expired"), config.SASL{} }), expired, expired},
		"no client certificate":         {s.mutual(pair{}), certificate, certificate},
		"foreign client certificate":    {s.mutual(s.foreign.issue(t, "foreign-client", time.Hour)), certificate, certificate},
		"expired client certificate":    {s.mutual(s.ours.issue(t, "old-client", -time.Hour)), refused, refused},
	}
}

// withKafkaConfig is an App with a source of its own on that Kafka, and its log.
func withKafkaConfig(k config.Kafka) (*App, *testenv.Log) {
	cfg := config.Default()
	k.ClientID, k.Partitions, k.Replication = "leat", 1, 1
	cfg.Kafka, cfg.Log.Level = k, "debug"
	cfg.Sources = []config.Source{{Name: testenv.Name("shop"), Entities: []string{"invoice"}, Retention: time.Hour}}
	log := &testenv.Log{}
	return New(cfg, Options{Stderr: log}), log
}

// useTransaction carries a record of the source through a transaction.
func useTransaction(t *testing.T, a *App) {
	t.Helper()
	opts, err := a.KafkaOptions()
	require.NoError(t, err)
	topic := topics.Source(a.Config().Sources[0].Name, "invoice")
	client, err := kgo.NewClient(append(opts, kgo.TransactionalID(topic), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.BeginTransaction())
	require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("committed")}).FirstErr())
	require.NoError(t, client.EndTransaction(t.Context(), kgo.TryCommit))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fetches := client.PollFetches(ctx)
	require.NoError(t, fetches.Err())
	require.Equal(t, "committed", string(fetches.Records()[0].Value))
}

// authority signs certificates. Its own is in file.
type authority struct {
	dir, file string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
}

// pair are the files of a certificate: alone, its key alone, and both in one, as Kafka wants it.
type pair struct{ cert, key, both string }

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{dir: dir, file: filepath.Join(dir, name+".pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-24 * time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return a
}

// issue makes a certificate for 127.0.0.1 that is valid for so long from now on; with a negative time it has ended.
func (a *authority) issue(t *testing.T, name string, valid time.Duration) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-12 * time.Hour), NotAfter: time.Now().Add(valid),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	base := filepath.Join(a.dir, name)
	p := pair{cert: base + ".crt", key: base + ".key", both: base + ".both"}
	require.NoError(t, os.WriteFile(p.cert, cert, 0o600))
	require.NoError(t, os.WriteFile(p.key, secret, 0o600))
	require.NoError(t, os.WriteFile(p.both, append(secret, cert...), 0o600))
	return p
}
