package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// An outcome is what the suite says of a case.
type outcome struct {
	Behavior      string `json:"behavior"`
	BehaviorClose string `json:"behaviorClose"`
}

// An expectation maps the id of each case to its expected outcome.
type expectation map[string]outcome

//go:embed expected.json
var expectedJSON []byte

// expected returns what is expected of every agent. The list of cases is the suite's own, in its version suiteVersion.
var expected = sync.OnceValue(func() expectation {
	var e expectation
	if err := json.Unmarshal(expectedJSON, &e); err != nil {
		panic("autobahn: expected.json: " + err.Error()) // compiled in: every run of the tests would see it
	}
	return e
})

// ids returns the ids of the cases in the suite's order.
func (e expectation) ids() []string {
	return slices.SortedFunc(maps.Keys(e), compareIDs)
}

// subset returns the cases that were selected.
func (e expectation) subset(s selection) expectation {
	sub := make(expectation)
	for id, o := range e {
		if s.has(id) {
			sub[id] = o
		}
	}
	return sub
}

// A selection is a list of the suite's patterns: a case's id, or a prefix of ids with a dot and a star, or a star.
type selection []string

func (s selection) has(id string) bool {
	return slices.ContainsFunc(s, func(pattern string) bool {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		return id == pattern || isPrefix && strings.HasPrefix(id, prefix)
	})
}

// parseSelection reads a comma-separated list of "all", sections (12), ranges of them (1-10), and cases or groups of
// cases (6.4.1, 6.4). Each must stand for at least one expected case.
func (e expectation) parseSelection(list string) (selection, error) {
	var s selection
	add := func(pattern string) bool {
		if len(e.subset(selection{pattern})) == 0 {
			return false
		}
		s = append(s, pattern)
		return true
	}
	for item := range strings.SplitSeq(list, ",") {
		found := false
		if item == "all" {
			found = add("*")
		} else if first, last, ok := parseRange(item); ok {
			for n := first; n <= last; n++ {
				found = add(strconv.Itoa(n)+".*") || found // some numbers are no sections
			}
		} else {
			found = item != "" && !strings.Contains(item, "*") && (add(item) || add(item+".*"))
		}
		if !found {
			return nil, fmt.Errorf("no cases %q: there are 1.1.1 to 13.7.18", item)
		}
	}
	return s, nil
}

// parseRange reads "1-10". The numbers have at most two digits, as sections do.
func parseRange(s string) (first, last int, ok bool) {
	a, b, found := strings.Cut(s, "-")
	if !found || len(a) > 2 || len(b) > 2 {
		return 0, 0, false
	}
	first, err1 := strconv.Atoi(a)
	last, err2 := strconv.Atoi(b)
	return first, last, err1 == nil && err2 == nil && first <= last
}

// section returns the first number of a case's id.
func section(id string) string {
	s, _, _ := strings.Cut(id, ".")
	return s
}

// compareIDs orders ids by their numbers.
func compareIDs(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		if len(x) != len(y) {
			return cmp.Compare(len(x), len(y))
		}
		return cmp.Compare(x, y)
	})
}
