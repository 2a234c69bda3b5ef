package websocket

import (
	"context"
	"io"
)

// Read appends the next message to buf and returns its type and the extended slice. As for an
// [io.Reader], what buf has room for beyond that may be used as scratch space.
//
// If ctx ends first, Read returns an error that matches that of ctx, and buf as it was; what
// has arrived of the message is kept, and the next Read goes on from there. All other errors
// are permanent: a [*CloseError] if the peer closed, a [*ProtocolError] if it broke a rule
// or a limit, one that matches [net.ErrClosed] after our own Close or Shutdown,
// [io.ErrUnexpectedEOF] or the network's error if the connection broke, and
// [os.ErrDeadlineExceeded] if the peer is gone without a trace.
//
// One goroutine reads at a time; others wait for their turn. A message that [Conn.NextReader]
// has begun and not read to its end is dropped.
func (c *Conn) Read(ctx context.Context, buf []byte) (MessageType, []byte, error) {
	if err := c.beginRead(ctx, nil); err != nil {
		return 0, buf, err
	}
	err := c.awaitMessage(ctx)
	if err == nil {
		var msg []byte
		if msg, err = c.appendMessage(ctx, buf); err == nil {
			typ := c.in.typ
			c.releaseRead()
			return typ, msg, nil
		}
	}
	c.releaseRead()
	return 0, buf, err
}

// appendMessage appends the rest of the current message to buf.
func (c *Conn) appendMessage(ctx context.Context, buf []byte) ([]byte, error) {
	in := &c.in
	if in.compressed {
		return c.readCompressed(ctx, buf)
	}
	msg := append(buf, in.partial...)
	for in.open {
		var err error
		if msg, err = c.appendPayload(ctx, msg); err != nil {
			in.partial = append(in.partial, msg[len(buf)+len(in.partial):]...)
			return buf, err
		}
	}
	in.partial = nil
	return msg, nil
}

// NextReader waits for the next message and returns its type and a reader of its payload,
// which ends with io.EOF and is also an [io.WriterTo]. It is for messages that are better
// not held in memory whole.
//
// ctx holds for the reader too. If it ends before the message began, nothing is lost. A reader
// that finds it ended inside the message closes the connection, since nobody could go on from
// there; to wait with a limit and lose nothing, use [Conn.Read]. Errors are those of Read, and
// that of a context that ended inside the message matches [net.ErrClosed] too.
//
// MaxMessageSize holds for streamed messages too: 1 MiB, unless [AcceptOptions] or
// [DialOptions] say otherwise.
//
// The reader is for one goroutine. The next NextReader or Read drops what it has left.
func (c *Conn) NextReader(ctx context.Context) (MessageType, io.Reader, error) {
	return c.nextReader(ctx, 0)
}

func (c *Conn) nextReader(ctx context.Context, want MessageType) (MessageType, io.Reader, error) {
	if err := c.beginRead(ctx, nil); err != nil {
		return 0, nil, err
	}
	defer c.releaseRead()
	if err := c.nextMessage(ctx, want); err != nil {
		return 0, nil, err
	}
	r := &messageReader{c: c, ctx: ctx}
	c.in.stream.Store(r)
	return c.in.typ, r, nil
}

// messageReader reads one message as a stream.
type messageReader struct {
	c   *Conn
	ctx context.Context
	err error
}

