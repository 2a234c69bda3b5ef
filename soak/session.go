package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
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
	arrival   uint64                // of the hello: the last message that has arrived

	wake  chan struct{} // for the sender: an acknowledgement has come
	burst chan int      // for the sender: send so many messages at once
	wg    sync.WaitGroup
	ctx   context.Context // ends with the connection; takes the place of that of soak

	broadcasts     uint64 // owned by the receiver: how many have come
	lastBroadcast  uint64 // owned by the receiver: its number
	broadcastsSent uint64 // owned by the sender

	cut bool // owned by the sender: a Write that was cancelled may have closed the connection

	written   atomic.Uint64 // the last message whose Write succeeded
	delivered uint64        // owned by abort: all up to this one were written before a Shutdown that was answered

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
		text := err.Error()
		if s.cut && (strings.Contains(text, "context of a write") || strings.Contains(text, "context of a streamed write")) {
			return "cut" // even if the client is back already
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
		written := s.written.Load()
		if s.shutdown(statusCodes[r.IntN(len(statusCodes))]) == nil {
			s.delivered = written
		}
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
