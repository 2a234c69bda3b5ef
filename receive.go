package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// fill waits for more bytes, with room for n of them in a row.
func (c *Conn) fill(ctx context.Context, n int) error {
	in := &c.in
	in.shrink()
	if in.wait == nil || in.pooled != nil || in.w > len(in.small) {
		in.makeRoom(n)
		free := in.buf[in.w:]
		m, err := c.receive(ctx, free)
		in.w += m
		in.next = 0
		if m == len(free) {
			in.next = min(16*m, readBufferSize)
		}
		return c.readFailed(err)
	}
	in.wait.keep = in.w
	m, err := c.receive(ctx, nil)
	if err != nil {
		return c.readFailed(err)
	}
	kept := in.buf[:in.w]
	in.pooled = in.wait.take()
	in.buf = in.pooled.b[:cap(in.pooled.b)]
	in.w = copy(in.buf, kept) + m
	return nil
}

// shrink moves what is there to the front, and lets go of a buffer that is too large for it.
func (in *inbound) shrink() {
	if in.r == 0 && in.w > len(in.small) {
		return
	}
	rest := in.buf[in.r:in.w]
	if len(rest) <= len(in.small) {
		in.buf = in.small[:]
	}
	in.r, in.w = 0, copy(in.buf, rest)
	if len(rest) <= len(in.small) && in.pooled != nil {
		putBuffer(in.pooled)
		in.pooled = nil
	}
}

// makeRoom makes room in buf, after what is there, for one more byte at least, and for n in
// all.
func (in *inbound) makeRoom(n int) {
	size := in.next
	if in.w == len(in.buf) || n > len(in.buf) {
		size = readBufferSize
	}
	if size <= len(in.buf) {
		return
	}
	b := getBuffer(size)
	rest := in.buf[:in.w]
	in.buf = b.b[:cap(b.b)]
	copy(in.buf, rest)
	putBuffer(in.pooled)
	in.pooled = b
}

// receive reads from the network: the only place that does. With p == nil the bytes are left
// in in.wait. The error is that of the network or of the context.
func (c *Conn) receive(ctx context.Context, p []byte) (n int, err error) {
	in := &c.in
	c.flushQueued()
	in.watch.watch(c, ctx)
	if in.tick > 0 && !in.armed {
		in.armed = true
		if in.watch.setDeadlineAt(c, time.Now().Add(in.tick)) != nil {
			in.tick = 0 // no deadlines, no keepalive
		}
	}
	for {
		if p != nil {
			n, err = c.nc.Read(p)
		} else {
			n, err = in.wait.read()
		}
		switch {
		case n > 0:
			in.heard = true
			return n, nil
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if over := in.err.get(); over != nil {
				return 0, overError(ctx, over)
			}
			return 0, err
		case ctx.Err() != nil:
			return 0, contextError(ctx)
		default:
			if err := c.ticked(); err != nil {
				return 0, err
			}
		}
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
			err = fmt.Errorf("websocket: read: %w", err)
		}
		c.drop(err)
	}
	return c.in.err.get()
}
