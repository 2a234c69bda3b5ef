package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Who is best by luck in the rounds that choose is compared by the others.
func TestToChosenPeer(t *testing.T) {
	r := result{cell: find(t, "echo/125B/64"), samples: map[string][]sample{
		"strictws":          costs(1000, 900, 1000, 900, 1000),
		"strictws-messages": costs(1100, 800, 1100, 800, 1100),
		"gws":               costs(500, 2000, 500, 2000, 500),
		"gorilla":           costs(2000, 1000, 2000, 1000, 2000),
		"raw":               costs(10, 10, 10, 10, 10),
	}}
	// The odd rounds choose strictws and gws, the even ones strictws-messages and gorilla.
	ratio, ok := r.toChosenPeer(ours)
	require.True(t, ok)
	assert.InDelta(t, math.Sqrt(900.0/2000*1100/2000), ratio, 1e-12)
	ratio, ok = r.toChosenPeer(raw)
	require.True(t, ok)
	assert.InDelta(t, 10.0/2000, ratio, 1e-12)
	_, ok = r.toChosenPeer(kernel)
	assert.False(t, ok, "not measured")

	delete(r.samples, "gorilla")
	r.samples["gws"] = r.samples["gws"][:1]
	_, ok = r.toChosenPeer(ours)
	assert.False(t, ok, "a single round cannot choose and compare")

	worse := result{cell: find(t, "echo/125B/1"), samples: map[string][]sample{
		"strictws": costs(3000, 3000), "gws": costs(2000, 2000)}}
	other := result{cell: find(t, "text/utf8/1"), samples: worse.samples}
	better := result{cell: find(t, "echo/16B/1"), samples: map[string][]sample{
		"strictws": costs(2000, 2000), "gws": costs(3000, 3000)}}
	var line strings.Builder
	writeChosen(&line, []result{worse, other, better}, ours)
	assert.Contains(t, line.String(), "the geometric mean of `strictws` to them is 1.00. It is above 1.0 in 1 of 2 cells.\n")
}

func TestTwins(t *testing.T) {
	results := []result{
		{cell: find(t, "echo/125B/1"), samples: map[string][]sample{"raw": costs(2000), "strictws": costs(1)},
			twins: map[string][][]sample{"raw": {costs(3000, 2000, 500), costs(1500, 1600, 1700)}}},
		{cell: find(t, "echo/125B/64"), samples: map[string][]sample{"raw": costs(800)},
			twins: map[string][][]sample{"raw": {costs(1000), costs(1200)}}},
	}
	var table strings.Builder
	writeTwins(&table, results)
	assert.Equal(t, `
### Each server to the best of its twins

| | others | cells | above 1.0 | geometric mean | greatest |
| --- | ---: | ---: | ---: | ---: | ---: |
| raw | 2 | 2 | 1 | 1.00 | 1.25 |
`, table.String())

	table.Reset()
	for i := range results {
		results[i].twins = nil
	}
	writeTwins(&table, results)
	assert.Empty(t, table.String())
}

func TestDuel(t *testing.T) {
	one, other := costs(1000, 2000, 3000, 4000), costs(2000, 1000, 9000, 4000)
	assert.Equal(t, duel{rounds: 4, won: 2, ratio: (0.5 + 1) / 2}, duelOf(one, other))
	assert.Equal(t, duel{rounds: 4, won: 1, ratio: (1 + 2) / 2.0}, duelOf(other, one), "none is less than itself")
	assert.Equal(t, duel{}, duelOf(one, nil))

	for _, d := range []struct {
		rounds, won int
		luck        float64
	}{{1, 1, 1. / 2}, {4, 4, 1. / 16}, {4, 3, 5. / 16}, {4, 0, 1}, {10, 8, 56. / 1024}, {40, 20, 0.5627}, {200, 130, 1.32644e-5}} {
		assert.InEpsilon(t, d.luck, duel{rounds: d.rounds, won: d.won}.luck(), 1e-3, d)
	}
}

func TestChosen(t *testing.T) {
	r := result{samples: map[string][]sample{
		"strictws":          costs(1000, 9000, 1010, 9010, 1020),
		"strictws-messages": costs(8000, 2000, 8010, 2010, 8020),
	}}
	assert.Equal(t, costs(8000, 9000, 8010, 9010, 8020), r.chosen(ours))
	delete(r.samples, "strictws-messages")
	assert.Equal(t, r.samples["strictws"], r.chosen(ours))
	r.samples["strictws"] = r.samples["strictws"][:1]
	assert.Empty(t, r.chosen(ours), "a single round cannot choose and compare")
	assert.Empty(t, r.chosen("gws"), "not measured")
}

// Of servers that are alike none is ahead much more often than luck says, though two of them are ours. The halves of
// the rounds depend on each other a little: it is 1.3 times as often.
func TestAheadOfAlike(t *testing.T) {
	const trials, rounds = 50_000, 10
	rnd := rand.New(rand.NewPCG(1, 2))
	ahead, behind := 0, 0
	for range trials {
		r := result{samples: make(map[string][]sample)}
		for _, name := range []string{"strictws", "strictws-messages", "gws"} {
			for range rounds {
				r.samples[name] = append(r.samples[name], sample{Cost: rnd.Float64()})
			}
		}
		our, peer := r.chosen(ours), r.samples["gws"]
		if duelOf(our, peer).luck() <= rare {
			ahead++
		}
		if duelOf(peer, our).luck() <= rare {
			behind++
		}
	}
	const often = rare * trials
	assert.InDelta(t, often, ahead, 0.6*often)
	assert.InDelta(t, often, behind, 0.6*often)
}

func TestAhead(t *testing.T) {
	is := func(cost float64, rounds int) []sample { return costs(slices.Repeat([]float64{cost}, rounds)...) }
	results := []result{
		{cell: find(t, "echo/16B/1"), samples: map[string][]sample{ // first
			"strictws": is(1000, 10), "strictws-messages": is(3000, 10), "gws": is(2000, 10), "raw": is(1, 10)}},
		{cell: find(t, "echo/125B/1"), samples: map[string][]sample{ // behind
			"strictws": is(3000, 10), "gws": is(4000, 10), "gobwas-low": is(1500, 10), "nbio": is(2000, 10)}},
		{cell: find(t, "text/utf8/1"), samples: map[string][]sample{ // nine of ten are not enough
			"strictws": is(3000, 10), "gws": append(is(4000, 9), is(1, 1)...), "nbio": append(is(2000, 9), is(9000, 1)...)}},
		{cell: find(t, "echo/125B/64"), samples: map[string][]sample{ // nor are nine
			"strictws": is(3000, 9), "gws": is(2000, 9)}},
		{cell: find(t, "idle/125B"), samples: map[string][]sample{ // and memory has no luck
			"strictws": is(3000, 10), "gws": is(2000, 10)}},
	}
	var table strings.Builder
	writeAhead(&table, results)
	assert.Equal(t, `
### Ahead by more than luck

| | server | its cost to ours | less in rounds |
| --- | --- | ---: | ---: |
| echo/125B/1 | gobwas-low | 0.50 | 10 of 10 |
| echo/125B/1 | nbio | 0.67 | 10 of 10 |

Round by round, ours is ahead of every peer in 1 of 3 cells, and a peer is ahead of it in 1, by more than luck. In the others that cannot be told.
`, table.String())

	table.Reset()
	writeAhead(&table, results[3:])
	assert.Empty(t, table.String())
}
