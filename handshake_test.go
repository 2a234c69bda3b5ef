package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The options that the files in testdata/handshake/requests are answered with.
var vectorOptions = &AcceptOptions{
	Subprotocols: []string{"chat.v2", "chat"},
	TrustedOrigins: []string{
		"https://trusted.example", "http://trusted.example:8080", "http://[2001:db8::1]:8080",
		"chrome-extension://abcdefghijklmnop", "https://*.wild.example",
	},
}

// handshakeVectors calls f for each file of a directory in testdata/handshake, with its
// expectation.
func handshakeVectors(t *testing.T, dir string, f func(t *testing.T, vector, want string)) {
	files, err := filepath.Glob(filepath.Join("testdata", "handshake", dir, "*.http"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := strings.TrimSuffix(file, ".http")
		t.Run(filepath.Base(name), func(t *testing.T) {
			vector, err := os.ReadFile(file)
			require.NoError(t, err)
			want, err := os.ReadFile(name + ".want")
			require.NoError(t, err)
			require.Equal(t, bytes.Count(vector, []byte("\n")), bytes.Count(vector, []byte("\r\n")), "line ends of %s", file)
			f(t, string(vector), string(want))
		})
	}
}

// hijackable is a ResponseWriter in memory whose connection can be taken over.
type hijackable struct {
	*httptest.ResponseRecorder
	conn memoryConn
	in   string // what the client sent behind its request
	err  error
}

func (w *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.err != nil {
		return nil, nil, w.err
	}
	r := bufio.NewReader(strings.NewReader(w.in))
	_, _ = r.Peek(len(w.in))
	return &w.conn, bufio.NewReadWriter(r, bufio.NewWriter(&w.conn)), nil
}

// memoryConn records what is written to it and has nothing to read.
type memoryConn struct {
	net.TCPConn // the zero value: its methods return errors
	writes      []string
	deadlines   []time.Time
	closed      bool
	err         error // of Write
}

func (c *memoryConn) Write(p []byte) (int, error) {
	c.writes = append(c.writes, string(p))
	return len(p), c.err
}
func (c *memoryConn) Close() error                       { c.closed = true; return nil }
func (c *memoryConn) SetDeadline(t time.Time) error      { c.deadlines = append(c.deadlines, t); return nil }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *memoryConn) SetReadDeadline(time.Time) error    { return nil }

func handshakeRequest() *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://server.example.com/chat", nil)
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	r.Header.Set("Sec-WebSocket-Version", "13")
	return r
}

// dumpResponse is what a client sees of a recorded response.
func dumpResponse(w *httptest.ResponseRecorder) string {
	var b strings.Builder
	b.WriteString("HTTP/1.1 " + w.Result().Status + "\r\n")
	_ = w.Result().Header.Write(&b)
	return b.String() + "\r\n" + w.Body.String()
}

func TestAcceptVectors(t *testing.T) {
	handshakeVectors(t, "requests", func(t *testing.T, vector, want string) {
		good := strings.HasPrefix(filepath.Base(t.Name()), "good-")
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(vector)))
		require.NoError(t, err)
		w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
		c, err := Accept(w, r, vectorOptions)
		if !good {
			assert.Nil(t, c)
			assert.Empty(t, w.conn.writes)
			assert.Equal(t, want, dumpResponse(w.ResponseRecorder))
			assertOnePrefix(t, err)
			return
		}
		require.NoError(t, err)
		assert.Equal(t, []string{want}, w.conn.writes, "the response is one write")
		assert.Zero(t, w.Body.Len())
	})
}

