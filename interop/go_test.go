package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
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
	// answers is what its server agrees on with our client for each of compressions, offers
	// what our server agrees on with its client.
	answers, offers map[string]string
	// clientClose and serverClose are its answers to our Close, if not in kind.
	clientClose, serverClose string
}

// A server is one to have a conversation with.
type server struct {
	url                string
	trust              *tls.Config // nil for the system's
	compress, takeover bool
	plain              bool // it only echoes
}

const noTakeover = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

var peers = []peer{
	{
		name: "gorilla", server: gorillaServer, client: gorillaClient,
		answers:     map[string]string{"compressed": noTakeover, "takeover": noTakeover, "takeover, 9 bits": noTakeover},
		offers:      map[string]string{"compressed": noTakeover, "takeover": noTakeover, "takeover, 9 bits": noTakeover},
		clientClose: "4001 ", serverClose: "4002 ",
	},
	{
		name: "coder", server: coderServer, client: coderClient,
		answers: map[string]string{
			"compressed":       "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
			"takeover":         "permessage-deflate",
			"takeover, 9 bits": "permessage-deflate; server_no_context_takeover",
		},
		offers: map[string]string{
			"compressed":       noTakeover,
			"takeover":         "permessage-deflate",
			"takeover, 9 bits": "permessage-deflate; client_no_context_takeover", // it does not let us limit its window
		},
	},
	{
		name: "gws", server: gwsServer, client: gwsClient,
		answers: map[string]string{
			"compressed": noTakeover,
			// Its own windows have 12 bits.
			"takeover":         "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
			"takeover, 9 bits": "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
		},
		offers: map[string]string{
			"compressed":       noTakeover,
			"takeover":         "permessage-deflate",
			"takeover, 9 bits": "permessage-deflate; client_max_window_bits=9",
		},
		clientClose: "4001 ", serverClose: "4002 ",
	},
}

func TestGoPeers(t *testing.T) {
	for _, p := range peers {
		for name, compression := range compressions {
			for _, secure := range []bool{false, true} {
				takeover := compression != nil && compression.ContextTakeover
				t.Run(fmt.Sprintf("%s/server, %s, TLS %t", p.name, name, secure), func(t *testing.T) {
					url, srv := listen(t, p.server(compression != nil, takeover), secure)
					var w *wire
					if !secure {
						url, w = tap(t, url)
					}
					converse(t, url, &websocket.DialOptions{HTTPClient: srv.Client(), Compression: compression})
					if w != nil {
						w.check(t, expectation{extensions: p.answers[name], serverClose: p.serverClose})
					}
				})
				t.Run(fmt.Sprintf("%s/client, %s, TLS %t", p.name, name, secure), func(t *testing.T) {
					h, url, srv := serveOurs(t, compression, secure)
					var trust *tls.Config
					var w *wire
					if secure {
						trust = srv.Client().Transport.(*http.Transport).TLSClientConfig
					} else {
						url, w = tap(t, url)
					}
					p.client(t, server{url: url, trust: trust, compress: compression != nil, takeover: takeover})
					h.heard(t, "4002 see you")
					if w != nil {
						w.check(t, expectation{extensions: p.offers[name], clientClose: p.clientClose})
					}
				})
			}
		}
	}
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
				return c.WriteMessage(gorilla.TextMessage, []byte("pong"))
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
					err = stream(w, rest)
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
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	c := dial()
	writeStream := func(s string) error {
		w, err := c.NextWriter(gorilla.TextMessage)
		if err != nil {
			return err
		}
		return stream(w, s)
	}
	echo(t, with, c.WriteMessage, writeStream, c.ReadMessage)
	var pongs []string
	c.SetPongHandler(func(payload string) error { pongs = append(pongs, payload); return nil })
	require.NoError(t, c.WriteControl(gorilla.PingMessage, []byte("x"), time.Now().Add(time.Second)))
	if !with.plain {
		require.NoError(t, c.WriteMessage(gorilla.TextMessage, []byte("close:4001:bye")))
		_, _, err := c.ReadMessage()
		require.Equal(t, &gorilla.CloseError{Code: 4001, Text: "bye"}, err)
		require.NoError(t, c.Close())
		c = dial()
	}
	require.NoError(t, c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(4002, "see you"), time.Now().Add(time.Second)))
	_, _, err := c.ReadMessage()
	require.Equal(t, &gorilla.CloseError{Code: 4002, Text: "see you"}, err)
	require.Equal(t, []string{"x"}, pongs)
	require.NoError(t, c.Close())
}

