package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stopTimeout bounds the wait for a process that was asked to stop.
const stopTimeout = 15 * time.Second

// A process is a program that was started. It ends when it likes, or when stop is called, or with its context.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended; then err is set
	err   error         // nil if the exit status was 0
	stop  func()        // asks it to stop; safe to call again
}

// start starts a program. Its output goes to the writers; line, if not nil, gets its standard output line by line.
func start(ctx context.Context, argv, env []string, line func(string), stdout, stderr io.Writer) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), ended: make(chan struct{}), stop: cancel}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = io.MultiWriter(stdout, &lineWriter{line: line}), stderr
	p.cmd.Cancel = func() error {
		if err := p.cmd.Process.Signal(os.Interrupt); err == nil || errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return p.cmd.Process.Kill() // Windows has no such signal
	}
	p.cmd.WaitDelay = stopTimeout
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(p.ended)
		defer cancel()
		p.err = p.cmd.Wait()
		if p.cmd.ProcessState != nil && p.cmd.ProcessState.Success() {
			p.err = nil // it was asked to stop and did; Wait gives the context's error then
		}
	}()
	return p, nil
}

// A lineWriter calls line for each complete line that is written to it.
type lineWriter struct {
	line    func(string)
	partial []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	if w.line == nil {
		return len(p), nil
	}
	w.partial = append(w.partial, p...)
	for {
		line, rest, found := bytes.Cut(w.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.line(strings.TrimSuffix(string(line), "\r"))
		w.partial = rest
	}
}

// An echod is cmd/echod, built and running.
type echod struct {
	*process
	addr   string
	stderr *bytes.Buffer // for use when the process has ended
	dir    string
}

// startEchod builds echod and starts it on a free port of the loopback interface.
func startEchod(ctx context.Context, opts *options, logf func(string, ...any)) (_ *echod, err error) {
	e := &echod{stderr: new(bytes.Buffer)}
	e.dir, err = os.MkdirTemp("", "echod-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	program := filepath.Join(e.dir, "echod.exe") // the suffix means something on Windows and does no harm elsewhere
	build := []string{"build", "-o", program}
	if opts.race {
		build = append(build, "-race")
	}
	build = append(build, "github.com/strictws/websocket/cmd/echod")
	logf("echod: go %s", strings.Join(build, " "))
	if output, err := exec.CommandContext(ctx, "go", build...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building echod: %w\n%s", err, bytes.TrimSpace(output))
	}

	lines := make(chan string, 1)
	firstLine := func(line string) {
		select {
		case lines <- line:
		default:
		}
	}
	e.process, err = start(ctx, append([]string{program}, echodArgs(opts.takeover)...), os.Environ(), firstLine, io.Discard, e.stderr)
	if err != nil {
		return nil, err
	}
	select {
	case line := <-lines:
		var found bool
		if e.addr, found = strings.CutPrefix(line, "listening on "); !found {
			return nil, fmt.Errorf("echod should say what it listens on, but says %q", line)
		}
	case <-e.ended:
		return nil, fmt.Errorf("echod ended at once: %v\n%s", e.err, bytes.TrimSpace(e.stderr.Bytes()))
	case <-time.After(stopTimeout):
		return nil, errors.New("echod does not say what it listens on")
	}
	// It listens before it says so: a connection waits at worst.
	logf("echod: %s", e.addr)
	return e, nil
}

// echodArgs are all defaults but for compression, which is off by default, and the message limit, for which the suite's
// longest messages are too long.
func echodArgs(takeover bool) []string {
	compression := "on"
	if takeover {
		compression = "takeover"
	}
	return []string{
		"-addr", "127.0.0.1:0", "-max-message-size", strconv.Itoa(maxMessageSize),
		"-compression", compression, "-log-level", "warn",
	}
}

// stop asks echod to drain and waits for it. Its error says that it had ended before, or how it ended wrongly.
func (e *echod) stop() error {
	select {
	case <-e.ended:
		return fmt.Errorf("echod ended before it was stopped: %v", e.err)
	default:
	}
	e.process.stop()
	<-e.ended
	if e.err != nil {
		return fmt.Errorf("echod was stopped and should have exited with status 0: %w", e.err)
	}
	return nil
}

func (e *echod) close() {
	if e.process != nil {
		e.process.stop()
		<-e.ended
	}
	os.RemoveAll(e.dir)
}

// A suiteRun tests agents with the suite.
type suiteRun struct {
	suite      suite
	cases      selection
	takeover   bool
	serverAddr string // echod's
	progress   *progress
}

// test runs the suite for one agent and reads its reports.
func (run *suiteRun) test(ctx context.Context, a agent, r *result) {
	defer run.progress.done(a.name)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() {
		cancel(fmt.Errorf("no new case for %v", stallTimeout))
	})
	defer stall.Stop()

	reports, host := run.suite.place(r.dir)
	s := spec{OutDir: reports, Cases: run.cases}
	mode, port := fuzzingClient, 0
	if a.isServer() {
		_, serverPort, _ := net.SplitHostPort(run.serverAddr) // echod's own words
		s.Servers = []specServer{{Agent: a.name, URL: "ws://" + net.JoinHostPort(host, serverPort) + a.path}}
	} else {
		mode = fuzzingServer
		var err error
		if port, err = freePort(); err != nil {
			r.failf("%v", err)
			return
		}
		s.URL = fmt.Sprintf("ws://127.0.0.1:%d", port)
	}
	if err := writeSpec(r.dir, s); err != nil {
		r.failf("%v", err)
		return
	}
	log, err := os.Create(filepath.Join(r.dir, "wstest.log"))
	if err != nil {
		r.failf("%v", err)
		return
	}
	defer log.Close()
	wstest, err := start(ctx, run.suite.command(mode, r.dir, port), pythonEnv(os.Environ()), func(line string) {
		if id, ok := parseProgress(line); ok {
			run.progress.at(a.name, id)
			stall.Reset(stallTimeout)
		}
	}, log, log)
	if err != nil {
		r.failf("%v", err)
		return
	}
	if !a.isServer() {
		server := fuzzing{addr: fmt.Sprintf("127.0.0.1:%d", port), agent: a.name, echo: a.echo, takeover: run.takeover}
		if err := server.drive(ctx, wstest.ended); err != nil {
			r.failf("%v", err)
		}
		wstest.stop()
	}
	<-wstest.ended
	if err := context.Cause(ctx); err != nil {
		r.failf("wstest was stopped: %v", err)
	} else if wstest.err != nil {
		r.failf("wstest: %v; its output is in %s", wstest.err, log.Name())
	}
	if err := r.read(); err != nil {
		r.failf("%v; wstest's output is in %s", err, log.Name())
	}
}

// freePort returns a port that nobody listened on a moment ago. The suite cannot be told to choose one and say which.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// parseProgress reads the line that wstest prints when a case begins.
func parseProgress(line string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(line, "Running test case ID ")
	if !ok {
		return "", false
	}
	id, _, ok = strings.Cut(rest, " for agent ")
	return id, ok
}

// A progress is how far each agent is. It is safe for concurrent use.
type progress struct {
	cases int // in all, for each agent

	mu     sync.Mutex
	agents []agentProgress // those that run, in the order in which they began
}

type agentProgress struct {
	name, id string
	begun    int
}

func newProgress(cases int) *progress { return &progress{cases: cases} }

// at notes that the agent begins a case.
func (p *progress) at(name, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.agents {
		if a := &p.agents[i]; a.name == name {
			a.id = id
			a.begun++
			return
		}
	}
	p.agents = append(p.agents, agentProgress{name: name, id: id, begun: 1})
}

// done notes that nothing more comes of the agent.
func (p *progress) done(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range p.agents {
		if a.name == name {
			p.agents = append(p.agents[:i:i], p.agents[i+1:]...)
			return
		}
	}
}

func (p *progress) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for i, a := range p.agents {
		if i > 0 {
			b.WriteString(" · ")
		}
		fmt.Fprintf(&b, "%s: case %s, %d/%d", a.name, a.id, a.begun, p.cases)
	}
	if b.Len() == 0 {
		return "no case runs"
	}
	return b.String()
}
