package chinook

import (
	"embed"
	"io/fs"
)

//go:embed mappings/*.yaml
var mappings embed.FS

// Mappings are the mapping files that turn the shop's records into the finance model.
func Mappings() fs.FS {
	sub, err := fs.Sub(mappings, "mappings")
	if err != nil {
		return mappings // not reached: the directory is embedded
	}
	return sub
}
