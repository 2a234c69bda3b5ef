package echo_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/strictws/websocket"
	"github.com/strictws/websocket/echo"
)

// echoes are the handlers that must not differ.
var echoes = map[string]func(*echo.Server) http.HandlerFunc{
	"messages": func(s *echo.Server) http.HandlerFunc { return s.Messages },
	"streams":  func(s *echo.Server) http.HandlerFunc { return s.Streams },
	"prepared": func(s *echo.Server) http.HandlerFunc { return s.Prepared },
	"netconn":  func(s *echo.Server) http.HandlerFunc { return s.NetConn },
}

func TestGreeting(t *testing.T) {
	s, log := newServer()
	url := serve(t, s.Greeting)
	c := dial(t, url)

	require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("Hello, I am a secret")))
	requireMessage(t, c, websocket.Text, []byte("Server: Hello. You said: Hello, I am a secret"))
	require.NoError(t, c.Shutdown(t.Context(), websocket.StatusNormalClosure, "bye"))
	require.NoError(t, s.Shutdown(t.Context()))

	lines := log.lines(t)
	require.Equal(t, []string{
		"WebSocket connection established",
		"Message received from Client",
		"Message sent to Client",
		"WebSocket connection closed",
	}, messages(lines))
	for _, line := range lines {
		assert.Equal(t, c.LocalAddr().String(), line["remote"])
	}
	assert.Equal(t, "text", lines[1]["type"])
	assert.EqualValues(t, len("Hello, I am a secret"), lines[1]["bytes"])
	assert.EqualValues(t, len("Server: Hello. You said: Hello, I am a secret"), lines[2]["bytes"])
	assert.Equal(t, "client", lines[3]["by"])
	assert.EqualValues(t, 1000, lines[3]["code"])
	assert.Equal(t, "bye", lines[3]["reason"])
	assert.NotContains(t, log.String(), "secret", "the log has no content of messages")
}

func TestGreetingTypes(t *testing.T) {
	s, _ := newServer()
	c := dial(t, serve(t, s.Greeting))
	const hello = "Server: Hello. You said: "
	long := strings.Repeat("é", 100_000) // more than the handler keeps a buffer for
	for _, m := range []struct {
		typ        websocket.MessageType
		said, want string
	}{
		{websocket.Text, "one", hello + "one"},
		{websocket.Binary, "\x00\xff", "\x00\xff"},
		{websocket.Text, "", hello},
		{websocket.Binary, "", ""},
		{websocket.Text, long, hello + long},
		{websocket.Text, "after a long one", hello + "after a long one"},
	} {
		require.NoError(t, c.Write(t.Context(), m.typ, []byte(m.said)))
		requireMessage(t, c, m.typ, []byte(m.want))
	}
}

// The peer's own code and reason come back, whatever they are.
func TestCloseIsAnsweredInKind(t *testing.T) {
	handlers := maps.Clone(echoes)
	handlers["greeting"] = func(s *echo.Server) http.HandlerFunc { return s.Greeting }
	handlers["clock"] = func(s *echo.Server) http.HandlerFunc { return s.Clock }
	for name, handler := range handlers {
		for _, payload := range []string{"", "\x03\xe8", "\x03\xe9going", "\x10\xe1enough, merci"} {
			t.Run(name, func(t *testing.T) {
				s, log := newServer()
				c := dialRaw(t, serve(t, handler(s)))
				c.send(websocket.OpClose, true, payload)
				h, got := c.receive()
				for h.Opcode == websocket.OpText { // of the clock
					h, got = c.receive()
				}
				require.Equal(t, websocket.OpClose, h.Opcode)
				require.Equal(t, payload, got)
				require.NoError(t, s.Shutdown(t.Context()))

				lines := log.lines(t)
				closed := lines[len(lines)-1]
				require.Equal(t, "WebSocket connection closed", closed["msg"])
				assert.Equal(t, "client", closed["by"])
				code, reason := uint16(websocket.StatusNoStatusReceived), ""
				if payload != "" {
					code, reason = binary.BigEndian.Uint16([]byte(payload)), payload[2:]
				}
				assert.EqualValues(t, code, closed["code"])
				assert.Equal(t, reason, closed["reason"])
			})
		}
	}
}

