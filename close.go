package websocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
	"unicode/utf8"
)

// StatusCode says why a connection was closed (RFC 6455 section 7.4 and the IANA registry of
// WebSocket close codes).
type StatusCode uint16

const (
	StatusNormalClosure           StatusCode = 1000
	StatusGoingAway               StatusCode = 1001
	StatusProtocolError           StatusCode = 1002
	StatusUnsupportedData         StatusCode = 1003
	StatusNoStatusReceived        StatusCode = 1005 // never sent: the peer's Close had no code
	StatusAbnormalClosure         StatusCode = 1006 // never sent, and no error of this package
	StatusInvalidFramePayloadData StatusCode = 1007
	StatusPolicyViolation         StatusCode = 1008
	StatusMessageTooBig           StatusCode = 1009
	StatusMandatoryExtension      StatusCode = 1010
	StatusInternalServerError     StatusCode = 1011
	StatusServiceRestart          StatusCode = 1012
	StatusTryAgainLater           StatusCode = 1013
	StatusBadGateway              StatusCode = 1014
	StatusTLSHandshake            StatusCode = 1015 // never sent
)

var statusNames = map[StatusCode]string{
	StatusNormalClosure:           "normal closure",
	StatusGoingAway:               "going away",
	StatusProtocolError:           "protocol error",
	StatusUnsupportedData:         "unsupported data",
	StatusNoStatusReceived:        "no status received",
	StatusAbnormalClosure:         "abnormal closure",
	StatusInvalidFramePayloadData: "invalid frame payload data",
	StatusPolicyViolation:         "policy violation",
	StatusMessageTooBig:           "message too big",
	StatusMandatoryExtension:      "mandatory extension",
	StatusInternalServerError:     "internal server error",
	StatusServiceRestart:          "service restart",
	StatusTryAgainLater:           "try again later",
	StatusBadGateway:              "bad gateway",
	StatusTLSHandshake:            "TLS handshake",
}

// String returns the number, with the name of a registered code.
func (s StatusCode) String() string {
	n := strconv.Itoa(int(s))
	if name, ok := statusNames[s]; ok {
		return n + " (" + name + ")"
	}
	return n
}

// sendable reports whether s may stand in a Close frame: RFC 6455 section 7.4 with the codes
// registered since. 1004 is reserved; 1005, 1006 and 1015 say what did not travel.
func (s StatusCode) sendable() bool {
	switch {
	case s >= 1000 && s <= 1003, s >= 1007 && s <= 1014:
		return true
	case s >= 3000 && s <= 4999:
		return true
	}
	return false
}

// A CloseError says that the peer closed the connection by a Close frame. Match it with
// [errors.As]. The closing handshake was answered with the same code and reason.
type CloseError struct {
	Code   StatusCode // [StatusNoStatusReceived] if the Close frame had none
	Reason string     // at most 123 bytes of UTF-8
}

func (e *CloseError) Error() string {
	s := "websocket: closed by the peer: " + e.Code.String()
	if e.Reason != "" {
		s += ": " + strconv.Quote(e.Reason)
	}
	return s
}

// A ProtocolError says that the peer broke a rule or a limit, and that we closed the
// connection for it. Match it with [errors.As].
type ProtocolError struct {
	Code    StatusCode // what our Close frame said
	Section string     // where the rule stands, as in "RFC 6455 section 5.5"
	Reason  string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("websocket: %s: %s (%s)", e.Code, e.Reason, e.Section)
}

var (
	// errClosed is what every call gets after Close or Shutdown.
	errClosed = fmt.Errorf("websocket: %w", net.ErrClosed)

	errClosePayload = protocolError("RFC 6455 section 5.5.1", "Close frame with a payload of one byte")
	errCloseCode    = protocolError("RFC 6455 section 7.4", "status code that may not be sent")
	errCloseReason  = &ProtocolError{StatusInvalidFramePayloadData, "RFC 6455 section 5.5.1", "close reason is not UTF-8"}
)

// maxCloseReasonSize is what a control frame holds beside the code.
const maxCloseReasonSize = maxControlPayloadSize - 2

// parseClose reads the payload of a Close frame.
func parseClose(p []byte) (*CloseError, *ProtocolError) {
	switch len(p) {
	case 0:
		return &CloseError{Code: StatusNoStatusReceived}, nil
	case 1:
		return nil, errClosePayload
	}
	code := StatusCode(p[0])<<8 | StatusCode(p[1])
	if !code.sendable() {
		return nil, errCloseCode
	}
	// RFC 6455 section 8.1: the reason is UTF-8 as any text.
	if !utf8.Valid(p[2:]) {
		return nil, errCloseReason
	}
	return &CloseError{Code: code, Reason: string(p[2:])}, nil
}

// appendClose appends the payload of a Close frame. StatusNoStatusReceived has none.
func appendClose(b []byte, code StatusCode, reason string) []byte {
	if code == StatusNoStatusReceived {
		return b
	}
	b = append(b, byte(code>>8), byte(code))
	return append(b, reason...)
}

