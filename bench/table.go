package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/strictws/websocket/bench/server"
)

const (
	ours   = "strictws"
	raw    = "raw"
	kernel = "kernel"
)

// A result has what was measured of a cell.
type result struct {
	cell    cell
	samples map[string][]sample   // by the name of the server
	twins   map[string][][]sample // of each of its twins
	failed  map[string]error
}

// median returns, for each quantity on its own, the median of samples.
func median(samples []sample) sample {
	of := func(quantity func(sample) float64) float64 {
		var v []float64
		for _, s := range samples {
			v = append(v, quantity(s))
		}
		return middle(v)
	}
	return sample{
		Cost:  of(func(s sample) float64 { return s.Cost }),
		Calls: of(func(s sample) float64 { return s.Calls }),
		Wire:  of(func(s sample) float64 { return s.Wire }),
		Rate:  of(func(s sample) float64 { return s.Rate }),
	}
}

// middle returns the median of v, and sorts v.
func middle(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// extremes returns the least and the greatest cost.
func extremes(samples []sample) (least, most float64) {
	least, most = math.Inf(1), math.Inf(-1)
	for _, s := range samples {
		least, most = min(least, s.Cost), max(most, s.Cost)
	}
	return least, most
}

// A way is a server and what it costs.
type way struct {
	server.Variant
	cost float64
}

// best returns the cheapest of the servers that match.
func (r result) best(match func(server.Variant) bool) (way, bool) {
	var b way
	found := false
	for _, v := range server.Variants() {
		s := r.samples[v.Name]
		if len(s) == 0 || !match(v) {
			continue
		}
		if cost := median(s).Cost; !found || cost < b.cost {
			b, found = way{v, cost}, true
		}
	}
	return b, found
}

func (r result) library(name string) (way, bool) {
	return r.best(func(v server.Variant) bool { return v.Library() == name })
}

func isPeer(v server.Variant) bool { return v.Library() != ours && !v.Plain }

// libraries returns the names of the libraries, those without WebSockets first, then ours.
func libraries() []string {
	names := []string{kernel, raw, ours}
	for _, v := range server.Variants() {
		if !slices.Contains(names, v.Library()) {
			names = append(names, v.Library())
		}
	}
	return names
}

// A goal is what a ratio, or a cost, is to be at most.
type goal struct {
	what        string
	value, most float64
}

func (g goal) met() bool { return g.value <= g.most }

// goals are the goals of the result's cell, as far as they can be told.
func (r result) goals() []goal {
	our, ok := r.library(ours)
	if !ok {
		return nil
	}
	var goals []goal
	against := func(who string, most float64, match func(server.Variant) bool) {
		if other, ok := r.best(match); ok {
			what := fmt.Sprintf("of %s, %s", other.Name, who)
			goals = append(goals, goal{what, our.cost / other.cost, most})
		}
	}
	switch r.cell.kind {
	case echo:
		against("the best peer", 1.0, isPeer)
		if r.cell.mode.Size <= 16<<10 {
			against("bytes without frames", 1.1, func(v server.Variant) bool { return v.Library() == raw })
		}
	case text:
		against("the best peer that validates", 1.0, func(v server.Variant) bool { return isPeer(v) && v.Validates })
		against("the best peer that does not", 1.3, func(v server.Variant) bool { return isPeer(v) && !v.Validates })
	case pipelined:
		against("the best peer that writes each answer", 0.15,
			func(v server.Variant) bool { return isPeer(v) && !v.Gathers })
		against("the best peer that gathers them", 1.0, func(v server.Variant) bool { return isPeer(v) && v.Gathers })
	case broadcast:
		against("the best peer", 1.0, isPeer)
	case deflate, takeover:
		against("the best peer on compress/flate", 1.0, func(v server.Variant) bool { return isPeer(v) && v.Flate })
	case handshake:
		against("the best peer on net/http", 1.0, func(v server.Variant) bool { return isPeer(v) && v.NetHTTP })
	case idle:
		if r.cell.conns >= 10000 {
			goals = append(goals, goal{"KB", our.cost / 1000, 4.5})
		}
		against("the best peer with a goroutine a connection", 1.0,
			func(v server.Variant) bool { return isPeer(v) && !v.EventLoop })
	}
	return goals
}

var titles = map[kind]string{
	echo:      "Echo: µs of server CPU a message",
	text:      "Echo of 16 KiB of text: µs of server CPU a message",
	pipelined: "Echo of 16 B, 64 frames in one write: µs of server CPU a message",
	broadcast: "Broadcast of 1 KiB: µs of server CPU a delivery",
	handshake: "Opening handshake: µs of server CPU a connection, accepted, upgraded and dropped",
	deflate:   "Echo of JSON, permessage-deflate without context takeover, level 1: µs of server CPU a message",
	takeover:  "The same with context takeover",
	idle:      "Idle connections: KB of resident memory each",
	idleTLS:   "Idle connections over TLS: KB of resident memory each; raw is a bare tls.Conn",
}

// number shows v with three digits that count.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// writeTables writes a table for each kind of cell: a column for each library, each by the better of its ways.
func writeTables(w io.Writer, results []result) {
	for len(results) > 0 {
		k := results[0].cell.kind
		n := 0
		for n < len(results) && results[n].cell.kind == k {
			n++
		}
		writeTable(w, k, results[:n])
		results = results[n:]
	}
}

func writeTable(w io.Writer, k kind, results []result) {
	libs := slices.DeleteFunc(libraries(), func(name string) bool {
		return !slices.ContainsFunc(results, func(r result) bool { _, ok := r.library(name); return ok })
	})
	if len(libs) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### %s\n\n", titles[k])
	fmt.Fprintf(w, "| | %s | best peer | ours to it | ours to raw |\n", strings.Join(libs, " | "))
	fmt.Fprintf(w, "| --- |%s --- | ---: | ---: |\n", strings.Repeat(" ---: |", len(libs)))
	for _, r := range results {
		fmt.Fprintf(w, "| %s |", r.cell.name)
		for _, name := range libs {
			if b, ok := r.library(name); ok {
				fmt.Fprintf(w, " %s |", number(b.cost/1000))
			} else {
				fmt.Fprint(w, " |")
			}
		}
		our, have := r.library(ours)
		peer, ok := r.best(isPeer)
		if ok {
			fmt.Fprintf(w, " %s |", peer.Name)
		} else {
			fmt.Fprint(w, " |")
		}
		ratio(w, have && ok, our.cost, peer.cost)
		bytes, ok := r.library(raw)
		ratio(w, have && ok, our.cost, bytes.cost)
		fmt.Fprintln(w)
		if r.cell.mode.Deflate {
			fmt.Fprint(w, "| bytes of the answer |")
			for _, name := range libs {
				if b, ok := r.library(name); ok {
					fmt.Fprintf(w, " %.0f |", median(r.samples[b.Name]).Wire)
				} else {
					fmt.Fprint(w, " |")
				}
			}
			fmt.Fprintln(w, " | | |")
		}
	}
}

func ratio(w io.Writer, ok bool, a, b float64) {
	if ok {
		fmt.Fprintf(w, " %.2f |", a/b)
	} else {
		fmt.Fprint(w, " |")
	}
}

// writeGoals lists the goals, and whether they are met.
func writeGoals(w io.Writer, results []result) {
	type line struct {
		cell string
		goal
	}
	var lines []line
	for _, r := range results {
		for _, g := range r.goals() {
			lines = append(lines, line{r.cell.name, g})
		}
	}
	if len(lines) == 0 {
		return
	}
	if mean, n := meanToPeers(results, ours); n > 1 {
		lines = append(lines, line{"echo/*", goal{"of the best peers, geometric mean", mean, 0.9}})
	}
	fmt.Fprint(w, "\n### Goals\n\n| | ours | at most | | |\n| --- | ---: | ---: | --- | --- |\n")
	met := 0
	for _, l := range lines {
		verdict := "**missed**"
		if l.met() {
			verdict = "met"
			met++
		}
		fmt.Fprintf(w, "| %s | %.2f | %.2f | %s | %s |\n", l.cell, l.value, l.most, l.what, verdict)
	}
	fmt.Fprintf(w, "\n%d of %d met.\n", met, len(lines))
	for _, plain := range []string{raw, kernel} {
		if mean, n := meanToPeers(results, plain); n > 1 {
			fmt.Fprintf(w, "\nThe geometric mean of `%s` to the best peers is %.2f over %d cells.\n", plain, mean, n)
		}
	}
	for _, library := range []string{ours, raw, kernel} {
		writeChosen(w, results, library)
	}
}

// meanToPeers is the geometric mean of what a library costs to what the best peer does, over the n echo cells that have
// both.
func meanToPeers(results []result, library string) (mean float64, n int) {
	var ratios []float64
	for _, r := range results {
		its, ok := r.library(library)
		peer, known := r.best(isPeer)
		if r.cell.kind == echo && ok && known {
			ratios = append(ratios, its.cost/peer.cost)
		}
	}
	return geometricMean(ratios), len(ratios)
}

func geometricMean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(v)))
}

