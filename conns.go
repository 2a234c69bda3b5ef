package websocket

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Conns is a set of connections, those of a server. A connection joins by [AcceptOptions].Conns
// and leaves when it is closed, no matter by whom; what it costs meanwhile is an entry in a map.
//
// The zero value is ready to use, by any number of handlers and goroutines. A Conns must not be
// copied.
type Conns struct {
	mu     sync.Mutex
	conns  map[*Conn]struct{}
	closed bool          // by Shutdown: nobody joins any more
	empty  chan struct{} // closed when closed and nobody is left
	cut    error         // of the context that ended when somebody was
}

var errDrainCut = fmt.Errorf("websocket: closed, since the context of Conns.Shutdown ended: %w", net.ErrClosed)

// Len returns how many connections there are. Those that are closing count until TCP is dropped.
func (s *Conns) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// All returns an iterator over the connections that there are when it begins. Others may come
// meanwhile, and those that it yields may be closed.
func (s *Conns) All() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		s.mu.Lock()
		all := s.list()
		s.mu.Unlock()
		for _, c := range all {
			if !yield(c) {
				return
			}
		}
	}
}

func (s *Conns) list() []*Conn {
	return slices.AppendSeq(make([]*Conn, 0, len(s.conns)), maps.Keys(s.conns))
}

// Shutdown closes all connections with code and reason, as [Conn.Shutdown] does, and waits for
// them, without cutting short what is under way: a connection is closed at once if a Read waits
// for a message to begin, and otherwise as soon as one comes back to do so. What the application
// writes until then goes out, and so does a message that is being written by whatever goroutine.
// From the beginning of Shutdown on, [Accept] refuses requests with status 503.
//
// The Reads that wait return an error that matches [net.ErrClosed] once their connection is
// over, and so do all later calls. Until then [Conn.Close] leaves the connection to Shutdown,
// so that a deferred Close does not cut the closing handshake short. Shutdown waits for the
// connections, not for the goroutines that serve them: if those have something to do at the
// end, wait for them too.
//
// When ctx ends, the connections that are left are closed without waiting, as by Conn.Close but
// with code and reason: peers that do not answer, applications that are at work on a message,
// and those that do not read. An application that hands messages to other goroutines and reads
// on meanwhile is not known to be at work; it has to wait for its own answers.
//
// Shutdown returns nil if all connections ended before that, and otherwise the error of the
// context. It may be called several times, concurrently too: every call waits for all connections,
// and the first context that ends cuts. Code and reason are those of the first call.
func (s *Conns) Shutdown(ctx context.Context, code StatusCode, reason string) error {
	if err := checkClose(code, reason); err != nil {
		return err
	}
	var closing sync.WaitGroup
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.empty = make(chan struct{})
		if len(s.conns) == 0 {
			close(s.empty)
		}
		for c := range s.conns {
			closing.Go(func() { c.leave(ctx, code, reason) })
		}
	}
	s.mu.Unlock()

	select {
	case <-s.empty:
	case <-ctx.Done():
		s.mu.Lock()
		rest := s.list()
		if len(rest) > 0 && s.cut == nil {
			s.cut = contextError(ctx)
		}
		s.mu.Unlock()
		for _, c := range rest {
			closing.Go(func() { _ = c.cut(code, reason, errDrainCut) })
		}
		<-s.empty
	}
	closing.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cut
}

// join reports false once Shutdown was called.
func (s *Conns) join(c *Conn) bool {
	c.session = &session{conns: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.conns == nil {
		s.conns = make(map[*Conn]struct{})
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Conns) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Conns) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if s.closed && len(s.conns) == 0 {
		close(s.empty)
	}
}

// session is what a Conns knows of the use that an application makes of a connection.
type session struct {
	conns *Conns        // constant
	state atomic.Uint32 // of the bits below
	back  chan struct{} // told by a reader that waits while the session is to leave; nil before
}

const (
	// sessionWaits: a reader waits for a message, of which no header is complete yet.
	sessionWaits = 1 << iota
	// sessionLeaves: Conns.Shutdown wants to close.
	sessionLeaves
	// sessionLeft: it does, and no message is received or written any more. Whoever sets it
	// has the message turn, which goes to leave.
	sessionLeft
)

// beginWait is called by the holder of the read turn before it waits for a message to begin.
func (c *Conn) beginWait() {
	s := c.session
	if s == nil {
		return
	}
	if s.state.Or(sessionWaits)&sessionLeaves == 0 {
		return
	}
	if c.out.message.try() {
		s.state.Or(sessionLeft)
	}
	select {
	case s.back <- struct{}{}:
	default:
	}
}

// endWait is called when a message has begun, or the waiting has ended otherwise. It reports
// whether the message, and any other, is to be dropped.
func (c *Conn) endWait() (left bool) {
	s := c.session
	return s != nil && s.state.And(^uint32(sessionWaits))&sessionLeft != 0
}

// left reports whether the closing of c is up to Conns.Shutdown.
func (c *Conn) left() bool { return c.session != nil && c.session.state.Load()&sessionLeft != 0 }

// leave closes c on behalf of Conns.Shutdown, which cuts it when ctx ends.
func (c *Conn) leave(ctx context.Context, code StatusCode, reason string) {
	if !c.awaitSession(ctx) {
		return
	}
	err := c.endWriting()
	c.out.message.release()
	if err == nil {
		err = c.exchangeClose(ctx, code, reason)
	}
	if _, cut := err.(*contextEnded); cut || err == nil || err == errClosed || c.in.ending.get() != nil {
		return // somebody else closes c, or has done so
	}
	c.drop(errClosed) // nothing can be sent
}

// streamedInterval is how often Conns.Shutdown looks whether a streamed message has ended.
const streamedInterval = 10 * time.Millisecond

// awaitSession waits until no message is received, worked on or written, and takes the message
// turn. It returns false if the connection or ctx ended before.
func (c *Conn) awaitSession(ctx context.Context) bool {
	s := c.session
	s.back = make(chan struct{}, 1)
	s.state.Or(sessionLeaves)
	timer := time.NewTimer(streamedInterval)
	defer timer.Stop()
	for {
		switch state := s.state.Load(); {
		case state&sessionLeft != 0:
			return true
		case state&sessionWaits != 0 && c.out.message.try():
			// A message that began meanwhile comes first.
			if s.state.CompareAndSwap(sessionWaits|sessionLeaves, sessionWaits|sessionLeaves|sessionLeft) {
				return true
			}
			c.out.message.release()
		}
		// Not by getting in line for the message turn: it would be ours for longer than a busy
		// session waits, which then would find it taken each time. Nobody tells when another
		// goroutine's streamed message ends.
		timer.Reset(streamedInterval)
		select {
		case <-s.back:
		case <-timer.C:
		case <-c.over():
			return false
		case <-ctx.Done():
			return false
		}
	}
}
