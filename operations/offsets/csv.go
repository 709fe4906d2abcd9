package offsets

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Row is a line of a CSV file as Kafka's consumer-groups tool writes and reads it: topic,partition,offset, with the group before them in
// a file of several groups.
type Row struct {
	Group     string `json:"group,omitempty"` // empty: the one that the file is used for
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// ParseCSV reads rows of three or four columns. Every problem is reported, each with its line.
func ParseCSV(r io.Reader) ([]Row, error) {
	lines := csv.NewReader(r)
	lines.FieldsPerRecord, lines.TrimLeadingSpace = -1, true
	rows := []Row{}
	seen := map[string]int{}
	var errs []error
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the CSV: %w", err)
		}
		n, _ := lines.FieldPos(0)
		row, err := parseRow(fields)
		if err == nil && len(rows) > 0 && (row.Group == "") != (rows[0].Group == "") {
			err = errors.New("some lines have a group and some have none")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		key := row.Group + "\x00" + partitionName(row.Topic, row.Partition)
		if first, twice := seen[key]; twice {
			errs = append(errs, fmt.Errorf("line %d: %s stands in line %d already", n, partitionName(row.Topic, row.Partition), first))
		}
		seen[key] = n
		rows = append(rows, row)
	}
	if len(rows) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("it has no line"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("reading the CSV: %w", err)
	}
	return rows, nil
}

func parseRow(fields []string) (row Row, err error) {
	if len(fields) == 4 {
		row.Group, fields = fields[0], fields[1:]
		if row.Group == "" {
			return row, errors.New("the group is empty")
		}
	}
	if len(fields) != 3 || fields[0] == "" {
		return row, errors.New("want topic,partition,offset or group,topic,partition,offset")
	}
	partition, err := strconv.ParseInt(fields[1], 10, 32)
	if err != nil || partition < 0 {
		return row, fmt.Errorf("%.40q is not a partition", fields[1])
	}
	offset, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || offset < 0 {
		return row, fmt.Errorf("%.40q is not an offset", fields[2])
	}
	row.Topic, row.Partition, row.Offset = fields[0], int32(partition), offset
	return row, nil
}

// WriteCSV writes rows as Kafka's tool does: with the group only if there are several.
func WriteCSV(w io.Writer, rows []Row) error {
	groups := map[string]bool{}
	for _, r := range rows {
		groups[r.Group] = true
	}
	out := csv.NewWriter(w)
	for _, r := range rows {
		line := []string{r.Topic, strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10)}
		if len(groups) > 1 {
			line = append([]string{r.Group}, line...)
		}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
