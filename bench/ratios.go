package main

import "fmt"

// ratio is one of the wanted proportions, as this run has it.
type ratio struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Wanted string  `json:"wanted"` // as in ">= 0.80"
	Holds  bool    `json:"holds"`
	Limit  string  `json:"limit,omitempty"` // what a profile showed to stand in the way
}

// wanted is a proportion to reach: the median of one result by that of another, or by the lowest of several.
type wanted struct {
	name  string
	of    resultKey
	by    []resultKey
	least bool // the bound is the least it may be; else the most
	bound float64
}

type resultKey struct{ scenario, measure string }

const (
	perSecond = "records/s"
	cpuTime   = "cpu s/100k"
	memory    = "max rss MB"
	afterKill = "first after kill s"
	p50       = "p50 ms"
	p99       = "p99 ms"
)

func atLeast(bound float64, name string, of resultKey, by ...resultKey) wanted {
	return wanted{name, of, by, true, bound}
}

func atMost(bound float64, name string, of resultKey, by ...resultKey) wanted {
	return wanted{name, of, by, false, bound}
}

// wantedRatios are all that are asked for.
func wantedRatios() []wanted {
	drain := resultKey{"relay", perSecond}
	latency := func(measure string) resultKey { return resultKey{"latency-2000", measure} }
	sink := resultKey{"jdbc-sink", perSecond}
	both := resultKey{"source", "business+outbox in one statement, 8 clients"}
	return []wanted{
		atLeast(0.8, "relay drain / the lower of bare reading and bare producing", drain, resultKey{"read", perSecond}, resultKey{"produce", perSecond}),
		atLeast(8, "relay drain / Debezium, exactly once", drain, resultKey{"debezium-eos", perSecond}),
		atLeast(3, "relay drain / SKIP LOCKED poller", drain, resultKey{"skiplocked", perSecond}),
		atMost(1./10, "relay processor time of a row / Debezium's, exactly once", resultKey{"relay", cpuTime}, resultKey{"debezium-eos", cpuTime}),
		atMost(1./10, "relay resident memory / Debezium's, exactly once", resultKey{"relay", memory}, resultKey{"debezium-eos", memory}),
		atMost(1./5, "relay first record after a kill / Debezium's, exactly once", resultKey{"failover", afterKill}, resultKey{"debezium-eos", afterKill}),
		atMost(1./3, "relay p50 at 2,000 rows/s / Debezium's, exactly once", latency(p50), resultKey{"debezium-latency-eos", p50}),
		atMost(1./8, "relay p99 at 2,000 rows/s / Debezium's, exactly once", latency(p99), resultKey{"debezium-latency-eos", p99}),
		atMost(1, "relay p50 at 2,000 rows/s / Debezium's, at least once", latency(p50), resultKey{"debezium-latency-alo", p50}),
		atMost(1, "relay p99 at 2,000 rows/s / Debezium's, at least once", latency(p99), resultKey{"debezium-latency-alo", p99}),
		atLeast(0.9, "relay drain of 10,000,000 rows / of 100,000", resultKey{"backlog", "10000000 rows"}, resultKey{"backlog", "100000 rows"}),
		atLeast(0.9, "relay drain with 200 writers / with one, of the same rate", resultKey{"writers", "200 writers"}, resultKey{"writers", "1 writers"}),
		atLeast(0.9, "relay drain with a transaction held open / without", resultKey{"held", "a transaction held open"}, resultKey{"held", "no transaction open"}),
		atLeast(2, "normalize / Kafka Streams at its defaults", resultKey{"normalize", perSecond}, resultKey{"streams-default", perSecond}),
		atLeast(1.2, "normalize / Kafka Streams, tuned and warm", resultKey{"normalize", perSecond}, resultKey{"streams-tuned", perSecond}),
		atLeast(1.5, "publish with its link row / JDBC sink", resultKey{"publish-flat", perSecond}, sink),
		// Leat has no setting that leaves the link rows out: they are what tells it that a repeated record changes nothing.
		atLeast(2, "publish / JDBC sink, asked for without link rows and measured with them", resultKey{"publish-flat", perSecond}, sink),
		atLeast(0.7, "publish / bare guarded upsert of the same rows", resultKey{"publish", perSecond}, resultKey{"upsert-rows", perSecond}),
		atLeast(0.85, "source with the outbox in the same statement / without, 8 clients, one statement each", both,
			resultKey{"source", "business, 8 clients"}),
		atLeast(0.85, "source with the outbox in the same statement / begin, business, commit, 8 clients", both,
			resultKey{"source", "begin, business, commit, 8 clients"}),
	}
}

