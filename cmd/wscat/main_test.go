package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/strictws/websocket"
	"github.com/strictws/websocket/echo"
)

// output is a buffer for several goroutines.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wscat runs the program to its end.
func wscat(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs output
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

func serve(t *testing.T, opts websocket.AcceptOptions) (url string) {
	t.Helper()
	s := &echo.Server{Options: opts, Logger: slog.New(slog.DiscardHandler)}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", s.Greeting)
	mux.HandleFunc("/echo", s.Messages)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http")
}

// handle serves each connection by f.
func handle(t *testing.T, f func(ctx context.Context, c *websocket.Conn, r *http.Request)) (url string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		f(r.Context(), c, r)
	}))
	t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http")
}

func TestConversation(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{})
	status, stdout, stderr := wscat(t, "Hello\r\nagain", "-n", "2", url+"/ws")
	assert.Equal(t, statusDone, status)
	assert.Equal(t, "Server: Hello. You said: Hello\nServer: Hello. You said: again\n", stdout)
	assert.Empty(t, stderr)
}

func TestOneShot(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{Compression: &websocket.Compression{}})
	status, stdout, stderr := wscat(t, "not sent", "-m", "a", "-m", "b", "-n", "2", "-v", "-compression", "on", url+"/echo")
	assert.Equal(t, statusDone, status)
	assert.Equal(t, "a\nb\n", stdout)
	assert.Contains(t, stderr, "101 Switching Protocols")
	assert.Contains(t, stderr, "permessage-deflate")
	assert.Contains(t, stderr, "wscat: closed with 1000")

	status, stdout, _ = wscat(t, "", "-m", "a", "-n", "1", "-q", url+"/echo")
	assert.Equal(t, statusDone, status)
	assert.Empty(t, stdout)
}

func TestCompression(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{Compression: &websocket.Compression{ContextTakeover: true}})
	long := strings.Repeat("all work and no play ", 100)
	for mode, want := range map[string]struct{ agreed, takeover bool }{"off": {}, "on": {agreed: true}, "takeover": {true, true}} {
		status, stdout, stderr := wscat(t, "", "-compression", mode, "-m", long, "-m", long, "-n", "2", "-v", url+"/echo")
		assert.Equal(t, statusDone, status)
		assert.Equal(t, long+"\n"+long+"\n", stdout)
		assert.Equal(t, want.agreed, strings.Contains(stderr, "permessage-deflate"), mode)
		assert.Equal(t, want.agreed && !want.takeover, strings.Contains(stderr, "no_context_takeover"), mode)
	}
}

func TestMaxMessageSize(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{})
	for size, want := range map[string]int{"3": statusBroken, "4": statusDone, "-1": statusDone} {
		status, _, stderr := wscat(t, "", "-max-message-size", size, "-m", "four", "-n", "1", url+"/echo")
		assert.Equal(t, want, status)
		assert.Equal(t, want == statusBroken, strings.Contains(stderr, "1009"), stderr)
	}
}

// What comes after the last message of -n is not printed, be it there already.
func TestNoMoreThanAskedFor(t *testing.T) {
	url := handle(t, func(ctx context.Context, c *websocket.Conn, _ *http.Request) {
		for range 100 {
			_ = c.Write(ctx, websocket.Text, []byte("m"))
		}
		_, _, _ = c.Read(ctx, nil)
	})
	for range 50 {
		status, stdout, _ := wscat(t, "", "-n", "2", url)
		assert.Equal(t, statusDone, status)
		require.Equal(t, "m\nm\n", stdout)
	}
}

func TestBinary(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{})
	status, stdout, stderr := wscat(t, "00 01 ff\n\n", "-binary", "-n", "2", url+"/echo")
	assert.Equal(t, statusDone, status)
	assert.Equal(t, "binary: 0001ff\nbinary: \n", stdout)
	assert.Empty(t, stderr)
}

