//go:build unix

package websocket

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// socket is a network connection whose system calls can be made directly: to read without
// holding a buffer while nothing is there, and to write without waiting.
type socket struct {
	raw syscall.RawConn // nil if the connection is no socket

	// Owned by the reader.
	readable func(fd uintptr) bool // readOnce
	n        int32                 // bytes to be read, and then those that came
	waited   bool
	yield    yielding
	buf      *buffer
	err      error
}

// yielding is whether a reader lets other goroutines run before it asks the socket for more. On
// a busy machine the answer to what was just written arrives meanwhile, and neither a system
// call that finds nothing nor the poller is needed: some tenth of what a small message costs.
// Where there is nobody else to run, or another thread has to be woken for it, it costs
// something. So a reader that finds nothing afterwards soon does it as seldom as it takes to
// notice that times have changed.
type yielding struct {
	credit  uint8 // how often to go on without success
	skipped uint8
}

const (
	yieldCredit = 31 // at most, and to begin with
	yieldReward = 7  // it is worth doing if one in eight finds something
	yieldProbe  = 64 // without credit, one in so many reads
)

// due reports whether it is to be done before the next read.
func (y *yielding) due() bool {
	if y.credit > 0 {
		return true
	}
	y.skipped = (y.skipped + 1) % yieldProbe
	return y.skipped == 0
}

// done takes in how it went.
func (y *yielding) done(found bool) {
	if found {
		y.credit = min(y.credit+yieldReward, yieldCredit)
	} else if y.credit > 0 {
		y.credit--
	}
}

// open makes a socket of nc, if nc is one. To go past a layer above the socket would miss what
// that does.
func (s *socket) open(nc net.Conn) {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err == nil {
		s.raw, s.readable, s.yield.credit = raw, s.readOnce, yieldCredit
	}
}

// usable reports whether there is a socket.
func (s *socket) usable() bool { return s.raw != nil }

// read waits for bytes and returns how many of at most size came. The system calls are those
// of a plain Read. If the read before it took all there was, it may yield.
func (s *socket) read(size int, drained bool) (int, error) {
	yields := drained && s.yield.due()
	if yields {
		runtime.Gosched()
	}
	s.n, s.waited = int32(size), false
	if err := s.raw.Read(s.readable); err != nil {
		return 0, err
	}
	if yields {
		s.yield.done(!s.waited)
	}
	return int(s.n), s.err
}

// take returns the buffer that has the bytes, behind headroom that is free.
func (s *socket) take() *buffer {
	b := s.buf
	s.buf = nil
	return b
}

// readOnce returns false to wait until the socket is readable. It must have tried to read
// then: the poller has forgotten what it knew before the call.
func (s *socket) readOnce(fd uintptr) bool {
	b := getBuffer(int(s.n))
	n, err := 0, error(syscall.EINTR)
	for errno(err) == syscall.EINTR {
		n, err = syscall.Read(int(fd), b.b[headroom:cap(b.b)])
	}
	if n > 0 {
		s.n, s.buf, s.err = int32(n), b, nil
		return true
	}
	putBuffer(b)
	switch {
	case err == nil:
		err = io.EOF
	case errno(err) == syscall.EAGAIN:
		s.waited = true
		return false
	default:
		err = os.NewSyscallError("read", err)
	}
	s.n, s.err = 0, err
	return true
}

// errno is err, of a system call, as a number: to compare that is cheaper.
func errno(err error) syscall.Errno {
	n, _ := err.(syscall.Errno)
	return n
}

// socketWrite is a write in progress.
type socketWrite struct {
	b        []byte         // what is left
	waits    bool           // until all is written
	progress *atomic.Uint64 // counts what the socket took
	err      error
	writable func(fd uintptr) bool // step
}

var socketWrites = sync.Pool{New: func() any {
	w := new(socketWrite)
	w.writable = w.step
	return w
}}

// write writes b, or what the socket takes without waiting. Whenever the socket takes
// something, progress goes up.
func (s *socket) write(b []byte, waits bool, progress *atomic.Uint64) (n int, err error) {
	w := socketWrites.Get().(*socketWrite)
	w.b, w.waits, w.progress = b, waits, progress
	err = s.raw.Write(w.writable)
	if w.err != nil {
		err = os.NewSyscallError("write", w.err)
	}
	n = len(b) - len(w.b)
	w.b, w.progress, w.err = nil, nil, nil
	socketWrites.Put(w)
	return n, err
}

// maxWrite is what some systems take for a write at most (as package net knows).
const maxWrite = 1 << 30

// step returns false to wait until the socket is writable.
func (w *socketWrite) step(fd uintptr) bool {
	for len(w.b) > 0 {
		n, err := syscall.Write(int(fd), w.b[:min(len(w.b), maxWrite)])
		switch {
		case n > 0:
			w.b = w.b[n:]
			w.progress.Add(1)
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return !w.waits
		default:
			w.err = err
			return true
		}
	}
	return true
}
