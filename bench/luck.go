package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/strictws/websocket/bench/server"
)

// half returns r with every other round, beginning with the first or the second.
func (r result) half(first int) result {
	samples := make(map[string][]sample)
	for name, all := range r.samples {
		for i := first; i < len(all); i += 2 {
			samples[name] = append(samples[name], all[i])
		}
	}
	return result{cell: r.cell, samples: samples}
}

// toChosenPeer is what a library costs to what the best peer does, where one half of the rounds chooses the best way of
// each, and the other half compares these. So it makes no difference that the best of many is the luckiest, too.
func (r result) toChosenPeer(library string) (ratio float64, ok bool) {
	halves := [...]result{r.half(0), r.half(1)}
	var ratios []float64
	for i, chooses := range halves {
		compares := halves[1-i]
		its, ok := chooses.library(library)
		peer, known := chooses.best(isPeer)
		if !ok || !known || len(compares.samples[its.Name]) == 0 || len(compares.samples[peer.Name]) == 0 {
			return 0, false
		}
		ratios = append(ratios, median(compares.samples[its.Name]).Cost/median(compares.samples[peer.Name]).Cost)
	}
	return geometricMean(ratios), true
}

// writeChosen says how a library compares to the best peers, chosen by other rounds, over the echo cells.
func writeChosen(w io.Writer, results []result, library string) {
	var ratios []float64
	for _, r := range results {
		if ratio, ok := r.toChosenPeer(library); ok && r.cell.kind == echo {
			ratios = append(ratios, ratio)
		}
	}
	if len(ratios) > 1 {
		fmt.Fprintf(w, "\nIf every other round chooses the best peers, and those between compare, the geometric mean of `%s` to them "+
			"is %.2f. It is above 1.0 in %d of %d cells.\n", library, geometricMean(ratios), above1(ratios), len(ratios))
	}
}

func above1(ratios []float64) int {
	n := 0
	for _, r := range ratios {
		if r > 1 {
			n++
		}
	}
	return n
}

// writeTwins says how each server, over the cells, compares with the best of its twins. What they differ by is luck, so it
// is what the best of as many peers would have ahead of one as good as they are.
func writeTwins(w io.Writer, results []result) {
	head := false
	for _, v := range server.Variants() {
		var ratios []float64
		others := 0
		for _, r := range results {
			if len(r.twins[v.Name]) == 0 {
				continue
			}
			others = len(r.twins[v.Name])
			best := math.Inf(1)
			for _, s := range r.twins[v.Name] {
				best = min(best, median(s).Cost)
			}
			ratios = append(ratios, median(r.samples[v.Name]).Cost/best)
		}
		if len(ratios) == 0 {
			continue
		}
		if !head {
			head = true
			fmt.Fprint(w, "\n### Each server to the best of its twins\n\n")
			fmt.Fprint(w, "| | others | cells | above 1.0 | geometric mean | greatest |\n| --- | ---: | ---: | ---: | ---: | ---: |\n")
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %.2f | %.2f |\n", v.Name, others, len(ratios), above1(ratios),
			geometricMean(ratios), slices.Max(ratios))
	}
}

// A duel compares two servers round by round.
type duel struct {
	rounds, won int     // how often the first one cost less
	ratio       float64 // median of what it cost to what the other one did
}

func duelOf(a, b []sample) duel {
	d := duel{rounds: min(len(a), len(b))}
	if d.rounds == 0 {
		return d
	}
	var ratios []float64
	for i := range d.rounds {
		its, others := a[i].Cost, b[i].Cost
		if its < others {
			d.won++
		}
		ratios = append(ratios, its/others)
	}
	d.ratio = middle(ratios)
	return d
}

// luck is how probable it is that the first wins so often, or more often, if nothing but luck decides. That one of the
// two does, whichever, is twice as probable.
func (d duel) luck() float64 {
	p, c := 0.0, 1.0 // c: in how many ways the first wins all but lost rounds
	for lost := range d.rounds - d.won + 1 {
		p += c
		c *= float64(d.rounds-lost) / float64(lost+1)
	}
	return p / math.Exp2(float64(d.rounds))
}

// chosen returns a library's samples, in each half of the rounds those of the way that the other half chooses: in the
// rounds that choose it, the better one of two ways that are alike has had luck.
func (r result) chosen(library string) []sample {
	var ways [2]way
	for i := range ways {
		ways[i], _ = r.half(1 - i).library(library)
	}
	var samples []sample
	for round := 0; round < len(r.samples[ways[round%2].Name]); round++ {
		samples = append(samples, r.samples[ways[round%2].Name][round])
	}
	return samples
}

// rare is how probable luck may be at most to be ruled out: there are hundreds of duels.
const rare = 0.001

// writeAhead lists the peers' servers that are ahead of ours, in the way that other rounds choose, by more than luck.
func writeAhead(w io.Writer, results []result) {
	cells, first, behind := 0, 0, 0
	var lines strings.Builder
	for _, r := range results {
		our := r.chosen(ours)
		if len(our) == 0 || r.cell.kind == idle || r.cell.kind == idleTLS {
			continue
		}
		peers, beaten, ahead := 0, 0, 0
		for _, v := range server.Variants() {
			if !isPeer(v) {
				continue
			}
			d := duelOf(r.samples[v.Name], our)
			if (duel{rounds: d.rounds, won: d.rounds}).luck() > rare {
				continue // so few rounds cannot rule luck out
			}
			peers++
			if d.luck() <= rare {
				ahead++
				fmt.Fprintf(&lines, "| %s | %s | %.2f | %d of %d |\n", r.cell.name, v.Name, d.ratio, d.won, d.rounds)
			}
			if duelOf(our, r.samples[v.Name]).luck() <= rare {
				beaten++
			}
		}
		if peers == 0 {
			continue
		}
		cells++
		if ahead > 0 {
			behind++
		}
		if beaten == peers {
			first++
		}
	}
	if cells == 0 {
		return
	}
	fmt.Fprint(w, "\n### Ahead by more than luck\n\n")
	if lines.Len() > 0 {
		fmt.Fprintf(w, "| | server | its cost to ours | less in rounds |\n| --- | --- | ---: | ---: |\n%s\n", &lines)
	}
	fmt.Fprintf(w, "Round by round, ours is ahead of every peer in %d of %d cells, and a peer is ahead of it in %d, by more than luck. "+
		"In the others that cannot be told.\n", first, cells, behind)
}
