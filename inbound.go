package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// readBufferSize is read from the network at once, unless a payload goes straight to the
	// caller.
	readBufferSize = 16 << 10
	// directReadSize is the size of the rest of a payload from which on it is read straight
	// into the caller's slice.
	directReadSize = 4 << 10
	// maxEmptyFragments bounds what the message size does not: fragments that add nothing.
	maxEmptyFragments = 1 << 10
)

var (
	errMessageTooBig      = &ProtocolError{StatusMessageTooBig, "RFC 6455 section 10.4", "message exceeds the size limit"}
	errTooManyFragments   = &ProtocolError{StatusMessageTooBig, "RFC 6455 section 10.4", "message has too many empty fragments"}
	errInvalidUTF8        = &ProtocolError{StatusInvalidFramePayloadData, "RFC 6455 section 8.1", "text is not UTF-8"}
	errReaderSuperseded   = errors.New("websocket: reader of an earlier message")
	errConnectionSilent   = fmt.Errorf("websocket: the peer is silent and does not answer a Ping: %w", os.ErrDeadlineExceeded)
	errStreamedReadCut    = fmt.Errorf("websocket: closed, since the context of a streamed read ended inside the message: %w", net.ErrClosed)
	errClosedWithoutFrame = fmt.Errorf("websocket: the peer closed without a Close frame: %w", io.ErrUnexpectedEOF)
)

// inbound is the receiving half of a Conn. It belongs to the holder of its turn.
type inbound struct {
	turn turn // barred while a message is in front, for those who want none

	// Constant.
	limit int64         // on the size of a message
	tick  time.Duration // half the keepalive interval, 0 if there is none

	err    firstError // why reading is over
	ending firstError // why it will be, once the closing is through
	watch  watcher

	// Bytes that arrived and were not consumed: buf[r:w]. buf is small while nothing is there.
	buf      []byte
	r, w     int
	pooled   *buffer // of buf, if it is on loan
	small    *[headroom]byte
	next     int32 // size of the buffer for the next read: what filled one has probably left more
	expected int32 // size of the latest message of a Messages loop: more like it may come

	// The frame that is being received, from its consumed header on.
	remaining uint64 // bytes of payload to come
	key       [4]byte
	keyPos    uint8
	fin       bool
	dataAhead bool // a data frame's header is in front, not consumed
	lent      bool // the message before buf[r], in pooled, is on loan

	// The message that is being received.
	stream atomic.Pointer[messageReader] // who reads it, if it is streamed; anybody may look

	size       uint64         // claimed by its frames so far
	partial    []byte         // its payload as far as an interrupted Read has received it
	inflate    *inflater      // of compressed messages, nil if there are none
	inflating  *inflateReader // of this one, if it is read piece by piece
	empty      int32          // fragments
	state      inboundState   // fragmented: the message goes on after the current frame
	open       bool           // there is one
	typ        MessageType
	compressed bool
	utf8       utf8State
	skip       bool // nobody reads it: it is to be dropped

	drained bool // the latest read took all there was

	// Keepalive.
	heard  bool  // something arrived since the last tick
	pinged bool  // and nothing since we asked
	quiet  uint8 // silent ticks in a row
	sent   uint64
}

func (in *inbound) init(buffered []byte, waits bool) {
	if waits {
		in.small = new([headroom]byte)
	}
	if len(buffered) <= headroom {
		in.keep(buffered)
		return
	}
	in.buf, in.w = slices.Clone(buffered), len(buffered)
}

