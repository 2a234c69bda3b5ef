package websocket

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// nullConn is a network connection that takes everything and costs nothing, so that what is
// measured over it is this package.
type nullConn struct{ net.Conn }

func (nullConn) Write(p []byte) (int, error)      { return len(p), nil }
func (nullConn) Close() error                     { return nil }
func (nullConn) SetDeadline(time.Time) error      { return nil }
func (nullConn) SetReadDeadline(time.Time) error  { return nil }
func (nullConn) SetWriteDeadline(time.Time) error { return nil }

// hijackOnly is a ResponseWriter whose Hijack costs nothing.
type hijackOnly struct {
	header http.Header
	nc     net.Conn
	brw    *bufio.ReadWriter
}

func newHijackOnly() *hijackOnly {
	return &hijackOnly{
		header: make(http.Header),
		nc:     nullConn{},
		brw:    bufio.NewReadWriter(bufio.NewReader(strings.NewReader("")), bufio.NewWriter(io.Discard)),
	}
}

func (w *hijackOnly) Header() http.Header                          { return w.header }
func (w *hijackOnly) Write(p []byte) (int, error)                  { return len(p), nil }
func (w *hijackOnly) WriteHeader(int)                              {}
func (w *hijackOnly) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.nc, w.brw, nil }

// The handshakes that are measured, with the allocations that Accept may make for each.
var acceptCases = []struct {
	name   string
	header map[string]string // of the request, beyond those of handshakeRequest
	opts   *AcceptOptions
	allocs float64
}{
	{"plain", nil, nil, 7},
	{"browser", map[string]string{
		"Origin":                   "https://server.example.com",
		"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
	}, nil, 9},
	{"trusted origin", map[string]string{
		"Origin": "https://trusted.example",
	}, &AcceptOptions{TrustedOrigins: []string{"https://other.example", "https://trusted.example"}}, 7},
	{"subprotocol", map[string]string{
		"Sec-WebSocket-Protocol": "chat.v3, chat.v2, chat",
	}, &AcceptOptions{Subprotocols: []string{"chat.v2", "chat"}}, 10},
	{"compression", map[string]string{
		"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
	}, &AcceptOptions{Compression: &Compression{}}, 13},
}

func acceptRequest(header map[string]string) *http.Request {
	r := handshakeRequest()
	for name, value := range header {
		r.Header.Set(name, value)
	}
	return r
}

func TestAcceptAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, test := range acceptCases {
		r, w := acceptRequest(test.header), newHijackOnly()
		assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
			if _, err := Accept(w, r, test.opts); err != nil {
				t.Fatal(err)
			}
		}), test.allocs, test.name)
	}
}

// BenchmarkAccept is Accept alone: no HTTP server, no network.
func BenchmarkAccept(b *testing.B) {
	for _, test := range acceptCases {
		b.Run(test.name, func(b *testing.B) {
			r, w := acceptRequest(test.header), newHijackOnly()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Accept(w, r, test.opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkUpgrade is a handshake over TCP, from the client's connect to the closed
// connection, with the HTTP server's part and without a client to speak of.
func BenchmarkUpgrade(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := Accept(w, r, nil); err == nil {
			_ = c.nc.Close()
		}
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	request := []byte("GET /chat HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	response := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = nc.Write(request)
		n, err := io.ReadFull(nc, response)
		if err != io.ErrUnexpectedEOF || !strings.HasPrefix(string(response[:n]), "HTTP/1.1 101 ") {
			b.Fatalf("%v after %q", err, response[:n])
		}
		_ = nc.Close()
	}
}