func (r *messageReader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	n, err := r.read(p)
	r.err = err
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// read reports the end of the message with its last bytes.
func (r *messageReader) read(p []byte) (n int, err error) {
	c, in := r.c, &r.c.in
	if err = c.beginRead(r.ctx, nil); err == nil {
		defer c.releaseRead()
		if in.stream.Load() != r {
			return 0, errReaderSuperseded
		}
		n, err = c.readMessage(r.ctx, p)
		if err == io.EOF {
			in.stream.Store(nil)
		}
	}
	if _, ok := err.(*contextEnded); ok {
		if in.stream.Load() != r {
			return n, errReaderSuperseded
		}
		_ = c.close(StatusGoingAway, errStreamedReadCut)
		err = closedBy(err, errStreamedReadCut)
	}
	return n, err
}

// WriteTo implements [io.WriterTo].
func (r *messageReader) WriteTo(w io.Writer) (n int64, err error) {
	if rf, ok := w.(io.ReaderFrom); ok {
		return rf.ReadFrom(struct{ io.Reader }{r})
	}
	b := getBuffer(readBufferSize)
	defer putBuffer(b)
	for {
		m, err := r.Read(b.b[:cap(b.b)])
		if m > 0 {
			written, err := w.Write(b.b[:m])
			n += int64(written)
			if err == nil && written < m {
				err = io.ErrShortWrite
			}
			if err != nil {
				return n, err
			}
		}
		switch err {
		case nil:
		case io.EOF:
			return n, nil
		default:
			return n, err
		}
	}
}

// readStream reads of the current message, or else of the next one, which must be of the
// type wanted, 0 for any. If ctx ends, a later call goes on from there.
func (c *Conn) readStream(ctx context.Context, p []byte, want MessageType) (MessageType, int, error) {
	if err := c.beginRead(ctx, nil); err != nil {
		return 0, 0, err
	}
	defer c.releaseRead()
	if err := c.nextMessage(ctx, want); err != nil {
		return 0, 0, err
	}
	if c.in.compressed {
		// What is being inflated cannot wait for more of it and go on.
		if err := c.collect(ctx); err != nil {
			return 0, 0, err
		}
	}
	n, err := c.readMessage(ctx, p)
	if err == io.EOF {
		err = nil
	}
	return c.in.typ, n, err
}

// readMessage reads of the current message into p, and returns io.EOF with its last bytes.
func (c *Conn) readMessage(ctx context.Context, p []byte) (n int, err error) {
	if c.in.compressed {
		return c.readInflated(ctx, p)
	}
	if n, err = c.readPayload(ctx, p); err == nil && !c.in.open {
		err = io.EOF
	}
	return n, err
}

// beginRead takes the read turn for a caller who wants messages.
func (c *Conn) beginRead(ctx context.Context, l *loan) error {
	if c.drops() {
		return errClosed
	}
	if err := c.takeRead(ctx, l); err != nil {
		return err
	}
	if c.drops() {
		c.releaseRead()
		return errClosed
	}
	if l == nil {
		c.in.expected = 0
	}
	return nil
}

// drops reports whether what is still to come belongs to a Shutdown, which may have dropped the
// beginning of a message.
func (c *Conn) drops() bool {
	err := c.out.err.get()
	return err == errClosed || err == nil && c.left()
}

// nextMessage makes the next message the current one, to be read as a stream. It must be of
// the type wanted, 0 for any.
func (c *Conn) nextMessage(ctx context.Context, want MessageType) error {
	if err := c.awaitMessage(ctx); err != nil {
		return err
	}
	if want != 0 && c.in.typ != want {
		return c.fail(ctx, errWrongType)
	}
	return nil
}

// awaitMessage makes the next message the current one, after dropping what is left of one
// that nobody reads, unless there is one to be gone on with: an interrupted Read has left
// it.
func (c *Conn) awaitMessage(ctx context.Context) (err error) {
	in := &c.in
	if in.stream.Load() != nil {
		in.stream.Store(nil)
		in.skip = true
	}
	if !in.skip && in.unfinished() {
		return nil
	}
	c.beginWait()
	if in.skip {
		if err = c.skipMessage(ctx); err == nil {
			in.skip = false
		}
	}
	// The waiting is done here and not further down, so that a stack of 2 KiB will do, behind
	// control frames too.
	for data := false; !data && err == nil; {
		if in.r < in.w {
			data, err = c.takeFrame(ctx)
			continue
		}
		if c.out.box.queued.Load() {
			c.flushQueued()
		}
		if in.shrink(); c.socket.usable() {
			err = c.fillFromSocket(ctx)
		} else {
			err = c.fillUntilTick(ctx, maxHeaderSize)
		}
		if err == errTick {
			err = c.tickedAside()
		}
		err = c.readFailed(err)
	}
	if c.endWait() {
		for err == nil { // The message came too late.
			err = c.discard(ctx)
		}
	}
	return err
}

// skipMessage drops the rest of the current message.
func (c *Conn) skipMessage(ctx context.Context) error {
	in := &c.in
	if in.compressed && in.inflate.takeover {
		return c.skipInflated(ctx)
	}
	for in.open {
		if err := c.skipPayload(ctx); err != nil {
			return err
		}
	}
	in.partial = nil
	if in.inflating != nil {
		in.inflating.close()
		in.inflating = nil
	}
	return nil
}

// discard drops what arrives next.
func (c *Conn) discard(ctx context.Context) error {
	if c.in.open {
		return c.skipPayload(ctx)
	}
	return c.nextDataFrame(ctx)
}
