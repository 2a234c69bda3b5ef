// Command bench compares the CPU time and the memory that WebSocket servers need: this library's, those of other Go
// libraries, and one that echoes bytes without any WebSocket. See README.md.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/strictws/websocket/bench/server"
)

func main() {
	var (
		serve   = flag.String("serve", "", "be the server of that `name`: what this command starts")
		mode    = flag.String("mode", "{}", "of the server, in JSON")
		full    = flag.Bool("full", false, "measure all cells, for longer")
		pattern = flag.String("cells", "", "measure these cells: `patterns`, as in 'echo/125B/*,pipelined'")
		libs    = flag.String("libs", "", "measure these libraries, or servers: `names`, as in strictws,gobwas-low,raw")
		rounds  = flag.Int("rounds", 0, "number of rounds; 0 means 3, or 7 with -full")
		each    = flag.Duration("time", 0, "how long one measurement takes; 0 means 120ms, or 200ms with -full")
		details = flag.Bool("details", false, "list every server, too")
		twins   = flag.Int("twins", 0, "give each server so many `twins`, which differ from it by luck, and compare it with the best of them")
		profile = flag.String("profile", "", "write a CPU profile of the last round of each server to that `directory`")
		list    = flag.Bool("list", false, "list the cells and the servers, and measure nothing")
	)
	flag.Parse()
	err := func() error {
		switch {
		case flag.NArg() > 0:
			return fmt.Errorf("%q is no option", flag.Arg(0))
		case *rounds < 0 || *twins < 0 || *each < 0:
			return errors.New("-rounds, -twins and -time are not to be negative")
		}
		if *serve != "" {
			var m server.Mode
			if err := json.Unmarshal([]byte(*mode), &m); err != nil {
				return err
			}
			return server.Run(*serve, m, os.Stdin, os.Stdout)
		}
		o := options{rounds: 3, twins: *twins, progress: os.Stderr,
			budget: budget{measure: 120 * time.Millisecond, upgrades: 2000}}
		if *full {
			o.rounds, o.budget = 7, budget{measure: 200 * time.Millisecond, upgrades: 5000}
		}
		if *rounds > 0 {
			o.rounds = *rounds
		}
		if *each > 0 {
			o.budget.measure = *each
		}
		o.budget.warm = o.budget.measure / 3
		o.budget.profiles = *profile
		cells, err := chooseCells(*pattern, *full)
		if err != nil {
			return err
		}
		variants, err := chooseVariants(*libs)
		if err != nil {
			return err
		}
		if *list {
			writeList(os.Stdout, cells, variants)
			return nil
		}
		if *profile != "" {
			if err := os.MkdirAll(*profile, 0o777); err != nil {
				return err
			}
		}
		if o.cores, err = chooseCores(); err != nil {
			return err
		}
		if err := o.cores.stayOnLoad(); err != nil {
			return err
		}
		start := time.Now()
		results := o.run(cells, variants)
		writeHead(os.Stdout, o)
		writeTables(os.Stdout, results)
		writeGoals(os.Stdout, results)
		writeAhead(os.Stdout, results)
		writeTwins(os.Stdout, results)
		if *details {
			writeDetails(os.Stdout, results)
		}
		failures := writeFailures(os.Stdout, results)
		fmt.Fprintf(os.Stderr, "%v\n", time.Since(start).Round(time.Second))
		if failures > 0 {
			return fmt.Errorf("%d measurements failed", failures)
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func chooseCells(patterns string, full bool) ([]cell, error) {
	all := cells()
	if patterns == "" {
		return slices.DeleteFunc(all, func(c cell) bool { return c.full && !full }), nil
	}
	chosen := make(map[string]bool)
	for pattern := range strings.SplitSeq(patterns, ",") {
		known := false
		for _, c := range all {
			match, err := c.matches(pattern)
			if err != nil {
				return nil, fmt.Errorf("%w: %q", err, pattern)
			}
			if match {
				chosen[c.name], known = true, true
			}
		}
		if !known {
			return nil, fmt.Errorf("no cell matches %q; -list lists them", pattern)
		}
	}
	return slices.DeleteFunc(all, func(c cell) bool { return !chosen[c.name] }), nil
}

func chooseVariants(names string) ([]server.Variant, error) {
	all := server.Variants()
	if names == "" {
		return all, nil
	}
	chosen := make(map[string]bool)
	for name := range strings.SplitSeq(names, ",") {
		known := false
		for _, v := range all {
			if v.Name == name || v.Library() == name {
				chosen[v.Name], known = true, true
			}
		}
		if !known {
			return nil, fmt.Errorf("no server is called %q; -list lists them", name)
		}
	}
	return slices.DeleteFunc(all, func(v server.Variant) bool { return !chosen[v.Name] }), nil
}

type options struct {
	rounds   int
	twins    int // of each server
	budget   budget
	cores    cores
	progress io.Writer
}

// idleRounds is how many rounds idle cells have: memory hardly differs.
func (o options) idleRounds() int { return (o.rounds + 2) / 3 }

// run measures all cells. In each round of a cell every server has its turn, and each of its twins, so that whatever
// changes on the machine changes for all, and in an order of the round's own: who always follows the same one has to bear
// what that leaves behind.
func (o options) run(cells []cell, variants []server.Variant) []result {
	start := time.Now()
	var results []result
	for i, c := range cells {
		r := result{cell: c, samples: make(map[string][]sample), twins: make(map[string][][]sample),
			failed: make(map[string]error)}
		servers := slices.DeleteFunc(slices.Clone(variants), func(v server.Variant) bool {
			return !v.Supports(c.mode)
		})
		rounds := o.rounds
		if c.kind == idle || c.kind == idleTLS {
			rounds = o.idleRounds()
		}
		for round := range rounds {
			fmt.Fprintf(o.progress, "%3.0fs  cell %d of %d, round %d of %d: %s\n",
				time.Since(start).Seconds(), i+1, len(cells), round+1, rounds, c.name)
			for _, turn := range rand.Perm((1 + o.twins) * len(servers)) {
				o.sample(&r, servers[turn%len(servers)], turn/len(servers))
			}
		}
		results = append(results, r)
		r.report(o.progress)
	}
	return results
}

// sample adds a sample of v, or of one of its twins, unless v has failed before.
func (o options) sample(r *result, v server.Variant, twin int) {
	if r.failed[v.Name] != nil {
		return
	}
	var s sample
	var err error
	if len(r.samples[v.Name]) == 0 && r.twins[v.Name] == nil { // neither it nor a twin has been measured
		err = verify(v, r.cell, o.cores)
	}
	if err == nil {
		s, err = measure(v, r.cell, o.budget, o.cores)
	}
	if err != nil {
		r.failed[v.Name] = err
		delete(r.samples, v.Name)
		delete(r.twins, v.Name)
		fmt.Fprintf(o.progress, "      %s: %v\n", v.Name, err)
		return
	}
	if twin == 0 {
		r.samples[v.Name] = append(r.samples[v.Name], s)
		return
	}
	if r.twins[v.Name] == nil {
		r.twins[v.Name] = make([][]sample, o.twins)
	}
	its := &r.twins[v.Name][twin-1]
	*its = append(*its, s)
}

// report says in a line what was found.
func (r result) report(w io.Writer) {
	fmt.Fprint(w, "      ")
	for _, name := range libraries() {
		if b, ok := r.library(name); ok {
			fmt.Fprintf(w, " %s %s", b.Name, number(b.cost/1000))
		}
	}
	fmt.Fprintln(w)
}

func writeList(w io.Writer, cells []cell, variants []server.Variant) {
	for _, c := range cells {
		fmt.Fprintln(w, c.name)
	}
	fmt.Fprintln(w)
	for _, v := range variants {
		fmt.Fprintln(w, v.Name)
	}
}

// writeHead says what was measured, and where.
func writeHead(w io.Writer, o options) {
	fmt.Fprintf(w, "%s on %s/%s, %s; medians of %d rounds of %v, of idle connections %d.\n", runtime.Version(),
		runtime.GOOS, runtime.GOARCH, processor(), o.rounds, o.budget.measure, o.idleRounds())
	if o.cores.server == o.cores.load {
		fmt.Fprint(w, "There is one core only: servers and load generator share it.\n")
	} else {
		fmt.Fprint(w, "Servers on one core, the load generator on another.\n")
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		var versions []string
		for _, d := range info.Deps {
			if slices.Contains([]string{"github.com/gorilla/websocket", "github.com/coder/websocket",
				"github.com/gobwas/ws", "github.com/lxzan/gws", "github.com/lesismal/nbio"}, d.Path) {
				versions = append(versions, strings.TrimPrefix(d.Path, "github.com/")+" "+d.Version)
			}
		}
		fmt.Fprintf(w, "%s.\n", strings.Join(versions, ", "))
	}
}

// processor names the processor.
func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown processor"
}