// The same over the network, where net/http answers some requests in our place.
func TestAcceptVectorsOverTCP(t *testing.T) {
	reached := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, vectorOptions)
		if err == nil {
			c.Close()
		}
		reached <- err
	}))
	defer srv.Close()
	handshakeVectors(t, "requests", func(t *testing.T, vector, want string) {
		nc, err := net.Dial("tcp", srv.Listener.Addr().String())
		require.NoError(t, err)
		defer nc.Close()
		_, err = io.WriteString(nc, vector)
		require.NoError(t, err)
		br := bufio.NewReader(nc)
		if strings.HasPrefix(filepath.Base(t.Name()), "good-") {
			got := make([]byte, len(want))
			_, err = io.ReadFull(br, got)
			require.NoError(t, err)
			assert.Equal(t, want, string(got))
			require.NoError(t, <-reached)
			return
		}
		method, _, _ := strings.Cut(vector, " ")
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		require.NoError(t, err)
		defer resp.Body.Close()
		expected, err := http.ReadResponse(bufio.NewReader(strings.NewReader(want)), &http.Request{Method: method})
		require.NoError(t, err)
		assert.Equal(t, expected.StatusCode, resp.StatusCode)
		select {
		case err := <-reached:
			assertOnePrefix(t, err)
		default:
			return // net/http asks for a Host header itself
		}
		for name, values := range expected.Header {
			assert.Equal(t, values, resp.Header.Values(name), name)
		}
		if method != http.MethodHead {
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			text, err := io.ReadAll(expected.Body)
			require.NoError(t, err)
			assert.Equal(t, string(text), string(got))
		}
	})
}

func assertOnePrefix(t *testing.T, err error) {
	t.Helper()
	if assert.Error(t, err) {
		assert.Regexp(t, `^websocket: `, err.Error())
		assert.Equal(t, 1, strings.Count(err.Error(), "websocket: "), err.Error())
	}
}

func TestAcceptKey(t *testing.T) {
	for key, want := range map[string]string{
		"dGhlIHNhbXBsZSBub25jZQ==": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", // RFC 6455 section 1.3
		"L4kHN+1Bx7zKbxsDbqgzHw==": "CTPN8jCb3BUjBjBtdjwSQCytuBo=",
	} {
		assert.Equal(t, want, acceptKey(key))
	}
}

