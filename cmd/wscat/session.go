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

// closeTimeout bounds the wait for the server's part of the closing handshake.
const closeTimeout = 5 * time.Second

// A session is what happens between the handshakes.
type session struct {
	cfg            *config
	c              *websocket.Conn
	stdout, stderr io.Writer
	interactive    bool

	received chan struct{} // one for each message that was printed
	over     chan error    // why reading ended
}

// errStop ends reading: we are going to close the connection.
var errStop = errors.New("stop")

// run sends, prints and closes. It returns the exit status.
func (s *session) run(ctx context.Context, stdin io.Reader) int {
	// What is sent and pinged ends with reading, and with the first of its own errors.
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if s.interactive {
		fmt.Fprintln(s.stderr, "Connected. Each line is a message; Ctrl-D or Ctrl-C closes the connection.")
	}
	go s.read(work)
	sent := make(chan struct{})
	go func() {
		if err := s.send(work, stdin); err != nil {
			stop(err)
		}
		close(sent)
	}()
	if s.cfg.ping > 0 {
		go func() { stop(s.keepPinging(work)) }()
	}

	var quiet <-chan time.Time // fires when it has been quiet for long enough
	missing := s.cfg.count
	for {
		select {
		case <-s.received:
			if missing > 0 {
				if missing--; missing == 0 {
					return s.close(stop)
				}
			}
			if quiet != nil {
				quiet = time.After(s.cfg.wait)
			}
		case <-sent:
			sent = nil
			if s.cfg.count == 0 {
				quiet = time.After(s.cfg.wait)
			}
		case <-quiet:
			return s.close(stop)
		case err := <-s.over:
			if ctx.Err() != nil {
				return s.close(stop) // Ctrl-C
			}
			if cause := context.Cause(work); cause != nil {
				err = cause // what stopped the reading
			}
			return s.ended(err, missing)
		}
	}
}

// read prints what arrives.
func (s *session) read(ctx context.Context) {
	var buf []byte
	for {
		typ, msg, err := s.c.Read(ctx, buf[:0])
		if err != nil {
			s.over <- err
			return
		}
		if !s.cfg.quiet {
			s.print(typ, msg)
		}
		buf = msg
		select {
		case s.received <- struct{}{}:
		case <-ctx.Done():
		}
	}
}

func (s *session) print(typ websocket.MessageType, msg []byte) {
	prompt := ""
	if s.interactive {
		prompt = "< "
	}
	if typ == websocket.Binary {
		fmt.Fprintf(s.stdout, "%sbinary: %x\n", prompt, msg)
	} else {
		fmt.Fprintf(s.stdout, "%s%s\n", prompt, msg)
	}
}

// send sends the messages of the command line, or else the lines of the input.
func (s *session) send(ctx context.Context, stdin io.Reader) error {
	if s.cfg.messages != nil {
		for _, m := range s.cfg.messages {
			if err := s.sendOne(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}
	input := bufio.NewReader(stdin)
	for {
		line, err := input.ReadString('\n')
		if line != "" {
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			if err := s.sendOne(ctx, line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) sendOne(ctx context.Context, m string) error {
	if !s.cfg.binary {
		return s.c.Write(ctx, websocket.Text, []byte(m))
	}
	b, err := parseHex(m)
	if err != nil {
		// A typing error is no reason to end a conversation.
		fmt.Fprintf(s.stderr, "wscat: %v\n", err)
		return nil
	}
	return s.c.Write(ctx, websocket.Binary, b)
}

// keepPinging returns when a Ping is not answered in time, or ctx ends.
func (s *session) keepPinging(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.ping)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, s.cfg.ping)
		err := s.c.Ping(limited)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("no Pong within %v", s.cfg.ping)
		}
		if err != nil {
			return err
		}
		if s.cfg.verbose {
			fmt.Fprintf(s.stderr, "Pong after %v\n", time.Since(start).Round(time.Microsecond))
		}
	}
}

// close ends the connection by the closing handshake, and returns the exit status.
func (s *session) close(stop context.CancelCauseFunc) int {
	stop(errStop)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.c.Shutdown(ctx, s.cfg.closeCode, s.cfg.closeReason); err != nil {
		fmt.Fprintf(s.stderr, "wscat: closing: %v\n", err)
		return statusBroken
	}
	if s.cfg.verbose {
		fmt.Fprintf(s.stderr, "Closed with %s\n", s.cfg.closeCode)
	}
	return statusDone
}

// ended says why the connection ended before we closed it, and returns the exit status.
func (s *session) ended(err error, missing int) int {
	closed, ok := errors.AsType[*websocket.CloseError](err)
	if !ok {
		fmt.Fprintf(s.stderr, "wscat: %v\n", err)
		return statusBroken
	}
	clean := false
	switch closed.Code {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusReceived:
		clean = missing == 0
	}
	if !clean || s.cfg.verbose || s.interactive {
		fmt.Fprintf(s.stderr, "wscat: %v\n", err)
	}
	if !clean {
		return statusBroken
	}
	return statusDone
}
