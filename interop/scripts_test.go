package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/strictws/websocket"
)

// A script is an implementation that runs in a process of its own.
type script struct {
	name    string
	command []string // before the name of the script
	ext     string
	deflate []variant
}

// A variant is a way to compress: options of the script, JSON null for none, and ours.
type variant struct {
	options string
	ours    *websocket.Compression
	// server is what the script's server agrees on with our client, client what our server
	// agrees on with the script's client.
	server, client string
}

var (
	light    = &websocket.Compression{MinSize: -1}
	takeover = &websocket.Compression{MinSize: -1, ContextTakeover: true}
	narrow   = &websocket.Compression{MinSize: -1, ContextTakeover: true, WindowBits: 10}
)

func describe(c *websocket.Compression) string {
	switch c {
	case light:
		return "compressed"
	case takeover:
		return "takeover"
	case narrow:
		return "takeover, 10 bits"
	}
	return "plain"
}

var scripts = []script{
	{"ws", []string{"node"}, ".js", []variant{
		{`null`, nil, "", ""},
		{`{"threshold":0}`, light,
			noTakeover,
			noTakeover},
		{`{"threshold":0}`, takeover,
			"permessage-deflate",
			"permessage-deflate"},
		{`{"threshold":0}`, narrow,
			"permessage-deflate; server_max_window_bits=10; client_max_window_bits=10",
			"permessage-deflate; client_max_window_bits=10"},
		{`{"threshold":0,"serverNoContextTakeover":true}`, takeover,
			"permessage-deflate; server_no_context_takeover",
			"permessage-deflate; server_no_context_takeover"},
		{`{"threshold":0,"clientNoContextTakeover":true}`, takeover,
			"permessage-deflate; client_no_context_takeover",
			"permessage-deflate; client_no_context_takeover"},
		{`{"threshold":0,"serverMaxWindowBits":9,"clientMaxWindowBits":10}`, takeover,
			"permessage-deflate; client_max_window_bits=10; server_max_window_bits=9",
			"permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"},
	}},
	{"websockets", []string{filepath.Join("venv", "bin", "python")}, ".py", []variant{
		{`null`, nil, "", ""},
		{`{}`, light,
			noTakeover,
			noTakeover},
		{`{}`, takeover,
			"permessage-deflate",
			"permessage-deflate"},
		{`{}`, narrow,
			"permessage-deflate; server_max_window_bits=10; client_max_window_bits=10",
			"permessage-deflate; client_max_window_bits=10"},
		{`{"server_no_context_takeover":true}`, takeover,
			"permessage-deflate; server_no_context_takeover",
			"permessage-deflate; server_no_context_takeover"},
		{`{"client_no_context_takeover":true}`, takeover,
			"permessage-deflate; client_no_context_takeover",
			"permessage-deflate; client_no_context_takeover"},
		{`{"server_max_window_bits":9}`, takeover,
			"permessage-deflate; server_max_window_bits=9",
			"permessage-deflate; server_max_window_bits=9"},
		{`{"client_max_window_bits":10}`, takeover,
			"permessage-deflate; client_max_window_bits=10",
			"permessage-deflate; client_max_window_bits=10"},
		{`{"server_max_window_bits":9,"client_max_window_bits":9}`, narrow,
			"permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
			"permessage-deflate; server_max_window_bits=9; client_max_window_bits=9"},
	}},
}

// folders of the scripts
var folders = map[string]string{"ws": "node", "websockets": "python"}

// need skips a test for lack of a tool, but not where all tools must be.
func need(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		require.NoError(t, err)
	}
	t.Skipf("./setup has not been run, or not to its end: %v", err)
}