// Where only the algorithms of FIPS 140 are allowed, SHA-1 would panic.
func TestAcceptKeyFIPS140(t *testing.T) {
	if fips140.Enforced() || runtime.GOOS == "js" {
		t.Skip("runs itself as a command")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAcceptKey$", "-test.count=1")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

// Line ends, which the decoder of base64 skips, do not arrive by HTTP, but a Request may be
// made by other means.
func TestAcceptKeyWithLineEnd(t *testing.T) {
	assert.True(t, validKey("dGhlIHNhbXBsZSBub25jZQ=="))
	assert.False(t, validKey("dGhlIHNhbXBsZSBub25jZQ==\n"))
	assert.False(t, validKey("dGhlIHNhbXBs\r\nZSBub25jZQ=="))
}

func TestAcceptHeaders(t *testing.T) {
	w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
	h := w.Header()
	http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	http.SetCookie(w, &http.Cookie{Name: "c", Value: "d"})
	h.Set("X-Request-Id", "1\r\nSec-WebSocket-Protocol: evil\r\n\r\nbody")
	h["X-Bad Name"] = []string{"x"}
	h["X-Bad\r\nName"] = []string{"x"}
	h["X-None"] = nil
	for _, name := range []string{"Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions",
		"Sec-WebSocket-Future", "Content-Length", "Transfer-Encoding", "Trailer"} {
		h.Set(name, "evil")
		h[name] = []string{"evil"}
		h[strings.ToLower(name)] = []string{"evil"}
	}
	_, err := Accept(w, handshakeRequest(), nil)
	require.NoError(t, err)
	require.Len(t, w.conn.writes, 1)
	assert.Equal(t, "HTTP/1.1 101 Switching Protocols\r\n"+
		"Upgrade: websocket\r\n"+
		"Connection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"+
		"Set-Cookie: a=b\r\n"+
		"Set-Cookie: c=d\r\n"+
		"X-Request-Id: 1  Sec-WebSocket-Protocol: evil    body\r\n"+
		"\r\n", w.conn.writes[0])
}

func TestAcceptClearsDeadlines(t *testing.T) {
	w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
	_, err := Accept(w, handshakeRequest(), nil)
	require.NoError(t, err)
	require.Len(t, w.conn.deadlines, 3)
	assert.True(t, w.conn.deadlines[0].IsZero(), "of both directions")
	assert.False(t, w.conn.deadlines[1].IsZero(), "the response is written in bounded time")
	assert.True(t, w.conn.deadlines[2].IsZero())
}

// A response that a socket does not take at once goes out too, and deadlines that are left on
// the socket have no say in that.
func TestAcceptOnASocket(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){"TCP": tcpPair, "Unix": unixPair} {
		for _, size := range []int{10, 4 << 20} {
			t.Run(fmt.Sprintf("%s, %d", name, size), func(t *testing.T) {
				peer, nc := pair(t)
				require.NoError(t, nc.SetDeadline(longAgo))
				w := pipeWriter{httptest.NewRecorder(), nc}
				w.Header().Set("X-Long", strings.Repeat("x", size))
				done := later(func() error {
					c, err := Accept(w, handshakeRequest(), nil)
					if err == nil {
						err = c.Write(t.Context(), Text, []byte("Hello"))
					}
					return errors.Join(err, nc.Close())
				})
				got, err := io.ReadAll(peer)
				require.NoError(t, err)
				require.NoError(t, <-done)
				br := bufio.NewReader(bytes.NewReader(got))
				resp, err := http.ReadResponse(br, nil)
				require.NoError(t, err)
				require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
				require.Len(t, resp.Header.Get("X-Long"), size)
				rest, err := io.ReadAll(br)
				require.NoError(t, err)
				require.Equal(t, frame(true, OpText, "Hello", false), rest)
			})
		}
	}
}

func TestAcceptWriteFails(t *testing.T) {
	broken := errors.New("broken")
	w := &hijackable{ResponseRecorder: httptest.NewRecorder(), conn: memoryConn{err: broken}}
	c, err := Accept(w, handshakeRequest(), nil)
	assert.Nil(t, c)
	require.ErrorIs(t, err, broken)
	assertOnePrefix(t, err)
	assert.True(t, w.conn.closed)
}

// Hijack of a middleware may have no buffers to return.
func TestAcceptWithoutBuffers(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go io.Copy(io.Discard, theirs)
	c, err := Accept(pipeWriter{httptest.NewRecorder(), ours}, handshakeRequest(), nil)
	require.NoError(t, err)
	assert.NoError(t, c.Close())
}

func TestAcceptWithoutDeadlines(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go io.Copy(io.Discard, theirs)
	c, err := Accept(pipeWriter{httptest.NewRecorder(), noDeadlines{ours}}, handshakeRequest(), nil)
	require.NoError(t, err)
	assert.NoError(t, c.Close())
}

// Elements of a list take more memory than they took on the wire.
func TestAcceptLongLists(t *testing.T) {
	for header, elem := range map[string]func(i int) string{
		"Sec-WebSocket-Protocol":   func(i int) string { return fmt.Sprintf("p%d", i) },
		"Sec-WebSocket-Extensions": func(i int) string { return []string{"a", "a;", "b=1"}[i%3] },
	} {
		list := func(n int) string {
			var b strings.Builder
			for i := range n {
				if i > 0 && !strings.HasSuffix(b.String(), ";") {
					b.WriteByte(',')
				}
				b.WriteString(elem(i))
			}
			return b.String()
		}
		for _, test := range []struct{ n, status int }{{99, 101}, {maxListed, 101}, {102, 400}, {100_000, 400}} {
			r := handshakeRequest()
			r.Header.Set(header, list(test.n))
			_, ref := checkRequest(r)
			if test.status == 101 {
				assert.Nil(t, ref)
				continue
			}
			if assert.NotNil(t, ref) {
				assert.Equal(t, test.status, ref.status)
				assert.ErrorContains(t, ref, header+": more than 100 elements")
			}
		}
	}
}

func TestAcceptCannotHijack(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		w      http.ResponseWriter
		status int
		is     error
	}{
		"no Hijacker":            {httptest.NewRecorder(), http.StatusNotImplemented, http.ErrNotSupported},
		"wrapper of no Hijacker": {wrapped{httptest.NewRecorder()}, http.StatusNotImplemented, http.ErrNotSupported},
		"Hijack fails":           {&hijackable{ResponseRecorder: httptest.NewRecorder(), err: broken}, http.StatusInternalServerError, broken},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Accept(test.w, handshakeRequest(), nil)
			assert.Nil(t, c)
			require.ErrorIs(t, err, test.is)
			assertOnePrefix(t, err)
			var rec *httptest.ResponseRecorder
			switch w := test.w.(type) {
			case *httptest.ResponseRecorder:
				rec = w
			case wrapped:
				rec = w.ResponseWriter.(*httptest.ResponseRecorder)
			case *hijackable:
				rec = w.ResponseRecorder
			}
			assert.Equal(t, test.status, rec.Code)
			assert.Equal(t, http.StatusText(test.status)+"\n", rec.Body.String())
		})
	}
}

