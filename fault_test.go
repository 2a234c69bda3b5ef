package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file is a matrix: what happens to a connection that is in some state when something
// goes wrong. Each line of faultCells is one cell of it; check says how it is staged.

// Where the connection is. A Read and a Ping are pending in all states.
const (
	idle             = "idle"
	insideHeader     = "inside a header"
	insidePayload    = "inside a payload"
	betweenFragments = "between fragments"
	insideCompressed = "inside a compressed message"
	afterOurClose    = "after sending Close"   // Shutdown(1000, "bye") waits for the answer
	afterTheirClose  = "after receiving Close" // the peer's was 4000 "away"
)

// What goes wrong.
const (
	reset          = "reset"
	fin            = "FIN"
	silence        = "silence"
	byteByByte     = "one byte at a time" // what the state leaves to send, every pace a byte
	garbage        = "garbage"
	duplicateClose = "duplicate Close"    // 4000 "away" twice, behind the rest of a begun frame
	dataAfterClose = "data after Close"   // the same with a message for the second Close
	contextEnd     = "context end"        // that of Read, or of Shutdown if that is pending
	localClose     = "Close by ourselves" // in another goroutine
)

var (
	faultStates = []string{idle, insideHeader, insidePayload, betweenFragments, insideCompressed, afterOurClose, afterTheirClose}
	faultFaults = []string{reset, fin, silence, byteByByte, garbage, duplicateClose, dataAfterClose, contextEnd, localClose}
)

// pace is as slow as a peer can be without being asked by a Ping whether it is alive.
const pace = defaultKeepAlive/2 - time.Second

// What a call returns, by the rows of the table of errors in the package documentation:
// see kindOf.
const (
	theMessage = "the message" // no error
	usable     = "no error"    // the connection goes on
	success    = "nil"
	ctxEnded   = "ctx.Err()"
	ended      = "net.ErrClosed"
	eof        = "io.ErrUnexpectedEOF"
	dead       = "os.ErrDeadlineExceeded"
	econn      = "ECONNRESET"
	away       = "CloseError 4000 away"
)

type faultCell struct {
	role  string
	state string
	fault string

	read  string // what the pending Read returns; if that is an error, the pending Ping does too
	later string // what every later call returns, but Close, and Shutdown after the peer's Close: nil
	sees  string // what the peer receives from the fault on, if it reads when all is over

	// How long after the fault the outcome is there.
	server, client time.Duration

	shutdown string // what the pending Shutdown returns, in the state that has one
}

const (
	both       = "both"
	serverOnly = "server"
	clientOnly = "client"
)

// A peer that broke a rule, or has closed, is given lingerTimeout to close TCP (RFC 6455
// section 7.1.1). A server that was sent a Close does not wait.
const linger = lingerTimeout

