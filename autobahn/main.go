// Autobahn runs the Autobahn WebSocket test suite against this module and compares every case with what is expected.
//
//	go run ./autobahn              # both roles, the 301 cases of sections 1 to 10: about two minutes
//	go run ./autobahn -cases all   # all 517, compression included: much longer
//
// In the server role the suite's fuzzing client talks to cmd/echod, once for each path, that is for each way through
// the API. In the client role this program is the client, over whole messages and over streams, and the suite's fuzzing
// server is its peer. Nothing is excluded. expected.json lists the outcome of each case; it is the same for all: OK, but
// for three cases that the suite defines as informational.
//
// The exit status is 0 only if every case asked for was run and came out as expected. Otherwise the cases that differ
// are listed, with the HTML report of each.
//
// The suite needs Python 2.7, which is looked for in PATH and among pyenv's versions, and is installed into the user's
// cache directory by the first run. Without Python 2.7, its container image is run with docker or podman.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxMessageSize is the size of the suite's longest messages, those of the cases 9.1.6 and 9.2.6.
const maxMessageSize = 16 << 20

// stallTimeout bounds the wait for the next case. The suite's own limits for one case go up to eight minutes.
const stallTimeout = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// An options holds what the command line says.
type options struct {
	agents    []agent
	cases     selection
	out       string
	suiteDir  string
	container string
	jobs      int
	race      bool
	takeover  bool // compression on both sides is with context takeover
}

// run is the program. It returns the exit status: 0 if all is as expected, 1 if not, 2 if the suite could not be run.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "autobahn: %v (autobahn -h lists the flags)\n", err)
		return 2
	}
	results, failures, err := runAgents(ctx, opts, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "autobahn: %v\n", err)
		return 2
	}
	if !summarize(stdout, expected().subset(opts.cases), results, failures) {
		return 1
	}
	return 0
}

// parseOptions reads the command line. Its error is flag.ErrHelp if help was asked for, and given.
func parseOptions(args []string, help io.Writer) (*options, error) {
	opts := new(options)
	var role, agentNames, cases, compression string
	flags := flag.NewFlagSet("autobahn", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	flags.StringVar(&role, "role", "both", "our part in it: `server`, client or both")
	flags.StringVar(&agentNames, "agents", "", "comma-separated `names` of what is tested, of\n"+strings.Join(agentNamesOf(allAgents), ", ")+" (default all of the role)")
	flags.StringVar(&cases, "cases", "1-10", "comma-separated `list` of sections, ranges of sections, cases such as 6.4.1, or all")
	flags.StringVar(&opts.out, "out", filepath.Join("autobahn", "reports"), "`directory` for the reports, one below it for each agent")
	flags.StringVar(&opts.suiteDir, "suite", "", "`directory` in which the suite is installed (default one in the user's cache directory)")
	flags.StringVar(&opts.container, "container", "", "run the suite's container image with this `program`, docker or podman, instead of Python 2.7")
	flags.IntVar(&opts.jobs, "jobs", runtime.NumCPU(), "how many agents are tested at the same `time`")
	flags.StringVar(&compression, "compression", "takeover", "`mode` of compression of what is tested: takeover, in which messages may refer to earlier ones, or on")
	flags.BoolVar(&opts.race, "race", false, "build echod with the race detector")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(help, "Usage: go run ./autobahn [flags]\n\nRuns the Autobahn test suite against this module and compares every case with what is expected.\n\n")
		flags.SetOutput(help)
		flags.PrintDefaults()
	}
	if err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if opts.jobs < 1 {
		return nil, errors.New("-jobs must be at least 1")
	}
	if opts.takeover = compression == "takeover"; !opts.takeover && compression != "on" {
		return nil, fmt.Errorf("-compression is takeover or on, not %q", compression)
	}
	if opts.agents, err = selectAgents(role, agentNames); err != nil {
		return nil, err
	}
	if opts.cases, err = expected().parseSelection(cases); err != nil {
		return nil, err
	}
	return opts, nil
}

// An agent is one thing that the suite tests; "agent" is the suite's word for it.
type agent struct {
	name string
	path string   // server role: echod's path
	echo echoFunc // client role: what our client does with a connection
}

var allAgents = []agent{
	{name: "echo", path: "/echo"},
	{name: "echo-stream", path: "/echo/stream"},
	{name: "echo-prepared", path: "/echo/prepared"},
	{name: "echo-netconn", path: "/echo/netconn"},
	{name: "client-messages", echo: echoMessages},
	{name: "client-streams", echo: echoStreams},
}

func (a agent) isServer() bool { return a.path != "" }

func agentNamesOf(agents []agent) []string {
	var names []string
	for _, a := range agents {
		names = append(names, a.name)
	}
	return names
}

// selectAgents returns the agents of the role, or of them those whose names are in the comma-separated list.
func selectAgents(role, names string) ([]agent, error) {
	agents := slices.Clone(allAgents)
	switch role {
	case "both":
	case "server":
		agents = slices.DeleteFunc(agents, func(a agent) bool { return !a.isServer() })
	case "client":
		agents = slices.DeleteFunc(agents, agent.isServer)
	default:
		return nil, fmt.Errorf("-role is server, client or both, not %q", role)
	}
	if names == "" {
		return agents, nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.Contains(agentNamesOf(agents), name) {
			return nil, fmt.Errorf("no agent %q: there are %s", name, strings.Join(agentNamesOf(agents), ", "))
		}
	}
	return slices.DeleteFunc(agents, func(a agent) bool { return !slices.Contains(wanted, a.name) }), nil
}

// runAgents runs the suite for each agent. Its error says why the suite could not be run at all, failures what went
// wrong with echod; what went wrong with one agent is in its result.
func runAgents(ctx context.Context, opts *options, out io.Writer) (results []*result, failures []string, err error) {
	started := time.Now()
	logf := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }

	reports, err := filepath.Abs(opts.out)
	if err != nil {
		return nil, nil, err
	}
	suite, err := findSuite(ctx, opts, logf)
	if err != nil {
		return nil, nil, err
	}
	run := &suiteRun{suite: suite, cases: opts.cases, takeover: opts.takeover, progress: newProgress(len(expected().subset(opts.cases)))}
	var server *echod
	if slices.ContainsFunc(opts.agents, agent.isServer) {
		server, err = startEchod(ctx, opts, logf)
		if err != nil {
			return nil, nil, err
		}
		defer server.close()
		run.serverAddr = server.addr
	}

	results = make([]*result, len(opts.agents))
	jobs := make(chan struct{}, opts.jobs)
	var agents sync.WaitGroup
	for i, a := range opts.agents {
		results[i] = &result{agent: a.name, dir: filepath.Join(reports, a.name)}
		agents.Go(func() {
			jobs <- struct{}{}
			defer func() { <-jobs }()
			run.test(ctx, a, results[i])
		})
	}
	ended := make(chan struct{})
	go func() { agents.Wait(); close(ended) }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			logf("%4.0fs  %s", time.Since(started).Seconds(), run.progress)
		case <-ended:
			running = false
		}
	}
	logf("%4.0fs  done", time.Since(started).Seconds())

	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	if server != nil {
		if err := server.stop(); err != nil {
			failures = append(failures, fmt.Sprintf("%v\n%s", err, bytes.TrimSpace(server.stderr.Bytes())))
		} else {
			logf("echod closed its connections and exited with status 0")
		}
	}
	return results, failures, nil
}
