package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const secret = "correct horse battery staple"

func TestConfig_ValidateReportsEveryProblem(t *testing.T) {
	t.Parallel()
	err := Config{
		Brokers: []string{"localhost", "a:1"},
		TLS:     TLS{CertFile: "x"},
		SASL:    SASL{Mechanism: "gssapi", Password: secret},
	}.Validate()
	for _, want := range []string{`"localhost" is not host:port`, "tls: has settings", "go together", `"gssapi" is not`, "user and password are required"} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), secret)
	require.ErrorContains(t, Config{}.Validate(), "brokers: none given")
	require.ErrorContains(t, Config{Brokers: []string{"a:1"}, SASL: SASL{Password: secret}}.Validate(), "no mechanism")
	require.NoError(t, Config{Brokers: []string{"a:1"}, SASL: SASL{"SCRAM-SHA-512", "u", secret}}.Validate())
}

func TestConfig_NeverShowsThePassword(t *testing.T) {
	t.Parallel()
	c := Config{Brokers: []string{"a:1"}, SASL: SASL{"plain", "relay", secret}}
	js, err := json.Marshal(c)
	require.NoError(t, err)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "config", c, "sasl", c.SASL)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "config", c, "sasl", c.SASL)
	for _, shown := range []string{
		fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q %x", c, c, c, c.SASL, c.SASL, c.SASL), fmt.Sprintf("%+v", &c), string(js), log.String(),
	} {
		require.NotContains(t, shown, secret)
		require.NotContains(t, shown, fmt.Sprintf("%x", secret))
		require.Contains(t, shown, "relay")
	}
}

// TestOptions_TLSAndSASL connects with a certificate of its own, once for each mechanism.
func TestOptions_TLSAndSASL(t *testing.T) {
	t.Parallel()
	ca, server := certificate(t)
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.TLS(server),
				kfake.Superuser(map[string]string{"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}[mechanism], "relay", secret))
			require.NoError(t, err)
			t.Cleanup(cluster.Close)
			ping := func(password string) error {
				opts, err := Options(Config{
					Brokers: cluster.ListenAddrs(),
					TLS:     TLS{Enabled: true, CAFile: ca, ServerName: "kafka.test"},
					SASL:    SASL{mechanism, "relay", password},
				}, slog.New(slog.DiscardHandler), nil)
				require.NoError(t, err)
				cl, err := kgo.NewClient(opts...)
				require.NoError(t, err)
				defer cl.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				return cl.Ping(ctx)
			}
			require.NoError(t, ping(secret))
			err = ping("wrong " + secret)
			require.Error(t, err)
			require.NotContains(t, err.Error(), secret)
		})
	}
}

func TestOptions_UnreadableFiles(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for want, cfg := range map[string]TLS{
		"reading kafka CA file: open":                   {Enabled: true, CAFile: "none.pem"},
		"reading kafka CA file: no certificate":         {Enabled: true, CAFile: empty},
		"reading kafka client certificate: open":        {Enabled: true, CertFile: "none.pem", KeyFile: "none.pem"},
		"kafka configuration: tls: certificate and key": {Enabled: true, CertFile: "none.pem"},
	} {
		_, err := Options(Config{Brokers: []string{"a:1"}, TLS: cfg}, slog.New(slog.DiscardHandler), nil)
		require.ErrorContains(t, err, want)
	}
}

// TestOptions_MetricsOfSeveralClients: options make several clients, also after one is closed, and their metrics add up.
func TestOptions_MetricsOfSeveralClients(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	reg := prometheus.NewRegistry()
	cfg := Config{Brokers: cluster.ListenAddrs()}
	opts, err := Options(cfg, slog.New(slog.DiscardHandler), reg)
	require.NoError(t, err)
	for range 3 {
		cl, err := kgo.NewClient(opts...)
		require.NoError(t, err)
		require.NoError(t, cl.Ping(t.Context()))
		cl.Close()
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			found[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	require.GreaterOrEqual(t, found["leat_kafka_connects_total"], 3.0)
	require.Contains(t, found, "leat_kafka_buffered_produce_records")
	require.NotContains(t, found, "leat_kafka_buffered_produce_bytes")

	_, err = Options(cfg, slog.New(slog.DiscardHandler), reg)
	require.ErrorContains(t, err, "options are made once for a registerer")
}

func certificate(t *testing.T) (caFile string, server *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"kafka.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return caFile, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}