var faultCells = []faultCell{
	// role, state, fault, Read, later calls, the peer sees, time as a server and as a client, Shutdown
	{both, idle, reset, econn, econn, "its own reset", 0, 0, ""},
	{both, idle, fin, eof, eof, "EOF", 0, 0, ""},
	{both, idle, silence, dead, dead, "ping 2; EOF", 45 * time.Second, 45 * time.Second, ""},
	{both, idle, byteByByte, theMessage, usable, "", 11 * pace, 7 * pace, ""},
	{both, idle, garbage, "ProtocolError 1002", "ProtocolError 1002", "close 1002 payload length has its top bit set; EOF", linger, linger, ""},
	{both, idle, duplicateClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{both, idle, dataAfterClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{both, idle, contextEnd, ctxEnded, usable, "", 0, 0, ""},
	{both, idle, localClose, ended, ended, "close 1001; EOF", 0, 0, ""},

	{both, insideHeader, reset, econn, econn, "its own reset", 0, 0, ""},
	{both, insideHeader, fin, eof, eof, "EOF", 0, 0, ""},
	{both, insideHeader, silence, dead, dead, "ping 2; EOF", 60 * time.Second, 60 * time.Second, ""},
	{both, insideHeader, byteByByte, theMessage, usable, "", 10 * pace, 6 * pace, ""},
	{both, insideHeader, garbage, "ProtocolError 1002", "ProtocolError 1002", "close 1002 payload length has its top bit set; EOF", linger, linger, ""},
	{both, insideHeader, duplicateClose, theMessage, away, "close 4000 away; EOF", 0, linger, ""},
	{both, insideHeader, dataAfterClose, theMessage, away, "close 4000 away; EOF", 0, linger, ""},
	{both, insideHeader, contextEnd, ctxEnded, usable, "", 0, 0, ""},
	{both, insideHeader, localClose, ended, ended, "close 1001; EOF", 0, 0, ""},

	{both, insidePayload, reset, econn, econn, "its own reset", 0, 0, ""},
	{both, insidePayload, fin, eof, eof, "EOF", 0, 0, ""},
	{both, insidePayload, silence, dead, dead, "ping 2; EOF", 60 * time.Second, 60 * time.Second, ""},
	{both, insidePayload, byteByByte, theMessage, usable, "", 3 * pace, 3 * pace, ""},
	{both, insidePayload, garbage, "ProtocolError 1007", "ProtocolError 1007", "close 1007 text is not UTF-8; EOF", linger, linger, ""},
	{both, insidePayload, duplicateClose, theMessage, away, "close 4000 away; EOF", 0, linger, ""},
	{both, insidePayload, dataAfterClose, theMessage, away, "close 4000 away; EOF", 0, linger, ""},
	{both, insidePayload, contextEnd, ctxEnded, usable, "", 0, 0, ""},
	{both, insidePayload, localClose, ended, ended, "close 1001; EOF", 0, 0, ""},

	// A Close frame may come here: the message is lost.
	{both, betweenFragments, reset, econn, econn, "its own reset", 0, 0, ""},
	{both, betweenFragments, fin, eof, eof, "EOF", 0, 0, ""},
	{both, betweenFragments, silence, dead, dead, "ping 2; EOF", 60 * time.Second, 60 * time.Second, ""},
	{both, betweenFragments, byteByByte, theMessage, usable, "", 8 * pace, 4 * pace, ""},
	{both, betweenFragments, garbage, "ProtocolError 1002", "ProtocolError 1002", "close 1002 payload length has its top bit set; EOF", linger, linger, ""},
	{both, betweenFragments, duplicateClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{both, betweenFragments, dataAfterClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{both, betweenFragments, contextEnd, ctxEnded, usable, "", 0, 0, ""},
	{both, betweenFragments, localClose, ended, ended, "close 1001; EOF", 0, 0, ""},

	// Nothing is inflated before all is there: garbage is found then.
	{both, insideCompressed, reset, econn, econn, "its own reset", 0, 0, ""},
	{both, insideCompressed, fin, eof, eof, "EOF", 0, 0, ""},
	{both, insideCompressed, silence, dead, dead, "ping 2; EOF", 60 * time.Second, 60 * time.Second, ""},
	{both, insideCompressed, byteByByte, theMessage, usable, "", 10 * pace, 6 * pace, ""},
	{both, insideCompressed, garbage, "ProtocolError 1007", "ProtocolError 1007", "close 1007 compressed message is cut off; EOF", linger, linger, ""},
	{both, insideCompressed, duplicateClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{both, insideCompressed, dataAfterClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{both, insideCompressed, contextEnd, ctxEnded, usable, "", 0, 0, ""},
	{both, insideCompressed, localClose, ended, ended, "close 1001; EOF", 0, 0, ""},

	// Shutdown says how it went. The pending Read says what it saw itself, later calls that we
	// closed. There is no second Close frame, and no Ping either.
	{both, afterOurClose, reset, econn, ended, "its own reset", 0, 0, econn},
	{both, afterOurClose, fin, eof, ended, "EOF", 0, 0, eof},
	{both, afterOurClose, silence, dead, ended, "EOF", 45 * time.Second, 45 * time.Second, dead},
	{both, afterOurClose, byteByByte, ended, ended, "EOF", 11 * pace, 7*pace + linger, success},
	{both, afterOurClose, garbage, "ProtocolError 1002", ended, "EOF", linger, linger, "ProtocolError 1002"},
	{both, afterOurClose, duplicateClose, ended, ended, "EOF", 0, linger, success},
	{both, afterOurClose, dataAfterClose, ended, ended, "EOF", 0, linger, success},
	{both, afterOurClose, contextEnd, ended, ended, "EOF", 0, 0, ctxEnded},
	{both, afterOurClose, localClose, ended, ended, "EOF", 0, 0, ended},

	// Whatever comes, the peer's Close is what reading ended with. A server has dropped TCP:
	// who goes on sending is reset, and may lose our answer.
	{serverOnly, afterTheirClose, reset, away, away, "its own reset", 0, 0, ""},
	{serverOnly, afterTheirClose, fin, away, away, "close 4000 away; EOF", 0, 0, ""},
	{serverOnly, afterTheirClose, silence, away, away, "close 4000 away; EOF", 0, 0, ""},
	{serverOnly, afterTheirClose, byteByByte, away, away, "reset", 0, 0, ""},
	{serverOnly, afterTheirClose, garbage, away, away, "reset", 0, 0, ""},
	{serverOnly, afterTheirClose, duplicateClose, away, away, "reset", 0, 0, ""},
	{serverOnly, afterTheirClose, dataAfterClose, away, away, "reset", 0, 0, ""},
	{serverOnly, afterTheirClose, contextEnd, away, away, "close 4000 away; EOF", 0, 0, ""},
	{serverOnly, afterTheirClose, localClose, away, away, "close 4000 away; EOF", 0, 0, ""},

	// A client drops what comes while it waits for the server to drop TCP.
	{clientOnly, afterTheirClose, reset, away, away, "its own reset", 0, 0, ""},
	{clientOnly, afterTheirClose, fin, away, away, "close 4000 away; EOF", 0, 0, ""},
	{clientOnly, afterTheirClose, silence, away, away, "close 4000 away; EOF", 0, linger, ""},
	{clientOnly, afterTheirClose, byteByByte, away, away, "reset", 0, linger, ""},
	{clientOnly, afterTheirClose, garbage, away, away, "close 4000 away; EOF", 0, linger, ""},
	{clientOnly, afterTheirClose, duplicateClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{clientOnly, afterTheirClose, dataAfterClose, away, away, "close 4000 away; EOF", 0, linger, ""},
	{clientOnly, afterTheirClose, contextEnd, away, away, "close 4000 away; EOF", 0, 0, ""},
	{clientOnly, afterTheirClose, localClose, away, away, "close 4000 away; EOF", 0, 0, ""},
}

func TestFaults(t *testing.T) {
	type key struct{ role, state, fault string }
	missing := make(map[key]bool)
	for _, role := range []string{serverOnly, clientOnly} {
		for _, state := range faultStates {
			for _, fault := range faultFaults {
				missing[key{role, state, fault}] = true
			}
		}
	}
	for _, x := range faultCells {
		for _, role := range []string{serverOnly, clientOnly} {
			if x.role != both && x.role != role {
				continue
			}
			k := key{role, x.state, x.fault}
			require.True(t, missing[k], "%v is no cell, or one twice", k)
			delete(missing, k)
			t.Run(role+"/"+x.state+"/"+x.fault, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { x.check(t, role == clientOnly) })
			})
		}
	}
	require.Empty(t, missing, "cells without a line")
}

// faultBytes is what the peer sends: before the fault to reach the state, the rest that it
// would send next, and what is garbage there.
type faultBytes struct{ begun, rest, garbage []byte }

func (x *faultCell) bytes(t *testing.T, masked bool) faultBytes {
	hello := frame(true, OpText, "Hello", masked)
	last := len(hello) - 3
	noise := bytes.Repeat([]byte{0xff}, maxHeaderSize)
	switch x.state {
	case idle:
		return faultBytes{nil, hello, noise}
	case insideHeader:
		return faultBytes{hello[:1], hello[1:], noise}
	case insidePayload:
		return faultBytes{hello[:last], hello[last:], frame(true, OpText, "He\xff\xff\xff", masked)[last:]}
	case betweenFragments:
		return faultBytes{frame(false, OpText, "Hel", masked), frame(true, OpContinuation, "lo", masked), noise}
	case insideCompressed:
		z := string(unhex(t, "f248cdc9c90700")) // "Hello" of RFC 7692 section 7.2.3.1
		begun := frame(false, OpText, z[:3], masked)
		begun[0] |= 0x40
		return faultBytes{begun, frame(true, OpContinuation, z[3:], masked), frame(true, OpContinuation, "\xff\xff\xff\xff", masked)}
	case afterOurClose:
		return faultBytes{nil, closeFrame(1000, "bye", masked), noise}
	case afterTheirClose:
		return faultBytes{closeFrame(4000, "away", masked), hello, noise}
	}
	panic(x.state)
}

// strike lets the fault happen.
func (x *faultCell) strike(t *testing.T, c *Conn, end *pipeConn, b faultBytes, masked bool, cancel func()) {
	// What may stand only between frames comes after the end of one that has begun.
	var rest []byte
	if x.state == insideHeader || x.state == insidePayload {
		rest = b.rest
	}
	theirs := closeFrame(4000, "away", masked)
	write := func(frames ...[]byte) { _, _ = end.Write(bytes.Join(frames, nil)) } // c may be gone
	switch x.fault {
	case reset:
		end.reset()
	case fin:
		_ = end.CloseWrite()
	case silence:
	case byteByByte:
		every := pace
		if x.state == afterTheirClose {
			every = linger / 4
		}
		for i := range b.rest {
			elapse(every)
			write(b.rest[i : i+1])
		}
	case garbage:
		write(b.garbage)
	case duplicateClose:
		write(rest, theirs, theirs)
	case dataAfterClose:
		write(rest, theirs, frame(true, OpText, "late", masked))
	case contextEnd:
		cancel()
	case localClose:
		assert.NoError(t, c.Close())
	default:
		panic(x.fault)
	}
}

func (x *faultCell) check(t *testing.T, client bool) {
	masked := !client
	nc, end := newPipe()
	nc.resets, end.resets = true, true
	cfg := config{client: client}
	if x.state == insideCompressed {
		cfg.deflate = agreed(false, 15)
	}
	c := newConn(nc, nil, cfg)
	b := x.bytes(t, masked)

	// The state: calls are pending, frames have begun.
	type result struct {
		kind string
		at   time.Time
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	readCtx, shutdownCtx := ctx, t.Context()
	if x.state == afterOurClose {
		readCtx, shutdownCtx = t.Context(), ctx
	}
	read, ping, shutdown := make(chan result, 1), make(chan result, 1), make(chan result, 1)
	go func() {
		_, msg, err := c.Read(readCtx, nil)
		if err == nil {
			assert.Equal(t, "Hello", string(msg))
			read <- result{theMessage, time.Now()}
			return
		}
		read <- result{kindOf(t, err), time.Now()}
	}()
	synctest.Wait()
	go func() { err := c.Ping(t.Context()); ping <- result{kindOf(t, err), time.Now()} }()
	synctest.Wait()
	require.Equal(t, "ping 1", seen(t, end))
	if x.state == afterOurClose {
		go func() {
			err := c.Shutdown(shutdownCtx, 1000, "bye")
			shutdown <- result{kindOf(t, err), time.Now()}
		}()
		synctest.Wait()
		require.Equal(t, "close 1000 bye", seen(t, end))
	}
	send(t, end, b.begun)
	synctest.Wait()

	// The fault.
	start := time.Now()
	struck := make(chan struct{})
	go func() { defer close(struck); x.strike(t, c, end, b, masked, cancel) }()

	r := <-read
	require.Equal(t, x.read, r.kind, "Read")
	if x.read == theMessage && x.later != usable { // the end is that of the next Read
		_, _, err := c.Read(t.Context(), nil)
		r = result{kindOf(t, err), time.Now()}
		require.Equal(t, x.later, r.kind, "the Read after the message")
	}
	want := x.server
	if client {
		want = x.client
	}
	assert.Equal(t, want, r.at.Sub(start), "time until Read knew")
	if x.state == afterOurClose {
		s := <-shutdown
		assert.Equal(t, x.shutdown, s.kind, "the pending Shutdown")
		assert.Equal(t, want, s.at.Sub(start), "time of Shutdown")
	}
	<-struck
	synctest.Wait()

	if x.later == usable {
		// Nothing was lost, in either direction.
		require.Empty(t, ping)
		if x.fault == contextEnd {
			send(t, end, b.rest)
			_, msg, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "Hello", string(msg))
		}
		require.NoError(t, c.Write(t.Context(), Text, []byte("here")))
		require.Equal(t, joinSeen(x.sees, "text here"), seen(t, end))
		send(t, end, frame(true, OpPong, "\x00\x00\x00\x00\x00\x00\x00\x01", masked))
		require.Equal(t, success, (<-ping).kind)
		require.NoError(t, c.Shutdown(answering(t, end, masked), 1000, "bye"))
		require.Equal(t, "close 1000 bye; EOF", seen(t, end))
		return
	}

	p := <-ping
	assert.Equal(t, r.kind, p.kind, "the pending Ping")
	assert.Equal(t, r.at, p.at, "time of the pending Ping")
	before := time.Now()
	for range 2 {
		_, _, err := c.Read(t.Context(), nil)
		assert.Equal(t, x.later, kindOf(t, err), "Read afterwards")
		_, _, err = c.NextReader(t.Context())
		assert.Equal(t, x.later, kindOf(t, err), "NextReader afterwards")
		assert.Equal(t, x.later, kindOf(t, c.Write(t.Context(), Text, nil)), "Write afterwards")
		_, err = c.NextWriter(t.Context(), Text)
		assert.Equal(t, x.later, kindOf(t, err), "NextWriter afterwards")
		assert.Equal(t, x.later, kindOf(t, c.Ping(t.Context())), "Ping afterwards")
		after := x.later
		if after == away {
			after = success // the closing handshake was completed
		}
		assert.Equal(t, after, kindOf(t, c.Shutdown(t.Context(), 1000, "")), "Shutdown afterwards")
		assert.NoError(t, c.Close(), "Close afterwards")
	}
	assert.Zero(t, time.Since(before), "calls afterwards do not wait")
	assert.Equal(t, x.sees, seen(t, end), "what the peer sees")

	// Nothing is left: no goroutine, or synctest says so, no watched context, no Ping.
	assert.Nil(t, c.in.watch.armed)
	assert.Nil(t, c.out.watch.armed)
	assert.Empty(t, c.pinging().waiting)
}

// answering lets the peer answer a Close frame, and returns a context.
func answering(t *testing.T, end *pipeConn, masked bool) context.Context {
	go func() {
		synctest.Wait()
		_, _ = end.Write(closeFrame(1000, "bye", masked))
		_ = end.CloseWrite()
	}()
	return t.Context()
}

// kindOf names the one row of the table of errors that err belongs to.
func kindOf(t *testing.T, err error) string {
	if err == nil {
		return success
	}
	assert.True(t, strings.HasPrefix(err.Error(), "websocket: "), err)
	assert.Equal(t, 1, strings.Count(err.Error(), "websocket: "), err)
	var kinds []string
	for _, k := range []struct {
		name string
		is   error
	}{
		{ctxEnded, context.Canceled}, {ctxEnded, context.DeadlineExceeded},
		{ended, net.ErrClosed}, {eof, io.ErrUnexpectedEOF}, {dead, os.ErrDeadlineExceeded},
		{econn, syscall.ECONNRESET}, {"EPIPE", syscall.EPIPE},
	} {
		if errors.Is(err, k.is) {
			kinds = append(kinds, k.name)
		}
	}
	if ce, ok := errors.AsType[*CloseError](err); ok {
		kinds = append(kinds, strings.TrimSpace(fmt.Sprintf("CloseError %d %s", ce.Code, ce.Reason)))
	}
	if perr, ok := errors.AsType[*ProtocolError](err); ok {
		kinds = append(kinds, fmt.Sprintf("ProtocolError %d", perr.Code))
	}
	return strings.Join(kinds, " and ")
}

// seen returns the frames that arrived at end and, if it has ended, how.
func seen(t *testing.T, end *pipeConn) string {
	synctest.Wait()
	var b []byte
	for end.unread() > 0 {
		p := make([]byte, end.unread())
		n, err := end.Read(p)
		require.NoError(t, err)
		b = append(b, p[:n]...)
	}
	var all []string
	for len(b) > 0 {
		h, n, perr := ParseHeader(b)
		require.NoError(t, perr)
		require.NotZero(t, n, "%x is no frame", b)
		require.LessOrEqual(t, n+int(h.Length), len(b), "a frame was cut")
		p := b[n : n+int(h.Length)]
		b = b[n+int(h.Length):]
		Mask(p, h.Key, 0)
		switch h.Opcode {
		case OpClose:
			ce, perr := parseClose(p)
			require.Nil(t, perr)
			p = fmt.Appendf(nil, "%d %s", ce.Code, ce.Reason)
		case OpPing:
			if id, ok := parsePing(p); ok {
				p = fmt.Append(nil, id)
			}
		}
		all = append(all, strings.TrimSpace(h.Opcode.String()+" "+string(p)))
	}
	end.mu.Lock()
	defer end.mu.Unlock()
	switch {
	case end.closed:
		all = append(all, "its own reset")
	case end.aborted:
		all = append(all, "reset")
	case end.peer.closed || end.peer.writeClosed:
		all = append(all, "EOF")
	}
	return strings.Join(all, "; ")
}

func joinSeen(parts ...string) string {
	return strings.TrimPrefix(strings.Join(parts, "; "), "; ")
}
