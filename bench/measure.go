package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/strictws/websocket/bench/load"
	"github.com/strictws/websocket/bench/server"
)

// A sample is what one measurement found, for each message, delivery, handshake or connection.
type sample struct {
	Cost  float64 // nanoseconds of the server's CPU time, or bytes of its memory
	Calls float64 // the server's read and write system calls
	Wire  float64 // bytes that it sent
	Rate  float64 // a second
}

// A budget bounds one measurement.
type budget struct {
	warm, measure time.Duration
	upgrades      int

	profiles string // the directory for CPU profiles, if there are to be any
}

// A process is a server's.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	addr string
	errs *strings.Builder
}

// start starts a server on its core.
func start(v server.Variant, m server.Mode, cores cores) (*process, error) {
	mode, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(exe, "-serve", v.Name, "-mode", string(mode)), errs: new(strings.Builder)}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	p.cmd.Stderr = p.errs
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	if err := cores.startOnServers(p.cmd.Start); err != nil {
		return nil, err
	}
	if p.addr, err = p.line(); err != nil {
		return nil, p.stop(err)
	}
	return p, nil
}

func (p *process) line() (string, error) {
	if p.out.Scan() {
		return p.out.Text(), nil
	}
	return "", errors.New("the server is gone")
}

func (p *process) ask(question string, answer ...any) error {
	if _, err := fmt.Fprintln(p.in, question); err != nil {
		return err
	}
	line, err := p.line()
	if err != nil || len(answer) == 0 {
		return err
	}
	_, err = fmt.Sscan(line, answer...)
	return err
}

func (p *process) usage() (u server.Usage, err error) {
	err = p.ask("usage", &u.CPU, &u.Calls)
	return u, err
}

// begin begins what is measured.
func (p *process) begin(v server.Variant, c cell, b budget) (server.Usage, error) {
	if err := p.ask("collect"); err != nil {
		return server.Usage{}, err
	}
	if b.profiles != "" {
		file := strings.ReplaceAll(c.name, "/", "-") + "-" + v.Name + ".pprof"
		if err := p.ask("profile " + filepath.Join(b.profiles, file)); err != nil {
			return server.Usage{}, err
		}
	}
	return p.usage()
}

// waitForAll waits until all connections are among those to which the server broadcasts, if it does: a client knows of
// the end of the handshake before the server's application does.
func (p *process) waitForAll(c cell) error {
	for end := time.Now().Add(20 * time.Second); c.mode.Broadcast; time.Sleep(time.Millisecond) {
		var n int
		if err := p.ask("joined", &n); err != nil || n == c.conns {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d connections came", n, c.conns)
		}
	}
	return nil
}

// stop ends the process. It adds what the process has said to an error: that may be the reason.
func (p *process) stop(err error) error {
	p.in.Close()
	timer := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	p.cmd.Wait()
	if said := strings.TrimSpace(p.errs.String()); err != nil && said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// measure measures a cell once, with a new process.
func measure(v server.Variant, c cell, b budget, cores cores) (s sample, err error) {
	p, err := start(v, c.mode, cores)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = p.stop(err) }()
	switch c.kind {
	case handshake:
		return measureHandshake(p, v, c, b)
	case idle:
		return measureIdle(p, v, c)
	case idleTLS:
		return measureIdleTLS(p, v, c)
	default:
		return measureMessages(p, v, c, b)
	}
}

// verify checks that the answers are what was sent.
func verify(v server.Variant, c cell, cores cores) (err error) {
	if c.kind == handshake || c.kind == idleTLS {
		return nil // checked each time
	}
	p, err := start(v, c.mode, cores)
	if err != nil {
		return err
	}
	defer func() { err = p.stop(err) }()
	c.conns = min(c.conns, 3)
	s, err := c.spec(p.addr, v.Plain, true)
	if err != nil {
		return err
	}
	g, err := load.Open(s)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := p.waitForAll(c); err != nil {
		return err
	}
	turns := max(5, min(40, len(c.messages)))
	count, err := g.Run(time.Minute, 0, turns)
	if want := c.conns * c.frames * turns; err == nil && count.Messages != want {
		err = fmt.Errorf("%d answers and not %d", count.Messages, want)
	}
	return err
}