// wrapped is what middleware makes of a ResponseWriter.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestAcceptOptionsMistakes(t *testing.T) {
	for name, opts := range map[string]*AcceptOptions{
		"origin without scheme":     {TrustedOrigins: []string{"https://good.example", "example.com"}},
		"origin with path":          {TrustedOrigins: []string{"https://example.com/"}},
		"origin empty":              {TrustedOrigins: []string{""}},
		"origin null":               {TrustedOrigins: []string{"null"}},
		"origin after the asterisk": {TrustedOrigins: []string{"*", "example.com"}},
		"wildcard alone":            {TrustedOrigins: []string{"https://*"}},
		"wildcard without dot":      {TrustedOrigins: []string{"https://*example.com"}},
		"wildcard inside":           {TrustedOrigins: []string{"https://a.*.example.com"}},
		"wildcard twice":            {TrustedOrigins: []string{"https://*.*.example.com"}},
		"wildcard of an address":    {TrustedOrigins: []string{"https://*.127.0.0.1"}},
		"wildcard port":             {TrustedOrigins: []string{"https://example.com:*"}},
		"international name":        {TrustedOrigins: []string{"https://bücher.example"}},
		"impossible port":           {TrustedOrigins: []string{"https://example.com:99999"}},
		"subprotocol twice":         {Subprotocols: []string{"chat", "chat"}},
		"subprotocol no token":      {Subprotocols: []string{"chat, soap"}},
		"subprotocol empty":         {Subprotocols: []string{""}},
		"window":                    {Compression: &Compression{WindowBits: 16}},
		"level":                     {Compression: &Compression{Level: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			// Even where it would not matter: there is no Origin, no subprotocol is offered.
			w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
			c, err := Accept(w, handshakeRequest(), opts)
			assert.Nil(t, c)
			assertOnePrefix(t, err)
			assert.ErrorContains(t, err, "AcceptOptions.")
			assert.Equal(t, http.StatusInternalServerError, w.Code)
			assert.Equal(t, "Internal Server Error\n", w.Body.String(), "the client learns nothing of it")
			assert.Empty(t, w.conn.writes)
		})
	}
}

func TestAcceptAnyOrigin(t *testing.T) {
	for _, from := range []string{"https://evil.example", "null", "file://", ""} {
		r := handshakeRequest()
		r.Header.Set("Origin", from)
		_, err := Accept(&hijackable{ResponseRecorder: httptest.NewRecorder()}, r, &AcceptOptions{TrustedOrigins: []string{"*"}})
		assert.NoError(t, err, from)
	}
}