const (
	// closeTimeout bounds the sending of a Close frame by a Read, beside its context.
	closeTimeout = 5 * time.Second
	// lingerTimeout bounds how long a Read waits for the peer to drop TCP.
	lingerTimeout = time.Second
	// promptTimeout stands for "without waiting" where only a deadline can express it.
	promptTimeout = 10 * time.Millisecond
)

// Shutdown closes the connection by the closing handshake (RFC 6455 section 7.1.2): it sends
// a Close frame, discards the messages that still arrive, and drops TCP when the peer's
// Close is there. A client first waits up to a second for the server to drop TCP (section
// 7.1.1). When ctx ends, Shutdown drops TCP and returns the context's error. So a peer that
// goes on sending and never answers is waited for as long as ctx allows; one that falls
// silent is taken for dead by the keepalive.
//
// code must be one that may be sent: 1000 to 1003, 1007 to 1014 or 3000 to 4999; reason must
// be UTF-8 of at most 123 bytes. Otherwise Shutdown returns an error and does nothing.
//
// A message that is being streamed by [Conn.NextWriter] is cut. A Read that is pending in
// another goroutine may still return the message it waits for; every later call returns an
// error that matches [net.ErrClosed]. Shutdown returns nil if the handshake was completed,
// be it begun by the peer.
func (c *Conn) Shutdown(ctx context.Context, code StatusCode, reason string) error {
	if err := checkClose(code, reason); err != nil {
		return err
	}
	err := c.shutdown(ctx, code, reason)
	if err != nil && err != errClosed {
		c.drop(errClosed)
	}
	return err
}

// checkClose judges what a caller wants to close with.
func checkClose(code StatusCode, reason string) error {
	switch {
	case !code.sendable():
		return fmt.Errorf("websocket: status code %d may not be sent", code)
	case len(reason) > maxCloseReasonSize:
		return fmt.Errorf("websocket: close reason has %d bytes, more than %d", len(reason), maxCloseReasonSize)
	case !utf8.ValidString(reason):
		return errors.New("websocket: close reason is not UTF-8")
	}
	return nil
}

func (c *Conn) shutdown(ctx context.Context, code StatusCode, reason string) error {
	if err := c.endWriting(); err != nil {
		return c.awaitEnd(ctx, err)
	}
	return c.exchangeClose(ctx, code, reason)
}

// exchangeClose performs the closing handshake, after endWriting.
func (c *Conn) exchangeClose(ctx context.Context, code StatusCode, reason string) error {
	var failed error
	announced := make(chan struct{})
	reading, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(announced)
		if err := c.announceClose(ctx, code, reason); err != nil && err != errClosed {
			failed = err
			stop()
		}
	}()
	// Our Close goes first, unless it has to wait for a peer who waits for us to read.
	timer := time.NewTimer(promptTimeout)
	defer timer.Stop()
	select {
	case <-announced:
	case <-timer.C:
	}
	err := c.awaitClose(reading)
	<-announced
	if failed != nil {
		return c.awaitEnd(ctx, failed)
	}
	return err
}

// endWriting makes an error of all data frames to come, or returns the one that there is.
func (c *Conn) endWriting() error {
	err := c.out.err.get()
	if err == nil {
		c.out.err.set(errClosed)
	}
	return err
}

// announceClose sends a Close frame.
func (c *Conn) announceClose(ctx context.Context, code StatusCode, reason string) error {
	if err := c.takeWire(ctx); err != nil {
		return err
	}
	defer c.releaseWire()
	return c.sendClose(ctx, code, reason)
}

// awaitEnd is the end of a Shutdown that can send no Close, for the reason err. If that is what
// a Read ends the connection for, it waits for that.
func (c *Conn) awaitEnd(ctx context.Context, err error) error {
	if c.in.ending.get() != nil {
		select {
		case <-c.over():
		case <-ctx.Done():
			return contextError(ctx)
		}
	}
	return closed(err)
}

// awaitClose discards what arrives up to the peer's Close, which ends the connection.
func (c *Conn) awaitClose(ctx context.Context) error {
	for {
		if err := c.takeRead(ctx, nil); err != nil {
			return c.answered(err)
		}
		err := c.discard(ctx)
		c.releaseRead()
		if err != nil {
			return c.answered(err)
		}
	}
}

// closed makes nothing of an error that says that the peer's Close was answered.
func closed(err error) error {
	var ce *CloseError
	if errors.As(err, &ce) {
		return nil
	}
	return err
}

// answered is closed for an endpoint whose own Close frame is on its way. What arrived last
// tells the peer's answer from a Close that did not wait for it.
func (c *Conn) answered(err error) error {
	if err == errClosed && c.in.ending.get() == errClosed {
		return nil
	}
	return closed(err)
}

// Close closes the connection at once. It sends a Close frame with [StatusGoingAway] if that
// is possible without waiting, and drops TCP. Calls that are pending in other goroutines,
// and all later ones, return an error that matches [net.ErrClosed], or the one with which the
// connection had ended before. It may be called any number of times; defer it. To close
// with a status code, or to know that the peer has received everything, use [Conn.Shutdown].
// The error is that of closing the network connection, which is of no consequence. A connection
// that [Conns.Shutdown] is closing is left to it.
func (c *Conn) Close() error {
	return c.close(StatusGoingAway, errClosed)
}

