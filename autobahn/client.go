package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/strictws/websocket"
)

// startTimeout bounds the wait until the fuzzing server listens. Python takes a second or two to load it, a container
// image may have to be fetched first.
const startTimeout = 5 * time.Minute

// caseTimeout bounds a case in the client role. The suite closes the connection of its longest cases after 480 s.
const caseTimeout = 9 * time.Minute

// An echoFunc sends back what it receives until the connection ends, and returns why it did.
type echoFunc func(ctx context.Context, c *websocket.Conn) error

// echoMessages reads and writes whole messages.
func echoMessages(ctx context.Context, c *websocket.Conn) error {
	var buf []byte
	for {
		typ, msg, err := c.Read(ctx, buf[:0])
		if err != nil {
			return err
		}
		if err := c.Write(ctx, typ, msg); err != nil {
			return err
		}
		buf = msg
	}
}

// echoStreams passes on each part of a message as it comes.
func echoStreams(ctx context.Context, c *websocket.Conn) error {
	for {
		typ, r, err := c.NextReader(ctx)
		if err != nil {
			return err
		}
		w, err := c.NextWriter(ctx, typ)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
}

// A fuzzing is the suite's fuzzing server as its client sees it: a path for each thing that can be asked of it.
type fuzzing struct {
	addr     string
	agent    string
	echo     echoFunc
	takeover bool
}

// drive runs all cases and has the reports written. It gives up when ended is closed.
func (f fuzzing) drive(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-ended:
			cancel(errors.New("the fuzzing server has ended"))
		case <-ctx.Done():
		}
	}()

	count, err := f.caseCount(ctx)
	if err != nil {
		return fmt.Errorf("the fuzzing server does not answer: %w", err)
	}
	for i := 1; i <= count && ctx.Err() == nil; i++ {
		// How the connection ends is the suite's to judge, and so is a handshake that fails: an error here says no
		// more than its report.
		f.runCase(ctx, i)
	}
	// The answer to this request is that the server closes the connection, when the reports are there.
	if err := f.visit(ctx, "/updateReports", nil, ignore); err != nil {
		return fmt.Errorf("the fuzzing server writes no reports: %w", err)
	}
	return context.Cause(ctx)
}

// caseCount asks for the number of cases, again and again until the server is there.
func (f fuzzing) caseCount(ctx context.Context) (count int, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err = f.visit(ctx, "/getCaseCount", nil, func(ctx context.Context, c *websocket.Conn) error {
			_, msg, err := c.Read(ctx, nil)
			if err != nil {
				return err
			}
			count, err = strconv.Atoi(string(msg))
			if err != nil {
				return err
			}
			return ignore(ctx, c)
		})
		if err == nil {
			return count, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// runCase runs one case, of which the first has the number 1.
func (f fuzzing) runCase(ctx context.Context, number int) error {
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	return f.visit(ctx, "/runCase", url.Values{"case": {strconv.Itoa(number)}}, f.echo)
}

// ignore reads until the server closes the connection in good order.
func ignore(ctx context.Context, c *websocket.Conn) error {
	for {
		_, _, err := c.Read(ctx, nil)
		if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// visit connects to a path of the server's and does there what is to be done.
func (f fuzzing) visit(ctx context.Context, path string, query url.Values, do echoFunc) error {
	values := url.Values{"agent": {f.agent}}
	for name, value := range query {
		values[name] = value
	}
	target := url.URL{Scheme: "ws", Host: f.addr, Path: path, RawQuery: values.Encode()}
	c, _, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{
		Compression:    &websocket.Compression{ContextTakeover: f.takeover},
		MaxMessageSize: maxMessageSize,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}