// A proxy that passes on another Host hides what the page's own host is. What says so besides,
// anybody can write.
func TestAcceptOriginBehindProxy(t *testing.T) {
	const public = "https://www.example.com"
	for name, test := range map[string]struct {
		host    string
		header  http.Header
		trusted []string
		ok      bool
	}{
		"Host kept, TLS ends at the proxy": {"www.example.com", nil, nil, true},
		"Host rewritten":                   {"10.0.0.7:8080", nil, nil, false},
		"and the public origin trusted":    {"10.0.0.7:8080", nil, []string{public}, true},
		"and its subdomains trusted":       {"10.0.0.7:8080", nil, []string{"https://*.example.com"}, true},
		"and another scheme trusted":       {"10.0.0.7:8080", nil, []string{"http://www.example.com"}, false},
		"and what is above it trusted":     {"10.0.0.7:8080", nil, []string{"https://example.com"}, false},
		"X-Forwarded-Host":                 {"10.0.0.7:8080", http.Header{"X-Forwarded-Host": {"www.example.com"}}, nil, false},
		"Forwarded":                        {"10.0.0.7:8080", http.Header{"Forwarded": {"host=www.example.com;proto=https"}}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := handshakeRequest()
			maps.Copy(r.Header, test.header)
			r.Host = test.host
			r.Header.Set("Origin", public)
			w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
			_, err := Accept(w, r, &AcceptOptions{TrustedOrigins: test.trusted})
			if test.ok {
				require.NoError(t, err)
				return
			}
			assertOnePrefix(t, err)
			require.Equal(t, http.StatusForbidden, w.Code)
			require.Contains(t, err.Error(), "10.0.0.7:8080", "the log tells what to look for")
		})
	}
}

// The two kinds of proxy as net/http/httputil makes them.
func TestAcceptBehindReverseProxy(t *testing.T) {
	for name, test := range map[string]struct {
		keepHost, trust bool
		status          int
	}{
		"Host kept":                        {true, false, http.StatusSwitchingProtocols},
		"Host rewritten":                   {false, false, http.StatusForbidden},
		"Host rewritten, public one known": {false, true, http.StatusSwitchingProtocols},
	} {
		t.Run(name, func(t *testing.T) {
			opts := &AcceptOptions{}
			if test.trust {
				opts.TrustedOrigins = []string{"https://www.example.com"}
			}
			inner := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := Accept(w, r, opts)
				if err != nil {
					return
				}
				defer c.Close()
				for {
					typ, msg, err := c.Read(context.Background(), nil)
					if err != nil || c.Write(context.Background(), typ, msg) != nil {
						return
					}
				}
			}))
			target, err := url.Parse(inner.URL)
			require.NoError(t, err)
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			outer := newServer(t, &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				if test.keepHost {
					r.Out.Host = r.In.Host
				}
				r.SetXForwarded()
			}})
			c, resp, err := Dial(t.Context(), wsURL(outer), &DialOptions{HTTPClient: freshClient(t),
				Header: http.Header{"Host": {"www.example.com"}, "Origin": {"https://www.example.com"}}})
			require.NotNil(t, resp, "%v", err)
			require.Equal(t, test.status, resp.StatusCode)
			if err == nil {
				defer c.Close()
				assertEchoes(t, c)
				require.NoError(t, c.Shutdown(t.Context(), StatusNormalClosure, ""))
			}
		})
	}
}

// RFC 8441 section 4: what an HTTP/2 server would hand to its handler.
func TestAcceptExtendedConnect(t *testing.T) {
	r := httptest.NewRequest(http.MethodConnect, "https://server.example.com/chat", nil)
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	r.Header[":protocol"] = []string{"websocket"}
	w := httptest.NewRecorder()
	_, err := Accept(w, r, nil)
	assertOnePrefix(t, err)
	assert.Equal(t, http.StatusHTTPVersionNotSupported, w.Code)
	assert.Contains(t, w.Body.String(), "connect over HTTP/1.1")
}

func TestAcceptHTTP2PlainRequest(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := Accept(w, r, nil)
		assertOnePrefix(t, err)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, 2, resp.ProtoMajor)
	assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Contains(t, string(text), "Connect with a WebSocket client")
}

const (
	// maskedHello is a Text frame with "Hello" of a client, helloFrame one of a server
	// (RFC 6455 section 5.7).
	maskedHello = "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
	helloFrame  = "\x81\x05Hello"
)

func sampleRequest(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/handshake/requests/good-minimal.http")
	require.NoError(t, err)
	return string(b)
}

