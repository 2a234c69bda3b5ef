package websocket

import (
	"context"
	"iter"
	"math"
	"slices"
)

// A Message is one that [Conn.Messages] has received.
type Message struct {
	Type    MessageType
	Payload []byte // on loan until the next iteration
}

// Messages returns an iterator over the messages that arrive. The memory of a message's
// Payload is the loop's own, to change too, until the next iteration. After that it holds
// other messages, of other connections too: what is kept, or handed to another goroutine, is
// a copy, as bytes.Clone(msg.Payload), or read by [Conn.Read]. A connection that waits for a
// message holds no memory for it.
//
//	for msg, err := range c.Messages(ctx) {
//		if err != nil {
//			return err
//		}
//		if err := c.Queue(ctx, msg.Type, msg.Payload); err != nil {
//			return err
//		}
//	}
//
// An error, which is one of those of [Conn.Read], comes with a zero Message and ends the loop.
// If it is that of ctx, or if the loop is left early, nothing is lost: another loop, or a Read,
// goes on from there. In the loop the connection may be used as outside of it, by other
// goroutines too; what a Read takes there, the loop does not get.
func (c *Conn) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		var l loan
		for {
			m, err := c.lend(ctx, &l)
			if !yield(m, err) || err != nil {
				break
			}
		}
		l.giveBack()
	}
}

// A loan is the memory of a message.
type loan struct {
	buf    *buffer
	shared bool // the connection's buffer goes on behind the message, or did
}

// giveBack ends the loan without the read turn: shared memory is left to the garbage collector,
// since it may be in use.
func (l *loan) giveBack() {
	if !l.shared {
		putBuffer(l.buf)
	}
	*l = loan{}
}

// endLoan ends the loan.
func (in *inbound) endLoan(l *loan) {
	if in.lent && in.pooled == l.buf {
		in.lent = false
	} else {
		putBuffer(l.buf) // nobody else has it, or no longer
	}
	*l = loan{}
}

// unshare moves what is behind a message on loan, if there is one, out of its buffer.
func (in *inbound) unshare() {
	if !in.lent {
		return
	}
	in.pooled, in.lent = nil, false // it is the loop's now
	in.moveTo(getRoom(in.w-in.r), in.r)
}

// lend ends the loan l, waits for the next message, and makes it what l is about.
func (c *Conn) lend(ctx context.Context, l *loan) (m Message, err error) {
	if err = c.beginRead(ctx, l); err != nil {
		return m, err
	}
	in := &c.in
	err = c.awaitMessage(ctx)
	switch {
	case err != nil:
	case in.compressed:
		m.Payload, err = c.lendInflated(ctx, l)
	case in.pooled == nil || !in.fin || len(in.partial) > 0:
		m.Payload, err = c.lendCopy(ctx, l)
	default:
		// The message is one frame and stays where it arrives. What is missing is waited for
		// here and not further down, so that a stack of 2 KiB will do.
		start, n := in.r, 0
		for in.open && err == nil {
			if in.r < in.w {
				_, err = c.buffered(ctx, math.MaxInt)
				continue
			}
			start = in.roomBehind(start)
			n, err = c.receive(ctx, in.buf[in.w:])
			in.w += n
			if err != nil {
				err = c.interruptedAt(start, err)
			}
		}
		if err == nil {
			m.Payload = in.lendFrom(start, l)
		}
	}
	if err == nil {
		m.Type = in.typ
		in.expected = int32(min(in.size, math.MaxInt32))
	}
	c.releaseRead()
	return m, err
}

// interruptedAt handles what has ended a wait in the middle of the message that begins at
// start, which is kept unless that was a tick.
func (c *Conn) interruptedAt(start int, err error) error {
	if err == errTick {
		if err = c.ticked(); err == nil {
			return nil
		}
	}
	c.in.partial = append(c.in.partial, c.in.buf[start:c.in.r]...)
	return c.readFailed(err)
}

// lendFrom lends the part of the buffer from start on where the current message is. A buffer
// that a large message before it has left is not for a small one.
func (in *inbound) lendFrom(start int, l *loan) []byte {
	if n := in.w - start; n <= readBufferSize && in.pooled.class > readBufferClass {
		in.moveTo(getBuffer(n), start)
		start = 0
	}
	p := in.buf[start:in.r:in.r]
	l.buf = in.pooled
	l.shared = in.w-in.r > headroom
	if in.lent = l.shared; !in.lent {
		in.keep(in.buf[in.r:in.w])
	}
	return p
}

// roomBehind makes room behind the beginning of a message, which begins at start and is all
// that is there. It returns where it begins then.
func (in *inbound) roomBehind(start int) int {
	size := max(in.r-start+in.ahead()+1, readBufferSize) // a byte more, as for readDirect
	b := in.pooled
	if class := bufferClass(size); class != b.class || size > cap(b.b) {
		b = getRoom(size)
	} else if start+size <= len(in.buf) {
		return start
	}
	in.moveTo(b, start)
	return 0
}

// lendCopy lends memory to which the rest of the current message is copied.
func (c *Conn) lendCopy(ctx context.Context, l *loan) (p []byte, err error) {
	in := &c.in
	b := getBuffer(len(in.partial) + in.ahead())
	b.b = append(b.b, in.partial...)
	for in.open && err == nil {
		if in.readsDirect() {
			b = b.reserve(in.ahead())
			var n int
			n, err = c.readDirect(ctx, b.b)
			b.b = b.b[:len(b.b)+n]
		} else {
			var chunk []byte
			chunk, err = c.buffered(ctx, math.MaxInt)
			b = b.reserve(len(chunk))
			b.b = append(b.b, chunk...)
		}
	}
	if err != nil {
		in.partial = append(in.partial, b.b[len(in.partial):]...)
		putBuffer(b)
		return nil, err
	}
	in.partial = nil
	l.buf = b
	return slices.Clip(b.b), nil
}

// lendInflated lends memory to which the current message is inflated.
func (c *Conn) lendInflated(ctx context.Context, l *loan) (p []byte, err error) {
	payload, err := c.compressed(ctx)
	if err != nil {
		return nil, err
	}
	b := getBuffer(4 * len(payload)) // not while that may yet be awaited
	p, err = c.inflateMessage(ctx, b.b, payload)
	if err != nil {
		putBuffer(b)
		return nil, err
	}
	b.b = p // larger, maybe
	l.buf = b
	return slices.Clip(p), nil
}
