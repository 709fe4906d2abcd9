package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

type composeFile struct {
	Services map[string]struct {
		Image    string
		Profiles []string
		Command  any
		Ports    []string
		Volumes  []string
		User     string
		Tmpfs    []string
		ReadOnly bool     `yaml:"read_only"`
		CapDrop  []string `yaml:"cap_drop"`
		Security []string `yaml:"security_opt"`

		Privileged  bool
		CapAdd      []string `yaml:"cap_add"`
		NetworkMode string   `yaml:"network_mode"`
		PID, IPC    string
		Devices     []any
	}
	Volumes map[string]any
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalWithOptions(text, into, yaml.AllowDuplicateMapKey()), path) // << gives way to what stands beside it
}

// TestCompose_ScrapesEveryServiceAndOpensNothingToOthers: the images cannot be pulled everywhere, their configuration can be checked.
func TestCompose_ScrapesEveryServiceAndOpensNothingToOthers(t *testing.T) {
	t.Parallel()
	var c composeFile
	readYAML(t, "../docker-compose.yml", &c)
	var p struct {
		ScrapeConfigs []struct {
			JobName       string                       `yaml:"job_name"`
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "prometheus/prometheus.yml", &p)
	require.Equal(t, "leat", p.ScrapeConfigs[0].JobName)
	targets := p.ScrapeConfigs[0].StaticConfigs[0].Targets
	var running []string
	for name, s := range c.Services {
		if words, ok := s.Command.([]any); ok && len(words) == 2 && words[1] == "run" {
			running = append(running, name+":9464")
		}
		for _, port := range s.Ports {
			require.True(t, strings.HasPrefix(port, "127.0.0.1:"), "%s opens %s", name, port)
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(from, "./") {
				_, err := os.Stat(filepath.Join("..", from))
				require.NoError(t, err, name)
				require.True(t, strings.HasSuffix(v, ":ro"), "%s can write to %s", name, from)
			} else {
				require.Contains(t, c.Volumes, from, name)
			}
		}
	}
	slices.Sort(running)
	slices.Sort(targets)
	require.Equal(t, running, targets, "services of Leat, and what Prometheus scrapes")
	for _, name := range []string{"prometheus", "alertmanager", "grafana"} {
		s := c.Services[name]
		require.Equal(t, []string{"observability"}, s.Profiles)
		require.True(t, s.ReadOnly)
		require.Regexp(t, `:-[\w./-]+:v?\d+\.\d+\.\d+}$`, s.Image, "a pinned version")
	}
}

// TestCompose_EveryServiceRunsWithoutRights: ours as a user without rights, on a file system that cannot be written, not even with a
// place for temporary files; the others with no more than they need.
func TestCompose_EveryServiceRunsWithoutRights(t *testing.T) {
	t.Parallel()
	var c composeFile
	readYAML(t, "../docker-compose.yml", &c)
	ours := 0
	for name, s := range c.Services {
		require.Equal(t, []string{"no-new-privileges:true"}, s.Security, name)
		require.False(t, s.Privileged, name)
		require.Empty(t, s.CapAdd, name)
		require.Empty(t, s.Devices, name)
		require.Empty(t, s.NetworkMode+s.PID+s.IPC, name)
		if name != "postgres" { // its image begins as root, to give its directory to the user that it runs as
			require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		}
		if name != "kafka" { // its image writes its configuration when it starts
			require.True(t, s.ReadOnly, name)
		}
		if s.Image != "leat:local" {
			continue
		}
		ours++
		require.Equal(t, "65532:65532", s.User, name)
		require.Empty(t, s.Tmpfs, name)
	}
	require.Equal(t, 9, ours, "migrate, topics, sample and six processes")
}

// TestImage_HoldsTheBinaryAlone: no shell and no package manager for whoever gets in, and no root.
func TestImage_HoldsTheBinaryAlone(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	_, last, ok := strings.Cut(string(text), "\nFROM scratch\n")
	require.True(t, ok, "the last stage begins with nothing")
	require.Equal(t, []string{
		"COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/", "COPY --from=build /out/leat /usr/local/bin/leat",
		"USER 65532:65532", "EXPOSE 9464", `ENTRYPOINT ["/usr/local/bin/leat"]`,
	}, strings.Split(strings.TrimSpace(last), "\n"))
}

func TestCompose_PrometheusAndAlertmanagerTakeTheirConfiguration(t *testing.T) {
	t.Parallel()
	require.Contains(t, tool(t, "promtool", "check", "config", "prometheus/prometheus.yml"), "SUCCESS")
	require.Contains(t, tool(t, "amtool", "check-config", "alertmanager/alertmanager.yml"), "SUCCESS")
}

// TestCompose_AlertmanagerKnowsTheAlertsItHoldsBack: a name with a typing error would hold nothing back.
func TestCompose_AlertmanagerKnowsTheAlertsItHoldsBack(t *testing.T) {
	t.Parallel()
	known := alerts(t)
	text, err := os.ReadFile("alertmanager/alertmanager.yml")
	require.NoError(t, err)
	for _, name := range alertName.FindAllString(string(text), -1) {
		require.Contains(t, known, name)
	}
	for severity, receiver := range map[string]string{"page": "page", "ticket": "ticket", "info": "info"} {
		out := tool(t, "amtool", "config", "routes", "test", "--config.file=alertmanager/alertmanager.yml", "alertname=LeatBreakerOpen",
			"severity="+severity)
		require.True(t, strings.HasSuffix(strings.TrimSpace(out), receiver), out)
	}
}

// TestGrafana_IsProvisioned: with the datasources that the dashboards ask for, and the folder that compose mounts.
func TestGrafana_IsProvisioned(t *testing.T) {
	t.Parallel()
	var sources struct{ Datasources []struct{ Type, UID string } }
	readYAML(t, "grafana/provisioning/datasources/leat.yml", &sources)
	var types []string
	for _, s := range sources.Datasources {
		types = append(types, s.Type)
	}
	require.ElementsMatch(t, []string{"prometheus", "grafana-postgresql-datasource"}, types)
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, "grafana/provisioning/dashboards/leat.yml", &providers)
	var c composeFile
	readYAML(t, "../docker-compose.yml", &c)
	require.Contains(t, c.Services["grafana"].Volumes, "./deploy/grafana/dashboards:"+providers.Providers[0].Options.Path+":ro")
}
