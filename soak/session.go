package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/strictws/websocket"
)

const (
	// patience bounds what has to happen although nothing else does: a hello, a Pong, the answer to a Close.
	patience = time.Minute
	// keepBuffer is the largest buffer that a session keeps while it is idle.
	keepBuffer = 1 << 10
)

// A soak is one of the two processes.
type soak struct {
	side     string // "client" or "server"
	seed     uint64
	gap      time.Duration   // between the messages of a lane, on average
	life     time.Duration   // of a connection until this side aborts it, on average
	ctx      context.Context // ends when the soak is given up
	started  atomic.Bool     // all clients have been connected: aborts may begin
	stopping chan struct{}   // closed: no new messages, no more aborts
	underWay chan struct{}   // a token for each message that is sent and not acknowledged
	figures  figures

	broadcast atomic.Pointer[broadcast]

	mu         sync.Mutex // guards what follows
	violations []string
	giveUp     context.CancelFunc
}

// broadcast is a message that the server sends to whoever is about to send something.
type broadcast struct {
	number   uint64
	prepared *websocket.Prepared
}

// maxUnderWay bounds the messages under way in one direction, of all connections together. So a machine that cannot
// hold the pace does not fall ever further behind: messages wait for their turn, and the rest of the program does not.
const maxUnderWay = 128

func (s *soak) init(side string, set settings, life time.Duration) {
	s.side, s.seed, s.gap, s.life = side, set.Seed, set.Gap, life
	s.ctx, s.giveUp = context.WithCancel(context.Background())
	s.stopping = make(chan struct{})
	s.underWay = make(chan struct{}, maxUnderWay)
}

// fail notes a violation and gives up.
func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.violations) < 10 {
		v := s.side + ": " + fmt.Sprintf(format, args...)
		s.violations = append(s.violations, v)
		fmt.Fprintln(os.Stderr, v) // at once, in case that the end does not come
	}
	s.giveUp()
}

func (s *soak) failures() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.violations...)
}

func (s *soak) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// A link is the two lanes between a client and the server, as one of them sees them. It outlives connections.
type link struct {
	mu  sync.Mutex
	in  inbox
	out outbox
}

func newLink(seed, id uint64, in, out uint64) *link {
	return &link{in: inbox{lane: lane{seed, id, in}}, out: outbox{lane: lane{seed, id, out}}}
}

// A session is one end of one connection.
type session struct {
	*soak
	c         *websocket.Conn
	raw       *net.TCPConn // under c
	link      *link
	id, epoch uint64                // of the client, and of its connections
	typ       websocket.MessageType // of all messages, 0 for their own: to a NetConn they are all alike
	way       string                // of receiving
	nc        net.Conn              // over c, if that is the way
	greeted   bool                  // owned by the receiver: the server's hello has come
	endings   string                // of the hello: the earlier connections that the server ended

	wake  chan struct{} // for the sender: an acknowledgement has come
	burst chan int      // for the sender: send so many messages at once
	wg    sync.WaitGroup
	ctx   context.Context // ends with the connection; takes the place of that of soak

	broadcasts uint64 // owned by the receiver: the number of the last one

	held  atomic.Int64 // tokens of underWay
	pings atomic.Int64 // that wait for their Pong

	mu        sync.Mutex // guards what follows
	ending    string     // how we ended the connection, "" if we have not
	acking    bool       // a goroutine sends acknowledgements
	arrived   uint64     // what is to be acknowledged
	acked     uint64     // what was
	finishing bool       // the last record is being sent: no more aborts
	finalSent bool
	finalCame bool
}

// The ways of receiving messages.
var receivingWays = []string{"Read", "Read", "NextReader", "NetConn"}

func (s *session) draw(purpose uint64) *rand.Rand {
	return draw(s.seed, s.id, s.epoch, uint64(s.side[0]), purpose)
}

