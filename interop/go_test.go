package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	"github.com/stretchr/testify/require"
	"github.com/strictws/websocket"
)

// A peer is another implementation for Go.
type peer struct {
	name string
	// server returns its side of conversations.
	server func(compress, takeover bool) http.Handler
	// client has a conversation.
	client func(t *testing.T, with server)
}

// A server is one to have a conversation with.
type server struct {
	url                string
	trust              *tls.Config // nil for the system's
	compress, takeover bool
	plain              bool // it only echoes
}

var peers = []peer{
	{"gorilla", gorillaServer, gorillaClient},
	{"coder", coderServer, coderClient},
	{"gws", gwsServer, gwsClient},
}

func TestGoPeers(t *testing.T) {
	for _, p := range peers {
		for name, compression := range compressions {
			for _, secure := range []bool{false, true} {
				takeover := compression != nil && compression.ContextTakeover
				t.Run(fmt.Sprintf("%s/server, %s, TLS %t", p.name, name, secure), func(t *testing.T) {
					url, srv := listen(t, p.server(compression != nil, takeover), secure)
					converse(t, url, &websocket.DialOptions{HTTPClient: srv.Client(), Compression: compression})
				})
				t.Run(fmt.Sprintf("%s/client, %s, TLS %t", p.name, name, secure), func(t *testing.T) {
					url, srv := serveOurs(t, compression, secure)
					var trust *tls.Config
					if secure {
						trust = srv.Client().Transport.(*http.Transport).TLSClientConfig
					}
					p.client(t, server{url: url, trust: trust, compress: compression != nil, takeover: takeover})
				})
			}
		}
	}
}

// last is how the last connection of a server ended.
type last struct {
	mu sync.Mutex
	s  string
}

func (l *last) set(code int, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s = fmt.Sprintf("%d %s", code, reason)
}

func (l *last) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.s
}

func parseClose(rest string) (int, string) {
	code, reason, _ := strings.Cut(rest, ":")
	n, _ := strconv.Atoi(code)
	return n, reason
}

func gorillaServer(compress, _ bool) http.Handler {
	upgrader := gorilla.Upgrader{EnableCompression: compress}
	var ended last
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		c.SetPongHandler(func(s string) error {
			if s == "payload" {
				return c.WriteMessage(gorilla.TextMessage, []byte("pong "+s))
			}
			return nil
		})
		for {
			typ, msg, err := c.ReadMessage()
			if ce, ok := err.(*gorilla.CloseError); ok {
				ended.set(ce.Code, ce.Text)
			}
			if err != nil {
				return
			}
			command, rest, _ := strings.Cut(string(msg), ":")
			switch {
			case typ == gorilla.BinaryMessage:
				err = c.WriteMessage(typ, msg)
			case command == "close":
				err = c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(parseClose(rest)), time.Now().Add(time.Second))
			case command == "last":
				err = c.WriteMessage(typ, []byte(ended.get()))
			case command == "fragments":
				var w io.WriteCloser
				if w, err = c.NextWriter(typ); err == nil {
					_, _ = io.WriteString(w, "one two three")
					err = w.Close()
				}
			case command == "ping":
				err = c.WriteControl(gorilla.PingMessage, []byte("payload"), time.Now().Add(time.Second))
			default:
				err = c.WriteMessage(typ, msg)
			}
			if err != nil {
				return
			}
		}
	})
}

func gorillaClient(t *testing.T, with server) {
	dialer := gorilla.Dialer{EnableCompression: with.compress, TLSClientConfig: with.trust}
	dial := func() *gorilla.Conn {
		c, resp, err := dialer.Dial(with.url, nil)
		require.NoError(t, err)
		require.Equal(t, with.compress, resp.Header.Get("Sec-WebSocket-Extensions") != "")
		t.Cleanup(func() { c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(8 * time.Second))
		return c
	}
	c := dial()
	echo(t, with, func(typ int, msg []byte) error { return c.WriteMessage(typ, msg) }, c.ReadMessage)
	pongs := 0
	c.SetPongHandler(func(string) error { pongs++; return nil })
	require.NoError(t, c.WriteControl(gorilla.PingMessage, []byte("x"), time.Now().Add(time.Second)))
	if !with.plain {
		require.NoError(t, c.WriteMessage(gorilla.TextMessage, []byte("close:4001:bye")))
		_, _, err := c.ReadMessage()
		require.Equal(t, &gorilla.CloseError{Code: 4001, Text: "bye"}, err)
		require.Equal(t, 1, pongs)
		c = dial()
	}
	require.NoError(t, c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(4002, "see you"), time.Now().Add(time.Second)))
	_, _, err := c.ReadMessage()
	require.Equal(t, &gorilla.CloseError{Code: 4002, Text: "see you"}, err)
}

