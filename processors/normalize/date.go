package normalize

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones of mappings work in an image without zone files
)

// dateRule reads a date or an instant and gives the business date.
type dateRule struct {
	layout   string         // of package time; "" for Unix times
	unit     time.Duration  // of a Unix time
	fromZone *time.Location // of a time without zone; nil: the date part counts as it stands
	zone     *time.Location // in which an instant becomes a business date
}

// newDateRule reads format, zone and from_zone of a mapping.
func newDateRule(format string, zone, fromZone *time.Location) (*dateRule, error) {
	r := &dateRule{zone: zone, fromZone: fromZone}
	instant := false
	switch format {
	case "", "date":
		r.layout = time.DateOnly
	case "datetime":
		r.layout = time.DateTime
	case "rfc3339":
		r.layout, instant = time.RFC3339Nano, true
	case "unix":
		r.unit, instant = time.Second, true
	case "unix_ms":
		r.unit, instant = time.Millisecond, true
	default:
		if !strings.Contains(format, "2") || strings.Contains(format, "%") || strings.ContainsAny(format, "yY") {
			return nil, fmt.Errorf("format %q is none of date, datetime, rfc3339, unix, unix_ms, and no layout of the time "+
				"2 January 2006 15:04:05, such as 02/01/2006", format)
		}
		at := time.Date(2019, 11, 23, 21, 43, 57, 0, time.UTC)
		back, err := time.Parse(format, at.Format(format))
		if y, m, d := back.Date(); err != nil || y != 2019 || m != 11 || d != 23 {
			return nil, fmt.Errorf("format %q does not hold year, month and day; write 2006, 01 and 02 where they stand", format)
		}
		r.layout = format
		instant = strings.Contains(format, "Z07") || strings.Contains(format, "-07")
	}
	switch {
	case instant && zone == nil:
		return nil, errors.New("the format is an instant: add zone, in which it becomes a date, such as America/Sao_Paulo")
	case instant && fromZone != nil:
		return nil, errors.New("the format says its own zone: remove from_zone")
	case !instant && (zone == nil) != (fromZone == nil):
		return nil, errors.New("a date without zone is taken as it stands: give both from_zone and zone to convert it, or neither")
	}
	return r, nil
}

// parse returns a time whose date is the business date. The words of its error follow "want".
func (r *dateRule) parse(s string) (time.Time, error) {
	if r.unit != 0 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return time.Time{}, errors.New("a whole number of seconds or milliseconds since 1970")
		}
		if r.unit == time.Second {
			return time.Unix(n, 0).In(r.zone), nil
		}
		return time.UnixMilli(n).In(r.zone), nil
	}
	from := r.fromZone
	if from == nil {
		from = time.UTC
	}
	t, err := time.ParseInLocation(r.layout, s, from)
	if err != nil {
		return t, fmt.Errorf("a date of the form %s", r.layout)
	}
	if r.zone != nil {
		t = t.In(r.zone)
	}
	return t, nil
}