// Real servers, plain and with TLS, behind middleware that wraps the ResponseWriter twice:
// what the client sent behind its request is read first, and the handler's end and the
// server's limits do not touch the connection.
func TestAcceptBuffered(t *testing.T) {
	for _, count := range []int{1, 300} { // 300 frames are more than fits in a small buffer
		accepted := make(chan *Conn, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := Accept(wrapped{wrapped{w}}, r, nil)
			assert.NoError(t, err)
			accepted <- c
		}))
		nc, err := net.Dial("tcp", srv.Listener.Addr().String())
		require.NoError(t, err)
		_, err = io.WriteString(nc, sampleRequest(t)+strings.Repeat(maskedHello, count))
		require.NoError(t, err)
		c := <-accepted
		require.NotNil(t, c)
		for range count {
			typ, msg, err := c.Read(context.Background(), nil)
			require.NoError(t, err)
			assert.Equal(t, Text, typ)
			require.Equal(t, "Hello", string(msg))
		}
		assert.Equal(t, srv.Listener.Addr().String(), c.LocalAddr().String())
		assert.Equal(t, nc.LocalAddr().String(), c.RemoteAddr().String())
		c.Close()
		nc.Close()
		srv.Close()
	}
}

// handshakeInMemory has srv answer a handshake and returns the client's end of the connection,
// with a reader of what comes behind the response.
func handshakeInMemory(t *testing.T, srv *http.Server) (net.Conn, *bufio.Reader) {
	ln := newPipeListener()
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	nc, err := ln.dial()
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	go io.WriteString(nc, sampleRequest(t))
	br := bufio.NewReader(nc)
	_, err = http.ReadResponse(br, nil)
	require.NoError(t, err)
	return nc, br
}

// A server's timeouts hold for requests, not for connections that were taken over.
func TestAcceptOutlivesTheServersTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accepted := make(chan *Conn, 1)
		nc, _ := handshakeInMemory(t, &http.Server{
			ReadTimeout: time.Second, WriteTimeout: time.Second, IdleTimeout: time.Second,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := Accept(w, r, &AcceptOptions{KeepAlive: -1})
				assert.NoError(t, err)
				accepted <- c
			}),
		})
		c := <-accepted
		defer c.Close()
		elapse(time.Hour)

		go io.WriteString(nc, maskedHello)
		_, msg, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		assert.Equal(t, "Hello", string(msg))
		go func() { assert.NoError(t, c.Write(t.Context(), Text, []byte("Hello"))) }()
		got := make([]byte, len(helloFrame))
		_, err = io.ReadFull(nc, got)
		require.NoError(t, err)
		assert.Equal(t, helloFrame, string(got))
	})
}

// The keepalive is that of accepted connections too.
func TestAcceptKeepsAlive(t *testing.T) {
	for interval, opts := range map[time.Duration]*AcceptOptions{
		30 * time.Second: nil,
		time.Minute:      {KeepAlive: time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			read := make(chan error, 1)
			_, br := handshakeInMemory(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := Accept(w, r, opts)
				if assert.NoError(t, err) {
					_, _, err = c.Read(context.Background(), nil)
				}
				read <- err
			})})
			start := time.Now()
			ping := make([]byte, 2)
			_, err := io.ReadFull(br, ping)
			require.NoError(t, err)
			require.Equal(t, frame(true, OpPing, "", false), ping)
			require.LessOrEqual(t, time.Since(start), interval)
			require.ErrorIs(t, <-read, os.ErrDeadlineExceeded)
			require.LessOrEqual(t, time.Since(start), 2*interval)
		})
	}
}

// A client that does not read must not hold Accept for ever, whatever the response.
func TestAcceptWriteTimeout(t *testing.T) {
	for want, shutdown := range map[error]bool{os.ErrDeadlineExceeded: false, http.ErrServerClosed: true} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			var conns Conns
			w := hijackingWriter{pipeWriter{httptest.NewRecorder(), ours}, func() {
				if shutdown {
					assert.NoError(t, conns.Shutdown(t.Context(), StatusGoingAway, ""))
				}
			}}
			start := time.Now()
			c, err := Accept(w, handshakeRequest(), &AcceptOptions{Conns: &conns})
			assert.Nil(t, c)
			require.ErrorIs(t, err, want)
			assert.Equal(t, acceptTimeout, time.Since(start))
		})
	}
}

type pipeWriter struct {
	http.ResponseWriter
	nc net.Conn
}

func (w pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.nc, nil, nil }

