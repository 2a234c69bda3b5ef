package websocket

import (
	"context"
	"crypto/rand"
	"sync/atomic"
)

// outbound is the sending half of a Conn.
type outbound struct {
	message turn // the right to send a data message; a streamed one holds it to its end
	wire    turn // the right to write to the network

	err  firstError    // why writing is over
	sent atomic.Uint64 // writes that the network took
	box  outbox

	deflate *deflater // owned by the holder of the message turn; nil without compression

	full     atomic.Bool // the network did not take a write in time
	pongDue  atomic.Bool // a Pong for the latest Ping is to be sent
	flushDue atomic.Bool // so is what has been queued
	fragile  bool        // constant: a Write that timed out leaves the network connection unusable

	watch watcher // owned by the holder of the wire
}

// takeMessage takes the right to send a data message. A permanent error comes before that of
// the context.
func (c *Conn) takeMessage(ctx context.Context) error {
	if err := c.out.err.get(); err != nil {
		return overError(ctx, err) // not only when its turn has come
	}
	if err := c.takeOut(ctx, &c.out.message); err != nil {
		return err
	}
	if err := c.out.err.get(); err != nil {
		c.out.message.release()
		return overError(ctx, err)
	}
	return nil
}

// takeWire takes the right to write to the network. Whoever has it sends what is due before
// giving it back.
func (c *Conn) takeWire(ctx context.Context) error { return c.takeOut(ctx, &c.out.wire) }

func (c *Conn) takeOut(ctx context.Context, t *turn) error {
	if ctx.Err() == nil && c.wait(ctx, t) {
		return nil
	}
	if err := c.out.err.get(); err != nil {
		return overError(ctx, err)
	}
	return contextError(ctx)
}

// releaseWire sends what has become due meanwhile, and gives the wire back.
func (c *Conn) releaseWire() {
	c.out.watch.rest(c)
	if c.out.box.unfinished() {
		c.out.flushDue.Store(true) // a frame that has begun must not wait for the next writer
	}
	if c.sendDue() {
		c.out.wire.release()
		// The reader may have found the wire taken between the two.
		c.trySendDue()
	}
}

// trySendDue sends what is due, unless somebody has the wire, who will then do it.
func (c *Conn) trySendDue() {
	for c.due() && c.out.wire.try() {
		if !c.sendDue() {
			return
		}
		c.out.wire.release()
	}
}

func (c *Conn) due() bool { return c.out.pongDue.Load() || c.out.flushDue.Load() }

// sendDue sends what is due without waiting for the peer. What the network does not take at
// once is left to a goroutine, which has the wire until that is out or the connection is
// over. It reports whether the caller still has it.
func (c *Conn) sendDue() bool {
	out := &c.out
	for c.due() {
		out.flushDue.Store(false)
		if out.pongDue.Load() {
			out.pongDue.Store(false)
			c.addPong()
		}
		if !c.sendNow() {
			c.sendLater()
			return false
		}
	}
	return true
}

// sendLater sends what is left of what has gathered. It takes over the wire.
func (c *Conn) sendLater() {
	go func() {
		_ = c.flush(context.Background())
		c.releaseWire()
	}()
}

func (c *Conn) addPong() {
	var payload [maxControlPayloadSize]byte
	c.mu.Lock()
	n := copy(payload[:], c.pinging().pong)
	c.mu.Unlock()
	c.out.box.addControl(OpPong, payload[:n])
}

// sendMessage sends a message of one frame. The caller holds the message turn. Unless it
// wants to keep it, sendMessage gives it back as soon as the frame has its place, so that the
// messages of others can gather behind it.
func (c *Conn) sendMessage(ctx context.Context, h Header, p []byte, keep bool) error {
	out := &c.out
	// What later messages refer to must not be taken back while they are being made.
	stateful := h.RSV1 && out.deflate.takeover
	early := !keep && !stateful
	if early && (!out.fragile || ctx.Done() == nil) {
		// Another writer may send the frame. To take it back when ctx ends may mean to interrupt
		// that writer, which must do it no harm.
		if number := out.box.add(h, p, joinedSize); number != 0 {
			out.message.release()
			// As a rule the socket takes it, without a look at ctx and with a small stack.
			if c.socket.usable() && out.wire.try() {
				if c.sendNow() && out.box.isOut(number) {
					c.releaseWire()
					return nil
				}
				return c.sendGathered(ctx, number, true)
			}
			return c.sendGathered(ctx, number, false)
		}
	}
	err := c.takeWire(ctx)
	if early {
		out.message.release()
	}
	if err == nil {
		err = c.sendFrame(ctx, h, p)
		c.releaseWire()
	}
	if stateful {
		if err != nil {
			out.deflate.reset() // the peer's window does not have it
		}
		if !keep {
			out.message.release()
		}
	}
	return err
}

// takePast takes the wire for a message of one frame that goes past the outbox, if nobody has it
// and nothing else is to be sent. It returns the frame's number, else 0.
func (c *Conn) takePast() (number uint64) {
	if !c.out.wire.try() {
		return 0
	}
	if number = c.out.box.pass(); number == 0 {
		c.releaseWire()
	}
	return number
}

// sendPast sends a frame in wire format past the outbox, without a copy, if takePast lets it. The
// caller has the wire then. What the socket does not take at
// once is in the outbox, with the number, which is 0 if all is out.
func (c *Conn) sendPast(frame []byte) (number uint64, ok bool) {
	if !c.socket.usable() {
		return 0, false
	}
	if number = c.takePast(); number == 0 {
		return 0, false
	}
	n := c.writeNow(frame)
	if n == len(frame) {
		return 0, true
	}
	c.out.box.rest(number, frame, n)
	return number, true
}