func TestEcho(t *testing.T) {
	megabyte := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	for name, handler := range echoes {
		t.Run(name, func(t *testing.T) {
			s, _ := newServer()
			c := dial(t, serve(t, handler(s)))
			for _, m := range []struct {
				typ  websocket.MessageType
				said []byte
			}{
				{websocket.Text, []byte("Hello")},
				{websocket.Binary, []byte{0, 0xff, 0x80}},
				{websocket.Text, nil},
				{websocket.Binary, nil},
				{websocket.Text, megabyte},
				{websocket.Binary, megabyte},
				{websocket.Text, []byte("héllo")},
			} {
				go c.Write(t.Context(), m.typ, m.said) // a failure shows below
				requireMessage(t, c, m.typ, m.said)
			}
			require.NoError(t, c.Shutdown(t.Context(), websocket.StatusNormalClosure, ""))
			require.NoError(t, s.Shutdown(t.Context()))
		})
	}
}

// A message in fragments, cut inside a character and with a Ping between them, is one message.
func TestEchoFragments(t *testing.T) {
	for name, handler := range echoes {
		t.Run(name, func(t *testing.T) {
			s, _ := newServer()
			c := dialRaw(t, serve(t, handler(s)))
			long := strings.Repeat("x", 40_000)
			c.send(websocket.OpText, false, long+"h\xc3")
			c.send(websocket.OpPing, true, "are you there")
			c.send(websocket.OpContinuation, false, "")
			c.send(websocket.OpContinuation, true, "\xa9llo")
			typ, msg := c.receiveMessage()
			require.Equal(t, websocket.OpText, typ)
			require.Equal(t, long+"héllo", msg)
			require.Equal(t, []string{"are you there"}, c.pongs)
		})
	}
}

func TestEchoFailsTheConnectionOfAPeerThatErrs(t *testing.T) {
	for name, handler := range echoes {
		t.Run(name, func(t *testing.T) {
			s, log := newServer()
			c := dialRaw(t, serve(t, handler(s)))
			c.send(websocket.OpText, true, "\xff")
			h, payload := c.receive()
			require.Equal(t, websocket.OpClose, h.Opcode)
			require.EqualValues(t, websocket.StatusInvalidFramePayloadData, binary.BigEndian.Uint16([]byte(payload)))
			c.Close()
			require.NoError(t, s.Shutdown(t.Context()))

			lines := log.lines(t)
			assert.Equal(t, "server", lines[1]["by"])
			assert.EqualValues(t, 1007, lines[1]["code"])
			assert.Contains(t, lines[1]["error"], "RFC 6455")
		})
	}
}

func TestHandshakeRefused(t *testing.T) {
	s, log := newServer()
	srv := httptest.NewServer(http.HandlerFunc(s.Messages))
	defer srv.Close()
	res, err := http.Get(srv.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusBadRequest, res.StatusCode)
	require.Equal(t, []string{"WebSocket handshake refused"}, messages(log.lines(t)))
	require.NoError(t, s.Shutdown(t.Context()), "a refused handshake leaves nothing to wait for")
}

func TestOptions(t *testing.T) {
	s, log := newServer()
	s.Options = websocket.AcceptOptions{Subprotocols: []string{"v2", "v1"}, MaxMessageSize: 4}
	c, _, err := websocket.Dial(t.Context(), serve(t, s.Messages), &websocket.DialOptions{Subprotocols: []string{"v1"}})
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, "v1", c.Subprotocol())

	require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("1234")))
	requireMessage(t, c, websocket.Text, []byte("1234"))
	require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("12345")))
	_, _, err = c.Read(t.Context(), nil)
	var closed *websocket.CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, websocket.StatusMessageTooBig, closed.Code)
	require.NoError(t, s.Shutdown(t.Context()))
	require.Equal(t, "v1", log.lines(t)[0]["subprotocol"])
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newServer()
		ln := newPipeListener()
		srv := &http.Server{Handler: http.HandlerFunc(s.Clock)}
		go srv.Serve(ln)
		defer srv.Close()
		transport := &http.Transport{DialContext: ln.DialContext}
		defer transport.CloseIdleConnections()

		start := time.Now()
		c, _, err := websocket.Dial(t.Context(), "ws://clock.test/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
		require.NoError(t, err)
		defer c.Close()
		// Long enough for the client's messages and keepalive to have their turn.
		for second := range 100 {
			typ, msg, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, websocket.Text, typ)
			told, err := time.Parse(time.RFC3339, string(msg))
			require.NoError(t, err)
			require.True(t, told.Equal(start.Add(time.Duration(second)*time.Second)), "%s is second %d", told, second)
			require.Equal(t, time.Duration(second)*time.Second, time.Since(start))
			if second%10 == 5 {
				require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("how late is it?")))
			}
		}
		require.NoError(t, c.Shutdown(t.Context(), websocket.StatusNormalClosure, "late enough"))
		synctest.Wait()
		lines := log.lines(t)
		require.Equal(t, []string{"WebSocket connection established", "WebSocket connection closed"}, messages(lines))
		require.Equal(t, "late enough", lines[1]["reason"])
		require.Equal(t, 99*time.Second, time.Since(start), "nothing waited for the next second")
		require.NoError(t, s.Shutdown(t.Context()))
	})
}

