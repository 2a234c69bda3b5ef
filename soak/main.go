// Soak lets thousands of clients talk to a server for minutes, over connections that keep breaking, and checks that
// every message arrives exactly once, in order and intact, and that nothing is left over at the end.
//
//	go run . -connections 10000 -for 3m
//
// Clients and server are a process each. Every client has two lanes of numbered messages, one in each direction, that
// outlive its connections: what was not acknowledged when one broke is sent again over the next, after the server
// has told how far it is. The content of a message follows from its number, so that every byte is checked. Messages go
// out and come in through all the ways there are, with and without compression, over TCP and TLS; Reads, Writes and
// Dials are cancelled; connections are closed and reset by both sides, at rest and while messages go out. A connection
// that ends although neither side has ended it is an error as well.
//
// The exit status is 0 if all went well, 1 if something was violated, 2 if the soak could not run.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// serverArgument makes the program the server; the first process starts it so.
const serverArgument = "server"

func main() {
	if len(os.Args) == 2 && os.Args[1] == serverArgument {
		if err := serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "soak: server: %v\n", err)
			os.Exit(2)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// An options holds what the command line says.
type options struct {
	connections int
	duration    time.Duration
	seed        uint64
	rate        int
	life        time.Duration
	drain       time.Duration
	progress    time.Duration
}

func parse(args []string, stderr io.Writer) (*options, error) {
	opts := new(options)
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opts.connections, "connections", 10000, "how many connections are open at the same time")
	flags.DurationVar(&opts.duration, "for", 3*time.Minute, "how long, from when all clients have been connected")
	flags.Uint64Var(&opts.seed, "seed", 1, "what all random choices follow from")
	flags.IntVar(&opts.rate, "rate", 4000, "messages a second, of all connections in both directions together; bursts come on top")
	flags.DurationVar(&opts.life, "life", time.Minute, "of a connection until its client ends it, on average; the server takes twice that")
	flags.DurationVar(&opts.drain, "drain", 2*time.Minute, "how long all that is unacknowledged may take at the end")
	flags.DurationVar(&opts.progress, "progress", 5*time.Second, "between two lines that tell how it goes")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.connections < 1, opts.rate < 1, opts.life <= 0, opts.progress <= 0:
		return nil, errors.New("-connections, -rate, -life and -progress must be positive")
	case opts.duration < 0, opts.drain < 0:
		return nil, errors.New("-for and -drain must not be negative")
	}
	return opts, nil
}

// filesNeeded is how many files a process opens at most: a connection that was broken may outlive the next one's start.
func filesNeeded(connections int) int { return connections + connections/8 + 100 }

// run is the program, and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = raiseFileLimit(filesNeeded(opts.connections))
	}
	r := &report{opts: opts, start: time.Now(), out: stdout}
	if err == nil {
		err = r.run(ctx)
	}
	if err != nil {
		fmt.Fprintf(stderr, "soak: %v\n", err)
		return 2
	}
	violations := slices.Concat(r.client.Violations, r.remote.Violations)
	r.print()
	if len(violations) > 0 {
		fmt.Fprintf(stdout, "\nFAIL (seed %d)\n", opts.seed)
		for _, v := range violations {
			fmt.Fprintln(stdout, v)
		}
		return 1
	}
	short := ""
	if r.running < opts.duration { // by Ctrl-C
		short = fmt.Sprintf(", but cut short after %.1f s of %v", r.running.Seconds(), opts.duration)
	}
	fmt.Fprintf(stdout, "\nPASS%s: every message arrived exactly once, in order and intact; no goroutine and no file is left\n", short)
	return 0
}

// A peer is the server's process.
type peer struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
}

func startServer(set settings) (*peer, whereabouts, error) {
	var where whereabouts
	self, err := os.Executable()
	if err != nil {
		return nil, where, err
	}
	p := &peer{cmd: exec.Command(self, serverArgument)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = groupOfItsOwn
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, where, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, where, err
	}
	p.answers = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, where, err
	}
	line, err := json.Marshal(set)
	if err == nil {
		err = p.ask(string(line), &where)
	}
	if err == nil && where.Error != "" {
		err = errors.New(where.Error)
	}
	if err != nil {
		p.end()
		return nil, where, fmt.Errorf("server: %w", err)
	}
	return p, where, nil
}

// ask sends a command and, if answer is not nil, takes the answer. A server that has none ends.
func (p *peer) ask(command string, answer any) error {
	if _, err := fmt.Fprintln(p.in, command); err != nil || answer == nil {
		return err
	}
	limit := 4 * settleTime // it may take three to find that it cannot finish
	timer := time.AfterFunc(limit, p.kill)
	line, err := p.answers.ReadBytes('\n')
	if !timer.Stop() {
		return fmt.Errorf("no answer to %q in %v", command, limit)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(line, answer)
}

func (p *peer) end() error {
	p.in.Close()
	timer := time.AfterFunc(settleTime, p.kill)
	defer timer.Stop()
	return p.cmd.Wait()
}

func (p *peer) kill() { p.cmd.Process.Kill() }
