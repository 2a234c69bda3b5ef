//go:build unix

package websocket

import (
	"io"
	"net"
	"os"
	"syscall"
)

// waiter reads from a socket without holding a buffer while nothing is there: the buffer is
// taken when the socket is to be read, and given back if that finds nothing. The system calls
// are those of a plain Read.
type waiter struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // readOnce
	keep int                   // bytes to leave free at the front of the buffer

	buf *buffer
	n   int
	err error
}

// newWaiter returns nil if nc is no socket.
func newWaiter(nc net.Conn) *waiter {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil // reading past a layer above the socket would miss what it holds
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	w := &waiter{raw: raw}
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
