package websocket

import (
	"context"
	"io"
)

// headroom is what is kept of bytes that arrived, without a buffer on loan, while more are
// waited for.
const headroom = 64

// fill waits for more bytes, with room for n of them in a row.
func (c *Conn) fill(ctx context.Context, n int) error {
	for {
		err := c.fillUntilTick(ctx, n)
		if err == errTick {
			err = c.ticked()
			if err == nil {
				continue
			}
		}
		return c.readFailed(err)
	}
}

// fillUntilTick is fill, but for what there is to do at a tick and with an error.
func (c *Conn) fillUntilTick(ctx context.Context, n int) error {
	in := &c.in
	in.shrink()
	if !c.socket.usable() || in.pooled != nil || in.w > headroom {
		in.makeRoom(n)
		return c.fillBuffer(ctx)
	}
	return c.fillFromSocket(ctx)
}

// fillFromSocket waits for bytes without a buffer. Those that are there are few.
func (c *Conn) fillFromSocket(ctx context.Context) error {
	c.prepareWait(ctx)
	in := &c.in
	n, err := c.socket.read(max(readBufferSize, int(in.expected)), in.drained)
	if n == 0 {
		return c.waitError(ctx, err)
	}
	in.heard = true
	kept := in.buf[:in.w]
	in.pooled = c.socket.take()
	in.buf = in.pooled.b[:cap(in.pooled.b)]
	in.r = headroom - copy(in.buf[headroom-len(kept):], kept)
	in.w = headroom + n
	in.drained = in.w < len(in.buf)
	return nil
}

// fillBuffer reads what there is room for.
func (c *Conn) fillBuffer(ctx context.Context) error {
	in := &c.in
	free := in.buf[in.w:]
	n, err := c.receive(ctx, free)
	in.w += n
	in.next = 0
	if n == len(free) {
		in.next = int32(min(16*n, readBufferSize))
	}
	return err
}

// shrink moves what is there to the front, and lets go of a buffer that is too large for it.
func (in *inbound) shrink() {
	if in.r == 0 && (in.w > headroom || len(in.buf) <= headroom) {
		return
	}
	rest := in.buf[in.r:in.w]
	if len(rest) > headroom {
		in.r, in.w = 0, copy(in.buf, rest)
		return
	}
	b := in.pooled
	in.keep(rest)
	putBuffer(b)
}

// keep keeps the little that is there without a buffer on loan.
func (in *inbound) keep(rest []byte) {
	in.pooled, in.buf = nil, nil
	if in.small == nil && len(rest) > 0 {
		in.small = new([headroom]byte)
	}
	if in.small != nil {
		in.buf = in.small[:]
	}
	in.r, in.w = 0, copy(in.buf, rest)
}

// makeRoom makes room in buf, after what is there, for one more byte at least, and for n in
// all. It lets go of a buffer that a large message has left.
func (in *inbound) makeRoom(n int) {
	size := int(in.next)
	large := in.pooled != nil && in.pooled.class > readBufferClass
	if in.w == len(in.buf) || n > len(in.buf) || large {
		size = readBufferSize
	}
	if size <= len(in.buf) && !large {
		return
	}
	in.moveTo(getBuffer(size), 0)
}

// moveTo moves what is there from start on to the front of b, which may be the buffer where it
// is, and lets go of that otherwise.
func (in *inbound) moveTo(b *buffer, start int) {
	to := b.b[:cap(b.b)]
	in.r, in.w = in.r-start, copy(to, in.buf[start:in.w])
	in.buf = to
	if b != in.pooled {
		putBuffer(in.pooled)
		in.pooled = b
	}
}

// prepareWait does what has to be done before waiting. To do it first where the stack is
// small leaves nothing to do deep down.
func (c *Conn) prepareWait(ctx context.Context) {
	if c.out.box.queued.Load() {
		c.flushQueued()
	}
	c.in.watch.watch(c, ctx)
}

// receive reads from the network, as only it and fillFromSocket do. The error is that of the
// network or of the context, or errTick.
func (c *Conn) receive(ctx context.Context, p []byte) (n int, err error) {
	c.prepareWait(ctx)
	for n == 0 && err == nil {
		n, err = c.nc.Read(p)
	}
	if n == 0 {
		return 0, c.waitError(ctx, err)
	}
	c.in.heard = true
	c.in.drained = n < len(p)
	return n, nil
}

// waitError says what ended a wait.
func (c *Conn) waitError(ctx context.Context, err error) error {
	if !timedOut(err) {
		if over := c.in.err.get(); over != nil {
			return overError(ctx, over)
		}
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	return errTick
}

// receiveTicking is receive, across ticks.
func (c *Conn) receiveTicking(ctx context.Context, p []byte) (n int, err error) {
	for {
		n, err = c.receive(ctx, p)
		if err == errTick {
			err = c.ticked()
			if err == nil {
				continue
			}
		}
		return n, err
	}
}

// readFailed makes an error of receive permanent, unless a context ended.
func (c *Conn) readFailed(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*contextEnded); ok {
		return err
	}
	if c.in.err.get() == nil {
		if err == io.EOF {
			err = errClosedWithoutFrame
		} else if err != errConnectionSilent {
			err = &networkError{"read", err}
		}
		c.drop(err)
	}
	return c.in.err.get()
}
