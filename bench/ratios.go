package main

// ratio is one of the wanted proportions, as this run has it.
type ratio struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Wanted string  `json:"wanted"` // as in ">= 0.8"
	Holds  bool    `json:"holds"`
	Limit  string  `json:"limit,omitempty"` // what a profile showed to stand in the way
}

// wanted is a proportion to reach: value is computed from results by their keys.
type wanted struct {
	name    string
	value   func(m medians) float64
	atLeast bool // else at most
	bound   float64
}

// medians reads results; asking for one that was not measured spoils the ratio.
type medians struct {
	r       *report
	missing *bool
}

func (m medians) of(scenario, measure string) float64 {
	x := m.r.find(scenario, measure)
	if x == nil {
		*m.missing = true
		return 0
	}
	return x.median()
}

func wantedRatios() []wanted {
	return []wanted{
		{
			"relay drain / the lower of read and produce", func(m medians) float64 {
				return m.of("relay", "records/s") / min(m.of("read", "records/s"), m.of("produce", "records/s"))
			}, true, 0.8,
		},
	}
}

// rate computes the ratios whose inputs were measured and returns the names of the others.
func (r *report) rate(all []wanted) (missing []string) {
	r.Ratios = []ratio{}
	for _, w := range all {
		unknown := false
		value := w.value(medians{r, &unknown})
		if unknown {
			missing = append(missing, w.name)
			continue
		}
		r.Ratios = append(r.Ratios, w.rated(value))
	}
	return missing
}

func (w wanted) rated(value float64) ratio {
	x := ratio{Name: w.name, Value: value, Limit: limits()[w.name]}
	if w.atLeast {
		x.Wanted, x.Holds = ">= "+human(w.bound), value >= w.bound
	} else {
		x.Wanted, x.Holds = "<= "+human(w.bound), value <= w.bound
	}
	return x
}

// limits are what profiles have shown to stand in the way of a ratio, by its name.
func limits() map[string]string {
	return map[string]string{}
}
