package interop

import (
	"bytes"
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
//	fragments           it answers "one two three" in three fragments
//	ping                it pings, and answers "pong ..." when the Pong has come

// payloads are the messages of a conversation.
func payloads() (texts []string, binaries [][]byte) {
	texts = []string{"", "Hello", strings.Repeat("é漢字😀", 1000)}
	for range 3 { // with context takeover these refer to each other
		texts = append(texts, `{"a":"`+strings.Repeat("b", 1000)+`"}`)
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

// converse is our side of a conversation as the client.
func converse(t *testing.T, url string, opts *websocket.DialOptions) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
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
	long := strings.Repeat("fragmented ", 10_000)
	go func() { _, _ = io.WriteString(w, long); _ = w.Close() }()
	answer(c, long)
	require.NoError(t, c.Write(ctx, websocket.Text, []byte("fragments")))
	answer(c, "one two three")
	require.NoError(t, c.Write(ctx, websocket.Text, []byte("ping")))
	_, msg, err := c.Read(ctx, nil)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(msg), "pong"), string(msg))
	require.NoError(t, c.Ping(ctx))
	require.NoError(t, c.Write(ctx, websocket.Text, []byte("close:4001:bye")))
	_, _, err = c.Read(ctx, nil)
	require.Equal(t, &websocket.CloseError{Code: 4001, Reason: "bye"}, err)

	c, _ = dial()
	require.NoError(t, c.Shutdown(ctx, 4002, "see you"))
	c, _ = dial()
	// The server may hear of the end of the one before a little later.
	for {
		require.NoError(t, c.Write(ctx, websocket.Text, []byte("last")))
		_, msg, err := c.Read(ctx, nil)
		require.NoError(t, err)
		if string(msg) == "4002 see you" {
			break
		}
		require.Equal(t, "4001 bye", string(msg))
	}
	require.NoError(t, c.Shutdown(ctx, websocket.StatusNormalClosure, ""))
}

// ours is our side of conversations as the server.
type ours struct {
	opts websocket.AcceptOptions
	mu   sync.Mutex
	last string
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
		s.set(fmt.Sprintf("%d %s", ce.Code, ce.Reason))
	}
}

func (s *ours) set(last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = last
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
			code, reason, _ := strings.Cut(rest, ":")
			n, _ := strconv.Atoi(code)
			s.set(fmt.Sprintf("%d %s", n, reason))
			_ = c.Shutdown(ctx, websocket.StatusCode(n), reason)
			return nil
		case command == "last":
			s.mu.Lock()
			last := s.last
			s.mu.Unlock()
			err = c.Write(ctx, websocket.Text, []byte(last))
		case command == "fragments":
			var w io.WriteCloser
			if w, err = c.NextWriter(ctx, websocket.Text); err == nil {
				_, _ = io.WriteString(w, "one two three")
				err = w.Close()
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
func serveOurs(t *testing.T, compression *websocket.Compression, secure bool) (url string, srv *httptest.Server) {
	h := &ours{opts: websocket.AcceptOptions{Compression: compression, TrustedOrigins: []string{"*"}}}
	return listen(t, h, secure)
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

func TestWithItself(t *testing.T) {
	for name, compression := range compressions {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", name, secure), func(t *testing.T) {
				url, srv := serveOurs(t, compression, secure)
				converse(t, url, &websocket.DialOptions{HTTPClient: srv.Client(), Compression: compression})
			})
		}
	}
}