// writeDetails lists every server, and how much its rounds differ.
func writeDetails(w io.Writer, results []result) {
	fmt.Fprint(w, "\n### Every server\n\nCalls are its read and write system calls, bytes those it sent. Busy says how much of the time it used its "+
		"core, or got it, if others use it too.\n\n")
	fmt.Fprint(w, "| | server | µs or KB | least | spread | rounds | calls | bytes | a second | busy |\n")
	fmt.Fprint(w, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range results {
		for _, v := range server.Variants() {
			samples := r.samples[v.Name]
			if len(samples) == 0 {
				continue
			}
			m := median(samples)
			least, most := extremes(samples)
			fmt.Fprintf(w, "| %s | %s | %s | %s | %.0f %% | %d | %.2f | %.0f | %.0f | %.0f %% |\n", r.cell.name, v.Name,
				number(m.Cost/1000), number(least/1000), 100*(most-least)/m.Cost, len(samples), m.Calls, m.Wire, m.Rate,
				100*m.Rate*m.Cost/1e9)
		}
	}
}

// writeFailures lists what could not be measured, and returns how much that is.
func writeFailures(w io.Writer, results []result) int {
	n := 0
	for _, r := range results {
		for _, v := range server.Variants() {
			err := r.failed[v.Name]
			if err == nil {
				continue
			}
			if n == 0 {
				fmt.Fprint(w, "\n### Failed, and left out\n\n")
			}
			n++
			fmt.Fprintf(w, "- %s, %s: %v\n", r.cell.name, v.Name, err)
		}
	}
	return n
}
