package chaos

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Go programs ask the kernel for the time without libc, so nothing can be preloaded that lies to them. Instead the program under test is
// built with a package time whose Now adds what a file says at that moment: the wall clock of running processes jumps, as when
// somebody sets the clock of the machine, while timers and durations go on by the monotonic clock, as they do then.
const jumpSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var jumpBy = openJump()

func openJump() *int64 {
	still := new(int64)
	name, ok := syscall.Getenv("` + clockVariable + `")
	if !ok || name == "" {
		return still
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		return still
	}
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return still
	}
	return (*int64)(unsafe.Pointer(&b[0]))
}

// jump is in seconds.
func jump() int64 {
	if jumpBy == nil { // package variables are still being made
		return 0
	}
	return atomic.LoadInt64(jumpBy)
}
`

// writeOverlay writes what go build -overlay needs for a package time whose clock jumps, and returns the name of its file.
func writeOverlay(dir string) (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("asking for GOROOT: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	changed := strings.Replace(string(text), now, "\tsec, nsec, mono := runtimeNow()\n\tsec += jump()\n\tif mono == 0 {", 1)
	if changed == string(text) {
		return "", fmt.Errorf("%s has no place for a clock that jumps: it is another Go than this test knows", original)
	}
	files := map[string]string{"time.go": changed, "jump.go": jumpSource}
	replace := map[string]string{}
	for name, text := range files {
		ours := filepath.Join(dir, name)
		if err := os.WriteFile(ours, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(filepath.Dir(original), name)] = ours
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, overlay, 0o600)
}

func newClock(dir, name string) (*clock, error) {
	c := &clock{name: filepath.Join(dir, name+".clock")}
	return c, os.WriteFile(c.name, make([]byte, 8), 0o600)
}

// set makes the clock differ from the machine's by d, at once.
func (c *clock) set(d time.Duration) error {
	f, err := os.OpenFile(c.name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(d/time.Second))), 0)
	return err
}