func TestShutdown(t *testing.T) {
	s, log := newServer()
	mux := http.NewServeMux()
	mux.HandleFunc("/greeting", s.Greeting)
	mux.HandleFunc("/clock", s.Clock)
	for name, handler := range echoes {
		mux.HandleFunc("/"+name, handler(s))
	}
	srv := httptest.NewServer(mux)
	defer srv.Close()

	var clients sync.WaitGroup
	paths := []string{"greeting", "messages", "streams", "prepared", "netconn", "clock"}
	for _, path := range paths {
		c := dial(t, "ws"+strings.TrimPrefix(srv.URL, "http")+"/"+path)
		if path != "clock" {
			require.NoError(t, c.Write(t.Context(), websocket.Binary, []byte("x")))
			requireMessage(t, c, websocket.Binary, []byte("x"))
		}
		clients.Go(func() {
			var err error
			for err == nil {
				_, _, err = c.Read(t.Context(), nil)
			}
			var closed *websocket.CloseError
			if assert.ErrorAs(t, err, &closed, path) {
				assert.Equal(t, websocket.StatusGoingAway, closed.Code, path)
				assert.Equal(t, "server is shutting down", closed.Reason, path)
			}
		})
	}
	require.NoError(t, s.Shutdown(t.Context()))
	clients.Wait()

	closed := 0
	for _, line := range log.lines(t) {
		if line["msg"] == "WebSocket connection closed" {
			closed++
			assert.Equal(t, "server", line["by"], line["path"])
			assert.EqualValues(t, 1001, line["code"], line["path"])
			assert.NotContains(t, line, "error", line["path"])
		}
	}
	assert.Equal(t, len(paths), closed)

	_, res, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http")+"/messages", nil)
	require.Error(t, err)
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.NoError(t, s.Shutdown(t.Context()), "a second Shutdown has nothing to do")
}

func TestShutdownOfAnUnusedServer(t *testing.T) {
	var s echo.Server
	require.NoError(t, s.Shutdown(t.Context()))
}

// A message that is being echoed as a stream is finished first.
func TestShutdownLetsAStreamEnd(t *testing.T) {
	s, _ := newServer()
	url := serve(t, s.Streams)
	c := dialRaw(t, url)
	const half = 64 << 10
	c.send(websocket.OpBinary, false, strings.Repeat("x", half))
	h, msg := c.receive() // the message has begun
	require.Equal(t, websocket.OpBinary, h.Opcode)

	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(t.Context()) }()
	requireDraining(t, url)

	c.send(websocket.OpContinuation, true, strings.Repeat("x", half))
	for !h.Fin {
		var more string
		h, more = c.receive()
		msg += more
		require.Contains(t, []websocket.Opcode{websocket.OpContinuation}, h.Opcode)
	}
	require.Equal(t, strings.Repeat("x", 2*half), msg)
	h, payload := c.receive()
	require.Equal(t, websocket.OpClose, h.Opcode)
	c.send(websocket.OpClose, true, payload)
	require.NoError(t, <-ended)
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	handlers := maps.Clone(echoes)
	handlers["greeting"] = func(s *echo.Server) http.HandlerFunc { return s.Greeting }
	for name, handler := range handlers {
		t.Run(name+", no answer to Close", func(t *testing.T) {
			s, _ := newServer()
			c := dialRaw(t, serve(t, handler(s)))
			c.send(websocket.OpBinary, true, "x")
			_, got := c.receive()
			require.Equal(t, "x", got)

			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
			h, _ := c.receive()
			require.Equal(t, websocket.OpClose, h.Opcode)
			_, err := c.r.ReadByte()
			require.ErrorIs(t, err, io.EOF, "the connection was dropped")
		})
		t.Run(name+", client does not read", func(t *testing.T) {
			s, _ := newServer()
			c := dialRaw(t, serve(t, handler(s)))
			frame := c.frame(websocket.OpBinary, true, strings.Repeat("x", 1<<20))
			// The server reads no more once its answers fill the network's buffers.
			c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			var err error
			for sent := 0; err == nil && sent < 256; sent++ {
				_, err = c.Write(frame)
			}
			require.ErrorContains(t, err, "timeout")

			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
		})
	}
}

