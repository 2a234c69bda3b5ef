package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
	for _, args := range [][]string{{"-n", "2"}, {"-wait", "1s"}} {
		status, stdout, stderr := wscat(t, "Hello\r\nagain", append(args, url+"/ws")...)
		assert.Equal(t, statusDone, status)
		assert.Equal(t, "Server: Hello. You said: Hello\nServer: Hello. You said: again\n", stdout)
		assert.Empty(t, stderr)
	}
}

func TestOneShot(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{Compression: &websocket.Compression{}})
	status, stdout, stderr := wscat(t, "not sent", "-m", "a", "-m", "b", "-n", "2", "-v", "-compression", "on", url+"/echo")
	assert.Equal(t, statusDone, status)
	assert.Equal(t, "a\nb\n", stdout)
	assert.Contains(t, stderr, "101 Switching Protocols")
	assert.Contains(t, stderr, "permessage-deflate")
	assert.Contains(t, stderr, "Closed with 1000")

	status, stdout, _ = wscat(t, "", "-m", "a", "-n", "1", "-q", url+"/echo")
	assert.Equal(t, statusDone, status)
	assert.Empty(t, stdout)
}

func TestBinary(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{})
	status, stdout, stderr := wscat(t, "00 01 ff\nno hex\n\n", "-binary", "-n", "2", url+"/echo")
	assert.Equal(t, statusDone, status)
	assert.Equal(t, "binary: 0001ff\nbinary: \n", stdout)
	assert.Equal(t, "wscat: \"no hex\" is not hex\n", stderr)
}

func TestHandshake(t *testing.T) {
	seen := make(chan *http.Request, 1)
	url := handle(t, func(ctx context.Context, c *websocket.Conn, r *http.Request) {
		seen <- r
		_, _, _ = c.Read(ctx, nil)
	})
	status, _, _ := wscat(t, "", "-H", "X-One: 1", "-H", "X-One:2", "-origin", strings.Replace(url, "ws", "http", 1),
		"-subprotocol", "a,b", "-subprotocol", "c", "-wait", "1ms", url)
	assert.Equal(t, statusDone, status)
	r := <-seen
	assert.Equal(t, []string{"1", "2"}, r.Header["X-One"])
	assert.Equal(t, strings.Replace(url, "ws", "http", 1), r.Header.Get("Origin"))
	assert.Equal(t, "a, b, c", r.Header.Get("Sec-WebSocket-Protocol"))
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
}

func TestTLS(t *testing.T) {
	s := &echo.Server{Logger: slog.New(slog.DiscardHandler)}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(s.Messages))
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
		status, _, _ := wscat(t, "", "-n", "1", url)
		assert.Equal(t, statusBroken, status, "a message is missing")
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

func TestPing(t *testing.T) {
	url := serve(t, websocket.AcceptOptions{})
	status, _, stderr := wscat(t, "", "-ping", "300ms", "-wait", "1s", "-v", url+"/echo")
	assert.Equal(t, statusDone, status)
	assert.Contains(t, stderr, "Pong after")

	ended := make(chan struct{})
	mute := handle(t, func(context.Context, *websocket.Conn, *http.Request) { <-ended })
	defer close(ended)
	status, _, stderr = wscat(t, "", "-ping", "10ms", "-n", "1", mute)
	assert.Equal(t, statusBroken, status)
	assert.Contains(t, stderr, "no Pong within 10ms")
}

func TestInterrupt(t *testing.T) {
	got := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	url := handle(t, func(ctx context.Context, c *websocket.Conn, _ *http.Request) {
		_, _, _ = c.Read(ctx, nil)
		cancel()
		_, _, err := c.Read(ctx, nil)
		got <- err
	})
	stdin, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = io.WriteString(w, "line\n") }()
	var out, errs output
	assert.Equal(t, statusDone, run(ctx, []string{url}, stdin, &out, &errs))
	assert.Equal(t, &websocket.CloseError{Code: 1000}, <-got)
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"a", "b"}, {"-nonsense", "ws://x"}, {"-H", "no colon", "ws://x"}, {"-compression", "maybe", "ws://x"},
		{"-close-code", "x", "ws://x"}, {"-close-code", "70000", "ws://x"}, {"-binary", "-m", "xyz", "ws://x"},
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
