package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzNetConn lets a script use a NetConn and the peer behind it: no byte is lost, doubled or
// made up whatever deadlines pass on the way, and a Write that failed has had no effect or
// closed the connection.
func FuzzNetConn(f *testing.F) {
	f.Fuzz(func(t *testing.T, mode byte, script []byte) {
		if len(script) > 200 {
			return
		}
		synctest.Test(t, func(t *testing.T) { newNetConnScript(t, mode).run(script) })
	})
}

// netConnScript is a NetConn in use, and what has to come of it.
type netConnScript struct {
	t    *testing.T
	cfg  config
	typ  MessageType
	c    *Conn
	n    net.Conn
	peer *pipeConn
	z    *deflater // the peer's, nil without compression

	// What the peer sends: wire is on its way after sent bytes of it, and makes the first
	// readable[i] bytes of payload readable once byte i is there.
	wire     []byte
	sent     int
	readable []int
	payload  []byte
	messages []message
	empty    bool  // one of them is
	end      error // that Read comes to behind it, nil if it goes on
	finished bool  // the peer has closed its half of TCP

	got     []byte    // by Read
	written []message // by Write
	taken   []byte    // by the peer, from the wire
	closed  bool      // by Close
	cut     bool      // by a Write that timed out
}

// message is one that is sent in either direction.
type message struct {
	op      Opcode
	payload []byte
}

func newNetConnScript(t *testing.T, mode byte) *netConnScript {
	s := &netConnScript{t: t, cfg: config{client: mode&1 != 0, keepAlive: -1}}
	s.typ = []MessageType{Binary, Text, 0, 0}[mode>>1&3]
	size := pipeSize
	if mode&8 != 0 {
		size = 500
	}
	a, b := newPipeSize(size, pipeSize)
	var nc net.Conn = a
	if mode&16 != 0 {
		nc = &chunkConn{a, 5}
	}
	if mode&32 != 0 {
		s.cfg.deflate = agreed(mode&64 != 0, 9)
		s.z = newDeflater(s.cfg.deflate)
	}
	s.c, s.peer = newConn(nc, nil, s.cfg), b
	s.n = NetConn(s.c, s.typ)
	return s
}

// A step of a script is two bytes: what is done, and how much or how long.
func (s *netConnScript) run(script []byte) {
	for ; len(script) > 1; script = script[2:] {
		arg := int(script[1])
		switch script[0] % 16 {
		case 0, 1:
			s.queueMessage(arg)
		case 2:
			s.queue(frame(true, OpPing, string(s.text(arg%126)), !s.cfg.client), 0)
		case 3:
			s.queueClose([]StatusCode{1000, 1001, 1005, 1011, 3000, 4999}[arg%6])
		case 4:
			s.queueOfWrongType()
		case 5, 6:
			s.deliver(1 + arg)
		case 7:
			s.deliver(len(s.wire))
		case 8, 9:
			s.read(1+arg, time.Minute)
		case 10:
			s.read(1+arg, -1)
		case 11:
			s.readWhile(arg)
		case 12, 13:
			s.write(arg * arg / 16)
		case 14:
			s.drain()
		case 15:
			switch {
			case arg < 100:
				elapse(time.Duration(arg) * time.Millisecond)
			case arg < 200:
				s.ping()
			case arg < 240:
				s.finish()
			default:
				s.close()
			}
		}
	}
	s.rest()
}

// text is what the next n bytes of payload are.
func (s *netConnScript) text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz0123456789\n"[(len(s.payload)+i*i>>4+i)%37]
	}
	return b
}

// queue appends to what the peer sends. The payload that it brings in is the last n bytes of
// frames.
func (s *netConnScript) queue(frames []byte, n int) {
	if s.end != nil || s.finished {
		return
	}
	before := 0
	if len(s.readable) > 0 {
		before = s.readable[len(s.readable)-1]
	}
	s.wire = append(s.wire, frames...)
	for i := range frames {
		s.readable = append(s.readable, before+max(0, n-(len(frames)-1-i)))
	}
}

func (s *netConnScript) queueMessage(arg int) {
	if s.end != nil || s.finished {
		return
	}
	p := s.text(arg * arg / 16)
	op := Opcode(s.typ)
	if op == 0 {
		op = OpText + Opcode(len(s.messages)%2)
	}
	s.messages = append(s.messages, message{op, p})
	s.empty = s.empty || len(p) == 0
	if s.z != nil && arg%2 == 0 {
		if z, ok := s.z.appendMessage(nil, p); ok {
			b := frame(true, op, string(z), !s.cfg.client)
			b[0] |= 0x40
			s.payload = append(s.payload, p...)
			s.queue(b, 0)
			// What is compressed is read when it is there whole.
			s.readable[len(s.readable)-1] = len(s.payload)
			return
		}
	}
	for pieces := 1 + arg%4; pieces > 0; pieces-- {
		piece := p[:len(p)/pieces]
		p = p[len(piece):]
		s.payload = append(s.payload, piece...)
		s.queue(frame(pieces == 1, op, string(piece), !s.cfg.client), len(piece))
		op = OpContinuation
	}
}

