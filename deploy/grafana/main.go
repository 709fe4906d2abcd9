// Command grafana writes the dashboards of Leat: dashboards/*.json, for Grafana 10 and newer. What they show is written down in dashboards.go; run
// `go run ./deploy/grafana` after a change.
//
// It knows no Grafana and no Prometheus: a test asks the data of a live run for every query.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	for _, d := range Dashboards() {
		text, err := d.JSON()
		if err == nil {
			err = os.WriteFile(filepath.Join("deploy", "grafana", "dashboards", d.Name+".json"), text, 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "writing dashboard %s: %v (run it in the root of the repository)\n", d.Name, err)
			os.Exit(1)
		}
	}
}
