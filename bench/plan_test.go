package main

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPlanInterleavesRounds(t *testing.T) {
	t.Parallel()
	p := newPlan([]scenario{
		{name: "a", takes: time.Minute},
		{name: "once", rounds: 1, takes: time.Hour},
		{name: "b", takes: time.Second},
	}, 2)
	var order []string
	for s, ok := p.next(); ok; s, ok = p.next() {
		if s.name == "a" && s.round == 1 {
			require.Equal(t, time.Hour+2*time.Minute+2*time.Second, p.left())
			p.took("a", 2*time.Minute)
		}
		if s.name == "once" {
			require.Equal(t, time.Hour+2*time.Minute+2*time.Second, p.left(), "what a round has taken stands for the next")
			p.drop("b")
		}
		order = append(order, s.name)
	}
	require.Equal(t, []string{"a", "once", "a"}, order)
}

func TestParse(t *testing.T) {
	t.Parallel()
	all := scenarios()
	o, err := parse(nil, all, io.Discard)
	require.NoError(t, err)
	require.Equal(t, defaultOut, o.out, "a whole run writes the report")
	for _, args := range [][]string{{"-only", "relay"}, {"-rows", "20000"}, {"-rounds", "1"}} {
		o, err = parse(args, all, io.Discard)
		require.NoError(t, err)
		require.Empty(t, o.out, "%s is only printed", args)
	}
	o, err = parse([]string{"-only", "limits,relay", "-out", "x"}, all, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "x", o.out)
	require.Len(t, selected(all, o.only), len(limitScenarios())+1)
	for _, args := range [][]string{{"-only", "relays"}, {"-rows", "19999"}, {"-rounds", "0"}, {"relay"}} {
		_, err = parse(args, all, io.Discard)
		require.Error(t, err, "%s", args)
	}
}

func TestProcessorTime(t *testing.T) {
	t.Parallel()
	before := cpu(os.Getpid())
	for begin := time.Now(); cpu(os.Getpid()) < before+0.05; {
		require.Less(t, time.Since(begin), time.Minute)
	}
	resident, err := peakResident(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, resident, 1.0)
	_, err = peakResident(1 << 30)
	require.Error(t, err)
	require.Zero(t, cpu(1<<30))
}
