package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// outcome is all that a stream of bytes leads to.
type outcome struct {
	messages []string
	err      string // the final one
	sent     string // what went to the peer, in hex
}

// A way is a way to receive what a peer sends: it reads to the final error.
type way struct {
	name string
	read func(ctx context.Context, c *Conn, got func(MessageType, []byte)) error
}

// wholeWays take messages whole. Interrupted, they go on from there.
var wholeWays = []way{
	{"Read", func(ctx context.Context, c *Conn, got func(MessageType, []byte)) error {
		buf := []byte("prefix")
		for {
			typ, msg, err := c.Read(ctx, buf[:len("prefix")])
			if !bytes.HasPrefix(msg, []byte("prefix")) || err != nil && len(msg) > len("prefix") {
				return errors.New("Read has changed what was there")
			}
			if err != nil {
				return err
			}
			got(typ, msg[len("prefix"):])
			buf = msg
		}
	}},
	{"Messages", func(ctx context.Context, c *Conn, got func(MessageType, []byte)) error {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return err
			}
			got(m.Type, m.Payload)
			spoil(m.Payload)
		}
		return nil
	}},
	{"Messages, one at a time", func(ctx context.Context, c *Conn, got func(MessageType, []byte)) error {
		for {
			for m, err := range c.Messages(ctx) {
				if err != nil {
					return err
				}
				got(m.Type, m.Payload)
				spoil(m.Payload)
				break
			}
		}
	}},
	{"Messages and Read in turns", func(ctx context.Context, c *Conn, got func(MessageType, []byte)) error {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return err
			}
			before := bytes.Clone(m.Payload)
			typ, msg, err := c.Read(ctx, nil)
			if !bytes.Equal(before, m.Payload) {
				return errors.New("Read has changed the message of the loop")
			}
			got(m.Type, m.Payload)
			if err != nil {
				return err
			}
			got(typ, msg)
		}
		return nil
	}},
}

// pieceWays take messages piece by piece.
var pieceWays = []way{
	{"NextReader", func(ctx context.Context, c *Conn, got func(MessageType, []byte)) error {
		for {
			typ, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			msg, err := io.ReadAll(iotest.OneByteReader(r))
			if err != nil {
				return err
			}
			got(typ, msg)
		}
	}},
	{"WriteTo", func(ctx context.Context, c *Conn, got func(MessageType, []byte)) error {
		for {
			typ, r, err := c.NextReader(ctx)
			if err != nil {
				return err
			}
			var b strings.Builder
			if _, err := r.(io.WriterTo).WriteTo(&b); err != nil {
				return err
			}
			got(typ, []byte(b.String()))
		}
	}},
}

var ways = slices.Concat(wholeWays, pieceWays)

// spoil does what one may do with memory of one's own, which is no part of anybody else's.
func spoil(p []byte) {
	for i := range p {
		p[i] = 0xa5
	}
	_ = append(p, "appended to what is lent"...)
}

// shortWriter takes n bytes.
type shortWriter struct {
	n   int
	err error
}

func (w shortWriter) Write(p []byte) (int, error) { return min(len(p), w.n), w.err }

// receive delivers stream, then the end of the connection, and returns the outcome. chunk is
// the most that arrives at once, 0 for no limit.
func receive(t testing.TB, cfg config, stream []byte, chunk int, w way) outcome {
	nc, peer := newPipe()
	var limited net.Conn = nc
	if chunk > 0 {
		limited = &chunkConn{nc, chunk}
	}
	c := newConn(limited, nil, cfg)
	sent := collect(peer)
	go func() {
		_, _ = peer.Write(stream)
		_ = peer.CloseWrite()
	}()
	var o outcome
	err := w.read(t.Context(), c, o.add)
	return o.end(t, c, err, sent)
}

// collect reads all that c sends.
func collect(peer net.Conn) <-chan []byte {
	all := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(peer)
		all <- b
	}()
	return all
}

func (o *outcome) add(typ MessageType, msg []byte) {
	o.messages = append(o.messages, fmt.Sprintf("%s %d %x", typ, len(msg), msg))
}

func (o *outcome) end(t testing.TB, c *Conn, err error, sent <-chan []byte) outcome {
	require.Error(t, err)
	o.err = err.Error()
	_, _, again := c.Read(t.Context(), nil)
	require.Equal(t, err, again, "a permanent error stays")
	require.NoError(t, c.Close())
	o.sent = fmt.Sprintf("%x", <-sent)
	return *o
}