// close is Close with the status code to send and the error that later calls get.
func (c *Conn) close(code StatusCode, err error) error {
	if c.left() {
		return nil
	}
	return c.cut(code, "", err)
}

// cut sends a Close frame, if that is possible without waiting, and drops TCP.
func (c *Conn) cut(code StatusCode, reason string, err error) error {
	c.endReading(err)
	if c.out.wire.try() {
		if c.out.err.get() == nil {
			c.out.err.set(err)
			ctx, cancel := context.WithTimeout(context.Background(), promptTimeout)
			_ = c.sendClose(ctx, code, reason)
			cancel()
		}
		c.releaseWire()
	}
	return c.drop(err)
}

// drop closes TCP and ends what is pending. Halves that have no error yet get err.
func (c *Conn) drop(err error) error {
	c.endReading(err)
	c.out.err.set(err)
	c.mu.Lock()
	dropped := c.dropped
	c.dropped = true
	if !dropped && c.ended != nil {
		close(c.ended)
	}
	c.mu.Unlock()
	if dropped {
		return nil
	}
	if c.session != nil {
		defer c.session.conns.remove(c)
	}
	c.in.watch.retire(c)
	c.out.watch.retire(c)
	cut, cutErr := false, error(nil)
	if inner, ok := c.nc.(interface{ NetConn() net.Conn }); ok && c.out.full.Load() {
		// TLS would try to say goodbye, for seconds, to a peer that does not read.
		if nc := inner.NetConn(); nc != nil {
			cut, cutErr = true, nc.Close()
		}
	}
	if err := c.nc.Close(); !cut {
		return err
	}
	return cutErr
}

// endReading makes err the error of reading, unless that has an error or is about to end with
// what the peer did.
func (c *Conn) endReading(err error) {
	if end := c.in.ending.get(); end != nil {
		err = end
	}
	c.in.err.set(err)
}

// sendClose sends a Close frame unless one was sent. The caller holds the wire.
func (c *Conn) sendClose(ctx context.Context, code StatusCode, reason string) error {
	p := appendClose(make([]byte, 0, maxControlPayloadSize), code, reason)
	number := c.out.box.addControl(OpClose, p)
	if number == 0 {
		return nil
	}
	return c.sendUpTo(ctx, number)
}

// replyClose sends a Close frame on behalf of the reader, in bounded time, and makes err the
// error of all writes to come. It reports whether the frame is out.
func (c *Conn) replyClose(ctx context.Context, code StatusCode, reason string, err error) (sent bool) {
	call := ctx
	ctx, cancel := context.WithTimeout(context.WithoutCancel(call), closeTimeout)
	defer cancel()
	// When the call's context ends, the peer is answered still if that takes no waiting.
	defer context.AfterFunc(call, func() { time.AfterFunc(promptTimeout, cancel) })()
	c.out.err.set(err)
	if c.takeWire(ctx) != nil {
		return false
	}
	sent = c.sendClose(ctx, code, reason) == nil
	c.releaseWire()
	return sent
}

// receivedClose answers the peer's Close and ends the connection. The caller holds the read
// turn. The error is the one that reading ends with.
func (c *Conn) receivedClose(ctx context.Context, payload []byte) error {
	ce, perr := parseClose(payload)
	if perr != nil {
		return c.fail(ctx, perr)
	}
	var err error = ce
	if c.out.err.get() == errClosed {
		err = errClosed // an answer to our own Close
	}
	c.in.ending.set(err)
	c.replyClose(ctx, ce.Code, ce.Reason, err)
	// RFC 6455 section 7.1.1: the server closes TCP first, so that it and not the client
	// holds the TIME_WAIT state.
	if c.in.state.client {
		c.linger(ctx)
	}
	c.drop(err)
	return c.in.err.get()
}

// fail closes the connection for an error of the peer (RFC 6455 section 7.1.7). The caller
// holds the read turn.
func (c *Conn) fail(ctx context.Context, perr *ProtocolError) error {
	c.in.ending.set(perr)
	if c.replyClose(ctx, perr.Code, perr.Reason, perr) {
		// Unread bytes turn a close into a reset, which can destroy our Close frame before the
		// peer has read it (RFC 6455 section 7.1.1).
		if nc, ok := c.nc.(interface{ CloseWrite() error }); ok {
			_ = nc.CloseWrite()
		}
		c.linger(ctx)
	}
	c.drop(perr)
	return c.in.err.get()
}

// linger reads and drops what the peer still sends, until it closes TCP.
func (c *Conn) linger(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lingerTimeout)
	defer cancel()
	defer c.in.watch.watch(c, context.Background()) // cancel is no interrupt
	b := getBuffer(maxControlPayloadSize)
	defer putBuffer(b)
	for {
		if _, err := c.receiveTicking(ctx, b.b[:cap(b.b)]); err != nil {
			return
		}
	}
}
