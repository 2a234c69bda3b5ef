package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

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

// parse reads the command line. Its error is flag.ErrHelp if help was asked for.
func parse(args []string) (*config, error) {
	cfg, flags := newFlags()
	flags.SetOutput(io.Discard) // run prints the error, as one line
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() != 1 {
		return nil, fmt.Errorf("there must be one URL, and %d arguments are left", flags.NArg())
	}
	cfg.url = flags.Arg(0)
	if cfg.binary {
		for _, m := range cfg.messages {
			if _, err := parseHex(m); err != nil {
				return nil, err
			}
		}
	}
	return cfg, nil
}

func usage(w io.Writer) {
	_, flags := newFlags()
	fmt.Fprint(w, `Usage: wscat [flags] URL

Connects to a WebSocket server, sends each line of the standard input as a text message, and prints the messages that
arrive, one a line: text as it is, binary as "binary: " and hex.

After the end of the input, wscat prints what still arrives until it has been quiet for the time of -wait, and then
closes the connection. Ctrl-C closes it at once.

Exit status: 0 if the connection was closed as it should be, 1 if the server could not be reached or refused the
handshake, 2 for a mistake in the command line, 3 if the connection broke, a rule of the protocol was broken, the server
closed with a code other than 1000 and 1001, or before -n messages had come.

`)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

func newFlags() (*config, *flag.FlagSet) {
	cfg := new(config)
	cfg.options.Header = make(http.Header)
	cfg.closeCode = websocket.StatusNormalClosure
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
	flags.Func("H", "`header` of the handshake, as \"Name: value\"; repeatable", header)
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
	flags.Int64Var(&cfg.options.MaxMessageSize, "max-message-size", -1, "longest message, in `bytes`, to receive; negative is no limit")
	flags.DurationVar(&cfg.ping, "ping", 0, "send a Ping this often, and give up if it is not answered before the next one; 0 is never")
	flags.BoolVar(&cfg.binary, "binary", false, "what is sent is hex, and goes out as binary messages")
	flags.Func("m", "send this `message` instead of the input; repeatable", func(s string) error {
		cfg.messages = append(cfg.messages, s)
		return nil
	})
	flags.IntVar(&cfg.count, "n", 0, "leave when this `number` of messages has come; 0 is no limit")
	flags.DurationVar(&cfg.wait, "wait", time.Second, "how long it must be quiet after the end of the input, if there is no -n")
	flags.Func("close-code", "status `code` to close with (default 1000)", func(s string) error {
		var code uint16
		if _, err := fmt.Sscan(s, &code); err != nil {
			return errors.New("not a number of 16 bits")
		}
		cfg.closeCode = websocket.StatusCode(code)
		return nil
	})
	flags.StringVar(&cfg.closeReason, "close-reason", "", "`reason` to close with, at most 123 bytes")
	flags.BoolVar(&cfg.verbose, "v", false, "print the response to the handshake, Pongs, and how the connection was closed")
	flags.BoolVar(&cfg.quiet, "q", false, "print no messages")
	return cfg, flags
}

// parseHex reads bytes in hex, with white space between them or not.
func parseHex(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		return nil, fmt.Errorf("%q is not hex", s)
	}
	return b, nil
}
