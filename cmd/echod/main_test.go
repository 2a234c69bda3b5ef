package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/strictws/websocket"
)

// TestMain lets the test binary be echod itself, for the test that sends it a signal.
func TestMain(m *testing.M) {
	if os.Getenv("ECHOD_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestPage(t *testing.T) {
	e := start(t)
	for path, want := range map[string]string{
		"/":         "text/html; charset=utf-8",
		"/page.js":  "text/javascript; charset=utf-8",
		"/page.css": "text/css; charset=utf-8",
		"/icon.svg": "image/svg+xml",
	} {
		status, header, body := get(t, "http://"+e.addr+path)
		require.Equal(t, http.StatusOK, status, path)
		assert.Equal(t, want, header.Get("Content-Type"), path)
		assert.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'", path)
		assert.NotEmpty(t, body, path)
		if path == "/" {
			for _, service := range services {
				assert.Contains(t, body, `<option value="`+service.path+`">`, "the page offers every service")
			}
		}
	}
	status, _, _ := get(t, "http://"+e.addr+"/nothing")
	require.Equal(t, http.StatusNotFound, status)
}

func TestServices(t *testing.T) {
	e := start(t)
	for _, service := range services {
		url := "ws://" + e.addr + service.path
		assert.Contains(t, e.stdout.String(), url, "what is printed names every service")
		c := dial(t, url, nil)
		if service.path == "/clock" {
			_, msg, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			_, err = time.Parse(time.RFC3339, string(msg))
			require.NoError(t, err)
			continue
		}
		want := "hello"
		if service.path == "/ws" {
			want = "Server: Hello. You said: hello"
		}
		require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("hello")))
		requireText(t, c, want)
		require.NoError(t, c.Shutdown(t.Context(), websocket.StatusNormalClosure, ""))
	}
}

func TestPlainRequest(t *testing.T) {
	e := start(t)
	status, _, body := get(t, "http://"+e.addr+"/ws")
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, body, "WebSocket")
	require.Greater(t, len(strings.Fields(body)), 4, "a sentence: %q", body)
}

func TestOrigins(t *testing.T) {
	e := start(t, "-trusted-origin", "https://a.test,https://b.test:8443", "-trusted-origin", "http://c.test")
	for origin, status := range map[string]int{
		"":                     http.StatusSwitchingProtocols,
		"http://" + e.addr:     http.StatusSwitchingProtocols,
		"https://a.test":       http.StatusSwitchingProtocols,
		"https://b.test:8443":  http.StatusSwitchingProtocols,
		"http://c.test":        http.StatusSwitchingProtocols,
		"https://c.test":       http.StatusForbidden,
		"https://d.test":       http.StatusForbidden,
		"https://sub.a.test":   http.StatusForbidden,
		"https://a.test.d.com": http.StatusForbidden,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		c, res, err := websocket.Dial(t.Context(), "ws://"+e.addr+"/ws", &websocket.DialOptions{Header: header})
		require.NotNil(t, res, "%s: %v", origin, err)
		require.Equal(t, status, res.StatusCode, origin)
		if c != nil {
			c.Close()
		}
	}
}

func TestAllOrigins(t *testing.T) {
	e := start(t, "-trusted-origin", "*")
	dial(t, "ws://"+e.addr+"/ws", &websocket.DialOptions{Header: http.Header{"Origin": {"https://anybody.test"}}})
}

func TestOptions(t *testing.T) {
	e := start(t, "-max-message-size", "4", "-subprotocol", "v2,v1", "-subprotocol", "v0")
	for _, protocol := range []string{"v0", "v1", "v2"} {
		c := dial(t, "ws://"+e.addr+"/echo", &websocket.DialOptions{Subprotocols: []string{protocol}})
		require.Equal(t, protocol, c.Subprotocol())
		require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("12345")))
		_, _, err := c.Read(t.Context(), nil)
		requireClosed(t, err, websocket.StatusMessageTooBig)
	}
}

