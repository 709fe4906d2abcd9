package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/config"
)

// Version says what runs.
type Version struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// NewVersion describes this program, whose version is v.
func NewVersion(v string) Version {
	return Version{v, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
}

// WriteText prints one line.
func (v Version) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "leat %s %s %s\n", v.Version, v.Go, v.Platform)
	return err
}

// ConfigReport is what a configuration means.
type ConfigReport struct{ *config.Config }

// ConfigReport returns what the configuration means. The log has what is allowed and unwise.
func (a *App) ConfigReport() ConfigReport {
	a.warn()
	return ConfigReport{a.cfg}
}

// WriteText prints the configuration with its defaults and without its secrets.
func (r ConfigReport) WriteText(w io.Writer) error { return r.WriteYAML(w) }

// HealthReport is what a process says about itself.
type HealthReport struct {
	URL    string        `json:"url"`
	OK     bool          `json:"ok"`
	Checks []checkResult `json:"checks"`
}

// Err is nil if the process is well.
func (r HealthReport) Err() error {
	if r.OK {
		return nil
	}
	return fmt.Errorf("%s is not ok", r.URL)
}

// WriteText prints a line for each check.
func (r HealthReport) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Checks {
		word := "ok  "
		if !c.OK {
			word = "FAIL"
		}
		fmt.Fprintf(&b, "%s %s %s\n", word, c.Name, c.Reason)
	}
	if len(r.Checks) == 0 {
		fmt.Fprintf(&b, "ok   %s\n", r.URL)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// AskHealth asks the process at base, such as http://127.0.0.1:9464, whether it is ready, or only whether it is alive.
func AskHealth(ctx context.Context, base string, live bool, timeout time.Duration) (HealthReport, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := HealthReport{URL: strings.TrimSuffix(base, "/") + "/readyz"}
	if live {
		r.URL = strings.TrimSuffix(base, "/") + "/healthz"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, http.NoBody)
	if err != nil {
		return r, fmt.Errorf("asking %s: %w", r.URL, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, fmt.Errorf("asking for health: %w; does the process run, and listen there?", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&r); err != nil {
		return r, errors.Join(fmt.Errorf("asking %s: status %s is no answer of Leat", r.URL, resp.Status), err)
	}
	return r, nil
}
