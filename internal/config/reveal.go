package config

import (
	"net/url"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Secrets are the texts that nobody may see: every Secret and DatabaseURL of c that is set, and what is secret within an address by itself,
// its password, and its longer parts, which can be tokens. They are for who hides them.
func (c *Config) Secrets() []string {
	var all []string
	collect(reflect.ValueOf(c).Elem(), &all)
	return all
}

func collect(v reflect.Value, all *[]string) {
	switch s := v.Interface().(type) {
	case DatabaseURL:
		if !s.Empty() {
			*all = append(*all, s.Reveal())
			if c, err := pgconn.ParseConfig(s.Reveal()); err == nil {
				*all = append(*all, c.Password) // which may also come from the environment, or from a file
			}
			if u, err := url.Parse(s.Reveal()); err == nil {
				*all = append(*all, u.Query().Get("sslpassword"))
			}
		}
		return
	case Secret:
		if !s.Empty() {
			*all = append(*all, s.Reveal())
			*all = append(*all, withinAddress(s.Reveal())...)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for field, value := range v.Fields() {
			if field.IsExported() {
				collect(value, all)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			collect(v.Index(i), all)
		}
	}
}

// tokenLength is the length from which a part of an address is taken for a token, and not for a word such as "alerts".
const tokenLength = 16

func withinAddress(text string) (parts []string) {
	if _, token, ok := strings.Cut(text, "Bearer "); ok {
		return []string{token}
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil
	}
	if password, ok := u.User.Password(); ok {
		parts = append(parts, password)
	}
	candidates := strings.Split(u.Path, "/")
	for _, values := range u.Query() {
		candidates = append(candidates, values...)
	}
	for _, part := range candidates {
		if len(part) >= tokenLength {
			parts = append(parts, part)
		}
	}
	return parts
}