func (s *netConnScript) queueClose(code StatusCode) {
	s.queue(closeFrame(code, "", !s.cfg.client), 0)
	if s.end == nil && !s.finished {
		s.end = endOfStream(&CloseError{Code: code})
	}
}

// endOfStream is what a stream of bytes makes of the error of a connection.
func endOfStream(err error) error {
	if ce, ok := err.(*CloseError); ok && (ce.Code == 1000 || ce.Code == 1001 || ce.Code == 1005) {
		return io.EOF
	}
	return err
}

func (s *netConnScript) queueOfWrongType() {
	if s.typ == 0 {
		return
	}
	s.queue(frame(true, OpText+OpBinary-Opcode(s.typ), "wrong", !s.cfg.client), 0)
	if s.end == nil && !s.finished {
		s.end = errWrongType
	}
}

// deliver lets up to n bytes arrive, as far as there is room.
func (s *netConnScript) deliver(n int) {
	if s.finished || s.over() {
		return
	}
	n = min(n, len(s.wire)-s.sent, pipeSize-s.inPipe())
	m, err := s.peer.Write(s.wire[s.sent : s.sent+n])
	s.sent += m
	if err != nil {
		require.True(s.t, s.over(), "%v", err)
	}
}

func (s *netConnScript) inPipe() int { return s.peer.peer.unread() }

// over reports whether the connection is closed.
func (s *netConnScript) over() bool {
	select {
	case <-s.c.over():
		return true
	default:
		return false
	}
}

// unread is how much payload Read must be able to return without waiting.
func (s *netConnScript) unread() int {
	if s.sent == 0 {
		return 0
	}
	return s.readable[s.sent-1] - len(s.got)
}

func (s *netConnScript) read(size int, wait time.Duration) {
	p := make([]byte, size)
	require.Equal(s.t, s.over(), s.n.SetReadDeadline(time.Now().Add(wait)) != nil)
	start := time.Now()
	n, err := s.n.Read(p)
	s.result(p[:n], err)
	switch {
	case err == nil:
	case err != os.ErrDeadlineExceeded:
	case wait <= 0:
		require.Equal(s.t, start, time.Now())
	default:
		require.Zero(s.t, s.unread(), "there was something to read")
		require.GreaterOrEqual(s.t, time.Since(start), wait)
	}
}

// readWhile has a Read pending, if there is nothing to read, while something arrives or the
// deadline is moved.
func (s *netConnScript) readWhile(arg int) {
	_ = s.n.SetReadDeadline(time.Time{})
	type result struct {
		p   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		p := make([]byte, 1+arg)
		n, err := s.n.Read(p)
		done <- result{p[:n], err}
	}()
	synctest.Wait()
	s.deliver(arg)
	synctest.Wait()
	_ = s.n.SetReadDeadline(time.Now().Add(time.Duration(arg%3-1) * time.Second))
	r := <-done
	s.result(r.p, r.err)
}

// result judges what Read returned.
func (s *netConnScript) result(p []byte, err error) {
	s.got = append(s.got, p...)
	require.LessOrEqual(s.t, len(s.got), len(s.payload))
	require.Equal(s.t, string(s.payload[len(s.got)-len(p):len(s.got)]), string(p))
	switch {
	case err == nil:
		require.NotEmpty(s.t, p)
		require.False(s.t, s.closed || s.cut)
		return
	case err == os.ErrDeadlineExceeded:
		require.False(s.t, s.over())
	default:
		s.judgeEnd(err)
	}
	require.Empty(s.t, p)
}

// typeOfWrite is what a message that is written has to have, 0 if either is right: with empty
// messages, one that has begun cannot be told.
func (s *netConnScript) typeOfWrite() Opcode {
	if s.typ != 0 {
		return Opcode(s.typ)
	}
	if s.empty {
		return 0
	}
	op, n := OpBinary, len(s.got)
	for _, m := range s.messages {
		if n <= 0 {
			break
		}
		op, n = m.op, n-len(m.payload)
	}
	return op
}

