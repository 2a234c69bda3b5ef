package websocket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// MessageType says what a message holds (RFC 6455 section 5.6).
type MessageType uint8

const (
	Text   MessageType = 1 // UTF-8
	Binary MessageType = 2
)

func (t MessageType) String() string { return Opcode(t).String() }

func (t MessageType) check() error {
	if t != Text && t != Binary {
		return fmt.Errorf("websocket: %d is not a message type", t)
	}
	return nil
}

const (
	defaultMaxMessageSize = 1 << 20
	defaultKeepAlive      = 30 * time.Second
)

// A Conn is a WebSocket connection, made by [Accept] or [Dial]. All methods may be called
// from any goroutine at any time.
//
// Contexts, concurrency, closing and errors are described in the package documentation.
type Conn struct {
	// Constant.
	nc          net.Conn
	socket      socket // below nc
	subprotocol string
	session     *session // nil unless c belongs to a Conns

	in  inbound  // owned by the holder of the read turn
	out outbound // owned by the holders of the message turn and the wire

	// mu guards what the two halves and the closing share. It is taken last and never held
	// across I/O.
	mu      sync.Mutex
	dropped bool
	ended   chan struct{} // closed when TCP was dropped; nil as long as nobody waits for that
	pings   *pings        // nil as long as there were none
}

// pings is what is known of Pings, those of the keepalive aside.
type pings struct {
	pong    []byte     // payload of the peer's latest one
	waiting []*pending // ours that wait for their Pong, in the order they were sent
	last    uint64     // number of our latest one
}

// pinging returns c.pings, which there is from then on. c.mu is held.
func (c *Conn) pinging() *pings {
	if c.pings == nil {
		c.pings = new(pings)
	}
	return c.pings
}

// config is what a handshake determines.
type config struct {
	client         bool
	subprotocol    string
	maxMessageSize int64         // as in the options
	keepAlive      time.Duration // as in the options
	deflate        *deflateParams
}

// newConn makes a Conn of an open connection. The peer sent buffered, which is copied, after
// the handshake.
func newConn(nc net.Conn, buffered []byte, cfg config) *Conn {
	c := &Conn{nc: nc, subprotocol: cfg.subprotocol}

	in := &c.in
	c.socket.open(nc)
	in.init(buffered, !c.socket.usable())
	in.state.client = cfg.client
	if cfg.deflate != nil {
		in.state.compressed = true
		in.inflate = newInflater(cfg.deflate)
		c.out.deflate = newDeflater(cfg.deflate)
	}
	switch {
	case cfg.maxMessageSize == 0:
		in.limit = defaultMaxMessageSize
	case cfg.maxMessageSize < 0:
		in.limit = math.MaxInt64
	default:
		in.limit = cfg.maxMessageSize
	}
	switch {
	case cfg.keepAlive == 0:
		in.tick = defaultKeepAlive / 2
	case cfg.keepAlive > 0:
		in.tick = max(cfg.keepAlive/2, 1)
	}

	out := &c.out
	out.box.mask = cfg.client
	out.fragile = !c.socket.usable() && breaksOnTimeout(nc)
	out.watch.writes = true
	if in.tick > 0 && c.setTick(in.tick) != nil {
		in.tick = 0 // no deadlines, no keepalive
	}
	return c
}

// breaksOnTimeout reports whether a Write of nc that timed out leaves nc unusable, as one of
// crypto/tls does even if it says that nothing was written.
func breaksOnTimeout(nc net.Conn) bool {
	for {
		if _, ok := nc.(interface{ HandshakeContext(context.Context) error }); ok {
			return true
		}
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		nc = inner.NetConn()
	}
}

// over returns a channel that is closed when TCP was dropped.
func (c *Conn) over() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = make(chan struct{})
		if c.dropped {
			close(c.ended)
		}
	}
	return c.ended
}

// isOver reports whether TCP was dropped.
func (c *Conn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// Subprotocol returns the subprotocol that was agreed on, "" if none.
func (c *Conn) Subprotocol() string { return c.subprotocol }

// LocalAddr returns the address of our end of the network connection.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the address of the peer's end of the network connection.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// pending is a Ping that waits for its Pong.
type pending struct {
	id   uint64
	done chan struct{} // closed when the Pong came
}

// Ping sends a Ping and returns when its Pong came (RFC 6455 sections 5.5.2 and 5.5.3).
//
// When no other goroutine reads, Ping does: it handles control frames, and stops in front of
// a data message, which it leaves for Read. The Pong behind it is then seen only once the
// message has been read, so give Ping a context with a limit, and do not wait for it in the
// goroutine that reads. When ctx ends, Ping returns its error; the connection goes on.
func (c *Conn) Ping(ctx context.Context) error {
	p, err := c.sendPing(ctx)
	if err != nil {
		return err
	}
	defer c.forget(p)
	for {
		select {
		case <-p.done:
			return nil
		default:
		}
		if w := c.in.turn.ask(false); w != nil {
			over := false
			select {
			case <-w.granted:
			case <-p.done:
			case <-ctx.Done():
			case <-c.over():
				over = true
			}
			if c.in.turn.leave(w) {
				switch {
				case over:
					return overError(ctx, c.in.err.get())
				case ctx.Err() != nil:
					return contextError(ctx)
				}
				continue
			}
		}
		err := c.awaitPong(ctx, p)
		c.releaseRead()
		if err != nil {
			return err
		}
	}
}

func (c *Conn) sendPing(ctx context.Context) (*pending, error) {
	if err := c.takeWire(ctx); err != nil {
		return nil, err
	}
	defer c.releaseWire()
	p := &pending{done: make(chan struct{})}
	// The holder of the wire takes the number, so that numbers travel in order.
	c.mu.Lock()
	all := c.pinging()
	all.last++
	p.id = all.last
	all.waiting = append(all.waiting, p)
	c.mu.Unlock()
	payload := binary.BigEndian.AppendUint64(make([]byte, 0, pingSize), p.id)
	if err := c.sendFrame(ctx, Header{Fin: true, Opcode: OpPing}, payload); err != nil {
		c.forget(p)
		return nil, err
	}
	return p, nil
}

// keepalivePing returns the payload for a Ping that nobody waits for. While there are others,
// it has a number like theirs: the peer may answer none but the latest.
func (c *Conn) keepalivePing() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pings == nil || len(c.pings.waiting) == 0 {
		return nil
	}
	c.pings.last++
	return binary.BigEndian.AppendUint64(nil, c.pings.last)
}

