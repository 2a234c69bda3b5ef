package websocket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// outbound is the sending half of a Conn.
type outbound struct {
	// Constant.
	message turn // the right to send a data message; a streamed one holds it to its end
	wire    turn // the right to write to the network, for one frame
	mask    bool // RFC 6455 section 5.1: a client masks
	fragile bool // a Write that timed out leaves the network connection unusable

	err  firstError    // why writing is over
	sent atomic.Uint64 // writes that the network took
	full atomic.Bool   // the network did not take one in time
	due  atomic.Bool   // Conn.pong is to be sent

	deflate *deflater // owned by the holder of the message turn; nil without compression

	// Owned by the holder of the wire.
	watch     watcher
	closeSent bool   // our Close frame is out: nothing follows it
	tail      []byte // control frames, or the rest of one, that the network did not take yet
}

// takeMessage takes the right to send a data message. A permanent error comes before that of
// the context.
func (c *Conn) takeMessage(ctx context.Context) error {
	if err := c.takeOut(ctx, c.out.message); err != nil {
		return err
	}
	if err := c.out.err.get(); err != nil {
		c.out.message.release()
		return err
	}
	return nil
}

// takeWire takes the right to write to the network. Whoever has it sends due control frames
// before giving it back.
func (c *Conn) takeWire(ctx context.Context) error { return c.takeOut(ctx, c.out.wire) }

func (c *Conn) takeOut(ctx context.Context, t turn) error {
	if ctx.Err() == nil && t.take(ctx, c.over) {
		return nil
	}
	if err := c.out.err.get(); err != nil {
		return err
	}
	return contextError(ctx)
}

// releaseWire sends a Pong that has become due meanwhile, and gives the wire back.
func (c *Conn) releaseWire() {
	c.flushDue()
	c.out.wire.release()
	// The reader may have found the wire taken between the two.
	c.sendDue()
}

// writeMessage sends p as a message of one frame, compressed if that was agreed on and makes
// it smaller. The caller holds the message turn.
func (c *Conn) writeMessage(ctx context.Context, op Opcode, p []byte) error {
	h := Header{Fin: true, Opcode: op}
	d := c.out.deflate
	if d == nil || !d.wants(len(p)) {
		return c.writeFrame(ctx, h, p)
	}
	buf := getBuffer(len(p))
	defer putBuffer(buf)
	z, ok := d.appendMessage(buf.b, p)
	if !ok {
		return c.writeFrame(ctx, h, p)
	}
	h.RSV1 = true // RFC 7692 section 6.1
	err := c.writeFrame(ctx, h, z)
	if err != nil {
		d.reset() // the peer's window does not have it
	}
	return err
}

// writeFrame sends a frame of a data message. The caller holds the message turn.
func (c *Conn) writeFrame(ctx context.Context, h Header, p []byte) error {
	if err := c.takeWire(ctx); err != nil {
		return err
	}
	defer c.releaseWire()
	if err := c.out.err.get(); err != nil {
		return err
	}
	return c.sendFrame(ctx, h, p)
}

// sendFrame sends one frame with the payload p. The caller holds the wire.
func (c *Conn) sendFrame(ctx context.Context, h Header, p []byte) error {
	if err := c.beginFrame(ctx); err != nil {
		return err
	}
	h.Length = uint64(len(p))
	h.Masked = c.out.mask
	if h.Masked {
		h.Key = newKey()
	}
	buf := getBuffer(maxHeaderSize + min(len(p), joinedSize))
	defer putBuffer(buf)
	b := AppendHeader(buf.b, h)
	sent, pos := 0, 0
	for {
		// One write for all that fits beside the header. Of what does not, a client masks
		// piece by piece; a server sends the rest as it is.
		m := min(len(p), joinedSize)
		start := len(b)
		b = append(b, p[:m]...)
		p = p[m:]
		if h.Masked {
			pos = Mask(b[start:], h.Key, pos)
		}
		n, err := c.transmit(ctx, b)
		sent += n
		if err == nil && len(p) > 0 && !h.Masked {
			n, err = c.transmit(ctx, p)
			sent += n
			p = nil
		}
		if err != nil {
			return c.writeFailed(ctx, sent, err)
		}
		if len(p) == 0 {
			return nil
		}
		b = b[:0]
	}
}

// sendBytes sends one frame that is in wire format. The caller holds the wire.
func (c *Conn) sendBytes(ctx context.Context, frame []byte) error {
	if err := c.beginFrame(ctx); err != nil {
		return err
	}
	if n, err := c.transmit(ctx, frame); err != nil {
		return c.writeFailed(ctx, n, err)
	}
	return nil
}

