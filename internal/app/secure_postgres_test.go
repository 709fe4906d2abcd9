package app

import (
	"context"
	"maps"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/incidents"
)

// securePostgres are servers that let nobody in without TLS: one with a good certificate, one whose certificate has expired. The role
// leat shows a password, the role certified a certificate.
type securePostgres struct {
	good, expired *testenv.OwnPostgres
	ours, foreign *authority
}

func newSecurePostgres(t *testing.T) *securePostgres {
	t.Helper()
	dir := t.TempDir()
	s := &securePostgres{ours: newAuthority(t, dir, "ours"), foreign: newAuthority(t, dir, "foreign")}
	const rules = `host    all postgres  127.0.0.1/32 scram-sha-256
hostssl all leat      127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
`
	start := func(certificate pair) *testenv.OwnPostgres {
		p := testenv.PostgresServerWith(t, map[string]string{"ssl": "on", "ssl_ca_file": "ca.crt"}, map[string][]byte{
			"pg_hba.conf": []byte(rules), "ca.crt": contents(t, s.ours.file),
			"server.crt": contents(t, certificate.cert), "server.key": contents(t, certificate.key),
		})
		conn, err := pgx.Connect(t.Context(), p.URL())
		require.NoError(t, err)
		defer conn.Close(context.WithoutCancel(t.Context()))
		_, err = conn.Exec(t.Context(), "create role leat login superuser password '"+password+"'; create role certified login superuser")
		require.NoError(t, err)
		return p
	}
	s.good, s.expired = start(s.ours.issue(t, "server", time.Hour)), start(s.ours.issue(t, "old-server", -time.Hour))
	return s
}

func contents(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return text
}

// address is that of a database as a user, with parameters.
func address(t *testing.T, database string, user *url.Userinfo, parameters map[string]string) *url.URL {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	u.User = user
	q := url.Values{}
	for k, v := range parameters {
		q.Set(k, v)
	}
	u.RawQuery = q.Encode()
	return u
}

// withControl is an App with that control database, and its log.
func withControl(u *url.URL) (*App, *testenv.Log) {
	cfg := config.Default()
	cfg.Control.URL = config.NewDatabaseURL(u.String())
	log := &testenv.Log{}
	return New(cfg, Options{Stderr: log}), log
}

// TestSecurePostgres_TakesWhatIsRightAndSaysWhatIsWrong: with sslmode=verify-full the server must prove who it is before it sees a
// password; what is wrong is refused with words that say what to change, and show no password.
func TestSecurePostgres_TakesWhatIsRightAndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := newSecurePostgres(t)
	database := s.good.Database(t)
	leat, certified := url.UserPassword("leat", password), url.User("certified")
	full := func(more map[string]string) map[string]string {
		p := map[string]string{"sslmode": "verify-full", "sslrootcert": s.ours.file}
		maps.Copy(p, more)
		return p
	}
	certificate := func(c pair) map[string]string { return full(map[string]string{"sslcert": c.cert, "sslkey": c.key}) }

	migrator, _ := withControl(address(t, database, leat, full(nil)))
	_, err := migrator.Migrate(t.Context(), MigrateOptions{Action: "up"})
	require.NoError(t, err)
	for name, right := range map[string]*url.URL{
		"password": address(t, database, leat, full(nil)), "certificate": address(t, database, certified, certificate(s.ours.issue(t, "certified", time.Hour))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _ := withControl(right)
			_, err := a.Incidents(t.Context(), incidents.Filter{})
			require.NoError(t, err)
		})
	}
	other := func(u *url.URL, host string) *url.URL {
		u.Host = host + ":" + u.Port()
		return u
	}
	plain := address(t, testenv.PostgresServer(t).URL(), url.UserPassword("postgres", password), full(nil))
	for name, refused := range map[string]struct {
		url    *url.URL
		remedy string
	}{
		"wrong authority":            {address(t, database, leat, full(map[string]string{"sslrootcert": s.foreign.file})), "sslrootcert must name the certificate of the authority"},
		"system's authorities":       {address(t, database, leat, map[string]string{"sslmode": "verify-full"}), "sslrootcert must name the certificate of the authority"},
		"wrong host":                 {other(address(t, database, leat, full(nil)), "localhost"), "must name the host as the server's certificate does"},
		"expired server":             {address(t, s.expired.URL(), leat, full(nil)), "the server's certificate must be renewed"},
		"plain-text server":          {plain, "the server does not speak TLS"},
		"no TLS":                     {address(t, database, leat, map[string]string{"sslmode": "disable"}), "set sslmode=verify-full and sslrootcert"},
		"wrong password":             {address(t, database, url.UserPassword("leat", "wrong-"+password), full(nil)), "check user and password"},
		"no client certificate":      {address(t, database, certified, full(nil)), "set sslcert and sslkey"},
		"foreign client certificate": {address(t, database, certified, certificate(s.foreign.issue(t, "certified-foreign", time.Hour))), "set sslcert and sslkey"},
		"expired client certificate": {address(t, database, certified, certificate(s.ours.issue(t, "certified-old", -time.Hour))), "does not take the certificate of sslcert"},
		"somebody else's":            {address(t, database, certified, certificate(s.ours.issue(t, "mallory", time.Hour))), "common name of sslcert must be the user"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, log := withControl(refused.url)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := a.Incidents(ctx, incidents.Filter{})
			require.ErrorContains(t, Explain(err), refused.remedy)
			a.log.Warn("waiting for the database", "error", err)
			require.Contains(t, log.String(), refused.remedy, "a process that waits says the same in its log")
			require.NotContains(t, Explain(err).Error()+log.String(), password)
		})
	}
}

// TestWarn_NamesConnectionsThatOthersCouldRead: allowed, and unwise.
func TestWarn_NamesConnectionsThatOthersCouldRead(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]string{
		"": "clear text", "?sslmode=prefer": "clear text", "?sslmode=disable": "clear text", "?sslmode=require": "who answers is not verified",
	} {
		cfg := config.Default()
		cfg.Sources = []config.Source{{Name: "shop", URL: config.NewDatabaseURL("postgres://u:" + password + "@db.example.com/shop" + parameters)}}
		cfg.Control.URL = config.NewDatabaseURL("postgres://u:" + password + "@127.0.0.1/leat?sslmode=disable")
		log := &testenv.Log{}
		New(cfg, Options{Stderr: log}).ConfigReport()
		require.Contains(t, log.String(), `"key":"sources[0].url"`)
		require.Contains(t, log.String(), want)
		require.NotContains(t, log.String(), "control.url", "nobody else hears what stays on this machine")
		require.NotContains(t, log.String(), password)
	}
}
