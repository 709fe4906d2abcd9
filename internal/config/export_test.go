package config

import "reflect"

// Keys lists every key that a file can have.
func Keys() []string { return keysBelow(reflect.TypeFor[Config](), "") }

func keysBelow(t reflect.Type, path string) []string {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || len(keysOf(t)) == 0 {
		return []string{path}
	}
	var keys []string
	for f := range t.Fields() {
		if tag := f.Tag.Get("yaml"); tag != "" {
			keys = append(keys, keysBelow(f.Type, join(path, tag))...)
		}
	}
	return keys
}
