package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/strictws/websocket"
)

// A bubble runs sessions on fake time, with a server that is reached through memory.
type bubble struct {
	serve       http.HandlerFunc
	wrap        func(net.Conn) net.Conn // of the client's end; nil: as it is
	stdin       io.Reader               // nil: one that has ended
	stdout      io.Writer               // nil: out
	interactive bool
	out, errs   output
}

// run returns the exit status and how long the session took. It is called in a bubble of synctest.
func (b *bubble) run(ctx context.Context, t *testing.T, args ...string) (status int, took time.Duration) {
	t.Helper()
	ln := &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: b.serve}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()

	cfg, err := parse(append(args, "ws://127.0.0.1"))
	require.NoError(t, err)
	cfg.options.HTTPClient = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			ln.conns <- end{server}
			if b.wrap != nil {
				return b.wrap(end{client}), nil
			}
			return end{client}, nil
		},
	}}
	c, _, err := websocket.Dial(ctx, cfg.url, &cfg.options)
	require.NoError(t, err)
	defer c.Close()
	if b.stdin == nil {
		b.stdin = strings.NewReader("")
	}
	if b.stdout == nil {
		b.stdout = &b.out
	}
	s := newSession(cfg, c, b.stdout, &b.errs)
	s.interactive = b.interactive
	start := time.Now()
	return s.run(ctx, b.stdin), time.Since(start)
}

// end is one of a net.Pipe. As with TCP, its deadlines can be set when the other one is gone.
type end struct{ net.Conn }

func (e end) SetDeadline(t time.Time) error      { _ = e.Conn.SetDeadline(t); return nil }
func (e end) SetReadDeadline(t time.Time) error  { _ = e.Conn.SetReadDeadline(t); return nil }
func (e end) SetWriteDeadline(t time.Time) error { _ = e.Conn.SetWriteDeadline(t); return nil }

// memory is a net.Listener.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { close(m.closed); return nil }
func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// accepted serves a connection by f.
func accepted(f func(ctx context.Context, c *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			defer c.Close()
			f(r.Context(), c)
		}
	}
}

// listen reads until the connection ends.
func listen(ctx context.Context, c *websocket.Conn) {
	for {
		if _, _, err := c.Read(ctx, nil); err != nil {
			return
		}
	}
}

// mute does the handshake (RFC 6455 section 4.2.2), then takes everything and says nothing.
func mute(w http.ResponseWriter, r *http.Request) {
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer nc.Close()
	fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(accept[:]))
	_, _ = io.Copy(io.Discard, nc)
}

func TestEndOfInput(t *testing.T) {
	// The server answers after a time, and then so often.
	answer := func(after, every time.Duration, times int) http.HandlerFunc {
		return accepted(func(ctx context.Context, c *websocket.Conn) {
			_, msg, err := c.Read(ctx, nil)
			if err != nil {
				return
			}
			go func() {
				for wait := after; times > 0; times-- {
					select {
					case <-time.After(wait):
					case <-ctx.Done():
						return
					}
					if c.Write(ctx, websocket.Text, msg) != nil {
						return
					}
					wait = every
				}
			}()
			listen(ctx, c)
		})
	}
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		args  []string
		want  int // messages
		took  time.Duration
	}{
		{"the answer is waited for", answer(900*time.Millisecond, 0, 1), nil, 1, 1900 * time.Millisecond},
		{"but not for long", answer(1100*time.Millisecond, 0, 1), nil, 0, time.Second},
		{"-wait", answer(1100*time.Millisecond, 0, 1), []string{"-wait", "2s"}, 1, 3100 * time.Millisecond},
		{"a talkative server", answer(600*time.Millisecond, 600*time.Millisecond, 1000), nil, 16, 10 * time.Second},
		{"-n", answer(20*time.Second, 5*time.Second, 2), []string{"-n", "2"}, 2, 25 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{serve: tt.serve, stdin: strings.NewReader("hello")}
				status, took := b.run(t.Context(), t, tt.args...)
				assert.Equal(t, statusDone, status)
				assert.Equal(t, tt.took, took)
				assert.Equal(t, strings.Repeat("hello\n", tt.want), b.out.String())
				assert.Empty(t, b.errs.String())
			})
		})
	}
}

func TestServerDoesNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{serve: mute}
		status, took := b.run(t.Context(), t, "-m", "x", "-wait", "3s")
		assert.Equal(t, statusBroken, status)
		assert.Equal(t, 3*time.Second+closeTimeout, took)
		assert.Equal(t, "wscat: websocket: the server did not close within 5s\n", b.errs.String())
	})
}

func TestPing(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want int
	}{
		{"verbose", []string{"-v"}, 3}, // after 0, 10 and 20 seconds
		{"silent", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stdin, w := io.Pipe()
				time.AfterFunc(25*time.Second, func() { w.Close() })
				b := &bubble{serve: accepted(listen), stdin: stdin}
				status, _ := b.run(t.Context(), t, append(tt.args, "-ping", "10s")...)
				assert.Equal(t, statusDone, status)
				assert.Equal(t, tt.want, strings.Count(b.errs.String(), "wscat: Pong after 0s\n"))
				assert.Equal(t, tt.want == 0, b.errs.String() == "")
			})
		})
	}
}

func TestNoPong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{serve: mute}
		status, took := b.run(t.Context(), t, "-ping", "10s", "-n", "1")
		assert.Equal(t, statusBroken, status)
		assert.Equal(t, 10*time.Second, took)
		assert.Equal(t, "wscat: no Pong within 10s\n", b.errs.String())
	})
}

// deaf is a connection that takes nothing after the handshake.
type deaf struct{ net.Conn }

func (d deaf) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("GET ")) {
		return d.Conn.Write(p)
	}
	return 0, syscall.EPIPE
}

// A server that closes and leaves breaks what is being sent. What it said in its Close is what counts.
func TestCloseIsPreferredToBrokenPipe(t *testing.T) {
	says := accepted(func(ctx context.Context, c *websocket.Conn) {
		<-time.After(time.Second)
		_ = c.Shutdown(ctx, websocket.StatusMessageTooBig, "keep it short")
	})
	for _, tt := range []struct {
		serve http.HandlerFunc
		want  string
		took  time.Duration
	}{
		{says, "wscat: websocket: closed by the peer: 1009 (message too big): \"keep it short\"\n", 2 * time.Second},
		{mute, "wscat: websocket: write: broken pipe\n", closeTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &bubble{serve: tt.serve, wrap: func(nc net.Conn) net.Conn { return deaf{nc} }}
			status, took := b.run(t.Context(), t, "-m", "x")
			assert.Equal(t, statusBroken, status)
			assert.Equal(t, tt.want, b.errs.String())
			assert.LessOrEqual(t, took, tt.took)
		})
	}
}

// stalled is an output that takes nothing until it is released.
type stalled chan struct{}

func (s stalled) Write(p []byte) (int, error) { <-s; return len(p), nil }

func TestStalledOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		out := make(stalled)
		defer close(out)
		stdin, w := io.Pipe()
		defer w.Close()
		time.AfterFunc(20*time.Second, interrupt) // before the server gives up on a peer that answers no Ping
		b := &bubble{stdin: stdin, stdout: out, serve: accepted(func(ctx context.Context, c *websocket.Conn) {
			_ = c.Write(ctx, websocket.Text, []byte("m"))
			listen(ctx, c)
		})}
		status, took := b.run(ctx, t)
		assert.Equal(t, statusBroken, status)
		assert.Equal(t, 20*time.Second+closeTimeout, took)
		assert.Equal(t, "wscat: the output did not take all messages\n", b.errs.String())
	})
}

func TestInteractive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stdin, w := io.Pipe()
		b := &bubble{interactive: true, stdin: stdin, serve: accepted(func(ctx context.Context, c *websocket.Conn) {
			for {
				typ, msg, err := c.Read(ctx, nil)
				if err != nil || c.Write(ctx, typ, msg) != nil {
					return
				}
			}
		})}
		go func() {
			for _, line := range []string{"Hello\n", "a\xff\n", "again\n"} {
				_, _ = io.WriteString(w, line)
				synctest.Wait()
			}
			w.Close()
		}()
		status, _ := b.run(t.Context(), t)
		assert.Equal(t, statusDone, status)
		assert.Equal(t, "Connected. Each line is a message; Ctrl-D or Ctrl-C closes the connection.\n"+
			"> > \r< Hello\n> > > \r< again\n> \n", b.out.String(), "what is typed is not in it")
		assert.Equal(t, "\rwscat: \"a\\xff\" is not UTF-8; -binary sends other bytes, in hex\n", b.errs.String())
	})
}