// receiveInterrupted delivers stream byte by byte, to a reading that is cancelled before each.
func receiveInterrupted(t testing.TB, cfg config, stream []byte, w way) outcome {
	nc, peer := newPipe()
	c := newConn(nc, nil, cfg)
	sent := collect(peer)
	var o outcome
	var final error
	// read reads what can be read, and returns false after the final error.
	read := func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			synctest.Wait() // the reading waits
			cancel()
		}()
		err := w.read(ctx, c, o.add)
		cancel()
		<-stop
		if errors.Is(err, context.Canceled) {
			return true
		}
		final = err
		return false
	}
	for i := range stream {
		if _, err := peer.Write(stream[i : i+1]); err != nil || !read() {
			break
		}
	}
	_ = peer.CloseWrite()
	if final == nil {
		read()
	}
	return o.end(t, c, final, sent)
}

type stream struct {
	name     string
	bytes    []byte
	messages []string // as "type payload"
	err      string   // part of the final error
}

// streams are what clients send, the good and the bad.
func streams() []stream {
	f := func(fin bool, op Opcode, payload string) []byte { return frame(fin, op, payload, true) }
	raw := func(h Header, payload string) []byte {
		h.Masked = true
		return append(AppendHeader(nil, h), payload...)
	}
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	long := strings.Repeat("0123456789abcdef", 5000/16+1)[:5000]
	const broke = "unexpected EOF"
	const κόσμε = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
	var split [][]byte
	for i := range len(κόσμε) {
		op := OpContinuation
		if i == 0 {
			op = OpText
		}
		split = append(split, f(i == len(κόσμε)-1, op, κόσμε[i:i+1]))
	}
	return []stream{
		{"nothing", nil, nil, broke},
		{"half a header", f(true, OpText, "Hello")[:1], nil, broke},
		{"header without a key", f(true, OpText, "Hello")[:4], nil, broke},
		{"half a payload", f(true, OpText, "Hello")[:8], nil, broke},
		{"half a long header", f(true, OpBinary, long)[:3], nil, broke},

		{"section 5.6: text", f(true, OpText, "Hello"), []string{"text Hello"}, broke},
		{"section 5.6: binary", f(true, OpBinary, "\xff\x00"), []string{"binary \xff\x00"}, broke},
		{"empty", f(true, OpText, ""), []string{"text "}, broke},
		{"length of 16 bits", f(true, OpText, long), []string{"text " + long}, broke},
		{"several", join(f(true, OpText, "a"), f(true, OpBinary, "b"), f(true, OpText, "c")),
			[]string{"text a", "binary b", "text c"}, broke},

		{"section 5.4: fragments", join(f(false, OpText, "Hel"), f(false, OpContinuation, ""), f(true, OpContinuation, "lo")),
			[]string{"text Hello"}, broke},
		{"section 5.4: empty fragments", join(f(false, OpBinary, ""), f(false, OpContinuation, ""), f(true, OpContinuation, "")),
			[]string{"binary "}, broke},
		{"section 5.4: control frames between fragments", join(f(false, OpText, "Hel"), f(true, OpPing, "ping"),
			f(true, OpPong, "pong"), f(true, OpContinuation, "lo")), []string{"text Hello"}, broke},
		{"section 5.4: Close between fragments", join(f(false, OpText, "Hel"), closeFrame(1001, "gone", true)),
			nil, `closed by the peer: 1001 (going away): "gone"`},
		{"section 5.4: fragments without an end", join(f(false, OpText, "Hel"), f(false, OpContinuation, "lo")), nil, broke},
		{"section 5.4: continuation of nothing", f(true, OpContinuation, "x"), nil, "section 5.4"},
		{"section 5.4: continuation after the end", join(f(true, OpText, "a"), f(true, OpContinuation, "x")),
			[]string{"text a"}, "section 5.4"},
		{"section 5.4: message inside a message", join(f(false, OpText, "a"), f(true, OpText, "x")), nil, "section 5.4"},

		{"section 5.1: not masked", frame(true, OpText, "Hello", false), nil, "section 5.1"},
		{"section 5.2: reserved bit", raw(Header{Fin: true, RSV2: true, Opcode: OpText}, ""), nil, "section 5.2"},
		{"section 5.2: compressed without agreement", raw(Header{Fin: true, RSV1: true, Opcode: OpText}, ""), nil, "section 5.2"},
		{"section 5.2: reserved opcode", join(f(true, OpText, "a"), f(true, 3, "")), []string{"text a"}, "section 5.2"},
		{"section 5.2: length too long", []byte("\x82\xfe\x00\x7d\x00\x00\x00\x00"), nil, "shortest form"},
		{"section 5.2: top bit", []byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), nil, "top bit"},

		{"section 5.5: ping of 125 bytes", join(f(true, OpPing, long[:125]), f(true, OpText, "x")), []string{"text x"}, broke},
		{"section 5.5: ping of 126 bytes", f(true, OpPing, long[:126]), nil, "section 5.5"},
		{"section 5.5: fragmented ping", f(false, OpPing, "x"), nil, "section 5.5"},
		{"section 5.5.2: pings", join(f(true, OpPing, "a"), f(true, OpPing, ""), f(true, OpText, "x"), f(true, OpPing, "c")),
			[]string{"text x"}, broke},

		{"section 5.5.1: Close", closeFrame(1000, "bye", true), nil, `1000 (normal closure): "bye"`},
		{"section 5.5.1: Close without a code", f(true, OpClose, ""), nil, "1005 (no status received)"},
		{"section 5.5.1: Close of one byte", f(true, OpClose, "\x03"), nil, "section 5.5.1"},
		{"section 5.5.1: Close with a reason of 123 bytes", closeFrame(3000, long[:123], true), nil, "3000: " + `"` + long[:123]},
		{"section 5.5.1: data after Close", join(f(true, OpText, "a"), closeFrame(4999, "", true), f(true, OpText, "b")),
			[]string{"text a"}, "4999"},
		{"section 5.5.1: invalid reason", closeFrame(1000, "\xff", true), nil, "1007"},
		{"section 7.4: code 1006", closeFrame(1006, "", true), nil, "section 7.4"},
		{"section 7.4: code 999", closeFrame(999, "", true), nil, "section 7.4"},

		{"section 8.1: text over fragments inside characters", join(split...), []string{"text " + κόσμε}, broke},
		{"section 8.1: invalid", f(true, OpText, "a\xffb"), nil, "section 8.1"},
		{"section 8.1: surrogate", f(true, OpText, "\xed\xa0\x80"), nil, "section 8.1"},
		{"section 8.1: cut at the end", f(true, OpText, "a\xce"), nil, "section 8.1"},
		{"section 8.1: cut at the end of fragments", join(f(false, OpText, "a\xce"), f(true, OpContinuation, "")), nil, "section 8.1"},
		{"section 8.1: invalid in a fragment", join(f(false, OpText, "a\xe1"), f(true, OpPing, "p"), f(false, OpContinuation, "\x41")), nil, "section 8.1"},
		{"section 8.1: binary is not checked", f(true, OpBinary, "a\xffb"), []string{"binary a\xffb"}, broke},

		{"section 10.4: at the limit", join(f(false, OpText, long[:4000]), f(true, OpContinuation, long[:1000]), f(true, OpText, long[:5000])),
			[]string{"text " + long[:4000] + long[:1000], "text " + long[:5000]}, broke},
		{"section 10.4: over the limit", f(true, OpText, long+"x")[:8], nil, "size limit"},
		{"section 10.4: over the limit in fragments", join(f(false, OpText, long), f(false, OpContinuation, "x")), nil, "size limit"},
		{"section 10.4: any length is claimed", raw(Header{Fin: true, Opcode: OpBinary, Length: 1<<63 - 1}, ""), nil, "size limit"},
		{"section 10.4: lengths add up past 64 bits", join(f(false, OpBinary, "xxxx"),
			raw(Header{Fin: true, Opcode: OpContinuation, Length: 1<<63 - 1}, "")), nil, "size limit"},
		{"section 10.4: empty fragments at the limit", join(f(false, OpText, ""), bytes.Repeat(f(false, OpContinuation, ""), maxEmptyFragments-1), f(true, OpContinuation, "x")),
			[]string{"text x"}, broke},
		{"section 10.4: empty fragments over the limit", join(f(false, OpText, ""), bytes.Repeat(f(false, OpContinuation, ""), maxEmptyFragments)),
			nil, "empty fragments"},
	}
}

