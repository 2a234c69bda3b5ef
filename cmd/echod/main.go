// Echod serves the WebSocket services of package echo and a page to talk to them from a browser.
//
//	go run github.com/strictws/websocket/cmd/echod@latest
//
// It is an example of a complete server, and the one that this module's conformance runs test.
package main

import (
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/strictws/websocket/echo"
)

//go:embed page
var pageFiles embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: it serves until ctx ends, then drains, and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage(stdout)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "echod: %v (echod -h lists the flags)\n", err)
		return 2
	}
	if err := serve(ctx, cfg, stdout, cfg.logger(stderr)); err != nil {
		fmt.Fprintf(stderr, "echod: %v\n", err)
		return 1
	}
	return 0
}

// serve serves until ctx ends and then drains.
func serve(ctx context.Context, cfg *config, stdout io.Writer, log *slog.Logger) error {
	cert, err := cfg.certificate()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	defer ln.Close()

	services := &echo.Server{Options: cfg.options, Logger: log}
	srv := &http.Server{
		Handler:           routes(services),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	defer srv.Close()

	ended := make(chan error, 1)
	go func() {
		if cert == nil {
			ended <- srv.Serve(ln)
			return
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
		ended <- srv.ServeTLS(ln, "", "")
	}()
	printAddresses(stdout, cfg, ln.Addr())

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}

	log.Info("Shutting down: closing all connections", "timeout", cfg.drainTimeout)
	drain, cancel := context.WithTimeout(context.Background(), cfg.drainTimeout)
	defer cancel()
	srv.RegisterOnShutdown(func() { services.Shutdown(drain) })
	// What srv itself waits for are requests for the page, which are soon answered, and connections that a browser
	// opened ahead of need: for five seconds, if it is let.
	pages, cancelPages := context.WithTimeout(drain, time.Second/4)
	defer cancelPages()
	_ = srv.Shutdown(pages)
	if err := services.Shutdown(drain); err != nil {
		log.Warn("Some connections did not end in time and were dropped", "error", err)
	}
	return nil
}

// services lists what echod serves, in the order in which it is printed.
var services = []struct {
	path, what string
	handler    func(*echo.Server) http.HandlerFunc
}{
	{"/ws", "a greeting", func(s *echo.Server) http.HandlerFunc { return s.Greeting }},
	{"/echo", "echo of whole messages", func(s *echo.Server) http.HandlerFunc { return s.Messages }},
	{"/echo/stream", "echo of streams", func(s *echo.Server) http.HandlerFunc { return s.Streams }},
	{"/echo/prepared", "echo of prepared messages", func(s *echo.Server) http.HandlerFunc { return s.Prepared }},
	{"/echo/netconn", "echo through a net.Conn", func(s *echo.Server) http.HandlerFunc { return s.NetConn }},
	{"/clock", "the time, every second", func(s *echo.Server) http.HandlerFunc { return s.Clock }},
}

func routes(s *echo.Server) http.Handler {
	mux := http.NewServeMux()
	for _, service := range services {
		// No method: Accept refuses what is not a GET, and says why.
		mux.HandleFunc(service.path, service.handler(s))
	}
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the name of an embedded directory is wrong: no program runs with that
	}
	page := http.FileServerFS(files)
	show := func(w http.ResponseWriter, r *http.Request) {
		// connect-src names the schemes because Safari before 15.4 does not count ws: as 'self'.
		w.Header().Set("Content-Security-Policy",
			"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		page.ServeHTTP(w, r)
	}
	mux.HandleFunc("GET /{$}", show)
	mux.HandleFunc("GET /page.css", show)
	mux.HandleFunc("GET /page.js", show)
	mux.HandleFunc("GET /icon.svg", show)
	return mux
}

// printAddresses says where the server is: the bound address alone on the first line, for programs, the rest for
// people.
func printAddresses(w io.Writer, cfg *config, bound net.Addr) {
	// A person can open neither port 0 nor "all interfaces".
	host, _, _ := net.SplitHostPort(cfg.addr)
	if ip := net.ParseIP(host); host == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback() && cfg.selfSigned) {
		host = "localhost"
	}
	_, port, _ := net.SplitHostPort(bound.String())
	at := net.JoinHostPort(host, port)
	web, ws := "http", "ws"
	if cfg.selfSigned || cfg.certFile != "" {
		web, ws = "https", "wss"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listening on %s\n", bound)
	fmt.Fprintf(&b, "\nOpen %s://%s/ in a browser, or connect a WebSocket client to\n", web, at)
	for _, service := range services {
		fmt.Fprintf(&b, "  %-40s %s\n", ws+"://"+at+service.path, service.what)
	}
	fmt.Fprintf(&b, "\nCtrl-C closes the connections and stops.\n")
	io.WriteString(w, b.String())
}