// sendGathered sends the frame with the number, unless another writer does so first. The
// caller may have the wire already, and gives it up.
func (c *Conn) sendGathered(ctx context.Context, number uint64, wire bool) error {
	if !wire {
		if err := c.takeWire(ctx); err != nil {
			return c.giveUp(ctx, number, err)
		}
	}
	defer c.releaseWire()
	return c.sendUpTo(ctx, number)
}

// giveUp takes the frame with the number back, because of err. The caller does not have the
// wire.
func (c *Conn) giveUp(ctx context.Context, number uint64, err error) error {
	fate, given := c.out.box.takeBack(number)
	if given != nil {
		c.out.watch.poke(c, nil)
		select {
		case <-given.done:
			fate = given.fate
		case <-c.over():
			return overError(ctx, c.out.err.get())
		}
	}
	return c.fateError(ctx, fate, err)
}

// fateError is the result of a call that would return err, but for what its frame's fate is.
func (c *Conn) fateError(ctx context.Context, fate fate, err error) error {
	switch fate {
	case fateOut:
		return nil
	case fateBegun:
		c.drop(errWriteCut)
		return closedBy(err, errWriteCut)
	case fateAbsent:
		return overError(ctx, c.out.err.get())
	}
	return err
}

// sendFrame sends a frame with the payload p behind all that has gathered. The caller holds
// the wire.
func (c *Conn) sendFrame(ctx context.Context, h Header, p []byte) error {
	box := &c.out.box
	for {
		if number := box.add(h, p, joinedSize); number != 0 {
			return c.sendUpTo(ctx, number)
		}
		if err := c.flush(ctx); err != nil {
			return err
		}
		if err := c.out.err.get(); err != nil {
			return overError(ctx, err)
		}
		// Others may have added frames meanwhile, of which one may have begun.
		if len(p) > joinedSize && !box.unfinished() {
			box.stream(!h.Fin)
			return c.sendLarge(ctx, h, p)
		}
	}
}

// sendUpTo sends what has gathered up to the frame with the number, which is the caller's: if
// ctx ends it is taken back. The caller holds the wire.
func (c *Conn) sendUpTo(ctx context.Context, number uint64) error {
	err := c.sendUntil(ctx, number)
	if ended, ok := err.(*contextEnded); ok && ended.closed == nil {
		return c.fateError(ctx, c.out.box.takeBackNow(number), err)
	}
	return err
}

// flush sends what has gathered. If ctx ends the rest of it stays. The caller holds the wire.
func (c *Conn) flush(ctx context.Context) error {
	return c.sendUntil(ctx, c.out.box.latest())
}

func (c *Conn) sendUntil(ctx context.Context, number uint64) error {
	box := &c.out.box
	for !box.isOut(number) {
		// Frames may have been given up while nobody was writing. From here on that interrupts transmit.
		c.out.watch.watch(c, ctx)
		box.interrupted()
		b := box.load()
		if b == nil {
			return overError(ctx, c.out.err.get())
		}
		n, err := c.transmit(ctx, b)
		box.advance(n)
		if n < len(b) {
			box.interrupted()
		}
		if err != nil && !box.isOut(number) {
			return err
		}
	}
	return nil
}

// sendLarge sends a frame that is not copied as a whole: a server's payload goes out as it
// is, a client masks piece by piece. The caller holds the wire, and no frame of the outbox has
// begun.
func (c *Conn) sendLarge(ctx context.Context, h Header, p []byte) error {
	h.Length = uint64(len(p))
	h.Masked = c.out.box.mask
	if h.Masked {
		h.Key = newKey()
	}
	buf := getBuffer(maxHeaderSize + joinedSize)
	defer putBuffer(buf)
	b := AppendHeader(buf.b, h)
	for sent, pos := 0, 0; ; {
		m := min(len(p), joinedSize)
		start := len(b)
		b = append(b, p[:m]...)
		p = p[m:]
		if h.Masked {
			pos = maskFrom(b, start, h.Key, pos)
		}
		n, err := c.transmitAll(ctx, b)
		sent += n
		if err == nil && !h.Masked {
			_, err = c.transmitAll(ctx, p)
			p = nil
		}
		if err != nil {
			if _, ok := err.(*contextEnded); ok && sent > 0 {
				c.drop(errWriteCut)
				return closedBy(err, errWriteCut)
			}
			return err
		}
		if len(p) == 0 {
			return nil
		}
		b = b[:0]
	}
}

// receivedPing makes a Pong due (RFC 6455 section 5.5.3: only the latest Ping needs one), which
// trySendDue sends if the wire is free. Else the holder of the wire does.
func (c *Conn) receivedPing(payload []byte) {
	c.mu.Lock()
	all := c.pinging()
	all.pong = append(all.pong[:0], payload...)
	c.out.pongDue.Store(true)
	c.mu.Unlock()
}

// tryPing sends a Ping that nobody waits for, unless somebody has the wire.
func (c *Conn) tryPing() bool {
	if !c.out.wire.try() {
		return false
	}
	c.out.box.addControl(OpPing, c.keepalivePing())
	c.out.flushDue.Store(true)
	c.releaseWire()
	return true
}

// flushQueued sends what is queued, or leaves that to the holder of the wire.
func (c *Conn) flushQueued() {
	switch {
	case !c.out.wire.try():
		c.out.flushDue.Store(true)
		c.trySendDue()
	case c.sendNow():
		c.releaseWire()
	default:
		c.sendLater()
	}
}

// newKey returns a masking key: RFC 6455 section 5.3 wants a fresh one for every frame, from
// a strong source of entropy.
func newKey() (key [4]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}