var streamConfig = config{maxMessageSize: 5000, keepAlive: -1}

func TestStreams(t *testing.T) {
	for _, s := range streams() {
		t.Run(s.name, func(t *testing.T) {
			checkStream(t, streamConfig, s)
		})
	}
}

// checkStream reads a client's stream in all ways, with the same outcome.
func checkStream(t *testing.T, cfg config, s stream) {
	synctest.Test(t, func(t *testing.T) {
		whole := receive(t, cfg, s.bytes, 0, ways[0])
		var messages []string
		for _, m := range s.messages {
			typ, payload, _ := strings.Cut(m, " ")
			messages = append(messages, fmt.Sprintf("%s %d %x", typ, len(payload), payload))
		}
		require.Equal(t, messages, whole.messages)
		require.Contains(t, whole.err, s.err)
		require.Equal(t, 1, strings.Count(whole.err, "websocket: "))
		require.True(t, strings.HasPrefix(whole.err, "websocket: "))

		for _, w := range ways {
			require.Equal(t, whole, receive(t, cfg, s.bytes, 0, w), w.name)
			require.Equal(t, whole, receive(t, cfg, s.bytes, 1, w), "%s, byte by byte", w.name)
		}
		for _, w := range wholeWays {
			require.Equal(t, whole, receiveInterrupted(t, cfg, s.bytes, w), "%s, interrupted before every byte", w.name)
		}
	})
}