// write writes a message, which the peer does not read meanwhile.
func (s *netConnScript) write(n int) {
	over := s.over()
	p := bytes.Repeat([]byte{byte('a' + len(s.written)%26)}, n)
	op := s.typeOfWrite()
	wait := time.Duration(n%3-1) * time.Second
	_ = s.n.SetWriteDeadline(time.Now().Add(wait))
	start := time.Now()
	m, err := s.n.Write(p)
	if err == nil {
		require.False(s.t, over)
		require.Positive(s.t, wait)
		require.Equal(s.t, n, m)
		s.written = append(s.written, message{op, p})
		return
	}
	require.Zero(s.t, m)
	switch {
	case over:
		require.NotErrorIs(s.t, err, os.ErrDeadlineExceeded)
		require.True(s.t, !s.closed && !s.cut || errors.Is(err, net.ErrClosed), "%v", err)
	default:
		require.Equal(s.t, os.ErrDeadlineExceeded, err)
		require.GreaterOrEqual(s.t, time.Since(start), wait)
		s.cut = s.over()
		require.False(s.t, s.cut && wait <= 0)
	}
}

// ping has a Ping read what is in front of messages.
func (s *netConnScript) ping() {
	over := s.over()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	err := s.c.Ping(ctx)
	require.Error(s.t, err, "nobody answers")
	switch {
	case over:
	case !errors.Is(err, context.DeadlineExceeded):
		s.judgeEnd(endOfStream(err))
	case s.over():
		s.cut = true
	}
}

// judgeEnd holds against the script what reading ended with.
func (s *netConnScript) judgeEnd(err error) {
	switch {
	case s.closed || s.cut:
		require.ErrorIs(s.t, err, net.ErrClosed)
		return
	case s.end != nil:
		require.Equal(s.t, s.end, err)
	default:
		require.True(s.t, s.finished, "%v", err)
		require.ErrorIs(s.t, err, io.ErrUnexpectedEOF)
	}
	require.True(s.t, s.over())
	require.Equal(s.t, len(s.payload), len(s.got), "something was lost")
}

// drain has the peer read all there is.
func (s *netConnScript) drain() {
	if n := s.peer.unread(); n > 0 {
		b := make([]byte, n)
		n, err := s.peer.Read(b)
		require.NoError(s.t, err)
		s.taken = append(s.taken, b[:n]...)
	}
}

// finish has the peer send all and close its half of TCP.
func (s *netConnScript) finish() {
	for !s.finished && !s.over() {
		if s.deliver(len(s.wire)); s.sent == len(s.wire) {
			s.finished = true
			_ = s.peer.CloseWrite()
			return
		}
		s.drain()
		s.read(1000, time.Minute)
	}
}

func (s *netConnScript) close() {
	if !s.over() {
		s.closed = true
	}
	require.NoError(s.t, s.n.Close())
	require.NoError(s.t, s.n.Close())
	require.ErrorIs(s.t, s.n.SetDeadline(time.Now()), net.ErrClosed)
}

// rest reads all that is left, closes, and judges what was written.
func (s *netConnScript) rest() {
	read := func() bool {
		s.drain()
		before := len(s.got)
		s.deliver(len(s.wire))
		s.read(10_000, time.Minute)
		return len(s.got) > before
	}
	for read() {
	}
	if !s.closed && !s.cut {
		require.Equal(s.t, len(s.payload), len(s.got), "something was lost")
		require.Equal(s.t, s.end != nil || s.finished, s.over())
	}
	s.close()
	for {
		b := make([]byte, 10_000)
		n, err := s.peer.Read(b)
		s.taken = append(s.taken, b[:n]...)
		if err != nil {
			require.Equal(s.t, io.EOF, err)
			break
		}
	}
	require.NoError(s.t, s.peer.Close())
	s.judgeTaken()
}

// judgeTaken holds the frames that the peer got against what was written.
func (s *netConnScript) judgeTaken() {
	var inflate *inflater
	if s.cfg.deflate != nil {
		inflate = newInflater(s.cfg.deflate)
	}
	frames := unmasked(s.taken)
	closing := false
	for len(frames) > 0 {
		h, n, err := ParseHeader(frames)
		require.NoError(s.t, err)
		if n == 0 || uint64(len(frames)-n) < h.Length || h.Masked {
			break // cut by the end of the connection
		}
		require.False(s.t, closing, "nothing follows a Close frame")
		payload := frames[n : n+int(h.Length)]
		frames = frames[n+int(h.Length):]
		require.True(s.t, h.Fin)
		switch h.Opcode {
		case OpPing, OpPong:
		case OpClose:
			closing = true
		default:
			if h.RSV1 {
				payload, err = inflate.appendMessage(nil, payload, 1<<20)
				require.NoError(s.t, err)
			}
			require.NotEmpty(s.t, s.written, "a message that was not written: %.100q", payload)
			want := s.written[0]
			require.Equal(s.t, string(want.payload), string(payload))
			require.Contains(s.t, []Opcode{0, h.Opcode}, want.op)
			s.written = s.written[1:]
		}
	}
	require.Empty(s.t, s.written, fmt.Sprintf("%d messages were lost", len(s.written)))
}
