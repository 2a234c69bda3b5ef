//go:build unix

package websocket

import (
	"io"
	"net"
	"os"
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
	size     int32                 // of the buffer to be read into
	n        int32
	buf      *buffer
	err      error
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
		s.raw, s.readable = raw, s.readOnce
	}
}

// usable reports whether there is a socket.
func (s *socket) usable() bool { return s.raw != nil }

// read waits for bytes and returns how many of at most size came. The system calls are those
// of a plain Read.
func (s *socket) read(size int) (int, error) {
	s.size = int32(size)
	if err := s.raw.Read(s.readable); err != nil {
		return 0, err
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
	b := getBuffer(int(s.size))
	for {
		var n int
		n, s.err = syscall.Read(int(fd), b.b[headroom:cap(b.b)])
		s.n = int32(n)
		if s.err != syscall.EINTR {
			break
		}
	}
	if s.n > 0 {
		s.buf, s.err = b, nil
		return true
	}
	putBuffer(b)
	switch s.err {
	case syscall.EAGAIN:
		return false
	case nil:
		s.n, s.err = 0, io.EOF
	default:
		s.n, s.err = 0, os.NewSyscallError("read", s.err)
	}
	return true
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

// step returns false to wait until the socket is writable.
func (w *socketWrite) step(fd uintptr) bool {
	for len(w.b) > 0 {
		n, err := syscall.Write(int(fd), w.b)
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