// command returns the command that runs one of s's scripts with options.
func (s script) run(t *testing.T, ctx context.Context, file string, options map[string]any) *exec.Cmd {
	t.Helper()
	folder := folders[s.name]
	installed := filepath.Join(folder, "node_modules")
	if s.name == "websockets" {
		installed = filepath.Join(folder, s.command[0])
	}
	_, err := os.Stat(installed)
	need(t, err)
	b, err := json.Marshal(options)
	require.NoError(t, err)
	args := append(append([]string{}, s.command[1:]...), file+s.ext, string(b))
	program := s.command[0]
	if s.name == "websockets" {
		program, err = filepath.Abs(installed)
		require.NoError(t, err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = folder
	cmd.Stderr = os.Stderr
	return cmd
}

// certificate writes the certificate of httptest's servers, and its key, to files.
func certificate(t *testing.T) (certFile, keyFile string, cert tls.Certificate) {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	cert = srv.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	require.NoError(t, os.WriteFile(certFile, block, 0o600))
	block = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	require.NoError(t, os.WriteFile(keyFile, block, 0o600))
	return certFile, keyFile, cert
}

func TestScripts(t *testing.T) {
	certFile, keyFile, _ := certificate(t)
	for _, s := range scripts {
		for _, v := range s.deflate {
			for _, secure := range []bool{false, true} {
				if secure && v.ours != nil {
					continue // TLS and compression have nothing to do with each other
				}
				name := fmt.Sprintf("%s, ours %s, TLS %t", v.options, describe(v.ours), secure)
				t.Run(s.name+"/server, "+name, func(t *testing.T) {
					t.Parallel()
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					options := map[string]any{"deflate": json.RawMessage(v.options)}
					client := http.DefaultClient
					scheme := "ws"
					if secure {
						options["cert"], options["key"] = certFile, keyFile
						pool := x509.NewCertPool()
						pem, err := os.ReadFile(certFile)
						require.NoError(t, err)
						require.True(t, pool.AppendCertsFromPEM(pem))
						client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
						scheme = "wss"
					}
					cmd := s.run(t, ctx, "server", options)
					stdin, err := cmd.StdinPipe() // whose end ends the script
					require.NoError(t, err)
					stdout, err := cmd.StdoutPipe()
					require.NoError(t, err)
					require.NoError(t, cmd.Start())
					defer func() { stdin.Close(); cancel(); _ = cmd.Wait() }()
					line, err := bufio.NewReader(stdout).ReadString('\n')
					require.NoError(t, err)
					port, err := strconv.Atoi(strings.TrimSpace(line))
					require.NoError(t, err)
					url := fmt.Sprintf("%s://127.0.0.1:%d/", scheme, port)
					var w *wire
					if !secure {
						url, w = tap(t, url)
					}
					converse(t, url, &websocket.DialOptions{HTTPClient: client, Compression: v.ours})
					if w != nil {
						w.check(t, expectation{extensions: v.server})
					}
				})
				t.Run(s.name+"/client, "+name, func(t *testing.T) {
					t.Parallel()
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					h, url, _ := serveOurs(t, v.ours, secure)
					var w *wire
					if !secure {
						url, w = tap(t, url)
					}
					options := map[string]any{"deflate": json.RawMessage(v.options), "url": url}
					if secure {
						options["cert"] = certFile
					}
					require.NoError(t, s.run(t, ctx, "client", options).Run())
					h.heard(t, "4002 see you")
					if w != nil {
						w.check(t, expectation{extensions: v.client})
					}
				})
			}
		}
	}
}

// builtinOffers is what our server agrees on with Node's own client for each of compressions.
var builtinOffers = map[string]string{
	"compressed":       noTakeover,
	"takeover":         "permessage-deflate",
	"takeover, 9 bits": "permessage-deflate; client_max_window_bits=9",
}

// nodeBuiltin returns Node's own client: there since version 22, and behind a flag before. The
// first ones lose empty messages.
func nodeBuiltin(t *testing.T) script {
	t.Helper()
	version, err := exec.Command("node", "--version").Output()
	need(t, err)
	var major, minor int
	_, err = fmt.Sscanf(string(version), "v%d.%d.", &major, &minor)
	require.NoError(t, err)
	if major < 20 || major == 20 && minor < 16 || major == 21 || major == 22 && minor < 3 { // as in setup
		need(t, fmt.Errorf("Node.js %s is too old for a WebSocket of its own that works: 20.16 or 22.3 is needed", bytes.TrimSpace(version)))
	}
	s := scripts[0]
	if major < 22 {
		s.command = []string{"node", "--experimental-websocket"}
	}
	return s
}

func TestNodeBuiltin(t *testing.T) {
	s := nodeBuiltin(t)
	certFile, _, _ := certificate(t)
	for name, compression := range compressions {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", name, secure), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				h, url, _ := serveOurs(t, compression, secure)
				var w *wire
				if !secure {
					url, w = tap(t, url)
				}
				cmd := s.run(t, ctx, "client", map[string]any{"builtin": true, "url": url})
				cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+certFile) // it has no option for that
				require.NoError(t, cmd.Run())
				h.heard(t, "4002 see you")
				if w != nil {
					w.check(t, expectation{
						extensions: builtinOffers[name], clientClose: "4001 ",
						noClientFragments: true, noClientPings: true, noClientCompression: true,
					})
				}
			})
		}
	}
}
