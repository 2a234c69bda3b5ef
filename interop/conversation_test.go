package interop

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/strictws/websocket"
)

// A conversation is what every client has with every server. The server echoes, and knows
// some commands as text messages:
//
//	close:CODE:REASON   it closes with these
//	last                it answers with code and reason of the last connection that ended
//	fragments:TEXT      it answers TEXT in several fragments
//	ping                it pings, and answers "pong" when the Pong has come

// payloads are the messages of a conversation.
func payloads() (texts []string, binaries [][]byte) {
	texts = []string{"", "Hello", strings.Repeat("é漢字😀", 1000)}
	for range alikeCount { // with context takeover these refer to each other
		texts = append(texts, noise(alikeSize))
	}
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(i * 7 >> 3)
		}
		binaries = append(binaries, b)
	}
	return texts, binaries
}

// long is a text that everybody sends in several frames when it is streamed, compressed or not.
var long = noise(600_000)

// stream writes s in pieces, as a message.
func stream(w io.WriteCloser, s string) error {
	for _, piece := range pieces(s) {
		if _, err := io.WriteString(w, piece); err != nil {
			return err
		}
	}
	return w.Close()
}

// converse is our side of a conversation as the client.
func converse(t *testing.T, url string, opts *websocket.DialOptions) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	opts.MaxMessageSize = 8 << 20
	dial := func() (*websocket.Conn, *http.Response) {
		c, resp, err := websocket.Dial(ctx, url, opts)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c, resp
	}
	answer := func(c *websocket.Conn, want string) {
		t.Helper()
		typ, msg, err := c.Read(ctx, nil)
		require.NoError(t, err)
		require.Equal(t, websocket.Text, typ)
		require.Equal(t, want, string(msg))
	}
	// The server may hear of the end of a connection a little later than this side.
	untilLast := func(c *websocket.Conn, before, want string) {
		t.Helper()
		for last := before; last != want; {
			require.Equal(t, before, last)
			require.NoError(t, c.Write(ctx, websocket.Text, []byte("last")))
			_, msg, err := c.Read(ctx, nil)
			require.NoError(t, err, "the last was %q", last)
			last = string(msg)
		}
	}

	c, resp := dial()
	agreed := strings.Contains(resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate")
	require.Equal(t, opts.Compression != nil, agreed)
	texts, binaries := payloads()
	for _, text := range texts {
		require.NoError(t, c.Write(ctx, websocket.Text, []byte(text)))
		answer(c, text)
	}
	for _, b := range binaries {
		done := make(chan error, 1)
		go func() { done <- c.Write(ctx, websocket.Binary, b) }()
		typ, msg, err := c.Read(ctx, nil)
		require.NoError(t, err)
		require.NoError(t, <-done)
		require.Equal(t, websocket.Binary, typ)
		require.True(t, bytes.Equal(b, msg), "%d bytes", len(b))
	}
	w, err := c.NextWriter(ctx, websocket.Text)
	require.NoError(t, err)
	go stream(w, long)
	answer(c, long)
	go c.Write(ctx, websocket.Text, []byte("fragments:"+long)) // a failure shows below
	answer(c, long)
	require.NoError(t, c.Write(ctx, websocket.Text, []byte("ping")))
	answer(c, "pong")
	require.NoError(t, c.Ping(ctx))
	require.NoError(t, c.Write(ctx, websocket.Text, []byte("close:4001:bye")))
	_, _, err = c.Read(ctx, nil)
	require.Equal(t, &websocket.CloseError{Code: 4001, Reason: "bye"}, err)

	// Each end is heard of before the next, which the server may otherwise see in another order.
	c, _ = dial()
	untilLast(c, "none", "4001 bye")
	require.NoError(t, c.Shutdown(ctx, 4002, "see you"))
	c, _ = dial()
	untilLast(c, "4001 bye", "4002 see you")
	require.NoError(t, c.Shutdown(ctx, websocket.StatusNormalClosure, ""))
}