// run exchanges messages until the connection ends, and returns how that came about: what we did, or else an error.
// The link must have been resumed by the server; a client learns from the server's hello where it stands.
func (s *session) run() (ending string, err error) {
	ctx, cancel := context.WithCancel(s.soak.ctx)
	s.ctx = ctx
	s.wake = make(chan struct{}, 1)
	s.burst = make(chan int, 1)
	if s.way == "NetConn" {
		s.nc = websocket.NetConn(s.c, s.typ)
	}
	// Contexts do not reach a NetConn.
	defer context.AfterFunc(s.soak.ctx, func() { s.c.Close() })()
	s.figures.Conns.inc()
	s.figures.Open.inc()

	if s.side == "server" {
		err = s.sendHello()
	}
	if err == nil {
		err = s.receive()
	}

	cancel()
	s.mu.Lock()
	ours := s.ending
	s.mu.Unlock()
	if ours != "Shutdown" && ours != finished { // which are still waiting for the peer's Close
		s.c.Close()
	}
	s.wg.Wait()
	s.c.Close()
	s.checkClosed()
	s.release(s.held.Load())
	s.figures.Open.Add(-1)
	return s.explain(err), err
}

// checkClosed checks that TCP is closed. That the garbage collector would close it at last does not count.
func (s *session) checkClosed() {
	for end := time.Now().Add(10 * time.Second); !errors.Is(s.raw.SetDeadline(time.Time{}), net.ErrClosed); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.fail("client %d, connection %d is over, and TCP is not closed", s.id, s.epoch)
			return
		}
	}
}

// begin starts to send.
func (s *session) begin() {
	s.link.mu.Lock()
	s.arrived, s.acked = s.link.in.last, s.link.in.last
	s.link.mu.Unlock()
	s.wg.Go(s.send)
}

// explain turns the error that a connection ended with into what we did to it, or "". That the peer ended it is left
// to the peer to confirm.
func (s *session) explain(err error) string {
	if s.soak.ctx.Err() != nil {
		return "given up"
	}
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()

	if perr, ok := errors.AsType[*websocket.ProtocolError](err); ok {
		s.fail("client %d, connection %d: %v", s.id, s.epoch, perr)
		return ending
	}
	if cerr, ok := errors.AsType[*websocket.CloseError](err); ok {
		if !s.isReason(cerr) {
			s.fail("client %d, connection %d: %v: nobody said that", s.id, s.epoch, cerr)
		}
		return ending
	}
	switch {
	case errors.Is(err, net.ErrClosed):
		if strings.Contains(err.Error(), "since the context of a") {
			return "cut" // by a Write that was cancelled, even if the client is back already
		}
		if ending == "" {
			s.fail("client %d, connection %d was closed, but not by us: %v", s.id, s.epoch, err)
		}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
	default:
		s.fail("client %d, connection %d: %v", s.id, s.epoch, err)
	}
	return ending
}

// reason is what a Close frame says, so that the peer can see that it is this one.
func (s *session) reason(side string, code websocket.StatusCode) string {
	return fmt.Sprintf("%s %d %d %d", side, s.id, s.epoch, uint16(code))
}

func (s *session) isReason(err *websocket.CloseError) bool {
	if err.Reason == "" { // Close of a Conn, or of a NetConn
		return err.Code == websocket.StatusGoingAway || err.Code == websocket.StatusNormalClosure
	}
	return err.Reason == s.reason(peerOf[s.side], err.Code)
}

// Endings that are no aborts.
const (
	finished = "finished" // all is said and done
	fenced   = "fenced"   // a client is back on a new connection
)

var peerOf = map[string]string{"client": "server", "server": "client"}

// end reports whether the connection may be ended the given way: only one is what ended it, and none while the last
// records are exchanged.
func (s *session) end(how string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != "" || s.finishing && how != finished && how != fenced {
		return false
	}
	s.ending = how
	return true
}

var endings = []string{"Close", "Close of NetConn", "Shutdown", "Shutdown", "reset"}

// statusCodes are those that an application may close with.
var statusCodes = []websocket.StatusCode{1000, 1001, 1003, 1008, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999}

