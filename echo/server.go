// Package echo holds the WebSocket services of echod: a greeting, plain echoes, one for each way through the API
// of package websocket, and a clock. They are written on its exported names only and hold no protocol logic, so
// they serve as examples, as the other side of tests, and as what conformance suites talk to.
//
// A handler accepts the connection, goes on in a goroutine of its own and returns. net/http then lets its request
// and its buffers go, which is most of the memory that an idle connection costs. The price is that
// http.Server.Shutdown knows nothing of these connections; [Server.Shutdown], which is [websocket.Conns.Shutdown], is
// for them.
package echo

import (
	"context"
	"errors"
	"log/slog"
	"net"
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

	conns      websocket.Conns
	running    sync.WaitGroup // one for each session, which ends after its connection
	handshakes sync.RWMutex   // orders running.Go before running.Wait: each handshake is a reader
}

// Shutdown ends all sessions and waits for them: every connection answers the message it has at hand, gets a Close
// frame with [websocket.StatusGoingAway] and has until ctx ends to answer it; then it is dropped. New requests are
// refused with status 503. Shutdown returns nil when all connections ended in time, otherwise the error of ctx;
// no connection is left in either case.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.conns.Shutdown(ctx, websocket.StatusGoingAway, shutdownReason)
	s.handshakes.Lock()
	defer s.handshakes.Unlock()
	s.running.Wait()
	return err
}

const shutdownReason = "server is shutting down"

// accept does the handshake and runs session in a goroutine of its own. The session returns the error that ended
// it; accept then closes the connection and logs.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, session func(*websocket.Conn) error) {
	log := s.logger()
	opts := s.Options
	opts.Conns = &s.conns
	s.handshakes.RLock()
	defer s.handshakes.RUnlock()
	c, err := websocket.Accept(w, r, &opts)
	if err != nil {
		log.Warn("WebSocket handshake refused", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
		return
	}
	path, remote := r.URL.Path, c.RemoteAddr().String() // and not r, which would live as long as the session
	s.running.Go(func() {
		defer c.Close()
		log.Info("WebSocket connection established", "path", path, "remote", remote, "subprotocol", c.Subprotocol())
		err := session(c)
		log.Info("WebSocket connection closed", append([]any{"path", path, "remote", remote}, ending(err)...)...)
	})
}

// ending returns what there is to say in the log about a session that ended with err.
func ending(err error) []any {
	// The peer closed, or erred: the Conn has answered with the peer's own code, or with the error's.
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
		return []any{"by", "client", "code", int(closed.Code), "reason", closed.Reason}
	}
	if broken, ok := errors.AsType[*websocket.ProtocolError](err); ok {
		return []any{"by", "server", "code", int(broken.Code), "error", err}
	}
	if errors.Is(err, net.ErrClosed) { // only Shutdown closes
		return []any{"by", "server", "code", int(websocket.StatusGoingAway), "reason", shutdownReason}
	}
	return []any{"error", err} // the connection broke
}

func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}
