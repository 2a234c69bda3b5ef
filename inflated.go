package websocket

import (
	"context"
	"errors"
	"io"
	"math"
)

// This file reads the messages that arrive compressed (RFC 7692 section 6.2).

// readCompressed appends the current message to buf.
func (c *Conn) readCompressed(ctx context.Context, buf []byte) (msg []byte, err error) {
	payload, err := c.compressed(ctx)
	if err != nil {
		return buf, err
	}
	return c.inflateMessage(ctx, buf, payload)
}

// compressed receives the current message's payload.
func (c *Conn) compressed(ctx context.Context) ([]byte, error) {
	in := &c.in
	if in.open && in.fin && len(in.partial) == 0 && uint64(in.w-in.r) >= in.remaining {
		// As a rule the message is one small frame, which is in the buffer already.
		return c.buffered(ctx, math.MaxInt)
	}
	err := c.collect(ctx)
	return in.partial, err
}

// inflateMessage appends the current message, whose payload has been received, to buf.
func (c *Conn) inflateMessage(ctx context.Context, buf, payload []byte) (msg []byte, err error) {
	in := &c.in
	if in.inflating == nil {
		msg, err = in.inflate.appendMessage(buf, payload, in.limit)
	} else { // a NetConn has read the beginning
		msg, err = appendAll(buf, in.inflating)
	}
	in.partial, in.inflating = nil, nil
	if err == nil {
		err = in.checkInflated(msg[len(buf):], true)
	}
	if err != nil {
		return buf, c.inflateFailed(ctx, err)
	}
	return msg, nil
}

func appendAll(buf []byte, r io.Reader) ([]byte, error) {
	rest, err := io.ReadAll(r)
	return append(buf, rest...), err
}

// collect receives the rest of the current message's payload. It can be interrupted, and
// gone on with, where an inflater cannot.
func (c *Conn) collect(ctx context.Context) (err error) {
	for c.in.open && err == nil {
		c.in.partial, err = c.appendPayload(ctx, c.in.partial)
	}
	return err
}

// readInflated reads of the current message into p, and returns io.EOF with its last bytes.
func (c *Conn) readInflated(ctx context.Context, p []byte) (int, error) {
	in := &c.in
	if in.inflating == nil {
		in.inflating = in.inflate.reader(payloadReader{c, ctx}, in.limit)
	}
	n, err := in.inflating.Read(p)
	if err == nil && !in.open && !in.inflating.more() {
		err = in.inflating.err
	}
	if bad := in.checkInflated(p[:n], err == io.EOF); bad != nil {
		err = bad
	}
	switch err {
	case nil:
		return n, nil
	case io.EOF:
		in.partial, in.inflating = nil, nil
		return n, io.EOF
	}
	in.inflating.close()
	in.inflating = nil
	return 0, c.inflateFailed(ctx, err)
}

// skipInflated drops the rest of the current message, which those to come may refer to.
func (c *Conn) skipInflated(ctx context.Context) error {
	if err := c.collect(ctx); err != nil {
		return err
	}
	b := getBuffer(readBufferSize)
	defer putBuffer(b)
	for {
		switch _, err := c.readInflated(ctx, b.b[:cap(b.b)]); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// payloadReader reads the payload of the current message, for the inflater.
type payloadReader struct {
	c   *Conn
	ctx context.Context
}

func (r payloadReader) Read(p []byte) (int, error) {
	n, err := r.c.readPayload(r.ctx, p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// checkInflated judges a piece of the message, which may be the last one.
func (in *inbound) checkInflated(piece []byte, last bool) error {
	if in.typ != Text {
		return nil
	}
	var ok bool
	if in.utf8, ok = in.utf8.next(piece); !ok || last && !in.utf8.complete() {
		return errInvalidUTF8
	}
	return nil
}

// inflateFailed closes the connection for a message that cannot be inflated, or is not what
// it has to be. The errors of receiving it have done so already, or may pass.
func (c *Conn) inflateFailed(ctx context.Context, err error) error {
	switch {
	case err == error(errInvalidUTF8):
		return c.fail(ctx, errInvalidUTF8)
	case errors.Is(err, errInflateLimit):
		return c.fail(ctx, errMessageTooBig)
	case errors.Is(err, errInflateTruncated), errors.Is(err, errInflateCorrupt):
		return c.fail(ctx, &ProtocolError{StatusInvalidFramePayloadData, "RFC 7692 section 7.2.2", err.Error()})
	}
	return err
}
