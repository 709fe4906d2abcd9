package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
)

// chart is a plot of horizontal bars; those that were not measured are left out.
type chart struct {
	name, title, unit string
	bars              []bar
}

// bar is a result under a label; ours are Leat's own.
type bar struct {
	label string
	key   resultKey
	kind  kind
}

type kind string

const (
	ours   kind = "ours"
	bare   kind = "bare" // a limit
	theirs kind = "theirs"
)

func charts() []chart {
	return []chart{
		{"relay", "Draining a backlog", perSecond, throughputs(
			bar{"Leat, exactly once", resultKey{"relay", ""}, ours},
			bar{"bare: read", resultKey{"read", ""}, bare},
			bar{"bare: produce", resultKey{"produce", ""}, bare},
			bar{"Debezium, exactly once", resultKey{"debezium-eos", ""}, theirs},
			bar{"Debezium, at least once", resultKey{"debezium-alo", ""}, theirs},
			bar{"SKIP LOCKED poller", resultKey{"skiplocked", ""}, theirs},
			bar{"Watermill forwarder", resultKey{"watermill", ""}, theirs},
			bar{"River", resultKey{"river", ""}, theirs})},
		{"latency", "From commit to consumer", "ms", latencies(
			bar{"Leat, 500 rows/s", resultKey{"latency-500", ""}, ours},
			bar{"Leat, 2,000 rows/s", resultKey{"latency-2000", ""}, ours},
			bar{"Leat, 10,000 rows/s", resultKey{"latency-10000", ""}, ours},
			bar{"Debezium, exactly once, 2,000 rows/s", resultKey{"debezium-latency-eos", ""}, theirs},
			bar{"Debezium, at least once, 2,000 rows/s", resultKey{"debezium-latency-alo", ""}, theirs},
			bar{"Leat, to the table, 500 rows/s", resultKey{"line-500", ""}, ours},
			bar{"Leat, to the table, 2,000 rows/s", resultKey{"line-2000", ""}, ours})},
		{"normalize", "Normalizing", perSecond, throughputs(
			bar{"Leat, contract checked", resultKey{"normalize", ""}, ours},
			bar{"bare: read, copy, commit", resultKey{"copy", ""}, bare},
			bar{"Kafka Streams, defaults", resultKey{"streams-default", ""}, theirs},
			bar{"Kafka Streams, tuned", resultKey{"streams-tuned", ""}, theirs})},
		{"publish", "Publishing to Postgres", perSecond, throughputs(
			bar{"Leat, with lines and links", resultKey{"publish", ""}, ours},
			bar{"bare: the same rows", resultKey{"upsert-rows", ""}, bare},
			bar{"Leat, flat, with links", resultKey{"publish-flat", ""}, ours},
			bar{"bare: flat, with links", resultKey{"upsert-flat", ""}, bare},
			bar{"bare: flat", resultKey{"upsert", ""}, bare},
			bar{"JDBC sink, flat", resultKey{"jdbc-sink", ""}, theirs})},
		{"scaling", "Draining as the load grows", perSecond, scalingBars()},
	}
}

func throughputs(bars ...bar) []bar {
	for i := range bars {
		bars[i].key.measure = perSecond
	}
	return bars
}

func latencies(bars ...bar) (both []bar) {
	for _, b := range bars {
		for _, measure := range []string{p50, p99} {
			both = append(both, bar{b.label + ", " + measure[:3], resultKey{b.key.scenario, measure}, b.kind})
		}
	}
	return both
}

func scalingBars() (bars []bar) {
	for _, p := range []struct {
		scenario string
		measures []string
	}{
		{"backlog", []string{"100000 rows", "1000000 rows", "10000000 rows"}},
		{"tenants", []string{"1 tenants", "100 tenants", "10000 tenants"}},
		{"partitions", []string{"1 partitions", "8 partitions", "64 partitions"}},
		{"payload", []string{"0.2 kB", "2 kB", "20 kB", "200 kB"}},
		{"writers", []string{"0 writers", "1 writers", "50 writers", "200 writers"}},
		{"held", []string{"no transaction open", "a transaction held open"}},
	} {
		for _, m := range p.measures {
			bars = append(bars, bar{m, resultKey{p.scenario, m}, ours})
		}
	}
	return bars
}

// The parts of a chart, in pixels.
const (
	chartWidth = 820
	labelWidth = 270
	barWidth   = 430 // of the longest
	rowHeight  = 24
	topHeight  = 44
)

// style suits light and dark pages: a browser applies it to an image too.
const style = `text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}.ours{fill:#2f81c7}.bare{fill:#9aa4af}` +
	`.theirs{fill:#d29a3a}.range{stroke:#57606a;stroke-width:1.5}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.range{stroke:#c9d1d9}}`

// svg draws the bars that r has, median and range; nil when it has none.
func (c chart) svg(r *report) []byte {
	measured := slices.DeleteFunc(slices.Clone(c.bars), func(b bar) bool { return r.find(b.key.scenario, b.key.measure) == nil })
	if len(measured) == 0 {
		return nil
	}
	longest := 0.0
	for _, b := range measured {
		longest = max(longest, slices.Max(r.find(b.key.scenario, b.key.measure).Values))
	}
	scale := func(v float64) float64 { return labelWidth + barWidth*v/max(longest, 1e-9) }
	var out bytes.Buffer
	height := topHeight + rowHeight*len(measured) + 8
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img"><title>%s</title><style>%s</style>`+"\n",
		chartWidth, height, chartWidth, height, escape(c.title), style)
	fmt.Fprintf(&out, `<text class="title" x="8" y="24">%s, %s</text>`+"\n", escape(c.title), escape(c.unit))
	for i, b := range measured {
		x, y := r.find(b.key.scenario, b.key.measure), topHeight+rowHeight*i
		middle := y + rowHeight/2
		fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, middle+4, escape(b.label))
		fmt.Fprintf(&out, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, b.kind, labelWidth, y+4, scale(x.median())-labelWidth, rowHeight-8)
		low, high := scale(slices.Min(x.Values)), scale(slices.Max(x.Values))
		fmt.Fprintf(&out, `<line class="range" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, low, high, middle, middle)
		fmt.Fprintf(&out, `<text x="%.1f" y="%d">%s</text>`+"\n", high+8, middle+4, human(x.median()))
	}
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
