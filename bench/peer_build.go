package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/leat-io/leat/internal/broker"
	"github.com/leat-io/leat/internal/devstack"
)

// buildPeers builds the program of the peers that are Go libraries. It is a module of its own: nobody who uses Leat gets their
// dependencies.
func (b *bench) buildPeers(ctx context.Context) (string, error) {
	program := filepath.Join(b.dir, "peers")
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join("bench", "peers"), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the peers: %w\n%s", err, out)
	}
	return program, nil
}

// javaPeers returns the directory of the peers that run on Java, each with its jars in a directory of its own. The first call of a
// machine, and the first after a change, has Maven fetch and compile them into the user's cache directory.
func javaPeers(ctx context.Context) (string, error) {
	source := os.DirFS(filepath.Join("bench", "peers", "java"))
	version, err := hashOf(source)
	if err != nil {
		return "", fmt.Errorf("reading the peers' sources (run bench in the top folder of the repository): %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "leat", "peers-"+version)
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return "", fmt.Errorf("making the cache of the peers: %w", err)
	}
	unlock, err := devstack.LockFile(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// Made beside its place, so that an interrupted fetch is never taken for a whole one.
	part := dir + ".part"
	if err := errors.Join(os.RemoveAll(part), os.CopyFS(part, source)); err != nil {
		return "", fmt.Errorf("making the cache of the peers: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "package", "-Dout="+part)
	cmd.Dir = part
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the peers with Maven: %w: %s", err, out)
	}
	return dir, os.Rename(part, dir)
}

func hashOf(files fs.FS) (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)[:4]), err
}

// javaPeer is a command that runs a class of one of the directories of javaPeers.
func javaPeer(libs, directory string, flags []string, class string, args ...string) *exec.Cmd {
	all := slices.Concat(flags, []string{
		"-Dlog4j2.configurationFile=" + filepath.Join(libs, "log4j2.properties"), "-cp", filepath.Join(libs, directory, "*"), class,
	}, args)
	return exec.CommandContext(context.Background(), broker.JavaProgram(), all...) // it ends with its rig
}

// peerJVM are the options of Kafka's own start scripts for all that is not a broker.
func peerJVM() []string {
	return []string{
		"-Xms256M", "-Xmx2G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
		"-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
	}
}
