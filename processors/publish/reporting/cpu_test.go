package reporting_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

var cpu0, pg0 float64

func goCPU() float64 {
	var r syscall.Rusage
	syscall.Getrusage(0, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

func pgCPU(b *testing.B, s *bundle) float64 {
	rows, _ := s.db.Query(b.Context(), "select pid::text from pg_stat_activity where datname=current_database()")
	pids, _ := pgx.CollectRows(rows, pgx.RowTo[string])
	t := 0.0
	for _, p := range pids {
		d, _ := os.ReadFile("/proc/" + p + "/stat")
		if len(d) == 0 {
			continue
		}
		f := strings.Fields(string(d[strings.LastIndex(string(d), ")")+1:]))
		u, _ := strconv.Atoi(f[11])
		v, _ := strconv.Atoi(f[12])
		t += float64(u+v) / 100
	}
	return t
}

func cpuReport(b *testing.B, s *bundle) {
	k := 1e5 / float64(b.N)
	b.ReportMetric((goCPU()-cpu0)*k, "go-s/100k")
	b.ReportMetric((pgCPU(b, s)-pg0)*k, "pg-s/100k")
}