// A line that cannot be sent ends a conversation that nobody types, by the closing handshake.
func TestInput(t *testing.T) {
	got := make(chan error, 1)
	url := handle(t, func(ctx context.Context, c *websocket.Conn, _ *http.Request) {
		for {
			if _, _, err := c.Read(ctx, nil); err != nil {
				got <- err
				return
			}
		}
	})
	run := func(stdin io.Reader, args ...string) (status int, stderr string) {
		var out, errs output
		status = run(t.Context(), append(args, url), stdin, &out, &errs)
		return status, errs.String()
	}
	for _, tt := range []struct {
		stdin io.Reader
		args  []string
		want  string
	}{
		{strings.NewReader("00\nno hex\n"), []string{"-binary"}, "wscat: \"no hex\" is not hex\n"},
		{strings.NewReader("fine\n\xff\n"), nil, "wscat: \"\\xff\" is not UTF-8; -binary sends other bytes, in hex\n"},
		{iotest.ErrReader(errors.New("the disk is gone")), nil, "wscat: the disk is gone\n"},
	} {
		status, stderr := run(tt.stdin, append(tt.args, "-close-code", "3000")...)
		assert.Equal(t, statusUsage, status)
		assert.Equal(t, tt.want, stderr)
		assert.Equal(t, &websocket.CloseError{Code: 3000}, <-got)
	}
}

func TestOutputFails(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{})
	r, w := io.Pipe()
	r.CloseWithError(errors.New("the disk is full"))
	var errs output
	stdin, in := io.Pipe() // without an end
	defer in.Close()
	go func() { _, _ = io.WriteString(in, "a\n") }()
	assert.Equal(t, statusBroken, run(t.Context(), []string{url + "/echo"}, stdin, w, &errs))
	assert.Equal(t, "wscat: the disk is full\n", errs.String())
}

func TestHandshake(t *testing.T) {
	seen := make(chan *http.Request, 1)
	url := handle(t, func(ctx context.Context, c *websocket.Conn, r *http.Request) {
		seen <- r
		_, _, _ = c.Read(ctx, nil)
	})
	status, _, _ := wscat(t, "", "-H", "X-One: 1", "-header", "X-One:2", "-origin", strings.Replace(url, "ws", "http", 1),
		"-subprotocol", "a,b", "-subprotocol", "c", "-wait", "1ms", url)
	assert.Equal(t, statusDone, status)
	r := <-seen
	assert.Equal(t, []string{"1", "2"}, r.Header["X-One"])
	assert.Equal(t, strings.Replace(url, "ws", "http", 1), r.Header.Get("Origin"))
	assert.Equal(t, "a, b, c", r.Header.Get("Sec-WebSocket-Protocol"))

	status, _, _ = wscat(t, "", "-H", "Host: elsewhere.example", "-wait", "0", url)
	assert.Equal(t, statusDone, status)
	assert.Equal(t, "elsewhere.example", (<-seen).Host)
}

func TestRefused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not for you", http.StatusForbidden)
	}))
	defer srv.Close()
	status, stdout, stderr := wscat(t, "", srv.URL)
	assert.Equal(t, statusRefused, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "403 Forbidden")
	assert.Contains(t, stderr, "not for you")

	srv.Close()
	status, _, stderr = wscat(t, "", srv.URL)
	assert.Equal(t, statusRefused, status)
	assert.Contains(t, stderr, "refused")

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	start := time.Now()
	status, _, stderr = wscat(t, "", "-timeout", "10ms", "ws://"+silent.Addr().String())
	assert.Equal(t, statusRefused, status)
	assert.Less(t, time.Since(start), 5*time.Second)
	assert.Contains(t, stderr, "deadline exceeded")
}

func TestTLS(t *testing.T) {
	s := &echo.Server{Logger: slog.New(slog.DiscardHandler)}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(s.Messages))
	srv.EnableHTTP2 = true // which cannot be upgraded
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	url := "wss" + strings.TrimPrefix(srv.URL, "https")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	require.NoError(t, os.WriteFile(ca, block, 0o600))

	status, _, stderr := wscat(t, "", "-m", "x", "-n", "1", url)
	assert.Equal(t, statusRefused, status)
	assert.Contains(t, stderr, "certificate")
	for _, trust := range [][]string{{"-insecure"}, {"-ca", ca}} {
		status, stdout, _ := wscat(t, "", append(trust, "-m", "x", "-n", "1", url)...)
		assert.Equal(t, statusDone, status)
		assert.Equal(t, "x\n", stdout)
	}
	for _, file := range []string{"missing.pem", "main_test.go"} {
		status, _, stderr = wscat(t, "", "-ca", file, url)
		assert.Equal(t, statusUsage, status)
		assert.Contains(t, stderr, file)
	}
}