// abort ends the connection, half the time while messages go out.
func (s *session) abort() {
	r := s.draw(1)
	if s.isStopping() {
		return
	}
	if r.IntN(2) == 0 {
		select {
		case s.burst <- 1 + r.IntN(8):
		default:
		}
		time.Sleep(time.Duration(r.Int64N(int64(3 * time.Millisecond))))
	}
	how := endings[r.IntN(len(endings))]
	if how == "Close of NetConn" && s.nc == nil {
		how = "Close"
	}
	if !s.end(how) {
		return
	}
	switch how {
	case "Close":
		s.c.Close()
	case "Close of NetConn":
		s.nc.Close()
	case "Shutdown":
		s.shutdown(statusCodes[r.IntN(len(statusCodes))])
	case "reset":
		s.raw.SetLinger(0)
		s.raw.Close()
	}
}

// shutdown fails the soak if the peer does not answer. That it may break the connection meanwhile is known.
func (s *session) shutdown(code websocket.StatusCode) error {
	ctx, cancel := context.WithTimeout(s.soak.ctx, patience)
	defer cancel()
	err := s.c.Shutdown(ctx, code, s.reason(s.side, code))
	if err != nil && ctx.Err() != nil && s.soak.ctx.Err() == nil {
		s.fail("client %d, connection %d: no answer to a Close in %v: %v", s.id, s.epoch, patience, err)
	}
	if err == nil {
		s.figures.Handshakes.inc()
	}
	return err
}

// receive takes records until the connection ends.
func (s *session) receive() error {
	r := s.draw(2)
	var buf []byte
	for {
		if r.IntN(200) == 0 { // let the peer fill the network
			select {
			case <-time.After(time.Duration(r.Int64N(int64(200 * time.Millisecond)))):
			case <-s.ctx.Done():
			}
		}
		typ, msg, err := s.next(r, buf[:0])
		if err != nil {
			return err
		}
		rec, err := parseRecord(msg)
		if err == nil {
			err = s.take(typ, rec)
		}
		if err != nil {
			s.fail("client %d, connection %d, %s: %v", s.id, s.epoch, s.way, err)
			return err
		}
		if buf = msg; cap(buf) > keepBuffer {
			buf = nil
		}
	}
}

// take takes a record. Its error is a violation.
func (s *session) take(typ websocket.MessageType, rec record) error {
	switch rec.kind {
	case kindMessage:
		s.link.mu.Lock()
		err := s.link.in.receive(rec.number, typ, s.typ, rec.body)
		s.link.mu.Unlock()
		if err != nil {
			return err
		}
		s.figures.Received.inc()
		s.figures.RecvBytes.Add(int64(headerSize + len(rec.body)))
		s.figures.Ways.add("received by " + s.way)
		s.acknowledge(rec.number)
		return nil
	case kindAck:
		s.link.mu.Lock()
		before := s.link.out.acked
		err := s.link.out.acknowledge(rec.number)
		acked := int64(s.link.out.acked - before)
		s.link.mu.Unlock()
		s.figures.Acked.Add(acked)
		s.release(acked)
		s.wakeSender()
		return err
	case kindBroadcast:
		if rec.number < s.broadcasts {
			return fmt.Errorf("broadcast %d arrived after %d", rec.number, s.broadcasts)
		}
		s.broadcasts = rec.number
		s.figures.Broadcast.inc()
		return lane{s.seed, 0, toAll}.verify(kindBroadcast, rec.number, typ, websocket.Text, rec.body)
	case kindFinal:
		bytes, err := strconv.ParseUint(string(rec.body), 10, 64)
		if err != nil {
			return err
		}
		s.link.mu.Lock()
		err = s.link.in.final(rec.number, bytes)
		s.link.mu.Unlock()
		if err == nil {
			s.final(false, true)
		}
		return err
	case kindHello:
		return s.hello(rec)
	default:
		return fmt.Errorf("record of the kind %q", rec.kind)
	}
}

// sendHello begins the exchange on the server's side. The outbox has been resumed.
func (s *session) sendHello() error {
	s.link.mu.Lock()
	last := s.link.in.last
	s.link.mu.Unlock()
	typ := s.typ
	if typ == 0 {
		typ = websocket.Text
	}
	msg := append(appendHeader(nil, kindHello, last, len(s.endings)), s.endings...)
	if err := s.c.Write(s.ctx, typ, msg); err != nil {
		return err
	}
	s.begin()
	return nil
}