// echo has the middle of a conversation; the types of messages are those of gorilla.
func echo(t *testing.T, with server, write func(typ int, msg []byte) error, read func() (int, []byte, error)) {
	exchange := func(typ int, msg []byte, want func([]byte) bool) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- write(typ, msg) }()
		gotType, got, err := read()
		require.NoError(t, err)
		require.NoError(t, <-done)
		require.Equal(t, typ, gotType)
		require.True(t, want(got), "%.100q", got)
	}
	texts, binaries := payloads()
	for _, text := range texts {
		exchange(gorilla.TextMessage, []byte(text), func(got []byte) bool { return string(got) == text })
	}
	for _, b := range binaries {
		exchange(gorilla.BinaryMessage, b, func(got []byte) bool { return bytes.Equal(got, b) })
	}
	if with.plain {
		return
	}
	exchange(gorilla.TextMessage, []byte("fragments"), func(got []byte) bool { return string(got) == "one two three" })
	exchange(gorilla.TextMessage, []byte("ping"), func(got []byte) bool { return string(got) == "pong" })
}

func coderMode(compress, takeover bool) coder.CompressionMode {
	switch {
	case takeover:
		return coder.CompressionContextTakeover
	case compress:
		return coder.CompressionNoContextTakeover
	}
	return coder.CompressionDisabled
}

func coderServer(compress, takeover bool) http.Handler {
	var ended last
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coderMode(compress, takeover)})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(8 << 20)
		ctx := r.Context()
		for {
			typ, msg, err := c.Read(ctx)
			if err != nil {
				if code := coder.CloseStatus(err); code != -1 {
					var ce coder.CloseError
					_ = errorsAs(err, &ce)
					ended.set(int(code), ce.Reason)
				}
				return
			}
			command, rest, _ := strings.Cut(string(msg), ":")
			switch {
			case typ == coder.MessageBinary:
				err = c.Write(ctx, typ, msg)
			case command == "close":
				code, reason := parseClose(rest)
				ended.set(code, reason)
				_ = c.Close(coder.StatusCode(code), reason)
				return
			case command == "last":
				err = c.Write(ctx, typ, []byte(ended.get()))
			case command == "fragments":
				var w io.WriteCloser
				if w, err = c.Writer(ctx, typ); err == nil {
					for _, s := range []string{"one ", "two ", "three"} {
						_, _ = io.WriteString(w, s)
					}
					err = w.Close()
				}
			case command == "ping":
				// coder reads only in Read: a Ping of its own needs another goroutine.
				go func() {
					if c.Ping(ctx) == nil {
						_ = c.Write(ctx, coder.MessageText, []byte("pong payload"))
					}
				}()
			default:
				err = c.Write(ctx, typ, msg)
			}
			if err != nil {
				return
			}
		}
	})
}

func errorsAs(err error, target *coder.CloseError) bool {
	for err != nil {
		if ce, ok := err.(coder.CloseError); ok {
			*target = ce
			return true
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		err = u.Unwrap()
	}
	return false
}

func coderClient(t *testing.T, with server) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	opts := &coder.DialOptions{CompressionMode: coderMode(with.compress, with.takeover)}
	if with.trust != nil {
		opts.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: with.trust}}
	}
	dial := func() *coder.Conn {
		c, resp, err := coder.Dial(ctx, with.url, opts)
		require.NoError(t, err)
		require.Equal(t, with.compress, resp.Header.Get("Sec-WebSocket-Extensions") != "")
		t.Cleanup(func() { _ = c.CloseNow() })
		c.SetReadLimit(8 << 20)
		return c
	}
	c := dial()
	echo(t, with, func(typ int, msg []byte) error { return c.Write(ctx, coder.MessageType(typ), msg) },
		func() (int, []byte, error) { typ, msg, err := c.Read(ctx); return int(typ), msg, err })
	if with.plain {
		require.NoError(t, c.Close(4002, "see you"))
		return
	}
	pinged := make(chan error, 1)
	go func() { pinged <- c.Ping(ctx) }()
	read := make(chan error, 1)
	go func() { _, _, err := c.Read(ctx); read <- err }()
	require.NoError(t, <-pinged)
	require.NoError(t, c.Write(ctx, coder.MessageText, []byte("close:4001:bye")))
	var ce coder.CloseError
	require.True(t, errorsAs(<-read, &ce))
	require.Equal(t, coder.CloseError{Code: 4001, Reason: "bye"}, ce)

	require.NoError(t, dial().Close(4002, "see you"))
}

