package devstack

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const lockSuffix = ".lock"

// Scratch is a directory for the data of servers that are started for this process only. What processes that were
// killed have left behind is removed by the next NewScratch.
type Scratch struct {
	dir  string
	lock *os.File
}

// NewScratch makes an empty directory.
func NewScratch() (*Scratch, error) {
	base := filepath.Join(scratchBase(), "leat-"+strconv.Itoa(os.Getuid()))
	if err := makeOwn(base); err != nil {
		return nil, fmt.Errorf("making a directory for servers: %w", err)
	}
	sweep(base)
	for {
		// The lock comes before the directory, or a sweep could remove a directory that is not locked yet.
		lock, err := os.CreateTemp(base, "run-*"+lockSuffix)
		if err != nil {
			return nil, fmt.Errorf("making a directory for servers: %w", err)
		}
		if !tryLock(lock) { // a sweep was quicker: it removes this name
			_ = lock.Close()
			continue
		}
		dir := strings.TrimSuffix(lock.Name(), lockSuffix)
		if err := os.Mkdir(dir, 0o711); err != nil { // a server under another account must reach into it
			return nil, errors.Join(fmt.Errorf("making a directory for servers: %w", err), lock.Close())
		}
		return &Scratch{dir: dir, lock: lock}, nil
	}
}

// Dir is the directory.
func (s *Scratch) Dir() string { return s.dir }

// Remove deletes the directory and all that is in it.
func (s *Scratch) Remove() error {
	return errors.Join(os.RemoveAll(s.dir), os.Remove(s.lock.Name()), s.lock.Close())
}

// scratchBase is a place that the account a server runs under can reach: root's TMPDIR may be in root's own home.
func scratchBase() string {
	if os.Geteuid() == 0 {
		return filepath.Join("/var", "tmp")
	}
	return os.TempDir()
}

// makeOwn makes dir; one that another user has made there first is refused, they could read and change what is in it.
func makeOwn(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil { // a server under another account must reach into it
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(stat.Uid) != os.Getuid() {
		return fmt.Errorf("%s belongs to somebody else", dir)
	}
	return nil
}

func sweep(base string) {
	locks, _ := filepath.Glob(filepath.Join(base, "*"+lockSuffix))
	for _, name := range locks {
		lock, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if tryLock(lock) { // nobody lives there any more
			_ = os.RemoveAll(strings.TrimSuffix(name, lockSuffix))
			_ = os.Remove(name)
		}
		_ = lock.Close()
	}
}

// LockFile waits for the lock of a file that it makes; the kernel gives the lock back when this process dies.
func LockFile(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", name, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func tryLock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// account is the user a server runs as.
type account struct{ uid, gid uint32 }

// serverAccount returns nil where a server can run as the current user; PostgreSQL refuses to run as root.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil // no other account is needed
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("reading the id of user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("reading the group of user %s: %w", name, err)
		}
		return &account{uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody to run it as")
}

func (a *account) chown(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}
