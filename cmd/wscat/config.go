package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/strictws/websocket"
)

// A config is what the command line says.
type config struct {
	url         string
	options     websocket.DialOptions
	caFile      string
	insecure    bool
	timeout     time.Duration
	ping        time.Duration
	binary      bool
	messages    []string // to send instead of the input
	count       int      // of messages to receive before leaving; 0: no limit
	wait        time.Duration
	closeCode   websocket.StatusCode
	closeReason string
	verbose     bool
	quiet       bool
}

// An inputError says what is wrong with a message to send.
type inputError struct{ what string }

func (e *inputError) Error() string { return e.what }

// message makes a message of an argument or a line.
func (cfg *config) message(s string) (websocket.MessageType, []byte, error) {
	if cfg.binary {
		b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
		if err != nil {
			return 0, nil, &inputError{fmt.Sprintf("%q is not hex", s)}
		}
		return websocket.Binary, b, nil
	}
	if !utf8.ValidString(s) {
		return 0, nil, &inputError{fmt.Sprintf("%q is not UTF-8; -binary sends other bytes, in hex", s)}
	}
	return websocket.Text, []byte(s), nil
}

// parse reads the command line. Its error is flag.ErrHelp if help was asked for.
func parse(args []string) (*config, error) {
	cfg, flags := newFlags()
	flags.SetOutput(io.Discard) // run prints the error, as one line
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() != 1:
		return nil, fmt.Errorf("there must be one URL, and %d arguments are left", flags.NArg())
	case cfg.timeout <= 0:
		return nil, errors.New("-timeout must be positive")
	case cfg.ping < 0 || cfg.wait < 0 || cfg.count < 0:
		return nil, errors.New("-ping, -wait and -n may not be negative")
	case len(cfg.closeReason) > 123 || !utf8.ValidString(cfg.closeReason):
		return nil, errors.New("-close-reason must be UTF-8 of at most 123 bytes") // RFC 6455 section 5.5
	}
	cfg.url = flags.Arg(0)
	for _, m := range cfg.messages {
		if _, _, err := cfg.message(m); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func usage(w io.Writer) {
	_, flags := newFlags()
	fmt.Fprint(w, `Usage: wscat [flags] URL

Connects to a WebSocket server, sends each line of the standard input as a text message, and prints the messages that
arrive, one a line: text as it is, binary as "binary: " and hex.

After the end of the input, wscat prints what still arrives until it has been quiet for the time of -wait, or ten
times as long in all, and then closes the connection. With -n it waits for that many messages instead. Ctrl-C closes
the connection at once; a second one does not wait for the server.

Exit status:
  0  the connection was closed as it should be: by us, or by the server with 1000, 1001 or no code
  1  the server could not be reached or refused the handshake
  2  a mistake in the command line or the input
  3  the connection broke, or a rule of the protocol was; the server closed with another code, or did not answer;
     the output failed; or the end came, be it by Ctrl-C, before -n messages had come

`)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

func newFlags() (*config, *flag.FlagSet) {
	cfg := &config{closeCode: websocket.StatusNormalClosure}
	cfg.options.Header = make(http.Header)
	flags := flag.NewFlagSet("wscat", flag.ContinueOnError)
	flags.Usage = func() {}
	header := func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return errors.New(`not of the form "Name: value"`)
		}
		cfg.options.Header.Add(name, strings.TrimSpace(value))
		return nil
	}
	flags.Func("header", "`header` of the handshake, as \"Name: value\"; repeatable", header)
	flags.Func("H", "short for -header", header)
	flags.Func("origin", "`origin` to connect from, such as https://example.com", func(s string) error {
		cfg.options.Header.Set("Origin", s)
		return nil
	})
	flags.Func("subprotocol", "`list` of subprotocols to offer, most preferred first; comma-separated, or the flag repeated",
		func(s string) error {
			cfg.options.Subprotocols = append(cfg.options.Subprotocols, strings.Split(s, ",")...)
			return nil
		})
	flags.Func("compression", "`mode` of compression to offer: off, on, or takeover, in which messages may refer to earlier ones (default off)",
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
	flags.StringVar(&cfg.caFile, "ca", "", "trust the certificates in this PEM `file`, besides the system's")
	flags.BoolVar(&cfg.insecure, "insecure", false, "trust any certificate")
	flags.DurationVar(&cfg.timeout, "timeout", 30*time.Second, "how long the handshake may take")
	flags.Int64Var(&cfg.options.MaxMessageSize, "max-message-size", -1,
		"longest message, in `bytes`, to receive; 0 is the library's default of 1 MiB, negative is no limit")
	flags.DurationVar(&cfg.ping, "ping", 0, "send a Ping at once and then this often, and give up if one is not answered before the next; 0 is never")
	flags.BoolVar(&cfg.binary, "binary", false, "what is sent is hex, and goes out as binary messages")
	flags.Func("m", "send this `message` instead of the input; repeatable", func(s string) error {
		cfg.messages = append(cfg.messages, s)
		return nil
	})
	flags.IntVar(&cfg.count, "n", 0, "leave when this `number` of messages has come; 0 is no limit")
	flags.DurationVar(&cfg.wait, "wait", time.Second, "how long it must be quiet after the end of the input, if there is no -n")
	flags.Func("close-code", "status `code` to close with (default 1000)", func(s string) error {
		code, err := strconv.ParseUint(s, 10, 16)
		// RFC 6455 section 7.4 and the codes registered since.
		if err != nil || (code < 1000 || code > 1003) && (code < 1007 || code > 1014) && (code < 3000 || code > 4999) {
			return errors.New("not 1000 to 1003, 1007 to 1014 or 3000 to 4999")
		}
		cfg.closeCode = websocket.StatusCode(code)
		return nil
	})
	flags.StringVar(&cfg.closeReason, "close-reason", "", "`reason` to close with, at most 123 bytes")
	flags.BoolVar(&cfg.verbose, "v", false, "print the response to the handshake, Pongs, and how the connection was closed")
	flags.BoolVar(&cfg.quiet, "q", false, "print no messages")
	return cfg, flags
}
