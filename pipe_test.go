package websocket

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeSize is how many bytes a pipe holds in each direction by default.
const pipeSize = 64 << 10

// newPipe returns the ends of a network connection that is all in memory and
// behaves like one of TCP: it buffers, has deadlines and can be closed by halves.
//
// Calls wait on channels only, and on timers, so that a test inside a bubble of
// synctest has the clock in its hands. The pipe must be made in the bubble then.
func newPipe() (a, b *pipeConn) { return newPipeSize(pipeSize, pipeSize) }

// newPipeSize is newPipe with a limit for the bytes that a has written and b has
// not read, and one for the opposite direction. A Write waits for room. A limit
// of 0 is that of a peer whose window is closed: nothing can be written.
func newPipeSize(aToB, bToA int) (a, b *pipeConn) {
	mu := new(sync.Mutex)
	a = &pipeConn{mu: mu, addr: "a", size: bToA, reading: newPipeCalls(), writing: newPipeCalls()}
	b = &pipeConn{mu: mu, addr: "b", size: aToB, reading: newPipeCalls(), writing: newPipeCalls()}
	a.peer, b.peer = b, a
	return a, b
}

// pipeConn is one end of a pipe.
type pipeConn struct {
	// resets makes the end as harsh as the kernel: if it is closed with input
	// unread, or its peer writes after that, the peer is reset and loses what it
	// has not read yet. Set it before the pipe is used.
	resets bool

	peer *pipeConn
	addr pipeAddr
	size int // of in

	reading, writing pipeCalls

	mu          *sync.Mutex // of both ends; guards what follows, and the deadlines; never held while waiting
	in          bytes.Buffer
	closed      bool // by Close or reset
	writeClosed bool // by CloseWrite
	aborted     bool // by the peer
}

var _ net.Conn = (*pipeConn)(nil)

// pipeCalls is the state of all Reads, or of all Writes, of one end.
type pipeCalls struct {
	turn     chan struct{} // filled by the call whose turn it is
	wake     chan struct{} // filled when there is something new for that call
	deadline time.Time
	timer    *time.Timer
}

func newPipeCalls() pipeCalls {
	return pipeCalls{turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

// wakeUp makes the call that waits, or the next one that would, look again.
func (p *pipeCalls) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pipeCalls) expired() bool {
	return !p.deadline.IsZero() && !time.Now().Before(p.deadline)
}

func (p *pipeCalls) setDeadline(t time.Time) {
	if p.timer != nil {
		p.timer.Stop()
	}
	p.deadline = t
	if !t.IsZero() {
		d := time.Until(t)
		p.deadline = time.Now().Add(d) // on the clock of the timer, which t need not be
		if d > 0 && p.timer == nil {
			p.timer = time.AfterFunc(d, p.wakeUp)
		} else if d > 0 {
			p.timer.Reset(d)
		}
	}
	p.wakeUp()
}

// wait gives up c.mu until something has changed.
func (c *pipeConn) wait(p *pipeCalls) {
	c.mu.Unlock()
	<-p.wake
	c.mu.Lock()
}

func (c *pipeConn) Read(p []byte) (int, error) {
	c.reading.turn <- struct{}{}
	defer func() { <-c.reading.turn }()
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; ; c.wait(&c.reading) {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case len(p) == 0:
			return 0, nil
		case c.reading.expired():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case c.aborted:
			return 0, c.opError("read", os.NewSyscallError("read", syscall.ECONNRESET))
		case c.in.Len() > 0:
			n, _ := c.in.Read(p)
			c.peer.writing.wakeUp()
			return n, nil
		case c.peer.closed || c.peer.writeClosed:
			return 0, io.EOF
		}
	}
}

func (c *pipeConn) Write(p []byte) (int, error) {
	c.writing.turn <- struct{}{}
	defer func() { <-c.writing.turn }()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; ; c.wait(&c.writing) {
		switch {
		case c.closed:
			return n, c.opError("write", net.ErrClosed)
		case c.writing.expired():
			return n, c.opError("write", os.ErrDeadlineExceeded)
		case c.aborted:
			return n, c.opError("write", os.NewSyscallError("write", syscall.ECONNRESET))
		case c.peer.closed && c.peer.resets:
			c.abort()
			return n, c.opError("write", os.NewSyscallError("write", syscall.EPIPE))
		case c.peer.closed || c.writeClosed:
			return n, c.opError("write", os.NewSyscallError("write", syscall.EPIPE))
		}
		if m := min(len(p)-n, c.peer.size-c.peer.in.Len()); m > 0 {
			c.peer.in.Write(p[n : n+m])
			c.peer.reading.wakeUp()
			n += m
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// Close ends the connection. The peer can still read what is on the way to it,
// unless c.resets says otherwise.
func (c *pipeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	if c.resets && c.in.Len() > 0 {
		c.peer.abort()
	}
	c.close()
	return nil
}

// CloseWrite ends what the peer can read, after what is on the way to it.
func (c *pipeConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.writeClosed = true
	c.writing.wakeUp()
	c.peer.reading.wakeUp()
	return nil
}

// reset ends the connection like Close, but so that the peer loses what it has
// not read yet and gets ECONNRESET.
func (c *pipeConn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.peer.abort()
		c.close()
	}
}

// close is the part that Close and reset have in common.
func (c *pipeConn) close() {
	c.closed = true
	c.in.Reset()
	for _, p := range []*pipeCalls{&c.reading, &c.writing} {
		if p.timer != nil {
			p.timer.Stop()
		}
	}
	c.wakeAll()
}

// abort is what a reset of the peer does to c.
func (c *pipeConn) abort() {
	c.aborted = true
	c.in.Reset()
	c.wakeAll()
}

func (c *pipeConn) wakeAll() {
	c.reading.wakeUp()
	c.writing.wakeUp()
	c.peer.reading.wakeUp()
	c.peer.writing.wakeUp()
}

// unread returns how many bytes the peer has written that c has not read.
func (c *pipeConn) unread() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.Len()
}

func (c *pipeConn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.reading, &c.writing)
}
func (c *pipeConn) SetReadDeadline(t time.Time) error  { return c.setDeadlines(t, &c.reading) }
func (c *pipeConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writing) }

func (c *pipeConn) setDeadlines(t time.Time, calls ...*pipeCalls) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, p := range calls {
		p.setDeadline(t)
	}
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.addr }
func (c *pipeConn) RemoteAddr() net.Addr { return c.peer.addr }

// opError dresses err like package net does.
func (c *pipeConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "pipe", Source: c.addr, Addr: c.peer.addr, Err: err}
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// chunkConn delivers at most max bytes a Read.
type chunkConn struct {
	net.Conn
	max int
}

func (c *chunkConn) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(len(p), c.max)]) }

// CloseWrite is there because the connection inside has it.
func (c *chunkConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}