// beginFrame brings the wire to the boundary of a frame.
func (c *Conn) beginFrame(ctx context.Context) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	out := &c.out
	if len(out.tail) == 0 {
		return nil
	}
	n, err := c.transmit(ctx, out.tail)
	out.tail = out.tail[n:]
	if err != nil {
		return c.writeFailed(ctx, 0, err)
	}
	out.tail = nil
	return nil
}

// transmit writes b to the network: the only place that does. The caller holds the wire.
func (c *Conn) transmit(ctx context.Context, b []byte) (sent int, err error) {
	c.out.watch.watch(ctx)
	for len(b) > 0 {
		n, err := c.nc.Write(b[:min(len(b), writeSize)])
		sent += n
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.out.full.Store(true)
			}
			return sent, err
		}
		c.out.sent.Add(1)
		b = b[n:]
	}
	return sent, nil
}

// writeFailed makes an error of transmit permanent, unless a context ended before the frame's
// first byte was sent.
func (c *Conn) writeFailed(ctx context.Context, sent int, err error) error {
	if ctx.Err() == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("websocket: write: %w", err)
		first := c.out.err.set(err)
		if first != errClosed {
			return first
		}
		select {
		case <-c.over:
			return errClosed
		default:
			return err // of the Close frame of Shutdown
		}
	}
	if sent > 0 || c.out.fragile {
		c.drop(errWriteCut)
	}
	return contextError(ctx)
}

// receivedPing makes a Pong due (RFC 6455 section 5.5.3: only the latest Ping needs one) and
// sends it if the wire is free. Else the holder of the wire does.
func (c *Conn) receivedPing(payload []byte) {
	c.mu.Lock()
	c.pong = append(c.pong[:0], payload...)
	c.out.due.Store(true)
	c.mu.Unlock()
	c.sendDue()
}

// sendDue sends a Pong that is due, unless somebody holds the wire, who will then do it.
func (c *Conn) sendDue() {
	for c.out.due.Load() && c.out.wire.try() {
		done := c.flushDue()
		c.out.wire.release()
		if !done {
			return
		}
	}
}

// flushDue sends what control frames are due, without waiting for the peer: what the network
// does not take stays in tail. It reports whether nothing has stayed. The caller holds the
// wire.
func (c *Conn) flushDue() bool {
	out := &c.out
	for {
		if out.closeSent || out.err.get() != nil {
			out.due.Store(false)
			out.tail = nil
			return true
		}
		if len(out.tail) > 0 && !c.sendTail() {
			return false
		}
		if !out.due.Load() {
			return true
		}
		c.mu.Lock()
		out.due.Store(false)
		out.tail = appendControl(nil, OpPong, c.pong, out.mask)
		c.mu.Unlock()
	}
}

// tryPing sends a Ping that nobody waits for, unless the wire is taken or full.
func (c *Conn) tryPing() bool {
	out := &c.out
	if !out.wire.try() {
		return false
	}
	defer c.releaseWire()
	if !c.flushDue() {
		return false
	}
	if !out.closeSent && out.err.get() == nil {
		out.tail = appendControl(nil, OpPing, nil, out.mask)
		c.sendTail()
	}
	return true
}

// appendControl appends a control frame in wire format.
func appendControl(b []byte, op Opcode, payload []byte, mask bool) []byte {
	h := Header{Fin: true, Opcode: op, Length: uint64(len(payload)), Masked: mask}
	if h.Masked {
		h.Key = newKey()
	}
	b = AppendHeader(b, h)
	start := len(b)
	b = append(b, payload...)
	if h.Masked {
		Mask(b[start:], h.Key, 0)
	}
	return b
}

// newKey returns a masking key: RFC 6455 section 5.3 wants a fresh one for every frame, from
// a strong source of entropy.
func newKey() (key [4]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}

// sendTail writes tail, hardly waiting, and reports whether all of it is out. The caller
// holds the wire.
func (c *Conn) sendTail() bool {
	out := &c.out
	timeout := promptTimeout
	if out.fragile {
		timeout = closeTimeout // to give up earlier would be to give up writing
	}
	ctx := context.Background()
	out.watch.watch(ctx)
	_ = out.watch.setDeadlineAt(time.Now().Add(timeout))
	n, err := c.transmit(ctx, out.tail)
	_ = out.watch.setDeadlineAt(time.Time{})
	out.tail = out.tail[n:]
	if err != nil && (out.fragile || !errors.Is(err, os.ErrDeadlineExceeded)) {
		out.err.set(fmt.Errorf("websocket: write: %w", err))
	}
	if len(out.tail) > 0 {
		return false
	}
	out.tail = nil
	return true
}
