package websocket

import "sync"

const (
	// giveUpAfter is how much of a message is compressed without gain before the rest is
	// not tried.
	giveUpAfter = 16 << 10
	// investUpTo is the size of a message that is sent compressed with context takeover even
	// if it is not smaller, so that later ones can refer to it.
	investUpTo = 1 << 10
)

// encoders lends what only a message in progress needs.
var encoders = sync.Pool{New: func() any { return newEncoder() }}

// deflater compresses the messages of a connection (RFC 7692 section 7.2.1). The holder of
// the right to send messages uses it.
//
// Between messages it holds nothing, or the history with context takeover. All output leaves
// out the 00 00 ff ff at the end of a message.
type deflater struct {
	variant  deflateVariant
	minSize  int
	takeover bool
	text     *history // what the peer's window holds, or less; nil before the first message
	stream   *encoder // of the streamed message in progress
}

// A deflateVariant is what the compressed form of a message without a history depends on.
type deflateVariant struct {
	bits  int // of the window
	level int
}

func newDeflater(p *deflateParams) *deflater {
	return &deflater{
		variant:  deflateVariant{bits: p.send.bits, level: p.level},
		minSize:  p.minSize,
		takeover: p.send.takeover,
	}
}

// wants reports whether a message of n bytes is long enough to be compressed.
func (d *deflater) wants(n int) bool { return n >= d.minSize }

// appendMessage appends the compressed form of the message p. If p is too short for that or
// does not get smaller, ok is false, dst is as it was, and the message is to be sent as it
// is; it is then no part of the history.
func (d *deflater) appendMessage(dst, p []byte) (out []byte, ok bool) {
	if !d.wants(len(p)) {
		return dst, false
	}
	if !d.takeover {
		return d.variant.appendMessage(dst, p)
	}
	e := d.variant.encoder()
	defer encoders.Put(e)
	return e.appendMessage(d.history(), dst, p, len(p) <= investUpTo)
}

// appendMessage does without a history. What it appends can be sent on every connection with
// this variant, and given to [deflater.adopt] there.
func (v deflateVariant) appendMessage(dst, p []byte) (out []byte, ok bool) {
	e := v.encoder()
	defer encoders.Put(e)
	return e.appendMessage(e.fresh(v.bits, len(p)), dst, p, false)
}

// adopt makes p part of the history, since it was sent in a compressed form that the
// deflater has not made.
func (d *deflater) adopt(p []byte) {
	if !d.takeover {
		return
	}
	h := d.history()
	for p = p[max(len(p)-h.window, 0):]; len(p) > 0; {
		p = h.fill(p)
		h.index(h.next, len(h.buf))
		h.truncate(len(h.buf))
	}
}

// reset forgets the history, and a streamed message in progress: the peer has not received
// the latest of it. Messages to come do not refer to what was before.
func (d *deflater) reset() {
	if d.stream != nil {
		d.stream.take()
		d.stream.discard()
		encoders.Put(d.stream)
		d.stream = nil
	}
	d.text = nil
}

// appendPiece adds p to the streamed message, which begins unless there is one, and appends
// what is ready of its compressed form. That may be nothing.
func (d *deflater) appendPiece(dst, p []byte) []byte {
	e, h := d.open()
	e.out = dst
	for p = h.fill(p); len(p) > 0; p = h.fill(p) {
		e.compress(h, false)
	}
	return e.take()
}

// appendEnd ends the streamed message and appends the rest of it.
func (d *deflater) appendEnd(dst []byte) []byte {
	e, h := d.open()
	e.out = dst
	e.compress(h, true)
	e.end()
	dst = e.take()
	d.stream = nil
	encoders.Put(e)
	return dst
}

func (d *deflater) open() (*encoder, *history) {
	e := d.stream
	if e == nil {
		e = d.variant.encoder()
		d.stream = e
		if !d.takeover {
			e.fresh(d.variant.bits, maxWindow)
		}
	}
	if d.takeover {
		return e, d.history()
	}
	return e, e.own
}

// history returns the history of a connection with context takeover. For the largest window
// it is one of 28 KiB, which with the room for new text makes 32.
func (d *deflater) history() *history {
	if d.text == nil {
		window := 1 << d.variant.bits
		room := lookahead + max(window/8, 1<<10)
		size := min(window+room, maxWindow)
		d.text = newHistory(size-room, size, max(window/8, 512), min(window, max(window/4, 2<<10)))
	}
	return d.text
}

func (v deflateVariant) encoder() *encoder {
	e := encoders.Get().(*encoder)
	e.effort = efforts[v.level]
	return e
}

// fresh returns the encoder's own history, empty, for n bytes.
func (e *encoder) fresh(bits, n int) *history {
	if e.own == nil {
		e.own = newHistory(maxWindow, 2*maxWindow, maxWindow/4, maxWindow)
	}
	e.own.reset(1<<bits, n)
	return e.own
}

// appendMessage appends the compressed form of p, unless it is not smaller and that matters.
func (e *encoder) appendMessage(h *history, dst, p []byte, anyway bool) (out []byte, ok bool) {
	e.out = dst
	kept := len(h.buf) // of the history
	rest := p
	for {
		size := len(h.buf) + len(rest)
		rest = h.fill(rest)
		kept -= size - (len(h.buf) + len(rest))
		e.compress(h, len(rest) == 0)
		if len(rest) == 0 {
			e.end()
			break
		}
		written := len(p) - len(rest) - (len(h.buf) - h.block)
		if written >= giveUpAfter && len(e.out)-len(dst) >= written {
			e.discard()
			break
		}
	}
	out = e.take()
	if len(rest) > 0 || len(out)-len(dst) >= len(p) && !anyway {
		h.truncate(max(kept, 0))
		return dst, false
	}
	return out, true
}

// end ends the message with the first three bits of an empty block without compression, and
// padding. RFC 7692 section 7.2.1: the block's other bytes, 00 00 ff ff, are not sent. An
// empty message is this byte alone (section 7.2.3.6).
func (e *encoder) end() {
	e.writeBits(0b000, 3)
	e.align()
}

// take returns the output, which the encoder lets go of.
func (e *encoder) take() []byte {
	out := e.out
	e.out = nil
	return out
}