// A log is what a test server logs.
type log struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *log) lines(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []map[string]any
	for line := range bytes.Lines(l.Bytes()) {
		var m map[string]any
		require.NoError(t, json.Unmarshal(line, &m))
		lines = append(lines, m)
	}
	return lines
}

func messages(lines []map[string]any) []string {
	var out []string
	for _, line := range lines {
		out = append(out, line["msg"].(string))
	}
	return out
}

func newServer() (*echo.Server, *log) {
	l := new(log)
	return &echo.Server{Logger: slog.New(slog.NewJSONHandler(l, nil))}, l
}

// serve serves one handler for the time of the test.
func serve(t *testing.T, handler http.HandlerFunc) (url string) {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http")
}

func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), url, nil)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func requireMessage(t *testing.T, c *websocket.Conn, typ websocket.MessageType, want []byte) {
	t.Helper()
	got, msg, err := c.Read(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, typ, got)
	require.True(t, bytes.Equal(want, msg), "%d bytes came back of %d", len(msg), len(want))
}

// requireDraining waits until the server refuses connections because it shuts down.
func requireDraining(t *testing.T, url string) {
	t.Helper()
	for {
		res, err := http.Get("http" + strings.TrimPrefix(url, "ws"))
		require.NoError(t, err)
		res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable {
			return
		}
		require.Equal(t, http.StatusBadRequest, res.StatusCode)
	}
}

// A rawConn is a client that sends the frames it is told to, and answers nothing by itself.
type rawConn struct {
	net.Conn
	t     *testing.T
	r     *bufio.Reader
	pongs []string
}

func dialRaw(t *testing.T, url string) *rawConn {
	t.Helper()
	nc, err := net.Dial("tcp", strings.TrimPrefix(url, "ws://"))
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: echo.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(t, err)
	c := &rawConn{Conn: nc, t: t, r: bufio.NewReader(nc)}
	res, err := http.ReadResponse(c.r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	return c
}

func (c *rawConn) frame(op websocket.Opcode, fin bool, payload string) []byte {
	h := websocket.Header{Fin: fin, Opcode: op, Masked: true, Key: [4]byte{1, 2, 3, 4}, Length: uint64(len(payload))}
	frame := websocket.AppendHeader(nil, h)
	n := len(frame)
	frame = append(frame, payload...)
	websocket.Mask(frame[n:], h.Key, 0)
	return frame
}

func (c *rawConn) send(op websocket.Opcode, fin bool, payload string) {
	c.t.Helper()
	_, err := c.Write(c.frame(op, fin, payload))
	require.NoError(c.t, err)
}

func (c *rawConn) receive() (websocket.Header, string) {
	c.t.Helper()
	for size := 2; ; size++ {
		b, err := c.r.Peek(size)
		require.NoError(c.t, err)
		h, n, err := websocket.ParseHeader(b)
		require.NoError(c.t, err)
		if n > 0 {
			payload := make([]byte, n+int(h.Length))
			_, err := io.ReadFull(c.r, payload)
			require.NoError(c.t, err)
			return h, string(payload[n:])
		}
	}
}

// receiveMessage receives one message, and collects the Pongs that come before its end.
func (c *rawConn) receiveMessage() (typ websocket.Opcode, msg string) {
	c.t.Helper()
	for {
		h, payload := c.receive()
		switch h.Opcode {
		case websocket.OpPong:
			c.pongs = append(c.pongs, payload)
			continue
		case websocket.OpContinuation:
		default:
			typ = h.Opcode
		}
		msg += payload
		if h.Fin {
			return typ, msg
		}
	}
}

// A pipeListener is a network in memory, for tests in a bubble of synctest.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "memory"} }
