package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/leat-io/leat/processors/normalize"
)

// MappingReport is what became of the samples of a directory of mappings.
type MappingReport struct{ normalize.Report }

// Err is nil if every sample is as wanted.
func (r MappingReport) Err() error {
	if r.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d samples are not as wanted", r.Failed, len(r.Cases))
}

// MappingTest runs the mappings of dir on their samples. With update it first writes the outcomes of now as what is
// wanted.
func MappingTest(_ context.Context, dir string, update bool) (MappingReport, error) {
	set, err := loadMappings(os.DirFS(dir), dir)
	if err != nil {
		return MappingReport{}, err
	}
	samples, err := normalize.Samples(os.DirFS(dir))
	if err != nil {
		return MappingReport{}, err
	}
	if len(samples) == 0 {
		return MappingReport{}, fmt.Errorf("there are no samples: write one as %s",
			filepath.Join(dir, "testdata", "<name>", "in.json"))
	}
	report := normalize.Test(set, samples)
	if !update {
		return MappingReport{report}, nil
	}
	for i, c := range report.Cases {
		file := filepath.Join(dir, "testdata", c.Name, "want.json")
		samples[i].Want = c.Outcome.Golden()
		if err := os.WriteFile(file, samples[i].Want, 0o644); err != nil { //nolint:gosec // as readable as the sample beside it
			return MappingReport{}, fmt.Errorf("writing what the sample wants: %w", err)
		}
	}
	return MappingReport{normalize.Test(set, samples)}, nil
}

// mappingSet compiles the mappings of this process.
func (a *App) mappingSet() (*normalize.Set, error) {
	if a.mappings != nil {
		return loadMappings(a.mappings, "the embedded mappings")
	}
	dir := a.cfg.Normalize.Mappings
	return loadMappings(os.DirFS(dir), dir)
}

func loadMappings(fsys fs.FS, name string) (*normalize.Set, error) {
	set, err := normalize.Load(fsys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no directory %s: name the directory of the mappings in normalize.mappings", name)
	}
	if err != nil {
		return nil, fmt.Errorf("mappings in %s: %w", name, err)
	}
	return set, nil
}
