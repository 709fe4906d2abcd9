package normalize

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/leat-io/leat/topics"
)

// maxFile bounds a mapping file, in bytes.
const maxFile = 1 << 20

// Set is all mappings of a deployment, compiled. It is safe for concurrent use.
type Set struct {
	byTopic map[string]*mapping
}

// Load compiles every *.yaml and *.yml file at the top of fsys; other files and folders are left alone. A *LoadError lists
// every problem of every file.
func Load(fsys fs.FS) (*Set, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("listing mappings: %w", err)
	}
	x, err := newExpressions()
	if err != nil {
		return nil, err
	}
	contracts, err := contracts()
	if err != nil {
		return nil, err
	}
	set := &Set{byTopic: map[string]*mapping{}}
	var all []Problem
	for _, entry := range entries {
		if name := entry.Name(); entry.IsDir() || !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") {
			continue
		}
		src, err := fs.ReadFile(fsys, entry.Name())
		if err != nil {
			return nil, fmt.Errorf("reading mapping: %w", err)
		}
		p := &problems{file: entry.Name()}
		if len(src) > maxFile {
			p.add(nil, "", "the file is %d bytes, want at most %d", len(src), maxFile)
		} else {
			set.add(p, (&compiler{problems: p, expressions: x, contracts: contracts}).mapping(src))
		}
		all = append(all, p.sorted()...)
	}
	switch {
	case len(all) > 0:
		return nil, &LoadError{all}
	case len(set.byTopic) == 0:
		return nil, errors.New("no mappings: the folder holds no .yaml file")
	}
	return set, nil
}

func contracts() (map[string]*topics.Contract, error) {
	all := map[string]*topics.Contract{}
	for _, entity := range topics.Entities() {
		c, err := topics.ContractFor(entity, 1)
		if err != nil {
			return nil, err
		}
		all[entity] = c
	}
	return all, nil
}

func (s *Set) add(p *problems, m *mapping) {
	if m == nil || m.system == "" || m.entity == "" {
		return
	}
	topic := topics.Source(m.system, m.entity)
	if other := s.byTopic[topic]; other != nil {
		p.add(nil, "source", "%s has the mapping of %s %s already; put all outputs of an entity into one file",
			other.file, m.system, m.entity)
		return
	}
	s.byTopic[topic] = m
}

// Inputs lists the source topics that the mappings read, sorted.
func (s *Set) Inputs() []string { return slices.Sorted(maps.Keys(s.byTopic)) }

// Outputs lists the finance topics that the mappings write, sorted.
func (s *Set) Outputs() []string {
	seen := map[string]bool{}
	for _, m := range s.byTopic {
		for _, o := range m.outputs {
			seen[o.topic] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
