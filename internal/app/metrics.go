package app

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// registerBuildInfo adds leat_build_info, which is 1 and says in its labels what runs.
func registerBuildInfo(reg prometheus.Registerer, version string) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "leat_build_info",
		Help:        "Always 1; the labels say which version of Leat runs.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	g.Set(1)
	reg.MustRegister(g)
}
