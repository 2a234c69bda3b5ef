package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/strictws/websocket"
)

// A config is what the command line says.
type config struct {
	addr              string
	certFile, keyFile string
	selfSigned        bool
	options           websocket.AcceptOptions
	drainTimeout      time.Duration
	logFormat         string
	logLevel          slog.Level
}

// parse reads the command line. Its error is flag.ErrHelp if help was asked for.
func parse(args []string) (*config, error) {
	cfg, flags := newFlags()
	flags.SetOutput(io.Discard) // run prints the error, as one line
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if (cfg.certFile == "") != (cfg.keyFile == "") {
		return nil, errors.New("-cert and -key go together")
	}
	if cfg.selfSigned && cfg.certFile != "" {
		return nil, errors.New("-tls-self-signed does not go with -cert and -key")
	}
	return cfg, nil
}

func usage(w io.Writer) {
	_, flags := newFlags()
	fmt.Fprint(w, "Usage: echod [flags]\n\nServes WebSocket echoes, a greeting and a clock, and a page to try them.\n\n")
	flags.SetOutput(w)
	flags.PrintDefaults()
}

func newFlags() (*config, *flag.FlagSet) {
	cfg := new(config)
	flags := flag.NewFlagSet("echod", flag.ContinueOnError)
	flags.Usage = func() {}
	flags.StringVar(&cfg.addr, "addr", "localhost:8080", "`host:port` to listen on; port 0 takes a free one")
	flags.StringVar(&cfg.certFile, "cert", "", "serve TLS with the certificate in this PEM `file`")
	flags.StringVar(&cfg.keyFile, "key", "", "PEM `file` with the certificate's private key")
	flags.BoolVar(&cfg.selfSigned, "tls-self-signed", false, "serve TLS with a certificate made at start, which browsers warn of")
	flags.Int64Var(&cfg.options.MaxMessageSize, "max-message-size", 0,
		"longest message, in `bytes`, that is accepted; 0 is the library's default of 1 MiB, negative is no limit")
	flags.DurationVar(&cfg.options.KeepAlive, "keep-alive", 0,
		"silence after which a client is pinged; 0 is the library's default of 30s, negative is never")
	flags.Func("subprotocol",
		"`list` of supported subprotocols, most preferred first; comma-separated, or the flag repeated",
		func(s string) error {
			cfg.options.Subprotocols = append(cfg.options.Subprotocols, strings.Split(s, ",")...)
			return check(&websocket.AcceptOptions{Subprotocols: cfg.options.Subprotocols})
		})
	flags.Func("compression", "`mode` of compression for clients that offer it: off, on, or takeover, in which messages may refer to earlier ones (default off)",
		func(s string) error {
			switch s {
			case "off":
				cfg.options.Compression = nil
			case "on":
				cfg.options.Compression = &websocket.Compression{}
			case "takeover":
				cfg.options.Compression = &websocket.Compression{ContextTakeover: true}
			default:
				return errors.New("neither off, on nor takeover")
			}
			return nil
		})
	flags.Func("trusted-origin",
		"`list` of other origins, such as https://example.com, whose pages may connect, or * for all; comma-separated, or the flag repeated",
		func(s string) error {
			cfg.options.TrustedOrigins = append(cfg.options.TrustedOrigins, strings.Split(s, ",")...)
			return check(&websocket.AcceptOptions{TrustedOrigins: cfg.options.TrustedOrigins})
		})
	flags.DurationVar(&cfg.drainTimeout, "drain-timeout", 5*time.Second, "how long Ctrl-C waits for clients to answer the closing handshake")
	cfg.logFormat = "text"
	flags.Func("log-format", "`text` or json (default text)", func(s string) error {
		if s != "text" && s != "json" {
			return errors.New("neither text nor json")
		}
		cfg.logFormat = s
		return nil
	})
	flags.TextVar(&cfg.logLevel, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn or error")
	return cfg, flags
}

// logger returns the logger that the command line asks for. It writes to w.
func (cfg *config) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.logLevel}
	if cfg.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// check reports what Accept finds wrong with the options, before the first client does.
func check(opts *websocket.AcceptOptions) error {
	r := &http.Request{Method: http.MethodGet, Host: "localhost", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Upgrade":               {"websocket"},
		"Connection":            {"Upgrade"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}
	if _, err := websocket.Accept(nowhere{}, r, opts); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil // all is well, but for the connection that could not be taken over
}

// nowhere is a ResponseWriter without a connection.
type nowhere struct{}

func (nowhere) Header() http.Header         { return make(http.Header) }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}