func TestClosing(t *testing.T) {
	got := make(chan error, 1)
	url := handle(t, func(ctx context.Context, c *websocket.Conn, _ *http.Request) {
		_, _, err := c.Read(ctx, nil)
		got <- err
	})
	status, _, _ := wscat(t, "", "-wait", "1ms", "-close-code", "4000", "-close-reason", "enough", url)
	assert.Equal(t, statusDone, status)
	assert.Equal(t, &websocket.CloseError{Code: 4000, Reason: "enough"}, <-got)

	for code, want := range map[websocket.StatusCode]int{1000: statusDone, 1001: statusDone, 1011: statusBroken, 4000: statusBroken} {
		url := handle(t, func(ctx context.Context, c *websocket.Conn, _ *http.Request) {
			_ = c.Shutdown(ctx, code, "the server's reason")
		})
		stdin, w := io.Pipe() // an input without an end
		var out, errs output
		assert.Equal(t, want, run(t.Context(), []string{url}, stdin, &out, &errs), code)
		w.Close()
		assert.Equal(t, want != statusDone, strings.Contains(errs.String(), "the server's reason"))
		status, _, stderr := wscat(t, "", "-n", "1", url)
		assert.Equal(t, statusBroken, status, "a message is missing")
		assert.Equal(t, want == statusDone, strings.Contains(stderr, "fewer than"))
	}
}

func TestBroken(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			w, _ := c.NextWriter(r.Context(), websocket.Text)
			_, _ = w.Write(bytes.Repeat([]byte("\xff"), 100))
			_ = w.Close()
			_, _, _ = c.Read(r.Context(), nil)
			c.Close()
		}
	}))
	defer srv.Close()
	status, _, stderr := wscat(t, "", "-n", "1", srv.URL)
	assert.Equal(t, statusBroken, status)
	assert.Contains(t, stderr, "UTF-8")
}

func TestInterrupt(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{nil, statusDone},
		{[]string{"-n", "1"}, statusBroken}, // a message is missing
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		got := make(chan error, 1)
		url := handle(t, func(ctx context.Context, c *websocket.Conn, _ *http.Request) {
			_, _, _ = c.Read(ctx, nil)
			interrupt()
			_, _, err := c.Read(ctx, nil)
			got <- err
		})
		stdin, w := io.Pipe()
		defer w.Close()
		go func() { _, _ = io.WriteString(w, "line\n") }()
		var out, errs output
		args := append(tt.args, "-close-code", "4001", url)
		assert.Equal(t, tt.want, run(ctx, args, stdin, &out, &errs))
		assert.Equal(t, &websocket.CloseError{Code: 4001}, <-got)
		assert.Equal(t, tt.want == statusDone, errs.String() == "", errs.String())
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"a", "b"}, {"-nonsense", "ws://x"}, {"-H", "no colon", "ws://x"}, {"-compression", "maybe", "ws://x"},
		{"-close-code", "x", "ws://x"}, {"-close-code", "70000", "ws://x"}, {"-close-code", "1005", "ws://x"},
		{"-close-code", "1000x", "ws://x"}, {"-close-reason", strings.Repeat("x", 124), "ws://x"},
		{"-close-reason", "\xff", "ws://x"}, {"-binary", "-m", "xyz", "ws://x"}, {"-m", "\xff", "ws://x"},
		{"-n", "-1", "ws://x"}, {"-wait", "-1s", "ws://x"}, {"-ping", "-1s", "ws://x"}, {"-timeout", "0", "ws://x"},
		// Dial finds out about these.
		{"localhost:8080"}, {"ftp://x"}, {"ws://"}, {"ws://x/%"}, {"-subprotocol", "a b", "ws://x"}, {"-H", "Upgrade: h2c", "ws://x"},
	} {
		status, stdout, stderr := wscat(t, "", args...)
		assert.Equal(t, statusUsage, status, args)
		assert.Empty(t, stdout)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
	status, stdout, stderr := wscat(t, "", "-h")
	assert.Equal(t, statusDone, status)
	assert.Contains(t, stdout, "Exit status")
	assert.Empty(t, stderr)
}

func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	file, err := os.Open("main.go")
	require.NoError(t, err)
	defer file.Close()
	for _, f := range []any{null, file, strings.NewReader("")} {
		assert.False(t, isTerminal(f))
	}
}