// hello takes the server's hello, with which the exchange begins.
func (s *session) hello(rec record) error {
	if s.greeted || s.side != "client" {
		return errors.New("a hello that was not expected")
	}
	s.greeted, s.endings = true, string(rec.body)
	s.link.mu.Lock()
	before := s.link.out.acked
	again, err := s.link.out.resume(rec.number)
	s.figures.Acked.Add(int64(s.link.out.acked - before))
	s.link.mu.Unlock()
	if err != nil {
		return err
	}
	s.figures.Again.Add(int64(again))
	s.begin()
	return nil
}

// release lets n other messages be sent.
func (s *session) release(n int64) {
	s.held.Add(-n)
	for range n {
		<-s.underWay
	}
}

func (s *session) wakeSender() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next receives the next record as a message of the type typ, 0 if that is not known.
func (s *session) next(r *rand.Rand, buf []byte) (typ websocket.MessageType, msg []byte, err error) {
	switch s.way {
	case "Read":
		for {
			ctx, cancel := s.ctx, context.CancelFunc(func() {})
			if limit, ok := s.impatience(r); ok {
				ctx, cancel = context.WithTimeout(ctx, limit)
			}
			if msg, err = buf, nil; r.IntN(2) == 0 {
				typ, msg, err = s.c.Read(ctx, buf)
			} else {
				for m, e := range s.c.Messages(ctx) {
					typ, msg, err = m.Type, append(buf, m.Payload...), e
					break
				}
			}
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				return typ, msg, err
			}
			if len(msg) != len(buf) {
				return 0, nil, fmt.Errorf("a cancelled Read returned %d bytes", len(msg))
			}
			s.figures.ReadsCut.inc()
		}
	case "NextReader":
		typ, stream, err := s.c.NextReader(s.ctx)
		if err != nil {
			return 0, nil, err
		}
		b := bytes.NewBuffer(buf)
		if r.IntN(2) == 0 {
			_, err = io.Copy(b, stream) // its WriterTo, unless the buffer's ReaderFrom
			return typ, b.Bytes(), err
		}
		piece := make([]byte, 1+r.IntN(8<<10))
		_, err = io.CopyBuffer(struct{ io.Writer }{b}, struct{ io.Reader }{stream}, piece)
		return typ, b.Bytes(), err
	default:
		msg, err = s.readFull(r, buf, headerSize)
		if err != nil {
			return 0, nil, s.netConnError(err)
		}
		_, size, err := parseHeader(msg)
		if err != nil {
			return 0, nil, err
		}
		if msg, err = s.readFull(r, msg, headerSize+size); err != nil {
			return 0, nil, s.netConnError(err)
		}
		return 0, msg, nil
	}
}

// impatience draws how long a Read may take, if it is one that has a limit: from half a millisecond to what lies
// between two messages. Some end inside a message, most between two.
func (s *session) impatience(r *rand.Rand) (limit time.Duration, ok bool) {
	if r.IntN(3) > 0 {
		return 0, false
	}
	shortest := 500 * time.Microsecond
	return time.Duration(between(r, float64(shortest), float64(max(s.gap, 2*shortest)))), true
}

