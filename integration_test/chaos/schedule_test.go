package chaos

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// area is what a fault touches. Faults of one area never meet: one broker is down at a time, and a database that fails over is not
// also restarted. Faults of different areas meet all the time.
type area string

const (
	relayArea     area = "relay"
	normalizeArea area = "normalize"
	publishArea   area = "publish"
	kafkaArea     area = "kafka"
	sourceArea    area = "source"
	reportingArea area = "reporting"
	networkArea   area = "network"
	clockArea     area = "clock"
)

// planned is one fault of a schedule: everything about it that is drawn.
type planned struct {
	Kind   string
	Target int           // which process, broker or link; modulo how many there are
	Amount int           // 0 to 99: how much of it, where there is a choice
	Hold   time.Duration // between its beginning and its end
}

// step is a few faults at once, and the pause after the pipeline has recovered from them.
type step struct {
	Faults []planned
	Pause  time.Duration
}

// schedule draws n faults from the kinds given. The same arguments give the same schedule.
func schedule(seed uint64, n int, kinds []kind) []step {
	rnd := rand.New(rand.NewPCG(seed, 5))
	var areas []area
	byArea := map[area][]kind{}
	for _, k := range kinds {
		if len(byArea[k.area]) == 0 {
			areas = append(areas, k.area)
		}
		byArea[k.area] = append(byArea[k.area], k)
	}
	bags := map[area][]kind{} // each kind of an area comes up once before one comes up again
	draw := func(a area) planned {
		if len(bags[a]) == 0 {
			bags[a] = slices.Clone(byArea[a])
			rnd.Shuffle(len(bags[a]), func(i, j int) { bags[a][i], bags[a][j] = bags[a][j], bags[a][i] })
		}
		k := bags[a][0]
		bags[a] = bags[a][1:]
		return planned{
			Kind: k.name, Target: rnd.IntN(60), Amount: rnd.IntN(100),
			Hold: k.least + time.Duration(rnd.Int64N(int64(k.most-k.least)+1)).Round(time.Millisecond),
		}
	}
	var steps []step
	var order []area
	for n > 0 {
		s := step{Pause: time.Duration(rnd.IntN(500)) * time.Millisecond}
		for range min(n, 1+rnd.IntN(4), len(areas)) {
			if len(order) == 0 {
				order = slices.Clone(areas)
				rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			}
			if i := slices.IndexFunc(s.Faults, func(f planned) bool { return areaOf(kinds, f.Kind) == order[0] }); i >= 0 {
				break // the rest of this area's turn begins the next step
			}
			s.Faults = append(s.Faults, draw(order[0]))
			order = order[1:]
			n--
		}
		steps = append(steps, s)
	}
	return steps
}

func areaOf(kinds []kind, name string) area {
	return kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })].area
}

// TestSchedule_IsThatOfItsSeed checks what the words "the same seed" promise, and that no two faults of a step share an area.
func TestSchedule_IsThatOfItsSeed(t *testing.T) {
	t.Parallel()
	first, again := schedule(7, 200, kinds(true)), schedule(7, 200, kinds(true))
	require.Equal(t, first, again)
	require.NotEqual(t, schedule(7, 200, kinds(true)), schedule(8, 200, kinds(true)))
	for seed := range uint64(50) {
		drawn := 0
		counts := map[string]int{}
		for _, s := range schedule(seed, 200, kinds(true)) {
			touched := map[area]bool{}
			require.NotEmpty(t, s.Faults)
			for _, f := range s.Faults {
				a := areaOf(kinds(true), f.Kind)
				require.False(t, touched[a], "two faults of area %s at once", a)
				touched[a] = true
				counts[f.Kind]++
				drawn++
			}
		}
		require.Equal(t, 200, drawn)
		require.Len(t, counts, len(kinds(true)), "every kind comes up in 200 faults")
	}
}