func measureMessages(p *process, v server.Variant, c cell, b budget) (sample, error) {
	spec, err := c.spec(p.addr, v.Plain, false)
	if err != nil {
		return sample{}, err
	}
	g, err := load.Open(spec)
	if err != nil {
		return sample{}, err
	}
	defer g.Close()
	if err := p.waitForAll(c); err != nil {
		return sample{}, err
	}
	if _, err := g.Run(b.warm, c.least()/2, 0); err != nil {
		return sample{}, err
	}
	before, err := p.begin(v, c, b)
	if err != nil {
		return sample{}, err
	}
	count, err := g.Run(b.measure, c.least(), 0)
	if err != nil {
		return sample{}, err
	}
	after, err := p.usage()
	if err != nil {
		return sample{}, err
	}
	n := float64(count.Messages)
	return sample{
		Cost:  float64(after.CPU-before.CPU) / n,
		Calls: float64(after.Calls-before.Calls) / n,
		Wire:  float64(count.Bytes) / n,
		Rate:  n / count.Elapsed.Seconds(),
	}, nil
}

func measureHandshake(p *process, v server.Variant, c cell, b budget) (sample, error) {
	const offer = ""
	if _, err := load.Handshakes(p.addr, offer, b.upgrades/5, b.measure); err != nil {
		return sample{}, err
	}
	if err := p.settle(); err != nil {
		return sample{}, err
	}
	before, err := p.begin(v, c, b)
	if err != nil {
		return sample{}, err
	}
	start := time.Now()
	n, err := load.Handshakes(p.addr, offer, b.upgrades, 4*b.measure)
	elapsed := time.Since(start)
	if err != nil {
		return sample{}, err
	}
	if err := p.settle(); err != nil { // the end of the connections belongs to it
		return sample{}, err
	}
	after, err := p.usage()
	if err != nil {
		return sample{}, err
	}
	return sample{
		Cost:  float64(after.CPU-before.CPU) / float64(n),
		Calls: float64(after.Calls-before.Calls) / float64(n),
		Rate:  float64(n) / elapsed.Seconds(),
	}, nil
}

// settle waits until the server has nothing more to do.
func (p *process) settle() error {
	const pause = 20 * time.Millisecond
	for range 50 {
		before, err := p.usage()
		if err != nil {
			return err
		}
		time.Sleep(pause)
		after, err := p.usage()
		if err != nil {
			return err
		}
		if time.Duration(after.CPU-before.CPU) < pause/10 {
			return nil
		}
	}
	return errors.New("the server does not come to rest")
}

// memory is the server's resident memory once it has come to rest.
func (p *process) memory() (n int64, err error) {
	if err := p.settle(); err != nil {
		return 0, err
	}
	err = p.ask("memory", &n)
	return n, err
}

func measureIdle(p *process, v server.Variant, c cell) (sample, error) {
	open := func(conns int) (*load.Group, error) {
		c.conns = conns
		s, err := c.spec(p.addr, v.Plain, false)
		if err != nil {
			return nil, err
		}
		g, err := load.Open(s)
		if err != nil {
			return nil, err
		}
		count, err := g.Run(time.Minute, 0, 1)
		if err == nil && count.Messages != conns {
			err = fmt.Errorf("%d answers and not %d", count.Messages, conns)
		}
		if err != nil {
			g.Close()
			return nil, err
		}
		return g, nil
	}
	return measureMemory(p, c.conns, func(n int) (func(), error) {
		g, err := open(n)
		if err != nil {
			return nil, err
		}
		return g.Close, nil
	})
}

func measureIdleTLS(p *process, v server.Variant, c cell) (sample, error) {
	message, answer := c.messages[0], c.messages[0]
	if !v.Plain {
		answer = append([]byte{load.Binary, byte(len(answer))}, answer...) // up to 125 bytes
		message = load.AppendFrame(nil, load.Binary, [4]byte{1, 2, 3, 4}, message)
	}
	return measureMemory(p, c.conns, func(n int) (func(), error) {
		return load.TLS(p.addr, n, v.Plain, message, answer)
	})
}

// measureMemory takes the memory of n connections, which open makes and the function that it returns closes. Some come
// and go before, so that it is not the first connection's.
func measureMemory(p *process, n int, open func(n int) (func(), error)) (sample, error) {
	closeAll, err := open(32)
	if err != nil {
		return sample{}, err
	}
	closeAll()
	before, err := p.memory()
	if err != nil {
		return sample{}, err
	}
	if closeAll, err = open(n); err != nil {
		return sample{}, err
	}
	defer closeAll()
	after, err := p.memory()
	if err != nil {
		return sample{}, err
	}
	return sample{Cost: float64(after-before) / float64(n)}, nil
}
