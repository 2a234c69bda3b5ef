// Wscat is a WebSocket client for the terminal: it sends lines and prints messages.
//
//	go run github.com/strictws/websocket/cmd/wscat@latest ws://localhost:8080/ws
//	echo Hello | go run github.com/strictws/websocket/cmd/wscat@latest -n 1 ws://localhost:8080/ws
//
// It connects, sends each line of the standard input as a text message and prints what arrives, binary messages in
// hex. After the end of the input it waits a moment for answers. wscat -h lists the flags and tells what the exit
// status means.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/strictws/websocket"
)

// What the exit status says.
const (
	statusDone    = 0
	statusRefused = 1
	statusUsage   = 2
	statusBroken  = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cfg, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage(stdout)
		return statusDone
	case err != nil:
		fmt.Fprintf(stderr, "wscat: %v (wscat -h lists the flags)\n", err)
		return statusUsage
	}
	c, status := dial(ctx, cfg, stderr)
	if c == nil {
		return status
	}
	defer c.Close()
	s := newSession(cfg, c, stdout, stderr)
	s.interactive = cfg.messages == nil && isTerminal(stdin) && isTerminal(stdout)
	return s.run(ctx, stdin)
}

// dial connects, or says why it could not and returns the exit status.
func dial(ctx context.Context, cfg *config, stderr io.Writer) (*websocket.Conn, int) {
	client, err := cfg.httpClient()
	if err != nil {
		fmt.Fprintf(stderr, "wscat: %v\n", err)
		return nil, statusUsage
	}
	cfg.options.HTTPClient = client
	ctx, cancel := context.WithTimeout(ctx, cfg.timeout)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, cfg.url, &cfg.options)
	if resp != nil && (cfg.verbose || err != nil) {
		fmt.Fprintf(stderr, "%s %s\n", resp.Proto, resp.Status)
		if cfg.verbose {
			_ = resp.Header.Write(stderr)
		}
		if body, _ := io.ReadAll(resp.Body); len(body) > 0 {
			fmt.Fprintf(stderr, "\n%s\n\n", bytes.TrimSpace(body))
		}
	}
	if err == nil {
		return c, statusDone
	}
	fmt.Fprintf(stderr, "wscat: %v\n", err)
	if tried, ok := errors.AsType[*url.Error](err); !ok || tried.Op != "dial" {
		return nil, statusUsage // there was nothing that could be tried
	}
	return nil, statusRefused
}

// httpClient returns the client to connect with: nil, unless the trust in certificates is
// not the usual one.
func (cfg *config) httpClient() (*http.Client, error) {
	if cfg.caFile == "" && !cfg.insecure {
		return nil, nil
	}
	trust := &tls.Config{InsecureSkipVerify: cfg.insecure}
	if cfg.caFile != "" {
		pem, err := os.ReadFile(cfg.caFile)
		if err != nil {
			return nil, err
		}
		if trust.RootCAs, err = x509.SystemCertPool(); err != nil {
			trust.RootCAs = x509.NewCertPool()
		}
		if !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM format", cfg.caFile)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = trust
	return &http.Client{Transport: transport}, nil
}

// isTerminal reports whether f is a character device but not the null device: a terminal, as a rule.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