// echo has the middle of a conversation; the types of messages are those of gorilla.
func echo(t *testing.T, with server, write func(typ int, msg []byte) error, writeStream func(s string) error, read func() (int, []byte, error)) {
	exchangeBy := func(typ int, write func() error, want func([]byte) bool) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- write() }()
		gotType, got, err := read()
		require.NoError(t, err)
		require.NoError(t, <-done)
		require.Equal(t, typ, gotType)
		require.True(t, want(got), "%.100q", got)
	}
	exchange := func(typ int, msg []byte, want func([]byte) bool) {
		t.Helper()
		exchangeBy(typ, func() error { return write(typ, msg) }, want)
	}
	texts, binaries := payloads()
	for _, text := range texts {
		exchange(gorilla.TextMessage, []byte(text), func(got []byte) bool { return string(got) == text })
	}
	for _, b := range binaries {
		exchange(gorilla.BinaryMessage, b, func(got []byte) bool { return bytes.Equal(got, b) })
	}
	exchangeBy(gorilla.TextMessage, func() error { return writeStream(long) }, func(got []byte) bool { return string(got) == long })
	if with.plain {
		return
	}
	exchange(gorilla.TextMessage, []byte("fragments:"+long), func(got []byte) bool { return string(got) == long })
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
		c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coderMode(compress, takeover), CompressionThreshold: 1})
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
					_ = errors.As(err, &ce)
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
					err = stream(w, rest)
				}
			case command == "ping":
				// coder reads only in Read: a Ping of its own needs another goroutine.
				go func() {
					if c.Ping(ctx) == nil {
						_ = c.Write(ctx, coder.MessageText, []byte("pong"))
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

func coderClient(t *testing.T, with server) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	opts := &coder.DialOptions{CompressionMode: coderMode(with.compress, with.takeover), CompressionThreshold: 1}
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
	writeStream := func(s string) error {
		w, err := c.Writer(ctx, coder.MessageText)
		if err != nil {
			return err
		}
		return stream(w, s)
	}
	echo(t, with, func(typ int, msg []byte) error { return c.Write(ctx, coder.MessageType(typ), msg) }, writeStream,
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
	require.True(t, errors.As(<-read, &ce))
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
		_ = c.WriteString("pong")
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
		_ = c.WriteFile(gws.OpcodeText, strings.NewReader(rest)) // in segments of 128 KiB
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
		case <-time.After(20 * time.Second):
			return 0, nil, fmt.Errorf("timed out")
		}
	}
	writeStream := func(s string) error { return c.WriteFile(gws.OpcodeText, strings.NewReader(s)) }
	echo(t, with, func(typ int, msg []byte) error { return c.WriteMessage(gws.Opcode(typ), msg) }, writeStream, read)
	require.NoError(t, c.WritePing([]byte("abc")))
	select {
	case payload := <-h.pong:
		require.Equal(t, "abc", payload)
	case <-time.After(20 * time.Second):
		require.FailNow(t, "no Pong")
	}
	if !with.plain {
		require.NoError(t, c.WriteString("close:4001:bye"))
		_, _, err := read()
		ce, ok := err.(*gws.CloseError)
		require.True(t, ok, "%v", err)
		require.Equal(t, "4001 bye", fmt.Sprintf("%d %s", ce.Code, ce.Reason))
		c, h = dial()
	}
	require.NoError(t, c.WriteClose(4002, []byte("see you")))
	_, _, err := read()
	require.EqualValues(t, 4002, err, "its own code: it does not read the answer")
}
