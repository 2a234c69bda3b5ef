//go:build unix

package websocket

import (
	"io"
	"net"
	"os"
	"syscall"
)

// socket is a network connection whose system calls can be made directly.
type socket struct {
	raw syscall.RawConn
}

// newSocket returns nil if nc is no socket.
func newSocket(nc net.Conn) *socket {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil // to go past a layer above the socket would miss what it does
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	return &socket{raw}
}

// writeNow writes what the socket takes without waiting, and ignores errors.
func (s *socket) writeNow(b []byte) (sent int) {
	_ = s.raw.Write(func(fd uintptr) bool {
		for {
			n, err := syscall.Write(int(fd), b)
			if err == syscall.EINTR {
				continue
			}
			sent = max(n, 0)
			return true
		}
	})
	return sent
}

// waiter reads from a socket without holding a buffer while nothing is there: the buffer is
// taken when the socket is to be read, and given back if that finds nothing. The system calls
// are those of a plain Read.
type waiter struct {
	*socket
	try  func(fd uintptr) bool // readOnce
	keep int                   // bytes to leave free at the front of the buffer

	buf *buffer
	n   int
	err error
}

func newWaiter(s *socket) *waiter {
	w := &waiter{socket: s}
	w.try = w.readOnce
	return w
}

// read waits for bytes and returns how many came. take returns the buffer they are in.
func (w *waiter) read() (int, error) {
	if err := w.raw.Read(w.try); err != nil {
		return 0, err
	}
	return w.n, w.err
}

// readOnce returns false to wait until the socket is readable. It must have tried to read
// then: the poller has forgotten what it knew before the call.
func (w *waiter) readOnce(fd uintptr) bool {
	b := getBuffer(readBufferSize)
	for {
		w.n, w.err = syscall.Read(int(fd), b.b[w.keep:cap(b.b)])
		if w.err != syscall.EINTR {
			break
		}
	}
	if w.n > 0 {
		w.buf, w.err = b, nil
		return true
	}
	putBuffer(b)
	switch w.err {
	case syscall.EAGAIN:
		return false
	case nil:
		w.n, w.err = 0, io.EOF
	default:
		w.n, w.err = 0, os.NewSyscallError("read", w.err)
	}
	return true
}

func (w *waiter) take() *buffer {
	b := w.buf
	w.buf = nil
	return b
}