func TestLog(t *testing.T) {
	talk := func(t *testing.T, e *echod) {
		c := dial(t, "ws://"+e.addr+"/ws", nil)
		require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("hello")))
		requireText(t, c, "Server: Hello. You said: hello")
		require.NoError(t, c.Shutdown(t.Context(), websocket.StatusNormalClosure, ""))
		require.Zero(t, e.stop(t))
	}
	want := []string{
		"WebSocket connection established",
		"Message received from Client",
		"Message sent to Client",
		"WebSocket connection closed",
	}
	// The client may know of the end of the connection before the server has logged it, and
	// echod may have been told to stop meanwhile.
	conversation := func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Shutting down") })
	}
	t.Run("text", func(t *testing.T) {
		e := start(t)
		talk(t, e)
		var got []string
		for line := range strings.Lines(e.stderr.String()) {
			_, line, _ = strings.Cut(line, `msg="`)
			msg, _, _ := strings.Cut(line, `"`)
			got = append(got, msg)
		}
		require.Equal(t, want, conversation(got))
	})
	t.Run("json", func(t *testing.T) {
		e := start(t, "-log-format", "json")
		talk(t, e)
		var got []string
		for line := range strings.Lines(e.stderr.String()) {
			var m map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &m))
			got = append(got, m["msg"].(string))
		}
		require.Equal(t, want, conversation(got))
	})
	t.Run("level", func(t *testing.T) {
		e := start(t, "-log-level", "warn")
		talk(t, e)
		require.Empty(t, e.stderr.String())
	})
}

func TestSelfSigned(t *testing.T) {
	e := start(t, "-tls-self-signed", "-log-level", "error")
	require.Contains(t, e.stdout.String(), "https://localhost:"+e.port())
	require.Contains(t, e.stdout.String(), "wss://localhost:"+e.port()+"/ws")

	// Trust what it shows, and nothing else: the name must still be right.
	nc, err := tls.Dial("tcp", e.addr, &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	cert := nc.ConnectionState().PeerCertificates[0]
	nc.Close()
	client := trusting(t, cert)
	for _, host := range []string{"localhost", "127.0.0.1"} {
		c := dial(t, "wss://"+net.JoinHostPort(host, e.port())+"/ws", &websocket.DialOptions{HTTPClient: client})
		require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("hello")))
		requireText(t, c, "Server: Hello. You said: hello")
	}
	res, err := client.Get("https://localhost:" + e.port() + "/")
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)

	_, _, err = websocket.Dial(t.Context(), "wss://localhost:"+e.port()+"/ws", nil)
	require.Error(t, err, "nobody else trusts it")
}

func TestSelfSignedNames(t *testing.T) {
	for _, host := range []string{"", "localhost", "192.0.2.7", "2001:db8::7", "echo.test"} {
		cert, err := selfSigned(host)
		require.NoError(t, err)
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		require.NoError(t, err)
		for _, name := range []string{host, "localhost", "127.0.0.1", "::1"} {
			if name != "" {
				assert.NoError(t, leaf.VerifyHostname(name))
			}
		}
	}
}

func TestCertificateFiles(t *testing.T) {
	made, err := selfSigned("")
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))

	e := start(t, "-cert", certFile, "-key", keyFile)
	cert, err := x509.ParseCertificate(made.Certificate[0])
	require.NoError(t, err)
	c := dial(t, "wss://"+e.addr+"/echo", &websocket.DialOptions{HTTPClient: trusting(t, cert)})
	require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("hello")))
	requireText(t, c, "hello")
}

func TestDrain(t *testing.T) {
	e := start(t)
	var conns []*websocket.Conn
	for _, service := range services {
		conns = append(conns, dial(t, "ws://"+e.addr+service.path, nil))
	}
	var clients sync.WaitGroup
	for i, c := range conns {
		clients.Go(func() {
			var err error
			for err == nil {
				_, _, err = c.Read(t.Context(), nil)
			}
			var closed *websocket.CloseError
			if assert.ErrorAs(t, err, &closed, services[i].path) {
				assert.Equal(t, websocket.StatusGoingAway, closed.Code, services[i].path)
			}
		})
	}
	require.Zero(t, e.stop(t))
	clients.Wait()
	_, err := net.Dial("tcp", e.addr)
	require.Error(t, err, "nobody listens any more")
}