// last is how the last connection of a server ended.
type last struct {
	mu sync.Mutex
	s  string // "" before the first end
}

func (l *last) set(code int, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s = fmt.Sprintf("%d %s", code, reason)
}

func (l *last) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(l.s, "none")
}

func parseClose(rest string) (int, string) {
	code, reason, _ := strings.Cut(rest, ":")
	n, _ := strconv.Atoi(code)
	return n, reason
}

// ours is our side of conversations as the server.
type ours struct {
	opts  websocket.AcceptOptions
	ended chan string // code and reason of every Close received
	last  last
}

func (s *ours) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	opts := s.opts
	opts.MaxMessageSize = 8 << 20
	c, err := websocket.Accept(w, r, &opts)
	if err != nil {
		return
	}
	defer c.Close()
	if ce, ok := s.serve(r.Context(), c).(*websocket.CloseError); ok {
		s.last.set(int(ce.Code), ce.Reason)
		s.ended <- fmt.Sprintf("%d %s", ce.Code, ce.Reason)
	}
}

// heard waits until the server has received a Close with this code and reason.
func (s *ours) heard(t *testing.T, want string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case got := <-s.ended:
			if got == want {
				return
			}
		case <-limit:
			require.FailNow(t, "the server has not received a Close with "+want)
		}
	}
}

func (s *ours) serve(ctx context.Context, c *websocket.Conn) error {
	for {
		typ, msg, err := c.Read(ctx, nil)
		if err != nil {
			return err
		}
		command, rest, _ := strings.Cut(string(msg), ":")
		switch {
		case typ == websocket.Binary:
			err = c.Write(ctx, typ, msg)
		case command == "close":
			code, reason := parseClose(rest)
			s.last.set(code, reason)
			_ = c.Shutdown(ctx, websocket.StatusCode(code), reason)
			return nil
		case command == "last":
			err = c.Write(ctx, websocket.Text, []byte(s.last.get()))
		case command == "fragments":
			var w io.WriteCloser
			if w, err = c.NextWriter(ctx, websocket.Text); err == nil {
				err = stream(w, rest)
			}
		case command == "ping":
			if err = c.Ping(ctx); err == nil {
				err = c.Write(ctx, websocket.Text, []byte("pong"))
			}
		default:
			err = c.Write(ctx, typ, msg)
		}
		if err != nil {
			return err
		}
	}
}

// serveOurs starts our server and returns its URL.
func serveOurs(t *testing.T, compression *websocket.Compression, secure bool) (h *ours, url string, srv *httptest.Server) {
	h = &ours{ended: make(chan string, 100), opts: websocket.AcceptOptions{Compression: compression, TrustedOrigins: []string{"*"}}}
	url, srv = listen(t, h, secure)
	return h, url, srv
}

func listen(t *testing.T, h http.Handler, secure bool) (url string, srv *httptest.Server) {
	srv = httptest.NewUnstartedServer(h)
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http"), srv
}

// compressions are our side's ways to compress.
var compressions = map[string]*websocket.Compression{
	"plain":            nil,
	"compressed":       {MinSize: -1},
	"takeover":         {MinSize: -1, ContextTakeover: true},
	"takeover, 9 bits": {MinSize: -1, ContextTakeover: true, WindowBits: 9},
}

// agreedWithItself is what our server answers to our client for each of compressions.
var agreedWithItself = map[string]string{
	"compressed":       "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
	"takeover":         "permessage-deflate",
	"takeover, 9 bits": "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
}

func TestWithItself(t *testing.T) {
	for name, compression := range compressions {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", name, secure), func(t *testing.T) {
				_, url, srv := serveOurs(t, compression, secure)
				var w *wire
				if !secure {
					url, w = tap(t, url)
				}
				converse(t, url, &websocket.DialOptions{HTTPClient: srv.Client(), Compression: compression})
				if w != nil {
					w.check(t, expectation{extensions: agreedWithItself[name]})
				}
			})
		}
	}
}
