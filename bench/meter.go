package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticks is how many of the clock's ticks in /proc/PID/stat make a second: USER_HZ, which Linux has promised to keep.
const ticks = 100

// meter measures what processes take: from when it is made until add.
type meter struct {
	b     *bench
	parts []part
}

// part is a process with all its descendants; several of one name add up.
type part struct {
	name   string // a prefix of the measures' names; "" for what is measured
	pid    int
	before float64
}

// meter begins to measure processes, and Postgres and Kafka beside them. Linux only.
func (b *bench) meter(pids ...int) *meter {
	m := &meter{b: b}
	for _, pid := range pids {
		m.parts = append(m.parts, part{pid: pid})
	}
	for name, pid := range map[string]int{"postgres ": b.servers.postgresPID, "kafka ": b.servers.kafkaPID} {
		if pid != 0 {
			m.parts = append(m.parts, part{name: name, pid: pid})
		}
	}
	for i := range m.parts {
		p := &m.parts[i]
		p.before = cpu(p.pid)
		// Sets the high-water mark of resident memory back to what is resident now. Where that is not allowed it stays that of the
		// process's whole life.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
	}
	return m
}

// add ends the measurement, with all processes still running: CPU seconds for 100,000 records of each, and the largest resident
// memory of those measured, added up. Postgres' memory is left out: its processes share most of it.
func (m *meter) add(scenario string, records int) error {
	seconds, resident := map[string]float64{}, 0.0
	for _, p := range m.parts {
		seconds[p.name] += cpu(p.pid) - p.before
		if p.name == "" {
			peak, err := peakResident(p.pid)
			if err != nil {
				return fmt.Errorf("reading the memory of process %d: %w", p.pid, err)
			}
			resident += peak
		}
	}
	for _, name := range []string{"", "postgres ", "kafka "} {
		if s, ok := seconds[name]; ok {
			m.b.report.add(scenario, name+"cpu s/100k", "s", s*100_000/float64(records))
		}
	}
	if _, ok := seconds[""]; ok {
		m.b.report.add(scenario, "max rss MB", "MB", resident)
	}
	return nil
}

// cpu is the user and system time that a process, its descendants, and those of its children that it has waited for have taken, in
// seconds; nothing of a process that is gone.
func cpu(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything. utime, stime, cutime and cstime are the 14th to 17th field.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 15 {
		return 0
	}
	sum := 0.0
	for _, f := range fields[11:15] {
		n, _ := strconv.ParseFloat(f, 64)
		sum += n / ticks
	}
	for _, child := range children(pid) {
		sum += cpu(child)
	}
	return sum
}

func children(pid int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range lists {
		text, _ := os.ReadFile(name)
		for f := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(f); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// peakResident is the high-water mark of resident memory, in MB.
func peakResident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			return kb / 1024, nil
		}
	}
	return 0, errors.New("no VmHWM in the process's status: this needs Linux")
}
