package main

import (
	"math"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/strictws/websocket/bench/server"
)

func costs(v ...float64) []sample {
	var s []sample
	for _, c := range v {
		s = append(s, sample{Cost: c, Calls: c / 1000})
	}
	return s
}

func TestMedian(t *testing.T) {
	assert.Equal(t, sample{Cost: 7000, Calls: 7}, median(costs(7000)))
	assert.Equal(t, sample{Cost: 2000, Calls: 2}, median(costs(9000, 1000, 2000)))
	assert.Equal(t, sample{Cost: 2500, Calls: 2.5}, median(costs(9000, 1000, 2000, 3000)))

	// Each quantity has its own.
	m := median([]sample{{Cost: 1, Wire: 30}, {Cost: 2, Wire: 10}, {Cost: 3, Wire: 20}})
	assert.Equal(t, sample{Cost: 2, Wire: 20}, m)
}

func TestExtremes(t *testing.T) {
	least, most := extremes(costs(3, 1, 2, 4, 2))
	assert.Equal(t, 1.0, least)
	assert.Equal(t, 4.0, most)
}

func TestGeometricMean(t *testing.T) {
	assert.InDelta(t, 1, geometricMean([]float64{0.5, 2}), 1e-12)
	assert.InDelta(t, math.Cbrt(0.9*0.8*1.1), geometricMean([]float64{0.9, 0.8, 1.1}), 1e-12)
}

func find(t *testing.T, name string) cell {
	t.Helper()
	for _, c := range cells() {
		if c.name == name {
			return c
		}
	}
	require.Fail(t, "no such cell", name)
	return cell{}
}

// Of several servers of a library the cheaper one counts, be it ours or a peer's, by the medians.
func TestBest(t *testing.T) {
	r := result{cell: find(t, "echo/125B/64"), samples: map[string][]sample{
		"raw":               costs(4000, 4000, 4000),
		"strictws":          costs(6000, 5000, 9000),
		"strictws-messages": costs(5000, 5500, 1000),
		"gorilla":           costs(10000, 9000, 8000),
		"gobwas":            costs(20000),
		"gobwas-buffered":   costs(6250),
	}}
	our, ok := r.library(ours)
	require.True(t, ok)
	assert.Equal(t, "strictws-messages", our.Name)
	assert.Equal(t, 5000.0, our.cost)
	peer, ok := r.best(isPeer)
	require.True(t, ok)
	assert.Equal(t, "gobwas-buffered", peer.Name)
	_, ok = r.library("gws")
	assert.False(t, ok, "not measured")

	assert.Equal(t, []goal{
		{"of gobwas-buffered, the best peer", 0.8, 1},
		{"of raw, bytes without frames", 1.25, 1.1},
	}, r.goals())
	assert.True(t, r.goals()[0].met())
	assert.False(t, r.goals()[1].met())

	var table strings.Builder
	writeTables(&table, []result{r})
	assert.Equal(t, `
### Echo: µs of server CPU a message

| | raw | strictws | gobwas | gorilla | best peer | ours to it | ours to raw |
| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |
| echo/125B/64 | 4.00 | 5.00 | 6.25 | 9.00 | gobwas-buffered | 0.80 | 1.25 |
`, table.String())
}

func TestGoals(t *testing.T) {
	samples := map[string][]sample{
		"raw": costs(1000), "strictws": costs(4000), "gorilla": costs(4000), "gobwas": costs(8000),
		"gobwas-low": costs(5000), "gobwas-batched": costs(10000), "gws": costs(3200), "gws-utf8": costs(5000),
		"nbio": costs(2000),
	}
	for name, want := range map[string][]goal{
		"echo/64KiB/1": {{"of nbio, the best peer", 2, 1}}, // not against raw
		"text/utf8/1": {
			{"of nbio, the best peer that validates", 2, 1},
			{"of gws, the best peer that does not", 1.25, 1.3},
		},
		"pipelined/1": {
			{"of nbio, the best peer that writes each answer", 2, 0.15},
			{"of gobwas-batched, the best peer that gathers them", 0.4, 1},
		},
		"broadcast/1000": {{"of nbio, the best peer", 2, 1}},
		"handshake":      {{"of gws, the best peer on net/http", 1.25, 1}},
		"deflate/1KiB":   {{"of nbio, the best peer on compress/flate", 2, 1}},
		"idle/125B": {
			{"KB", 4, 4.5},
			{"of gws, the best peer with a goroutine a connection", 1.25, 1},
		},
		"takeover/1KiB": {{"of nbio, the best peer on compress/flate", 2, 1}},
		"idle-tls/125B": nil,
	} {
		assert.Equal(t, want, result{cell: find(t, name), samples: samples}.goals(), name)
	}
}

func TestGoalsOfAllEchoes(t *testing.T) {
	results := []result{
		{cell: find(t, "echo/64KiB/1"), samples: map[string][]sample{
			"strictws": costs(500), "gws": costs(1000), "kernel": costs(400), "raw": costs(1000)}},
		{cell: find(t, "echo/64KiB/64"), samples: map[string][]sample{
			"strictws": costs(1280), "gws": costs(1000), "kernel": costs(900), "raw-large": costs(810), "raw": costs(990)}},
		{cell: find(t, "text/utf8/1"), samples: map[string][]sample{"kernel": costs(1), "gws": costs(1000)}},
	}
	var goals strings.Builder
	writeGoals(&goals, results)
	assert.Contains(t, goals.String(), "| echo/64KiB/1 | 0.50 | 1.00 | of gws, the best peer | met |\n")
	assert.Contains(t, goals.String(), "| echo/64KiB/64 | 1.28 | 1.00 | of gws, the best peer | **missed** |\n")
	assert.Contains(t, goals.String(), "| echo/* | 0.80 | 0.90 | of the best peers, geometric mean | met |\n")
	assert.Contains(t, goals.String(), "\n2 of 3 met.\n")
	assert.Contains(t, goals.String(), "\nThe geometric mean of `raw` to the best peers is 0.90 over 2 cells.\n")
	assert.Contains(t, goals.String(), "\nThe geometric mean of `kernel` to the best peers is 0.60 over 2 cells.\n")
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.1234: "0.12", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234: "1234"} {
		assert.Equal(t, want, number(v))
	}
}

func TestMatches(t *testing.T) {
	c := cell{name: "echo/125B/64"}
	for pattern, want := range map[string]bool{
		"echo": true, "echo/125B": true, "echo/*/64": true, "echo/125B/*": true, "*": true,
		"echo/125B/1": false, "ech": false, "125B": false, "echo/16B": false,
	} {
		match, err := c.matches(pattern)
		require.NoError(t, err, pattern)
		assert.Equal(t, want, match, pattern)
	}
	_, err := c.matches("idle/[")
	assert.ErrorIs(t, err, path.ErrBadPattern, "though it would match nothing here")
}

func TestLibraries(t *testing.T) {
	assert.Equal(t, []string{"kernel", "raw", "strictws", "coder", "gobwas", "gorilla", "gws", "nbio"}, libraries())
	for _, v := range server.Variants() {
		assert.Equal(t, v.Library() == raw || v.Library() == kernel, v.Plain, v.Name)
	}
}
