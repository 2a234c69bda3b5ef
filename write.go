package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

const (
	// streamBufferSize is the payload of a streamed message's frames.
	streamBufferSize = 16 << 10
	// streamPieceSize bounds that of frames for larger pieces.
	streamPieceSize = 256 << 10
)

var (
	errWriteCut             = fmt.Errorf("websocket: closed, since the context of a write ended inside a frame: %w", net.ErrClosed)
	errStreamedWriteCut     = fmt.Errorf("websocket: closed, since the context of a streamed write ended inside the message: %w", net.ErrClosed)
	errStreamedWriteGivenUp = fmt.Errorf("websocket: closed, since the source of a streamed message failed: %w", net.ErrClosed)
	errMessageEnded         = errors.New("websocket: write to a message that has ended")
)

// Write sends p as one message of one frame, compressed if that was agreed on and makes it
// smaller. It returns when the network has taken it, which says nothing about the peer. p is
// not changed and not kept. Text must be UTF-8: that is not checked here, but peers do.
//
// If ctx ends before the first byte went out, Write returns an error that matches that of ctx,
// and nothing has happened. If it ends later, the connection is closed, since a frame cut
// short leaves the peer without a next boundary; the error matches [net.ErrClosed] too then.
// All other errors are permanent, as those of [Conn.Read].
func (c *Conn) Write(ctx context.Context, typ MessageType, p []byte) error {
	if err := typ.check(); err != nil {
		return err
	}
	if err := c.takeMessage(ctx); err != nil {
		return err
	}
	if c.out.deflate == nil {
		return c.sendMessage(ctx, Header{Fin: true, Opcode: Opcode(typ)}, p, false)
	}
	return c.writeCompressed(ctx, Opcode(typ), p, false)
}

// Queue is Write for a message that may wait for company, so that many small ones cost one
// write of the network instead of one each. It goes out with the next Write, when 16 KiB have
// gathered, by Flush, and at the latest before a Read waits for what the peer sends next. So
// whoever answers from the goroutine that reads can use Queue in place of Write and need
// not think of Flush: while more messages are there to be read, the answers gather.
// Elsewhere, end what you queue with Flush or a Write: it may stay where it is until then.
//
// When Queue returns without an error, ctx has no more to say about the message. An error of
// the network shows at a later call. A Close frame goes out behind what is queued.
func (c *Conn) Queue(ctx context.Context, typ MessageType, p []byte) error {
	if err := typ.check(); err != nil {
		return err
	}
	if err := c.takeMessage(ctx); err != nil {
		return err
	}
	if c.out.deflate != nil {
		return c.writeCompressed(ctx, Opcode(typ), p, true)
	}
	h := Header{Fin: true, Opcode: Opcode(typ)}
	if c.out.box.queue(h, p) {
		c.out.message.release()
		return nil
	}
	return c.sendMessage(ctx, h, p, false)
}

// Flush sends what Queue has gathered, and returns when the network has taken it. If ctx ends
// first, Flush returns an error that matches that of ctx; nothing is lost, and what is left
// goes out with what is sent next. Over TLS, where a write cannot be interrupted and resumed,
// the connection is closed then. All other errors are permanent.
func (c *Conn) Flush(ctx context.Context) error {
	if err := c.takeWire(ctx); err != nil {
		return err
	}
	defer c.releaseWire()
	if err := c.out.err.get(); err != nil {
		return err
	}
	return c.flush(ctx)
}

// writeCompressed is Write, or Queue, where compression was agreed on. The caller gives up
// the message turn.
func (c *Conn) writeCompressed(ctx context.Context, op Opcode, p []byte, queue bool) error {
	h, payload, loan := c.encode(op, p)
	defer putBuffer(loan)
	if queue && c.out.box.queue(h, payload) {
		c.out.message.release()
		return nil
	}
	return c.sendMessage(ctx, h, payload, false)
}

// encode returns the frame for the message p, compressed if that was agreed on and makes it
// smaller. The payload may be in the loan. The caller holds the message turn.
func (c *Conn) encode(op Opcode, p []byte) (h Header, payload []byte, loan *buffer) {
	h = Header{Fin: true, Opcode: op}
	d := c.out.deflate
	if d == nil || !d.wants(len(p)) {
		return h, p, nil
	}
	loan = getBuffer(len(p))
	z, ok := d.appendMessage(loan.b, p)
	if !ok {
		return h, p, loan
	}
	h.RSV1 = true // RFC 7692 section 6.1
	return h, z, loan
}