// limits say what stands in the way of a ratio that does not hold, by its name: what a profile showed, or what the bare calls reach in
// the same run.
func limits() map[string]func(*report) string {
	bareProduce := func(peer string) func(*report) string {
		return func(r *report) string {
			return r.times("Kafka: the bare transactional produce of the same records, which neither reads nor encodes anything, is itself %s times that",
				resultKey{"produce", perSecond}, resultKey{peer, perSecond})
		}
	}
	rows := func(r *report) string {
		return r.times("Postgres: the sink writes one row where Leat writes two (the row and its link). The bare guarded upsert of the same two rows, "+
			"without Kafka (upsert-flat), is itself %s times the sink", resultKey{"upsert-flat", perSecond}, resultKey{"jdbc-sink", perSecond})
	}
	collector := func(*report) string {
		return "the broker: each transaction takes it about 2 ms of processor time (seven records to eight partitions, no consumer), and at this load its " +
			"garbage collector stops it for 10 to 30 ms every two to four seconds (its own log, on a machine of this kind). Whatever is committed meanwhile waits"
	}
	return map[string]func(*report) string{
		"relay drain / Debezium, exactly once":                                    bareProduce("debezium-eos"),
		"relay drain / SKIP LOCKED poller":                                        bareProduce("skiplocked"),
		"relay p50 at 2,000 rows/s / Debezium's, at least once":                   collector,
		"relay p99 at 2,000 rows/s / Debezium's, exactly once":                    collector,
		"relay p99 at 2,000 rows/s / Debezium's, at least once":                   collector,
		"publish with its link row / JDBC sink":                                   rows,
		"publish / JDBC sink, asked for without link rows and measured with them": rows,
		"source with the outbox in the same statement / without, 8 clients, one statement each": func(r *report) string {
			return r.times("Postgres: a second row. The same statement with a bare table (a number, its primary key and the payload) in place of the outbox is "+
				"itself %s of that", resultKey{"source", "business+bare row in one statement, 8 clients"}, resultKey{"source", "business, 8 clients"})
		},
	}
}

// times puts the proportion of two results into a sentence; "" if they were not measured.
func (r *report) times(sentence string, of, by resultKey) string {
	x, ok := wanted{of: of, by: []resultKey{by}}.value(r)
	if !ok {
		return ""
	}
	return fmt.Sprintf(sentence, human(x))
}

// rate computes the ratios whose inputs were measured and returns the names of the others.
func (r *report) rate(all []wanted, limits map[string]func(*report) string) (missing []string) {
	r.Ratios = []ratio{}
	for _, w := range all {
		value, ok := w.value(r)
		if !ok {
			missing = append(missing, w.name)
			continue
		}
		x := ratio{Name: w.name, Value: value, Wanted: "<= " + human(w.bound), Holds: value <= w.bound}
		if w.least {
			x.Wanted, x.Holds = ">= "+human(w.bound), value >= w.bound
		}
		if limit := limits[w.name]; limit != nil && !x.Holds {
			x.Limit = limit(r)
		}
		r.Ratios = append(r.Ratios, x)
	}
	return missing
}

func (w wanted) value(r *report) (float64, bool) {
	of := r.find(w.of.scenario, w.of.measure)
	if of == nil {
		return 0, false
	}
	var lowest float64
	for i, k := range w.by {
		x := r.find(k.scenario, k.measure)
		if x == nil || x.median() == 0 {
			return 0, false
		}
		if m := x.median(); i == 0 || m < lowest {
			lowest = m
		}
	}
	return of.median() / lowest, true
}
