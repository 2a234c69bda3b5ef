package websocket

import (
	"context"
	"time"
)

const (
	// writeSize bounds what is handed at once to a network connection that is no socket.
	writeSize = joinedSize + maxHeaderSize
	// recordSize is what TLS takes for one record (RFC 8446 section 5.1).
	recordSize = 16 << 10
)

// sendNow sends what has gathered as far as the network takes it at once, and reports whether
// that is all. The caller holds the wire.
func (c *Conn) sendNow() bool {
	box := &c.out.box
	for b := box.load(); b != nil; b = box.load() {
		n := c.writeNow(b)
		more := box.advance(n)
		if n < len(b) {
			return false
		}
		if !more {
			break
		}
	}
	return true
}

// writeNow writes as much of b as the network takes at once, which is nothing where that cannot
// be tried without harm. It and transmit are the only places that write frames to the network.
// The caller holds the wire.
func (c *Conn) writeNow(b []byte) (n int) {
	out := &c.out
	if !c.socket.usable() {
		if out.fragile {
			return 0
		}
		return c.writePrompt(b)
	}
	n, err := c.socket.write(b, false, &out.sent)
	if err != nil && !timedOut(err) {
		_ = c.writeFailed(context.Background(), n, err) // a socket says but once why
	}
	return n
}

// writePrompt writes some of b if that takes the network no longer than promptTimeout.
func (c *Conn) writePrompt(b []byte) (n int) {
	w := &c.out.watch
	w.watch(c, context.Background())
	if w.setDeadlineAt(c, time.Now().Add(promptTimeout)) == nil {
		n, _ = c.writePiece(b) // leaves errors to transmit
		_ = w.setDeadlineAt(c, time.Time{})
	}
	return n
}

// transmitAll is transmit for bytes that are not in the outbox, which nobody wants back.
func (c *Conn) transmitAll(ctx context.Context, b []byte) (sent int, err error) {
	for len(b) > 0 && err == nil {
		var n int
		n, err = c.transmit(ctx, b)
		sent += n
		b = b[n:]
	}
	return sent, err
}

// transmit writes b to the network: it and writeNow are the only places for frames. It writes
// less, without an error, if another writer interrupts it to take a frame back. If ctx
// ends, it returns the context's error; all others are permanent. The caller holds the wire.
func (c *Conn) transmit(ctx context.Context, b []byte) (sent int, err error) {
	out := &c.out
	out.watch.watch(c, ctx)
	for len(b) > 0 {
		if ctx.Err() != nil {
			return sent, contextError(ctx)
		}
		var n int
		if c.socket.usable() {
			n, err = c.socket.write(b, true, &out.sent)
		} else {
			n, err = c.writePiece(b)
		}
		sent += n
		b = b[n:]
		if err == nil {
			continue
		}
		if !timedOut(err) {
			return sent, c.writeFailed(ctx, sent, err)
		}
		out.full.Store(true)
		switch {
		case ctx.Err() != nil && out.fragile:
			c.drop(errWriteCut)
			return sent, closedBy(contextError(ctx), errWriteCut)
		case ctx.Err() != nil:
			return sent, contextError(ctx)
		case out.fragile || !out.watch.endPoke(c):
			return sent, c.writeFailed(ctx, sent, err) // a deadline that is not ours
		}
		return sent, nil
	}
	return sent, nil
}

// writePiece writes some of b where there is no socket. It is the pieces that show that a slow
// peer which takes a large message is alive.
func (c *Conn) writePiece(b []byte) (n int, err error) {
	size := writeSize
	if c.out.fragile {
		size = recordSize
	}
	n, err = c.nc.Write(b[:min(len(b), size)])
	if err == nil {
		c.out.sent.Add(1)
	}
	return n, err
}

// writeFailed makes an error of the network permanent, which took sent bytes before.
func (c *Conn) writeFailed(ctx context.Context, sent int, err error) error {
	err = &networkError{"write", err}
	first := c.out.err.set(err)
	c.out.box.advance(sent)
	c.out.box.discard()
	if first != errClosed {
		return overError(ctx, first)
	}
	if c.isOver() {
		return errClosed
	}
	return err // of the Close frame of Shutdown
}
