package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/strictws/websocket"
)

const (
	// closeTimeout bounds the wait for the server's part of the closing handshake.
	closeTimeout = 5 * time.Second
	// maxWaits bounds, as a multiple of -wait, how long a server that is never quiet is listened to.
	maxWaits = 10
)

// A session is what happens between the handshakes.
type session struct {
	cfg            *config
	c              *websocket.Conn
	stdout, stderr io.Writer
	interactive    bool

	received chan struct{} // holds one if a message came since somebody looked
	over     chan struct{} // closed when reading has ended
	err      error         // why, once it has: nil if all messages of -n have come
}

func newSession(cfg *config, c *websocket.Conn, stdout, stderr io.Writer) *session {
	return &session{cfg: cfg, c: c, stdout: stdout, stderr: stderr,
		received: make(chan struct{}, 1), over: make(chan struct{})}
}

// run sends, prints and closes. It returns the exit status. Ctrl-C ends ctx.
//
// Reading goes on to the end of the connection, since it learns best why that comes.
func (s *session) run(ctx context.Context, stdin io.Reader) int {
	pinging, stop := context.WithCancel(context.Background())
	defer stop()
	sent, mute := make(chan error, 1), make(chan error, 1)
	if s.interactive {
		fmt.Fprint(s.stdout, "Connected. Each line is a message; Ctrl-D or Ctrl-C closes the connection.\n> ")
		defer fmt.Fprintln(s.stdout)
	}
	go s.read()
	go func() { sent <- s.send(stdin) }()
	if s.cfg.ping > 0 {
		go func() { mute <- s.keepPinging(pinging) }()
	}

	var quiet, enough <-chan time.Time // run from the end of the input
	for {
		select {
		case <-s.received:
			if quiet != nil {
				quiet = time.After(s.cfg.wait)
			}
		case err := <-sent:
			var bad *inputError
			switch {
			case errors.As(err, &bad):
				s.say(err)
				s.close()
				return statusUsage
			case err != nil:
				return s.lost(err)
			case s.cfg.count == 0:
				quiet, enough = time.After(s.cfg.wait), time.After(maxWaits*s.cfg.wait)
			}
		case err := <-mute:
			if err != nil {
				return s.ended(err)
			}
		case <-s.over:
			if s.err != nil {
				return s.ended(s.err)
			}
			return s.close()
		case <-quiet:
			return s.close()
		case <-enough:
			return s.close()
		case <-ctx.Done():
			return s.close()
		}
	}
}

// read prints what arrives: all of it, or as many messages as -n says.
func (s *session) read() {
	defer close(s.over)
	var buf []byte
	for n := 0; s.cfg.count == 0 || n < s.cfg.count; n++ {
		typ, msg, err := s.c.Read(context.Background(), buf[:0])
		if err == nil && !s.cfg.quiet {
			err = s.print(typ, msg)
		}
		if err != nil {
			s.err = err
			return
		}
		buf = msg
		select {
		case s.received <- struct{}{}:
		default:
		}
	}
}

func (s *session) print(typ websocket.MessageType, msg []byte) error {
	format := "%s\n"
	if typ == websocket.Binary {
		format = "binary: %x\n"
	}
	if s.interactive {
		format = "\r< " + format + "> " // over the prompt that is there, and a new one
	}
	_, err := fmt.Fprintf(s.stdout, format, msg)
	return err
}

// say prints a diagnostic.
func (s *session) say(what any) {
	if s.interactive {
		fmt.Fprint(s.stderr, "\r")
	}
	fmt.Fprintf(s.stderr, "wscat: %v\n", what)
}

// send sends the messages of the command line, or else the lines of the input.
func (s *session) send(stdin io.Reader) error {
	for _, m := range s.cfg.messages {
		if err := s.sendOne(m); err != nil {
			return err
		}
	}
	if s.cfg.messages != nil {
		return nil
	}
	input := bufio.NewReader(stdin)
	for {
		line, end := input.ReadString('\n')
		if line != "" {
			err := s.sendOne(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"))
			if _, bad := err.(*inputError); bad && s.interactive {
				s.say(err) // a typing error is no reason to end a conversation
				fmt.Fprint(s.stdout, "> ")
			} else if err != nil {
				return err
			}
		}
		if end == io.EOF {
			return nil
		}
		if end != nil {
			return &inputError{end.Error()}
		}
	}
}

func (s *session) sendOne(m string) error {
	typ, p, err := s.cfg.message(m)
	if err != nil {
		return err
	}
	if s.interactive {
		fmt.Fprint(s.stdout, "> ") // before the answer can be there
	}
	return s.c.Write(context.Background(), typ, p)
}

// keepPinging returns an error when a Ping is not answered in time.
func (s *session) keepPinging(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.ping)
	defer ticker.Stop()
	for {
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, s.cfg.ping)
		err := s.c.Ping(limited)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("no Pong within %v", s.cfg.ping)
		case err != nil:
			return nil // reading tells what it is
		case s.cfg.verbose:
			s.say(fmt.Sprintf("Pong after %v", time.Since(start).Round(time.Microsecond)))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// lost returns the exit status after an error of sending. The server may have said in a Close why it does not
// listen.
func (s *session) lost(err error) int {
	select {
	case <-s.over:
		if s.err != nil {
			err = s.err
		}
	case <-time.After(closeTimeout):
	}
	return s.ended(err)
}

// close ends the connection by the closing handshake, and returns the exit status.
func (s *session) close() int {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout,
		fmt.Errorf("the server did not close within %v", closeTimeout))
	defer cancel()
	if err := s.c.Shutdown(ctx, s.cfg.closeCode, s.cfg.closeReason); err != nil {
		s.say(err)
		return statusBroken
	}
	// The last message may be on its way to the output, and the server have closed before us.
	select {
	case <-s.over:
	case <-ctx.Done():
		s.say("the output did not take all messages")
		return statusBroken
	}
	if closed, ok := errors.AsType[*websocket.CloseError](s.err); ok {
		return s.ended(closed)
	}
	if s.cfg.verbose {
		s.say("closed with " + s.cfg.closeCode.String())
	}
	return s.done(s.err)
}

// ended says why the connection ended before we closed it, and returns the exit status.
func (s *session) ended(err error) int {
	closed, ok := errors.AsType[*websocket.CloseError](err)
	clean := ok && (closed.Code == websocket.StatusNormalClosure || closed.Code == websocket.StatusGoingAway ||
		closed.Code == websocket.StatusNoStatusReceived)
	if !clean || s.cfg.verbose || s.interactive {
		s.say(err)
	}
	if !clean {
		return statusBroken
	}
	return s.done(err)
}

// done is the exit status after a proper end, for which reading had err.
func (s *session) done(err error) int {
	if s.cfg.count > 0 && err != nil {
		s.say(fmt.Sprintf("fewer than the %d messages of -n have come", s.cfg.count))
		return statusBroken
	}
	return statusDone
}