// awaitPong reads control frames until p is done or a data frame is in front. The caller
// holds the read turn, which was not barred: no message was in front.
func (c *Conn) awaitPong(ctx context.Context, p *pending) error {
	c.in.unshare()
	for {
		select {
		case <-p.done:
			return nil
		default:
		}
		if err := c.in.err.get(); err != nil {
			return overError(ctx, err)
		}
		_, n, err := c.nextFrame(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			c.in.dataAhead = true
			return nil
		}
		c.trySendDue()
	}
}

// receivedPong ends the Pings that the Pong answers: its own and, since a peer may answer
// only the latest one (RFC 6455 section 5.5.3), all before it.
func (c *Conn) receivedPong(payload []byte) {
	id, ok := parsePing(payload)
	if !ok {
		return // unsolicited, which section 5.5.3 allows
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.pinging()
	if id > all.last {
		return
	}
	for len(all.waiting) > 0 && all.waiting[0].id <= id {
		close(all.waiting[0].done)
		all.waiting = all.waiting[1:]
	}
	if len(all.waiting) == 0 {
		all.waiting = nil
	}
}

func (c *Conn) forget(p *pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.pinging()
	for i, q := range all.waiting {
		if q == p {
			all.waiting = append(all.waiting[:i], all.waiting[i+1:]...)
			return
		}
	}
}

// pingSize is the payload of our own Pings that wait for their Pong: their number.
const pingSize = 8

func parsePing(payload []byte) (id uint64, ok bool) {
	if len(payload) != pingSize {
		return 0, false
	}
	return binary.BigEndian.Uint64(payload), true
}

// contextEnded is the error of a call whose context ended. It matches the context's error
// and its cause, and [net.ErrClosed] if that closed the connection.
type contextEnded struct {
	err, cause error
	closed     error // nil if the connection goes on
}

func contextError(ctx context.Context) error {
	return &contextEnded{err: ctx.Err(), cause: context.Cause(ctx)}
}

// closedBy returns err as the error of a call whose context's end closed the connection.
func closedBy(err, closed error) error {
	if e, ok := err.(*contextEnded); ok && e.closed == nil {
		return &contextEnded{e.err, e.cause, closed}
	}
	return err
}

func (e *contextEnded) Error() string {
	if e.closed != nil {
		return e.closed.Error() + ": " + e.cause.Error()
	}
	return "websocket: " + e.cause.Error()
}

func (e *contextEnded) Unwrap() []error {
	if e.closed != nil {
		return []error{e.err, e.cause, e.closed}
	}
	return []error{e.err, e.cause}
}

// errNoDeadlines is why a connection is over that could not be interrupted.
var errNoDeadlines = fmt.Errorf("websocket: closed, since the connection has no deadlines and a call was cancelled: %w", net.ErrClosed)

// overError returns the error of a call that was pending when the connection ended with err.
func overError(ctx context.Context, err error) error {
	if err == errNoDeadlines && ctx.Err() != nil {
		return &contextEnded{ctx.Err(), context.Cause(ctx), err}
	}
	return err
}

// firstError keeps the first error that it is given.
type firstError struct{ p atomic.Pointer[error] }

func (f *firstError) get() error {
	if p := f.p.Load(); p != nil {
		return *p
	}
	return nil
}

// set returns the error that is kept.
func (f *firstError) set(err error) error {
	if f.p.Load() == nil {
		first := err
		f.p.CompareAndSwap(nil, &first)
	}
	return *f.p.Load()
}

// A networkError is an error of the network connection. Its text is made when somebody wants
// it: many connections may break at once.
type networkError struct {
	op  string
	err error
}

func (e *networkError) Error() string { return "websocket: " + e.op + ": " + e.err.Error() }

func (e *networkError) Unwrap() error { return e.err }

// timedOut reports whether err, of the network, is that of a deadline. That of some connections,
// such as the streams of multiplexers, is only a [net.Error]; and what the kernel calls a timeout
// is not one of ours.
func timedOut(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}