// NextWriter begins a message that is written piece by piece. It goes out in frames, when
// 16 KiB have gathered or at once for larger pieces. Other messages wait until it has ended;
// control frames do not. The writer is for one goroutine, and is also an [io.ReaderFrom].
//
// Close ends the message, which the peer then takes for complete. So do not defer it: a message
// that cannot be completed is given up by closing the connection.
//
// ctx holds for the writer too. Of its calls, one that finds ctx ended fails, and closes the
// connection if some of the message is out; the error matches [net.ErrClosed] too then. The
// end of ctx does not by itself end the message.
func (c *Conn) NextWriter(ctx context.Context, typ MessageType) (io.WriteCloser, error) {
	w, err := c.nextWriter(ctx, typ)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (c *Conn) nextWriter(ctx context.Context, typ MessageType) (*messageWriter, error) {
	if err := typ.check(); err != nil {
		return nil, err
	}
	if err := c.takeMessage(ctx); err != nil {
		return nil, err
	}
	return &messageWriter{c: c, ctx: ctx, opcode: Opcode(typ), buf: getBuffer(streamBufferSize)}, nil
}

// messageWriter writes one message as a stream. It holds the message turn until it ends.
type messageWriter struct {
	c      *Conn
	ctx    context.Context
	opcode Opcode  // of the next frame
	begun  bool    // a frame was sent
	buf    *buffer // nil once the message has ended
	z      *buffer // the compressed form of what buf held; nil unless the message is compressed
	err    error
}

func (w *messageWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if err := w.ready(); err != nil {
			return n, err
		}
		b := w.buf.b
		m := 0
		if len(b) == 0 && len(p) >= streamBufferSize {
			m = min(len(p), streamPieceSize)
			if err := w.flush(p[:m], false); err != nil {
				return n, err
			}
		} else {
			m = copy(b[len(b):streamBufferSize], p)
			w.buf.b = b[:len(b)+m]
		}
		n += m
		p = p[m:]
	}
	return n, w.err
}

// ready makes room in the buffer.
func (w *messageWriter) ready() error {
	if w.err != nil {
		return w.err
	}
	if len(w.buf.b) < streamBufferSize {
		return nil
	}
	err := w.flush(w.buf.b, false)
	if err == nil {
		w.buf.b = w.buf.b[:0]
	}
	return err
}

// ReadFrom implements [io.ReaderFrom].
func (w *messageWriter) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		if err := w.ready(); err != nil {
			return n, err
		}
		b := w.buf.b
		m, err := r.Read(b[len(b):streamBufferSize])
		w.buf.b = b[:len(b)+m]
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Close ends the message.
func (w *messageWriter) Close() error {
	if w.err != nil {
		if w.err == errMessageEnded {
			return nil
		}
		return w.err
	}
	if err := w.flush(w.buf.b, true); err != nil {
		return err
	}
	w.end(errMessageEnded)
	return nil
}

// giveUp ends a message that cannot be completed. If some of it is out, that closes the
// connection.
func (w *messageWriter) giveUp() {
	if w.err != nil {
		return
	}
	if w.begun {
		_ = w.c.close(StatusGoingAway, errStreamedWriteGivenUp)
	}
	w.end(errStreamedWriteGivenUp)
}

// flush sends p as the message's next frame.
func (w *messageWriter) flush(p []byte, fin bool) error {
	err := w.send(p, fin)
	if err == nil {
		return nil
	}
	if _, ok := err.(*contextEnded); ok && w.begun {
		_ = w.c.close(StatusGoingAway, errStreamedWriteCut)
		err = closedBy(err, errStreamedWriteCut)
	}
	w.end(err)
	return err
}

func (w *messageWriter) send(p []byte, fin bool) error {
	c, d := w.c, w.c.out.deflate
	if !w.begun && w.z == nil {
		if fin {
			h, payload, loan := c.encode(w.opcode, p)
			defer putBuffer(loan)
			return c.sendMessage(w.ctx, h, payload, true)
		}
		if d != nil && d.wants(len(p)) {
			w.z = getBuffer(streamBufferSize)
		}
	}
	h := Header{Fin: fin, Opcode: w.opcode}
	if w.z != nil {
		h.RSV1 = !w.begun // RFC 7692 section 6.1: only on the first frame
		z := d.appendPiece(w.z.b, p)
		if fin {
			z = d.appendEnd(z)
		}
		w.z.b = z[:0]
		p = z
		if len(p) == 0 && !fin {
			return nil
		}
	}
	if err := c.sendMessage(w.ctx, h, p, true); err != nil {
		return err
	}
	w.begun = true
	w.opcode = OpContinuation
	return nil
}

func (w *messageWriter) end(err error) {
	w.err = err
	if w.z != nil {
		if err != errMessageEnded {
			w.c.out.deflate.reset() // the peer's window does not have it
		}
		putBuffer(w.z)
		w.z = nil
	}
	w.buf.b = w.buf.b[:0]
	putBuffer(w.buf)
	w.buf = nil
	if err != errMessageEnded {
		w.c.out.box.stream(false)
	}
	w.c.out.message.release()
}