// takeRead takes the read turn, and ends the caller's loan l, if there is one. A permanent error
// comes before that of the context.
func (c *Conn) takeRead(ctx context.Context, l *loan) error {
	if err := c.in.err.get(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if !c.wait(ctx, &c.in.turn) {
		if err := c.in.err.get(); err != nil {
			return overError(ctx, err)
		}
		return contextError(ctx)
	}
	if err := c.in.err.get(); err != nil {
		c.releaseRead()
		return overError(ctx, err)
	}
	if l != nil {
		c.in.endLoan(l)
	}
	c.in.unshare()
	return nil
}

func (c *Conn) releaseRead() {
	in := &c.in
	in.watch.rest(c)
	if in.w-in.r <= headroom {
		in.shrink()
	}
	in.turn.releaseBarred(in.err.get() == nil && in.messageAhead())
}

// nextDataFrame handles control frames up to the next data frame, and begins that.
func (c *Conn) nextDataFrame(ctx context.Context) error {
	for {
		if data, err := c.takeFrame(ctx); data || err != nil {
			return err
		}
	}
}

// takeFrame handles the next frame if it is a control frame, or begins it and reports true.
func (c *Conn) takeFrame(ctx context.Context) (data bool, err error) {
	h, n, err := c.nextFrame(ctx)
	if err != nil {
		return false, err
	}
	if n == 0 {
		c.trySendDue()
		return false, nil
	}
	c.in.begin(h, n)
	return true, c.endFrame(ctx)
}

// nextFrame waits for a frame that the state allows. A control frame is handled, with n == 0,
// but for the Pong that may be due then: the caller sends it, where the stack is small. Of a data
// frame the header is returned with its size and left in place.
func (c *Conn) nextFrame(ctx context.Context) (h Header, n int, err error) {
	in := &c.in
	for {
		h, n, err = ParseHeader(in.buf[in.r:in.w])
		if err != nil {
			return h, 0, c.fail(ctx, err.(*ProtocolError))
		}
		if n > 0 {
			break
		}
		if err := c.fill(ctx, maxHeaderSize); err != nil {
			return h, 0, err
		}
	}
	if perr := judge(h, in.state); perr != nil {
		return h, 0, c.fail(ctx, perr)
	}
	if !h.Opcode.IsControl() {
		if perr := in.checkSize(h); perr != nil {
			return h, 0, c.fail(ctx, perr)
		}
		return h, n, nil
	}
	size := n + int(h.Length)
	for in.w-in.r < size {
		if err := c.fill(ctx, size); err != nil {
			return h, 0, err
		}
	}
	payload := in.buf[in.r+n : in.r+size]
	in.r += size
	if h.Masked {
		Mask(payload, h.Key, 0)
	}
	switch h.Opcode {
	case OpPing:
		c.receivedPing(payload)
	case OpPong:
		c.receivedPong(payload)
	case OpClose:
		return h, 0, c.receivedClose(ctx, payload)
	}
	return h, 0, nil
}

// checkSize judges what h claims before a byte of its payload is read.
func (in *inbound) checkSize(h Header) *ProtocolError {
	size, empty, compressed := uint64(0), int32(0), h.RSV1
	if h.Opcode == OpContinuation {
		size, empty, compressed = in.size, in.empty, in.compressed
	}
	limit := uint64(in.limit)
	if compressed {
		// What does not get smaller gets a little larger.
		limit += limit/8 + 64
	}
	if size+h.Length > limit {
		return errMessageTooBig
	}
	if h.Length == 0 && empty >= maxEmptyFragments {
		return errTooManyFragments
	}
	return nil
}

// unfinished reports whether there is a message that a call to come goes on with.
func (in *inbound) unfinished() bool {
	return in.open || in.inflating != nil || len(in.partial) > 0
}

// messageAhead reports whether a message is to be read before anything else: a data frame, or
// what is there of one that has arrived whole and that a Close behind it must not cut.
func (in *inbound) messageAhead() bool {
	return in.remaining > 0 || in.dataAhead || !in.open && in.unfinished()
}

// begin consumes the header of a data frame, which has n bytes.
func (in *inbound) begin(h Header, n int) {
	in.r += n
	in.dataAhead = false
	in.fin = h.Fin
	in.remaining = h.Length
	in.key = h.Key
	in.keyPos = 0
	if h.Opcode != OpContinuation {
		in.open = true
		in.typ = MessageType(h.Opcode)
		in.compressed = h.RSV1
		in.size, in.empty = 0, 0
		in.utf8 = utf8State{}
	}
	in.state.fragmented = !h.Fin
	in.size += h.Length
	if h.Length == 0 {
		in.empty++
	}
}

// endFrame ends the message if the current frame is received and the last one.
func (c *Conn) endFrame(ctx context.Context) error {
	in := &c.in
	if in.remaining > 0 || !in.fin || !in.open {
		return nil
	}
	if in.typ == Text && !in.compressed && !in.utf8.complete() {
		return c.fail(ctx, errInvalidUTF8)
	}
	in.open = false
	return nil
}

// accept takes b[start:], a chunk of the current frame's payload: it unmasks and checks it in
// place.
func (c *Conn) accept(ctx context.Context, b []byte, start int) error {
	in := &c.in
	chunk := b[start:]
	in.remaining -= uint64(len(chunk))
	if !in.state.client {
		in.keyPos = uint8(maskFrom(b, start, in.key, int(in.keyPos)))
	}
	if in.typ == Text && !in.compressed {
		var ok bool
		if in.utf8, ok = in.utf8.next(chunk); !ok {
			return c.fail(ctx, errInvalidUTF8)
		}
	}
	return c.endFrame(ctx)
}

// buffered returns payload of the current message that is in the buffer, at most limit
// bytes, after waiting for some. It returns none at the end of the message.
func (c *Conn) buffered(ctx context.Context, limit int) ([]byte, error) {
	in := &c.in
	for in.open && in.remaining == 0 {
		if err := c.nextDataFrame(ctx); err != nil {
			return nil, err
		}
	}
	if !in.open {
		return nil, nil
	}
	if in.r == in.w {
		if err := c.fill(ctx, 1); err != nil {
			return nil, err
		}
	}
	n := int(min(in.remaining, uint64(in.w-in.r), uint64(limit)))
	start := in.r
	in.r += n
	return in.buf[start:in.r], c.accept(ctx, in.buf[:in.r], start)
}

// appendPayload appends some payload of the current message to dst, or nothing at a tick.
func (c *Conn) appendPayload(ctx context.Context, dst []byte) ([]byte, error) {
	if !c.in.readsDirect() {
		return c.appendBuffered(ctx, dst)
	}
	dst = c.in.grow(dst)
	n, err := c.readDirect(ctx, dst)
	return dst[:len(dst)+n], err
}

func (c *Conn) appendBuffered(ctx context.Context, dst []byte) ([]byte, error) {
	chunk, err := c.buffered(ctx, math.MaxInt)
	if err != nil {
		return dst, err
	}
	return append(dst, chunk...), nil
}

// readsDirect reports whether payload is read past the buffer.
func (in *inbound) readsDirect() bool { return in.r == in.w && in.remaining >= directReadSize }

// ahead returns how much room there may be for payload of the current frame that has not
// arrived. Memory follows what has: no more than that, or directReadSize, is taken on a mere
// claim, unless a message before this one has shown that so much does come.
func (in *inbound) ahead() int {
	arrived := in.size - in.remaining
	n := max(arrived, directReadSize)
	if arrived >= readBufferSize {
		n = max(n, uint64(in.expected))
	}
	return int(min(in.remaining, n))
}

// grow makes room for payload behind dst, and for the byte more that readDirect asks for.
func (in *inbound) grow(dst []byte) []byte {
	n := len(dst) + in.ahead()
	if n <= cap(dst) {
		return dst
	}
	return append(offPage(n+1), dst...)
}

// readPayload reads some payload of the current message into p.
func (c *Conn) readPayload(ctx context.Context, p []byte) (int, error) {
	in := &c.in
	if len(in.partial) > 0 {
		n := copy(p, in.partial)
		if in.partial = in.partial[n:]; len(in.partial) == 0 {
			in.partial = nil
		}
		return n, nil
	}
	if in.r < in.w || in.remaining < directReadSize || len(p) < directReadSize {
		chunk, err := c.buffered(ctx, len(p))
		return copy(p, chunk), err
	}
	for {
		if n, err := c.readDirect(ctx, p[:0:len(p)]); n > 0 || err != nil {
			return n, err
		}
	}
}

// readDirect reads payload of the current frame from the network into what dst has room for, or
// nothing at a tick. The buffer is empty, and nobody needs it meanwhile. If there is room, it
// asks for a byte more than the frame has, to see whether it has taken all there was.
func (c *Conn) readDirect(ctx context.Context, dst []byte) (int, error) {
	in := &c.in
	p := dst[len(dst):cap(dst)]
	in.shrink()
	in.next = 0
	n, err := c.receive(ctx, p[:min(uint64(len(p)), in.remaining+1)])
	if err == errTick {
		err = c.ticked()
	}
	if n == 0 {
		return 0, c.readFailed(err)
	}
	if uint64(n) > in.remaining {
		n--
		in.keep(p[n : n+1])
	}
	return n, c.accept(ctx, dst[:len(dst)+n], len(dst))
}

// skipPayload drops some payload of the current message.
func (c *Conn) skipPayload(ctx context.Context) error {
	_, err := c.buffered(ctx, math.MaxInt)
	return err
}