// readFull appends to buf from the NetConn until it has size bytes, over any number of timeouts.
func (s *session) readFull(r *rand.Rand, buf []byte, size int) ([]byte, error) {
	if cap(buf) < size {
		buf = append(make([]byte, 0, size), buf...)
	}
	for len(buf) < size {
		if limit, ok := s.impatience(r); ok {
			s.nc.SetReadDeadline(time.Now().Add(limit))
		}
		n, err := s.nc.Read(buf[len(buf):size])
		buf = buf[:len(buf)+n]
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() && s.ctx.Err() == nil {
			s.figures.ReadsCut.inc()
			s.nc.SetReadDeadline(time.Time{})
			continue
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// netConnError returns the Conn's own error in place of that of the NetConn, to which a normal closure is an io.EOF.
func (s *session) netConnError(err error) error {
	if err != io.EOF {
		return err
	}
	_, _, err = s.c.Read(s.ctx, nil)
	return err
}

// acknowledge makes an acknowledgement go out. The receiver does not send it: two receivers that wait for the network
// would wait for each other.
func (s *session) acknowledge(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived = n
	if !s.acking {
		s.acking = true
		s.wg.Go(s.sendAcks)
	}
}

func (s *session) sendAcks() {
	typ := s.typ
	if typ == 0 {
		typ = websocket.Binary
	}
	var buf [headerSize]byte
	for {
		s.mu.Lock()
		n := s.arrived
		if n == s.acked {
			s.acking = false
			s.mu.Unlock()
			return
		}
		s.acked = n
		s.mu.Unlock()
		if err := s.c.Write(s.ctx, typ, appendHeader(buf[:0], kindAck, n, 0)); err != nil {
			s.writeFailed(err)
			return
		}
		s.figures.Acks.inc()
	}
}

// send sends messages, as the pace and the window allow, until the connection ends.
func (s *session) send() {
	r := s.draw(3)
	pause := func() time.Duration { return time.Duration(r.ExpFloat64() * float64(s.gap)) }
	timer := time.NewTimer(pause())
	defer timer.Stop()
	life := func() time.Duration { return time.Duration(r.ExpFloat64() * float64(s.life)) }
	end := time.NewTimer(life())
	defer end.Stop()
	stop, wanted := s.stopping, 0
	for {
		s.link.mu.Lock()
		n, again := s.link.out.next(wanted > 0)
		settled := s.link.out.settled()
		s.link.mu.Unlock()
		if n > 0 {
			if !again {
				wanted--
			}
			if !s.sendMessage(r, n) {
				return
			}
			continue
		}
		if stop == nil && settled && s.pings.Load() == 0 && !s.sendFinal() {
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		case <-stop:
			stop, wanted = nil, 0
		case n := <-s.burst:
			if stop != nil {
				wanted += n
			}
		case <-end.C:
			if s.started.Load() {
				s.wg.Go(s.abort)
			} else {
				end.Reset(life())
			}
		case <-timer.C:
			if stop == nil {
				continue
			}
			timer.Reset(pause())
			wanted = min(wanted+1, window)
			switch p := r.IntN(100); {
			case p < 5:
				wanted += r.IntN(8)
			case p < 8:
				s.pings.Add(1)
				s.wg.Go(s.ping)
			case p < 18:
				if !s.sendBroadcast() {
					return
				}
			}
		}
	}
}

func (s *session) ping() {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	switch err := s.c.Ping(ctx); {
	case err == nil:
		s.figures.Pings.inc()
		s.pings.Add(-1)
		s.wakeSender()
	case s.ctx.Err() == nil && ctx.Err() != nil:
		s.fail("client %d, connection %d: no Pong in %v", s.id, s.epoch, patience)
	case s.ctx.Err() == nil:
		s.writeFailed(err)
	}
}

func (s *session) sendBroadcast() bool {
	b := s.broadcast.Load()
	if b == nil || s.typ == websocket.Binary {
		return true
	}
	if err := s.c.WritePrepared(s.ctx, b.prepared); err != nil {
		s.writeFailed(err)
		return false
	}
	return true
}

// sendMessage sends message n, again and again as long as sending it is cancelled without effect. It returns false
// when the connection is over.
func (s *session) sendMessage(r *rand.Rand, n uint64) bool {
	select {
	case s.underWay <- struct{}{}:
		s.held.Add(1)
	case <-s.ctx.Done():
		return false
	}
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	typ, msg := s.link.out.lane.append((*buf)[:0], kindMessage, n, s.typ)
	*buf = msg
	for {
		limit := time.Duration(-1)
		if r.IntN(20) == 0 {
			limit = time.Duration(r.Int64N(int64(3*time.Millisecond))) - time.Millisecond/2
		}
		way, err := s.write(r, typ, msg, limit)
		switch {
		case err == nil:
			s.figures.Sent.inc()
			s.figures.SentBytes.Add(int64(len(msg)))
			s.figures.Ways.add("sent by " + way)
			return true
		case s.ctx.Err() != nil:
			return false
		case errors.Is(err, context.DeadlineExceeded) || way == "NetConn" && errors.Is(err, os.ErrDeadlineExceeded):
			// Either it had no effect, and the message is sent once more; or the connection was cut, as the next
			// Write will say. A message that got through all the same would arrive twice.
			s.figures.WritesCut.inc()
		default:
			s.writeFailed(err)
			return false
		}
	}
}

// write sends a message in one of the ways there are, in the time of limit unless that is -1.
func (s *session) write(r *rand.Rand, typ websocket.MessageType, msg []byte, limit time.Duration) (way string, err error) {
	ctx := s.ctx
	if limit != -1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	switch p := r.IntN(100); {
	case s.nc != nil && p < 50:
		if limit != -1 {
			s.nc.SetWriteDeadline(time.Now().Add(limit))
			defer s.nc.SetWriteDeadline(time.Time{})
		}
		_, err = s.nc.Write(msg)
		return "NetConn", err
	case p < 20 && limit == -1: // Queue has no more to do with a context than Flush
		if err := s.c.Queue(ctx, typ, msg); err != nil {
			return "Queue", err
		}
		return "Queue", s.c.Flush(ctx)
	case p < 60:
		return "Write", s.c.Write(ctx, typ, msg)
	case p < 75:
		return "WritePrepared", s.c.WritePrepared(ctx, websocket.Prepare(typ, msg))
	default:
		return "NextWriter", s.writePieces(ctx, r, typ, msg)
	}
}

func (s *session) writePieces(ctx context.Context, r *rand.Rand, typ websocket.MessageType, msg []byte) error {
	w, err := s.c.NextWriter(ctx, typ)
	if err != nil {
		return err
	}
	if r.IntN(3) == 0 {
		if _, err := w.(io.ReaderFrom).ReadFrom(bytes.NewReader(msg)); err != nil {
			return err
		}
		return w.Close()
	}
	for len(msg) > 0 {
		n := min(1+int(r.ExpFloat64()*(8<<10)), len(msg))
		if _, err := w.Write(msg[:n]); err != nil {
			return err
		}
		if msg = msg[n:]; r.IntN(20) == 0 { // the peer waits in the middle of a message
			time.Sleep(time.Duration(r.Int64N(int64(5 * time.Millisecond))))
		}
	}
	return w.Close()
}

// writeFailed judges the error of a write. How the connection ended is the receiver's to say.
func (s *session) writeFailed(err error) {
	_, closed := errors.AsType[*websocket.CloseError](err)
	switch {
	case closed, s.ctx.Err() != nil:
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF):
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
	default:
		s.fail("client %d, connection %d: %v", s.id, s.epoch, err)
	}
}

// sendFinal says once that all our messages have arrived.
func (s *session) sendFinal() bool {
	s.mu.Lock()
	skip := s.finishing || s.ending != ""
	s.finishing = s.finishing || !skip
	s.mu.Unlock()
	if skip {
		return true
	}
	s.link.mu.Lock()
	count := s.link.out.sent
	body := strconv.FormatUint(s.link.out.bytes, 10)
	s.link.mu.Unlock()
	typ := s.typ
	if typ == 0 {
		typ = websocket.Text
	}
	msg := append(appendHeader(nil, kindFinal, count, len(body)), body...)
	if err := s.c.Write(s.ctx, typ, msg); err != nil {
		s.writeFailed(err)
		return false
	}
	s.final(true, false)
	return true
}

// final notes that the last record of a side was exchanged. After both, a client closes.
func (s *session) final(sent, came bool) {
	s.mu.Lock()
	s.finalSent = s.finalSent || sent
	s.finalCame = s.finalCame || came
	both := s.finalSent && s.finalCame
	s.mu.Unlock()
	if both && s.side == "client" && s.end(finished) {
		s.wg.Go(func() {
			if err := s.shutdown(websocket.StatusNormalClosure); err != nil && s.soak.ctx.Err() == nil {
				s.fail("client %d, connection %d: the last closing handshake: %v", s.id, s.epoch, err)
			}
		})
	}
}