func gwsDeflate(compress, takeover bool) gws.PermessageDeflate {
	return gws.PermessageDeflate{Enabled: compress, ServerContextTakeover: takeover, ClientContextTakeover: takeover, Threshold: 1}
}

// gwsHandler is a server's, or with inbox a client's.
type gwsHandler struct {
	gws.BuiltinEventHandler
	ended *last
	inbox chan gwsMessage
	pong  chan string
}

type gwsMessage struct {
	typ int
	msg []byte
	err error
}

func (h *gwsHandler) OnClose(_ *gws.Conn, err error) {
	if h.inbox != nil {
		h.inbox <- gwsMessage{err: err}
		return
	}
	if ce, ok := err.(*gws.CloseError); ok {
		h.ended.set(int(ce.Code), string(ce.Reason))
	}
}

// OnPing: the one that is built in answers with nothing, where RFC 6455 section 5.5.3 wants
// the payload of the Ping.
func (h *gwsHandler) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

func (h *gwsHandler) OnPong(c *gws.Conn, payload []byte) {
	if h.inbox != nil {
		h.pong <- string(payload)
	} else if string(payload) == "payload" {
		_ = c.WriteString("pong payload")
	}
}

func (h *gwsHandler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	msg := bytes.Clone(m.Bytes())
	if h.inbox != nil {
		h.inbox <- gwsMessage{typ: int(m.Opcode), msg: msg}
		return
	}
	command, rest, _ := strings.Cut(string(msg), ":")
	switch {
	case m.Opcode == gws.OpcodeBinary:
		_ = c.WriteMessage(m.Opcode, msg)
	case command == "close":
		code, reason := parseClose(rest)
		h.ended.set(code, reason)
		_ = c.WriteClose(uint16(code), []byte(reason))
	case command == "last":
		_ = c.WriteString(h.ended.get())
	case command == "fragments":
		_ = c.Writev(gws.OpcodeText, []byte("one "), []byte("two "), []byte("three"))
	case command == "ping":
		_ = c.WritePing([]byte("payload"))
	default:
		_ = c.WriteMessage(m.Opcode, msg)
	}
}

func gwsServer(compress, takeover bool) http.Handler {
	h := &gwsHandler{ended: new(last)}
	upgrader := gws.NewUpgrader(h, &gws.ServerOption{
		PermessageDeflate: gwsDeflate(compress, takeover), ReadMaxPayloadSize: 8 << 20, WriteMaxPayloadSize: 8 << 20,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := upgrader.Upgrade(w, r); err == nil {
			go c.ReadLoop()
		}
	})
}

func gwsClient(t *testing.T, with server) {
	dial := func() (*gws.Conn, *gwsHandler) {
		h := &gwsHandler{inbox: make(chan gwsMessage, 100), pong: make(chan string, 1)}
		c, resp, err := gws.NewClient(h, &gws.ClientOption{
			Addr: with.url, TlsConfig: with.trust, PermessageDeflate: gwsDeflate(with.compress, with.takeover), ReadMaxPayloadSize: 8 << 20, WriteMaxPayloadSize: 8 << 20,
		})
		require.NoError(t, err)
		require.Equal(t, with.compress, resp.Header.Get("Sec-WebSocket-Extensions") != "")
		go c.ReadLoop()
		return c, h
	}
	c, h := dial()
	read := func() (int, []byte, error) {
		select {
		case m := <-h.inbox:
			return m.typ, m.msg, m.err
		case <-time.After(8 * time.Second):
			return 0, nil, fmt.Errorf("timed out")
		}
	}
	echo(t, with, func(typ int, msg []byte) error { return c.WriteMessage(gws.Opcode(typ), msg) }, read)
	require.NoError(t, c.WritePing([]byte("abc")))
	require.Equal(t, "abc", <-h.pong)
	if !with.plain {
		require.NoError(t, c.WriteString("close:4001:bye"))
		_, _, err := read()
		ce, ok := err.(*gws.CloseError)
		require.True(t, ok, "%v", err)
		require.Equal(t, "4001 bye", fmt.Sprintf("%d %s", ce.Code, ce.Reason))
		c, h = dial()
	}
	require.NoError(t, c.WriteClose(4002, []byte("see you")))
	require.Error(t, (<-h.inbox).err)
}