// TestClientStreams is TestStreams for the rules of the client role.
func TestClientStreams(t *testing.T) {
	cfg := streamConfig
	cfg.client = true
	for _, s := range []stream{
		{"not masked", frame(true, OpText, "Hello", false), []string{"text 5 48656c6c6f"}, "unexpected EOF"},
		{"section 5.1: masked", frame(true, OpText, "Hello", true), nil, "section 5.1"},
		{"section 5.1: masked ping", frame(true, OpPing, "", true), nil, "section 5.1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			for _, w := range ways {
				o := receive(t, cfg, s.bytes, 1, w)
				require.Equal(t, s.messages, o.messages)
				require.Contains(t, o.err, s.err)
			}
		})
	}
}

// RFC 6455 section 8.1 lets us fail at the end of the message; we do at the first byte that
// cannot be, though the frame goes on.
func TestInvalidTextFailsInsideTheFrame(t *testing.T) {
	for _, size := range []int{10, 10_000, 500_000} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			text := frame(true, OpText, strings.Repeat("x", size)+"\xed\xa0"+strings.Repeat("x", size), true)
			go func() { _, _ = peer.Write(text[:len(text)-size]) }()
			_, _, err := c.Read(t.Context(), nil)
			var perr *ProtocolError
			require.ErrorAs(t, err, &perr)
			require.Equal(t, StatusInvalidFramePayloadData, perr.Code)
			expect(t, peer, closeFrame(1007, "text is not UTF-8", false))
			expectEOF(t, peer)
		})
	}
}

func TestReadLargeMessages(t *testing.T) {
	for _, size := range []int{readBufferSize - 1, readBufferSize, readBufferSize + 1, 65535, 65536, 1 << 20, 3<<20 + 7} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{maxMessageSize: -1})
			payload := make([]byte, size)
			for i := range payload {
				payload[i] = byte(i * 7 >> 3)
			}
			all := bytes.Join([][]byte{
				frame(false, OpBinary, string(payload[:size/3]), true),
				frame(true, OpContinuation, string(payload[size/3:]), true),
				frame(true, OpText, "next", true)}, nil)
			go func() { _, _ = peer.Write(all) }()
			_, got, err := c.Read(t.Context(), make([]byte, 3, 1000))
			require.NoError(t, err)
			require.True(t, bytes.Equal(payload, got[3:]))
			_, got, err = c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "next", string(got))
		})
	}
}

// A peer that claims much and sends little gets little memory.
func TestMemoryFollowsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{maxMessageSize: -1})
		send(t, peer, frame(true, OpBinary, strings.Repeat("x", 1<<20), true)[:14+5000])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := c.Read(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, c.in.partial, 5000)
		require.LessOrEqual(t, cap(c.in.partial), 32<<10)
		require.Nil(t, c.in.pooled, "a connection that waits holds no buffer")
	})
}