// pipeListener is a network in memory, for tests with a fake clock.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) dial() (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return hostAddr("pipe") }

// FuzzRequest: whatever is accepted obeys the rules, and is answered in one write.
func FuzzRequest(f *testing.F) {
	files, err := filepath.Glob("testdata/handshake/requests/*.http")
	require.NoError(f, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(b, false, true)
		f.Add(b, true, false)
	}
	key := regexp.MustCompile(`^[A-Za-z0-9+/]{21}[AQgw]==$`)
	upgrade := regexp.MustCompile(`(?:^|,)[ \t]*[wW][eE][bB][sS][oO][cC][kK][eE][tT][ \t]*(?:,|$)`)
	connection := regexp.MustCompile(`(?:^|,)[ \t]*[uU][pP][gG][rR][aA][dD][eE][ \t]*(?:,|$)`)
	protocols := regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z, \t]*$")
	f.Fuzz(func(t *testing.T, b []byte, compression, anyOrigin bool) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		opts := &AcceptOptions{Subprotocols: []string{"chat"}, TrustedOrigins: []string{"https://*.example.com"}}
		if compression {
			opts.Compression = &Compression{ContextTakeover: true}
		}
		if anyOrigin {
			opts.TrustedOrigins = []string{"*"}
		}
		origins := r.Header.Values("Origin")
		trusted := anyOrigin || len(origins) == 0 || regexp.MustCompile(`(?i)^https?://`).MatchString(strings.Join(origins, "\n"))
		h := r.Header
		valid := r.Method == "GET" && r.Proto >= "HTTP/1.1" && r.Host != "" && r.ContentLength == 0 && r.TransferEncoding == nil &&
			upgrade.MatchString(strings.Join(h["Upgrade"], ",")) &&
			connection.MatchString(strings.Join(h["Connection"], ",")) &&
			strings.Join(h["Sec-Websocket-Version"], "\n") == "13" &&
			key.MatchString(strings.Join(h["Sec-Websocket-Key"], "\n"))

		w := &hijackable{ResponseRecorder: httptest.NewRecorder(), in: string(frame(true, OpText, "behind", true))}
		c, err := Accept(w, r, opts)
		if err != nil {
			assert.Nil(t, c)
			assert.Regexp(t, `^websocket: `, err.Error())
			if w.Code == 403 {
				assert.NotEmpty(t, origins)
				assert.False(t, anyOrigin)
				return
			}
			assert.Contains(t, []int{400, 426, 505}, w.Code)
			assert.Empty(t, w.conn.writes)
			assert.Less(t, w.Body.Len(), 1000)
			if valid {
				assert.Regexp(t, "Sec-WebSocket-(Protocol|Extensions)", err.Error())
			}
			return
		}
		assert.True(t, valid && trusted, "accepted")
		offered := strings.Join(h["Sec-Websocket-Protocol"], ",")
		assert.Regexp(t, protocols, offered)
		require.Len(t, w.conn.writes, 1)
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(w.conn.writes[0])), r)
		require.NoError(t, err)
		if agreed := resp.Header.Values("Sec-WebSocket-Extensions"); len(agreed) > 0 {
			assert.True(t, compression)
			assert.Regexp(t, `^permessage-deflate(;|$)`, agreed[0])
			assert.Contains(t, strings.Join(h["Sec-Websocket-Extensions"], ","), "permessage-deflate")
			assert.NotNil(t, c.out.deflate)
			resp.Header.Del("Sec-WebSocket-Extensions") // an answer to another client's offer
		} else {
			assert.Nil(t, c.out.deflate)
		}
		_, behind, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		assert.Equal(t, "behind", string(behind))
		cfg, err := checkResponse(resp, h.Get("Sec-WebSocket-Key"), &DialOptions{Subprotocols: []string{"chat"}})
		require.NoError(t, err, "our own client refuses it")
		assert.Equal(t, c.Subprotocol(), cfg.subprotocol)
		assert.Equal(t, regexp.MustCompile(`(?:^|,)[ \t]*chat[ \t]*(?:,|$)`).MatchString(offered), cfg.subprotocol == "chat")
	})
}
