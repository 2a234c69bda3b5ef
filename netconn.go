package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

var errWrongType = &ProtocolError{StatusUnsupportedData, "RFC 6455 section 7.4.1", "message of a type that is not expected"}

// NetConn returns a [net.Conn] over c, for protocols that want a stream of bytes.
//
// Each Write sends one message of type typ, which must not exceed the peer's limit on the size
// of messages, often 1 MiB as here: see MaxMessageSize of [AcceptOptions]. Read reads through
// the payloads of the messages that arrive, whose boundaries have no meaning; a message of
// another type fails the connection with [StatusUnsupportedData]. With typ 0, both types are
// read, and Write uses that of the message last begun, [Binary] before there is one.
//
// Read returns [io.EOF] when the peer has closed with [StatusNormalClosure],
// [StatusGoingAway] or without a code, and the [*CloseError] otherwise. Close sends
// StatusNormalClosure if that is possible without waiting, and drops TCP; to see the closing
// handshake through, call [Conn.Shutdown] instead.
//
// Deadlines are those of net.Conn: a Read that timed out loses nothing; a Write that timed
// out has had no effect or has closed the connection. As an [io.WriterTo] of another NetConn,
// as in io.Copy, it passes on message by message, with the types if the other's typ is 0; what
// ends inside a message, be it a deadline, closes both.
//
// While a NetConn is in use, c is not to be read from by other means.
func NetConn(c *Conn, typ MessageType) net.Conn {
	n := &netConn{c: c, typ: typ, last: typ}
	if typ == 0 {
		n.last = Binary
	}
	n.read.init()
	n.write.init()
	return n
}

type netConn struct {
	c   *Conn
	typ MessageType

	read, write deadline

	mu   sync.Mutex // guards last
	last MessageType
}

func (n *netConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	ctx := n.read.context()
	for {
		typ, m, err := n.c.readStream(ctx, p, n.typ)
		if err != nil {
			return 0, netReadError(err)
		}
		n.begun(typ)
		if m > 0 {
			return m, nil
		}
	}
}

// WriteTo implements [io.WriterTo].
func (n *netConn) WriteTo(w io.Writer) (written int64, err error) {
	to, ok := w.(*netConn)
	if !ok {
		return io.Copy(w, struct{ io.Reader }{n})
	}
	for {
		m, err := n.relay(to)
		written += m
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// relay passes one message on.
func (n *netConn) relay(to *netConn) (int64, error) {
	typ, r, err := n.c.nextReader(n.read.context(), n.typ)
	if err != nil {
		return 0, netReadError(err)
	}
	n.begun(typ)
	if to.typ != 0 {
		typ = to.typ
	}
	w, err := to.c.nextWriter(to.write.context(), typ)
	if err != nil {
		return 0, netError(err)
	}
	m, err := io.Copy(w, r)
	if err != nil {
		w.giveUp()
		return m, netError(err)
	}
	return m, netError(w.Close())
}

func (n *netConn) begun(typ MessageType) {
	if n.typ == 0 {
		n.mu.Lock()
		n.last = typ
		n.mu.Unlock()
	}
}

func (n *netConn) Write(p []byte) (int, error) {
	n.mu.Lock()
	typ := n.last
	n.mu.Unlock()
	if err := n.c.Write(n.write.context(), typ, p); err != nil {
		return 0, netError(err)
	}
	return len(p), nil
}

// netReadError turns an error of reading into that of a net.Conn.
func netReadError(err error) error {
	var closed *CloseError
	if errors.As(err, &closed) {
		switch closed.Code {
		case StatusNormalClosure, StatusGoingAway, StatusNoStatusReceived:
			return io.EOF
		}
	}
	return netError(err)
}

// netError turns an error of either direction into that of a net.Conn: a timeout into a
// net.Error.
func netError(err error) error {
	if errors.Is(err, errDeadline) {
		return os.ErrDeadlineExceeded
	}
	return err
}

func (n *netConn) Close() error {
	n.read.stop()
	n.write.stop()
	return n.c.close(StatusNormalClosure, errClosed)
}

func (n *netConn) LocalAddr() net.Addr  { return n.c.LocalAddr() }
func (n *netConn) RemoteAddr() net.Addr { return n.c.RemoteAddr() }

func (n *netConn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}

func (n *netConn) SetReadDeadline(t time.Time) error  { return n.set(&n.read, t) }
func (n *netConn) SetWriteDeadline(t time.Time) error { return n.set(&n.write, t) }

func (n *netConn) set(d *deadline, t time.Time) error {
	if n.c.isOver() {
		return fmt.Errorf("websocket: set deadline: %w", net.ErrClosed)
	}
	d.set(t)
	return nil
}

var errDeadline = fmt.Errorf("websocket: %w", os.ErrDeadlineExceeded)

// deadline is a context whose end can be moved, and which begins anew when it is moved after
// it has come.
type deadline struct {
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil if there is no deadline
}

func (d *deadline) init() {
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
}

func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.ctx.Err() != nil {
		d.init()
	}
	if t.IsZero() {
		return
	}
	cancel := d.cancel
	if wait := time.Until(t); wait > 0 {
		// A timer that fires while it is being replaced ends a context of its own time only
		// if that is still the one in use, which the lock decides.
		var timer *time.Timer
		timer = time.AfterFunc(wait, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.timer == timer {
				cancel(errDeadline)
			}
		})
		d.timer = timer
		return
	}
	cancel(errDeadline)
}

func (d *deadline) stop() { d.set(time.Time{}) }