// A client that does not answer cannot hold the program.
func TestDrainIsBounded(t *testing.T) {
	e := start(t, "-drain-timeout", "50ms")
	c := dial(t, "ws://"+e.addr+"/echo", nil) // nobody reads, so nobody answers the Close
	require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("hello")))
	requireText(t, c, "hello")
	require.Zero(t, e.stop(t))
	require.Contains(t, e.stderr.String(), "dropped")
}

// Neither can a connection on which nothing was asked, as browsers open ahead of need.
func TestDrainDoesNotWaitForSilentConnections(t *testing.T) {
	e := start(t, "-drain-timeout", "1h")
	nc, err := net.Dial("tcp", e.addr)
	require.NoError(t, err)
	defer nc.Close()
	began := time.Now()
	require.Zero(t, e.stop(t))
	require.Less(t, time.Since(began), 5*time.Second, "http.Server.Shutdown would wait that long")
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"-h", "-help", "--help"} {
		status, stdout, stderr := runToEnd(t, arg)
		require.Zero(t, status)
		require.Empty(t, stderr)
		for _, flag := range []string{"-addr", "-cert", "-key", "-tls-self-signed", "-max-message-size", "-trusted-origin", "-compression",
			"-subprotocol", "-keep-alive", "-drain-timeout", "-log-format", "-log-level"} {
			require.Contains(t, stdout, "  "+flag)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-nonsense"}, "-nonsense"},
		{[]string{"-addr"}, "-addr"},
		{[]string{"extra"}, `"extra"`},
		{[]string{"-max-message-size", "big"}, "-max-message-size"},
		{[]string{"-keep-alive", "30"}, "-keep-alive"},
		{[]string{"-drain-timeout", "x"}, "-drain-timeout"},
		{[]string{"-log-format", "xml"}, "-log-format"},
		{[]string{"-compression", "maybe"}, "-compression"},
		{[]string{"-log-level", "loud"}, "-log-level"},
		{[]string{"-trusted-origin", "a.test"}, "-trusted-origin"},
		{[]string{"-trusted-origin", "https://a.test/path"}, "-trusted-origin"},
		{[]string{"-trusted-origin", "https://m\u00fcnchen.test"}, "-trusted-origin"},
		{[]string{"-trusted-origin", "https://a.test:99999"}, "-trusted-origin"},
		{[]string{"-subprotocol", "a,,b"}, "-subprotocol"},
		{[]string{"-subprotocol", "a", "-subprotocol", "a"}, "-subprotocol"},
		{[]string{"-subprotocol", "two words"}, "-subprotocol"},
		{[]string{"-cert", "cert.pem"}, "-key"},
		{[]string{"-key", "key.pem"}, "-cert"},
		{[]string{"-tls-self-signed", "-cert", "c", "-key", "k"}, "-tls-self-signed"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			status, stdout, stderr := runToEnd(t, test.args...)
			require.Equal(t, 2, status)
			require.Empty(t, stdout)
			requireOneLine(t, stderr, test.want)
		})
	}
}

func TestFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"port in use", []string{"-addr", taken.Addr().String()}, taken.Addr().String()},
		{"no port", []string{"-addr", "localhost"}, "missing port"},
		{"no port, TLS", []string{"-addr", "localhost", "-tls-self-signed"}, "missing port"},
		{"not a port", []string{"-addr", "localhost:http-or-so"}, "http-or-so"},
		{"no such file", []string{"-cert", "missing.pem", "-key", "missing.pem"}, "missing.pem"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := runToEnd(t, test.args...)
			require.Equal(t, 1, status)
			require.Empty(t, stdout)
			requireOneLine(t, stderr, test.want)
		})
	}
}

func TestPrintedAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		"localhost:0": "http://localhost:8080/",
		":0":          "http://localhost:8080/",
		"0.0.0.0:0":   "http://localhost:8080/",
		"[::]:0":      "http://localhost:8080/",
		"[::1]:0":     "http://[::1]:8080/",
		"echo.test:0": "http://echo.test:8080/",
	} {
		var out strings.Builder
		printAddresses(&out, &config{addr: addr}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080})
		require.True(t, strings.HasPrefix(out.String(), "listening on 127.0.0.1:8080\n"))
		require.Contains(t, out.String(), "Open "+want+" in a browser", addr)
	}
}

// Ctrl-C ends the real program with status 0, after the closing handshakes.
func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent an interrupt on Windows")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "ECHOD_TEST_MAIN=1")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	c := dial(t, "ws://"+strings.TrimSpace(strings.TrimPrefix(line, "listening on "))+"/echo", nil)
	require.NoError(t, c.Write(t.Context(), websocket.Text, []byte("hello")))
	requireText(t, c, "hello")

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_, _, err = c.Read(t.Context(), nil)
	requireClosed(t, err, websocket.StatusGoingAway)
	require.NoError(t, cmd.Wait())
}

// An echod runs in this process.
type echod struct {
	addr   string // it is bound to
	cancel context.CancelFunc
	ended  chan int

	stdout, stderr output
}

// start runs echod, on a free port of 127.0.0.1, until the test ends.
func start(t *testing.T, args ...string) *echod {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := &echod{cancel: cancel, ended: make(chan int, 1)}
	first := make(chan string, 1)
	e.stdout.line = first
	go func() { e.ended <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), &e.stdout, &e.stderr) }()
	t.Cleanup(func() { e.stop(t) })
	select {
	case line := <-first:
		addr, ok := strings.CutPrefix(line, "listening on ")
		require.True(t, ok, line)
		e.addr = addr
	case status := <-e.ended:
		e.ended <- status
		require.Fail(t, "echod ended", "status %d: %s", status, e.stderr.String())
	}
	return e
}

// stop ends echod as a signal does, and returns its exit status.
func (e *echod) stop(t *testing.T) int {
	t.Helper()
	e.cancel()
	select {
	case status := <-e.ended:
		e.ended <- status
		return status
	case <-time.After(30 * time.Second):
		require.Fail(t, "echod does not end")
		return -1
	}
}

func (e *echod) port() string {
	_, port, _ := net.SplitHostPort(e.addr)
	return port
}

// output is a buffer that tells its first line.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	line chan string // may be nil
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if o.line != nil {
		if line, _, ok := bytes.Cut(o.buf.Bytes(), []byte("\n")); ok {
			o.line <- string(line)
			o.line = nil
		}
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// runToEnd runs echod with arguments with which it does not serve.
func runToEnd(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, err output
	status = run(ctx, args, &out, &err)
	require.NoError(t, ctx.Err(), "it served")
	return status, out.String(), err.String()
}

func requireOneLine(t *testing.T, got, want string) {
	t.Helper()
	require.True(t, strings.HasPrefix(got, "echod: "), got)
	require.Equal(t, 1, strings.Count(got, "\n"), got)
	require.Contains(t, got, want)
}

func get(t *testing.T, url string) (status int, header http.Header, body string) {
	t.Helper()
	res, err := http.Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, res.Header, string(b)
}

func trusting(t *testing.T, cert *x509.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func dial(t *testing.T, url string, opts *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), url, opts)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func requireText(t *testing.T, c *websocket.Conn, want string) {
	t.Helper()
	typ, msg, err := c.Read(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, websocket.Text, typ)
	require.Equal(t, want, string(msg))
}

func requireClosed(t *testing.T, err error, code websocket.StatusCode) {
	t.Helper()
	var closed *websocket.CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, code, closed.Code)
}
