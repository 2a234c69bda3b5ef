// Package echo holds the WebSocket services of echod: a greeting, plain echoes, one for each way through the API
// of package websocket, and a clock. They are written on its exported names only and hold no protocol logic, so
// they serve as examples, as the other side of tests, and as what conformance suites talk to.
//
// A handler accepts the connection, goes on in a goroutine of its own and returns. net/http then lets its request
// and its buffers go, which is most of the memory that an idle connection costs. The price is that
// http.Server.Shutdown knows nothing of these connections; [Server.Shutdown] is for them.
package echo

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"

	"github.com/strictws/websocket"
)

// A Server has the handlers as its methods, and keeps what they share. Its zero value is ready to use.
// Its fields must not be changed once a handler runs.
type Server struct {
	// Options are the options of every handshake.
	Options websocket.AcceptOptions

	// Logger receives a line when a connection begins and when it ends, and what a handler adds. It never
	// receives the content of a message. If nil, slog.Default() is used.
	Logger *slog.Logger

	mu       sync.Mutex // guards what follows, and orders running.Add before running.Wait
	draining bool
	life     lifetime
	leave    context.CancelFunc // ends life.serving
	cut      context.CancelFunc // ends life.pending
	running  sync.WaitGroup     // one for each connection
}

// A lifetime is what bounds a session, in two steps: first it waits for no new message, so that a message that
// has arrived is still answered, then nothing may wait any longer.
type lifetime struct {
	serving context.Context // ends when Shutdown begins; for waiting for a message
	pending context.Context // ends when the time of Shutdown is over; for everything else
}

// begin counts a connection in. It reports false once Shutdown was called.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.init()
	s.running.Add(1)
	return true
}

// init makes the zero Server usable; s.mu is held.
func (s *Server) init() {
	if s.life.serving == nil {
		s.life.pending, s.cut = context.WithCancel(context.Background())
		s.life.serving, s.leave = context.WithCancel(s.life.pending)
	}
}

// Shutdown ends all sessions and waits for them: every connection answers the message it has at hand, gets a Close
// frame with [websocket.StatusGoingAway] and has until ctx ends to answer it; then it is dropped. New requests are
// refused with status 503. Shutdown returns nil when all connections ended in time, otherwise the cause of ctx;
// no connection is left in either case.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.init()
	s.draining = true
	s.mu.Unlock()

	stop := context.AfterFunc(ctx, s.cut)
	s.leave()
	s.running.Wait()
	if !stop() {
		return context.Cause(ctx)
	}
	return nil
}

// accept does the handshake and runs session in a goroutine of its own. The session returns the error that ended
// it; accept then closes the connection and logs.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, session func(lifetime, *websocket.Conn) error) {
	log := s.logger()
	if !s.begin() {
		http.Error(w, "The server is shutting down.", http.StatusServiceUnavailable)
		return
	}
	c, err := websocket.Accept(w, r, &s.Options)
	if err != nil {
		s.running.Done()
		log.Warn("WebSocket handshake refused", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
		return
	}
	path, remote := r.URL.Path, c.RemoteAddr().String() // and not r, which would live as long as the session
	go func() {
		defer s.running.Done()
		log.Info("WebSocket connection established", "path", path, "remote", remote, "subprotocol", c.Subprotocol())
		err := session(s.life, c)
		log.Info("WebSocket connection closed", append([]any{"path", path, "remote", remote}, s.end(c, err)...)...)
	}()
}

// end closes c after a session that ended with err, and returns what there is to say about it in the log.
func (s *Server) end(c *websocket.Conn, err error) []any {
	defer c.Close()

	// The peer closed, or erred: the Conn has answered with the peer's own code, or with the error's.
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
		return []any{"by", "client", "code", int(closed.Code), "reason", closed.Reason}
	}
	if broken, ok := errors.AsType[*websocket.ProtocolError](err); ok {
		return []any{"by", "server", "code", int(broken.Code), "error", err}
	}
	if s.life.serving.Err() == nil {
		return []any{"error", err} // the connection broke
	}
	const reason = "server is shutting down"
	attrs := []any{"by", "server", "code", int(websocket.StatusGoingAway), "reason", reason}
	if err := c.Shutdown(s.life.pending, websocket.StatusGoingAway, reason); err != nil {
		return append(attrs, "error", err)
	}
	return attrs
}

func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}
