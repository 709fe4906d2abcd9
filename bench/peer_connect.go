package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/devstack"
)

var errRefused = errors.New("kafka connect refuses the settings")

// worker is a Kafka Connect of one distributed worker, which keeps its state in topics of the rig.
type worker struct {
	*peer
	r          *rig
	properties string
	libs       string
	url        string
}

// newWorker starts a worker with one plugin, and with settings over those that one worker on one broker needs. All else is Connect's default.
func (r *rig) newWorker(ctx context.Context, plugin string, settings map[string]string) (*worker, error) {
	libs, err := javaPeers(ctx)
	if err != nil {
		return nil, err
	}
	port, err := devstack.FreePort()
	if err != nil {
		return nil, err
	}
	w := &worker{r: r, libs: libs, url: fmt.Sprintf("http://127.0.0.1:%d", port), properties: filepath.Join(r.b.dir, r.system+"-connect.properties")}
	lines := []string{
		"bootstrap.servers=" + strings.Join(r.b.servers.brokers, ","),
		"group.id=" + r.system + "-connect",
		"listeners=" + w.url,
		"plugin.path=" + filepath.Join(libs, plugin),
		"plugin.discovery=service_load",
		"key.converter=org.apache.kafka.connect.storage.StringConverter",
		"value.converter=org.apache.kafka.connect.storage.StringConverter",
	}
	for _, kind := range []string{"config", "offset", "status"} {
		lines = append(lines, kind+".storage.topic="+r.system+"-"+kind, kind+".storage.replication.factor=1")
	}
	for name, value := range settings {
		lines = append(lines, name+"="+value)
	}
	if err := os.WriteFile(w.properties, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := w.start(); err != nil {
		return nil, err
	}
	if err := w.until(ctx, "the worker's answer", func() (bool, error) { return w.call(ctx, http.MethodGet, "/", nil, nil) == nil, nil }); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *worker) start() (err error) {
	w.peer, err = w.r.startPeer(javaPeer(w.libs, "connect", peerJVM(), "org.apache.kafka.connect.cli.ConnectDistributed", w.properties))
	return err
}

// until asks again and again.
func (w *worker) until(ctx context.Context, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ; ; pause(ctx, 50*time.Millisecond) {
		ok, err := holds()
		if ok && err == nil {
			return nil
		}
		if ctx.Err() != nil && err == nil {
			err = ctx.Err()
		}
		if err = errors.Join(err, w.failed()); err != nil {
			return w.said(fmt.Errorf("waiting for %s: %w", what, err))
		}
	}
}

func (w *worker) call(ctx context.Context, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, w.url+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	said, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode == http.StatusBadRequest {
		return fmt.Errorf("%w: %s", errRefused, said)
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("kafka connect answers %s %s with %s: %s", method, path, res.Status, said)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}

// connect makes a connector and waits until its task runs.
func (w *worker) connect(ctx context.Context, name string, config map[string]string) error {
	err := w.until(ctx, "the worker to take a connector", func() (bool, error) { // it answers before it has joined its group
		err := w.call(ctx, http.MethodPut, "/connectors/"+name+"/config", config, nil)
		if errors.Is(err, errRefused) {
			return false, err
		}
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	return w.state(ctx, name, "RUNNING")
}

// state waits until the connector is in the state, and its task too.
func (w *worker) state(ctx context.Context, name, want string) error {
	return w.until(ctx, "connector "+name+" to be "+want, func() (bool, error) {
		type part struct{ State, Trace string }
		var s struct {
			Connector part
			Tasks     []part
		}
		if err := w.call(ctx, http.MethodGet, "/connectors/"+name+"/status", nil, &s); err != nil {
			return false, nil //nolint:nilerr // not known yet
		}
		for _, p := range append(s.Tasks, s.Connector) {
			if p.State == "FAILED" {
				return false, errors.New(p.Trace)
			}
		}
		if want == "STOPPED" {
			return s.Connector.State == want && len(s.Tasks) == 0, nil
		}
		return s.Connector.State == want && len(s.Tasks) > 0 && s.Tasks[0].State == want, nil
	})
}

// order stops or resumes a connector.
func (w *worker) order(ctx context.Context, name, verb string) error {
	return w.call(ctx, http.MethodPut, "/connectors/"+name+"/"+verb, nil, nil)
}