// interrupted returns a Conn, with its peer, whose Read was interrupted inside "abcdef", and what
// NextReader returned then.
func interrupted(t *testing.T) (*Conn, *pipeConn, io.Reader) {
	c, peer := serve(t, config{})
	send(t, peer, frame(false, OpText, "abc", true))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := c.Read(ctx, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, r, err := c.NextReader(t.Context())
	require.NoError(t, err)
	return c, peer, r
}

func TestNextReader(t *testing.T) {
	t.Run("drops what was not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			go func() {
				_, _ = peer.Write(bytes.Join([][]byte{
					frame(false, OpText, strings.Repeat("a", 50_000), true),
					frame(true, OpPing, "p", true),
					frame(true, OpContinuation, strings.Repeat("b", 50_000), true),
					frame(true, OpBinary, "next", true),
					frame(true, OpText, "last", true)}, nil))
			}()
			_, r, err := c.NextReader(t.Context())
			require.NoError(t, err)
			b := make([]byte, 3)
			_, err = io.ReadFull(r, b)
			require.NoError(t, err)
			require.Equal(t, "aaa", string(b))
			typ, next, err := c.NextReader(t.Context())
			require.NoError(t, err)
			require.Equal(t, Binary, typ)
			_, err = r.Read(b)
			require.ErrorContains(t, err, "earlier message")
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "last", string(got))
			_, err = next.Read(b)
			require.ErrorContains(t, err, "earlier message")
			expect(t, peer, frame(true, OpPong, "p", false))
		})
	})
	t.Run("dropping can be interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(false, OpText, "abc", true), frame(true, OpContinuation, "def", true)[:7])
			_, _, err := c.NextReader(t.Context())
			require.NoError(t, err)
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, _, err = c.Read(ctx, nil)
				cancel()
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			send(t, peer, frame(true, OpContinuation, "def", true)[7:], frame(true, OpText, "next", true))
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "next", string(got))
		})
	})
	t.Run("goes on with an interrupted Read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, peer, r := interrupted(t)
			send(t, peer, frame(true, OpContinuation, "def", true))
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, "abcdef", string(got))
		})
	})
	t.Run("an interrupted Read's message can be dropped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer, _ := interrupted(t)
			send(t, peer, frame(true, OpContinuation, "def", true), frame(true, OpText, "next", true))
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "next", string(got))
		})
	})
	t.Run("an interrupted Read's part is let go", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, r := interrupted(t)
			_, err := io.ReadFull(r, make([]byte, 3))
			require.NoError(t, err)
			require.Nil(t, c.in.partial)
		})
	})
	t.Run("is copied to a writer that takes less without an error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "Hello", true))
			_, r, err := c.NextReader(t.Context())
			require.NoError(t, err)
			n, err := r.(io.WriterTo).WriteTo(shortWriter{3, nil})
			require.Equal(t, io.ErrShortWrite, err)
			require.EqualValues(t, 3, n)
		})
	})
	t.Run("is copied to a writer that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "Hello", true), frame(true, OpText, "next", true))
			_, r, err := c.NextReader(t.Context())
			require.NoError(t, err)
			full := errors.New("full")
			n, err := r.(io.WriterTo).WriteTo(shortWriter{3, full})
			require.Equal(t, full, err)
			require.EqualValues(t, 3, n)
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "next", string(got))
		})
	})
	t.Run("context ends before the message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := c.NextReader(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			send(t, peer, frame(true, OpText, "x", true))
			_, _, err = c.NextReader(t.Context())
			require.NoError(t, err)
		})
	})
	t.Run("context ends inside the message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "abc", true)[:8])
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, r, err := c.NextReader(ctx)
			require.NoError(t, err)
			_, err = io.ReadAll(r)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, net.ErrClosed)
			_, again := r.Read(make([]byte, 1))
			require.Equal(t, err, again)
			_, _, err = c.Read(t.Context(), nil)
			require.ErrorIs(t, err, net.ErrClosed)
			require.NotErrorIs(t, err, context.DeadlineExceeded, "else a loop that waits with a limit would never end")
			expect(t, peer, closeFrame(StatusGoingAway, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("context ends after the message was dropped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "abc", true), frame(true, OpText, "next", true), frame(true, OpText, "last", true))
			ctx, cancel := context.WithCancel(t.Context())
			_, r, err := c.NextReader(ctx)
			require.NoError(t, err)
			_, _, err = c.NextReader(t.Context())
			require.NoError(t, err)
			cancel()
			_, err = r.Read(make([]byte, 1))
			require.ErrorContains(t, err, "earlier message")
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "last", string(got))
		})
	})
}

// Whatever peers and callers do, a Conn in which nothing happens has no buffer.
func TestIdleConnHoldsNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		for _, size := range []int{1, 100, 1000, 10_000} {
			go func() {
				_, _ = peer.Write(append(frame(true, OpPing, "", true), frame(true, OpText, strings.Repeat("x", size), true)...))
			}()
			_, _, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			assert.Nil(t, c.in.pooled)
			expect(t, peer, frame(true, OpPong, "", false))
		}
		go func() { _, _, _ = c.Read(t.Context(), nil) }()
		synctest.Wait()
		assert.Nil(t, c.in.pooled)
		assert.Zero(t, boxed(c))
	})
}
