package websocket

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// maxFuzzedStream keeps a run short: what goes wrong with a long stream does so with a short one.
const maxFuzzedStream = 4096

// limitOf is the size limit that a fuzzed connection has: with the low one many a stream exceeds it,
// with none all claims of length are let in.
func limitOf(limited bool) int64 {
	if limited {
		return 1000
	}
	return -1
}

// FuzzConn reads what any peer may send, in both roles: what comes of it is what RFC 6455 says,
// whichever way it is read and however it arrives, and takes memory in proportion to it.
// That no goroutine is left is what synctest sees to.
func FuzzConn(f *testing.F) {
	for _, s := range streams() {
		f.Add(s.bytes, false, true)
		f.Add(unmasked(s.bytes), true, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, client, limited bool) {
		if len(b) > maxFuzzedStream {
			return
		}
		cfg := config{maxMessageSize: limitOf(limited), keepAlive: -1, client: client}
		requireMemory(t, cfg, b)
		want, rest := judgeStream(b, cfg)
		synctest.Test(t, func(t *testing.T) {
			for _, w := range ways {
				require.Equal(t, want, received(t, cfg, b, 0, w), w.name)
				require.Equal(t, want, received(t, cfg, b, 1, w), "%s, byte by byte", w.name)
				for _, first := range wholeWays {
					require.Equal(t, want, receiveInTurns(t, cfg, b, first, w), "%s, then %s", first.name, w.name)
				}
			}
			for _, w := range wholeWays {
				require.Equal(t, want, plainly(receiveInterrupted(t, cfg, b, w), client), "%s, interrupted", w.name)
			}
			for _, pace := range paces {
				got, o := receiveNetConn(t, cfg, b, pace)
				require.Equal(t, want, outcome{want.messages, o.err, o.sent}, "NetConn, %s", pace)
				whole := want.payloads()
				require.True(t, bytes.HasPrefix(got, whole), "NetConn, %s", pace)
				require.True(t, bytes.HasPrefix(rest, got[len(whole):]), "NetConn, %s", pace)
			}
		})
	})
}

// FuzzCompressedConn is FuzzConn where permessage-deflate was agreed on.
func FuzzCompressedConn(f *testing.F) {
	for _, s := range compressedStreams(f) {
		f.Add(s.bytes, false, true, true)
		f.Add(unmasked(s.bytes), true, true, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, client, limited, takeover bool) {
		if len(b) > maxFuzzedStream {
			return
		}
		cfg := config{maxMessageSize: limitOf(limited), keepAlive: -1, client: client, deflate: agreed(takeover, 10)}
		if requireMemory(t, cfg, b) > 100_000 {
			return // takes long in so many ways
		}
		synctest.Test(t, func(t *testing.T) {
			whole := received(t, cfg, b, 0, ways[0])
			for _, w := range wholeWays {
				require.Equal(t, whole, received(t, cfg, b, 0, w), w.name)
				require.Equal(t, whole, received(t, cfg, b, 1, w), "%s, byte by byte", w.name)
				require.Equal(t, whole, plainly(receiveInterrupted(t, cfg, b, w), client), "%s, interrupted", w.name)
				for _, first := range wholeWays {
					require.Equal(t, whole, receiveInTurns(t, cfg, b, first, w), "%s, then %s", first.name, w.name)
				}
			}
			for _, w := range pieceWays {
				// Who reads piece by piece sees a fault before the rest of the message is there.
				outcomes := []outcome{received(t, cfg, b, 0, w), received(t, cfg, b, 1, w)}
				for _, first := range wholeWays {
					outcomes = append(outcomes, receiveInTurns(t, cfg, b, first, w))
				}
				for _, o := range outcomes {
					require.Equal(t, whole.messages, o.messages, w.name)
				}
			}
			for _, pace := range paces {
				got, _ := receiveNetConn(t, cfg, b, pace)
				require.True(t, bytes.HasPrefix(got, whole.payloads()), "NetConn, %s", pace)
				if limited {
					require.LessOrEqual(t, len(got)-len(whole.payloads()), 1000, "NetConn, %s", pace)
				}
			}
		})
	})
}

// unmasked turns the frames of a client into those of a server, as far as they are whole.
func unmasked(b []byte) (out []byte) {
	for {
		h, n, err := ParseHeader(b)
		if err != nil || n == 0 || uint64(len(b)-n) < h.Length {
			return append(out, b...)
		}
		payload := bytes.Clone(b[n : n+int(h.Length)])
		b = b[n+int(h.Length):]
		if h.Masked {
			Mask(payload, h.Key, 0)
		}
		h.Masked, h.Key = false, [4]byte{}
		out = append(AppendHeader(out, h), payload...)
	}
}

// plainly makes outcomes of clients comparable, whose masking keys differ.
func plainly(o outcome, client bool) outcome {
	if client {
		var sent []byte
		fmt.Sscanf(o.sent, "%x", &sent)
		o.sent = fmt.Sprintf("%x", unmasked(sent))
	}
	return o
}

func received(t testing.TB, cfg config, b []byte, chunk int, w way) outcome {
	return plainly(receive(t, cfg, b, chunk, w), cfg.client)
}

// payloads is what the messages of o hold.
func (o outcome) payloads() (all []byte) {
	for _, m := range o.messages {
		var payload []byte
		fmt.Sscanf(m[strings.LastIndexByte(m, ' ')+1:], "%x", &payload)
		all = append(all, payload...)
	}
	return all
}

// judgeStream is a second implementation of the receiving side, which has all of the stream at
// once. It returns what comes of b, with what is sent as frames without masks, and what has
// arrived of a message that does not end.
func judgeStream(b []byte, cfg config) (o outcome, rest []byte) {
	limit := uint64(math.MaxInt64)
	if cfg.maxMessageSize > 0 {
		limit = uint64(cfg.maxMessageSize)
	}
	var sent []byte
	end := func(err error) (outcome, []byte) {
		var perr *ProtocolError
		if errors.As(err, &perr) {
			sent = append(sent, closeFrame(perr.Code, perr.Reason, false)...)
		}
		o.err, o.sent = err.Error(), fmt.Sprintf("%x", sent)
		return o, rest
	}
	var (
		typ   byte // of the message, 0 if there is none
		empty int
		size  uint64
	)
	for {
		// RFC 6455 section 5.2.
		if len(b) < 2 {
			return end(errClosedWithoutFrame)
		}
		fin, reserved, op, masked := b[0]&0x80 != 0, b[0]&0x70, b[0]&0x0f, b[1]&0x80 != 0
		length, n := uint64(b[1]&0x7f), 2
		for _, long := range []struct {
			mark uint64
			size int
			from uint64
		}{{126, 2, 126}, {127, 8, 1 << 16}} {
			if n > 2 || length != long.mark {
				continue
			}
			if n += long.size; len(b) < n {
				return end(errClosedWithoutFrame)
			}
			length = binary.BigEndian.Uint64(append(make([]byte, 8-long.size), b[2:n]...))
			if length >= 1<<63 {
				return end(errLengthTopBit)
			}
			if length < long.from {
				return end(errLengthNotMinimal)
			}
		}
		var key []byte
		if masked {
			if n += 4; len(b) < n {
				return end(errClosedWithoutFrame)
			}
			key = b[n-4 : n]
		}
		control := op >= 8
		switch {
		case reserved != 0:
			return end(errReservedBits)
		case op > 2 && op < 8, op > 10:
			return end(errReservedOpcode)
		case op == 0 && typ == 0:
			return end(errNothingToContinue)
		case op > 0 && !control && typ != 0:
			return end(errMessageInterrupted)
		case control && !fin:
			return end(errControlFragmented)
		case control && length > 125:
			return end(errControlTooLong)
		case cfg.client && masked:
			return end(errMasked)
		case !cfg.client && !masked:
			return end(errNotMasked)
		}
		if !control {
			if op != 0 {
				typ, empty, size = op, 0, 0
			}
			if length > limit || size+length > limit {
				return end(errMessageTooBig)
			}
			size += length
			if length == 0 {
				if empty++; empty > maxEmptyFragments {
					return end(errTooManyFragments)
				}
			}
		}
		payload := bytes.Clone(b[n:])
		whole := uint64(len(payload)) >= length
		if whole {
			payload = payload[:length]
		}
		b = b[n+len(payload):]
		for i := range payload {
			if masked {
				payload[i] ^= key[i%4]
			}
		}
		switch op {
		case 0, 1, 2:
			rest = append(rest, payload...)
			if text := endOfText(rest); typ == 1 && (text < 0 || whole && fin && text < len(rest)) {
				return end(errInvalidUTF8)
			}
			if whole && fin {
				o.add(MessageType(typ), rest)
				typ, rest = 0, nil
			}
		case 8:
			switch {
			case !whole:
			case len(payload) == 0:
				sent = append(sent, frame(true, OpClose, "", false)...)
				return end(&CloseError{Code: StatusNoStatusReceived})
			case len(payload) == 1:
				return end(errClosePayload)
			case !mayTravel(payload):
				return end(errCloseCode)
			case !utf8.Valid(payload[2:]):
				return end(errCloseReason)
			default:
				sent = append(sent, frame(true, OpClose, string(payload), false)...)
				return end(&CloseError{StatusCode(binary.BigEndian.Uint16(payload)), string(payload[2:])})
			}
		case 9:
			if whole {
				sent = append(sent, frame(true, OpPong, string(payload), false)...)
			}
		}
		if !whole {
			return end(errClosedWithoutFrame)
		}
	}
}

// mayTravel reports whether the status code at the start of payload may stand in a Close frame
// (RFC 6455 section 7.4 and the IANA registry).
func mayTravel(payload []byte) bool {
	code := binary.BigEndian.Uint16(payload)
	switch code {
	case 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014:
		return true
	}
	return code >= 3000 && code < 5000
}

// endOfText returns how much of b is whole characters, -1 if what follows is not the beginning
// of one.
func endOfText(b []byte) (n int) {
	for n < len(b) {
		r, size := utf8.DecodeRune(b[n:])
		switch {
		case r != utf8.RuneError || size > 1:
			n += size
		case utf8.FullRune(b[n:]):
			return -1
		default:
			return n
		}
	}
	return n
}

// receiveInTurns delivers half of the stream to first, which is then cancelled, and the other
// half to w.
func receiveInTurns(t testing.TB, cfg config, b []byte, first, w way) outcome {
	nc, peer := newPipe()
	c := newConn(nc, nil, cfg)
	sent := collect(peer)
	_, _ = peer.Write(b[:len(b)/2])
	var o outcome
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan struct{})
	go func() {
		defer close(cancelled)
		synctest.Wait() // the reading waits
		cancel()
	}()
	err := first.read(ctx, c, o.add)
	<-cancelled
	_, _ = peer.Write(b[len(b)/2:])
	_ = peer.CloseWrite()
	if errors.Is(err, context.Canceled) {
		err = w.read(t.Context(), c, o.add)
	}
	return plainly(o.end(t, c, err, sent), cfg.client)
}

var paces = []string{"whole", "byte by byte", "interrupted"}

// receiveNetConn delivers the stream to a NetConn for both types, and returns what it reads
// and the outcome without messages. interrupted, a deadline passes before every byte.
func receiveNetConn(t testing.TB, cfg config, b []byte, pace string) (got []byte, o outcome) {
	nc, peer := newPipe()
	var limited net.Conn = nc
	if pace == "byte by byte" {
		limited = &chunkConn{nc, 1}
	}
	c := newConn(limited, nil, cfg)
	n := NetConn(c, 0)
	sent := collect(peer)
	buf := make([]byte, 100)
	read := func() error {
		for {
			m, err := n.Read(buf)
			got = append(got, buf[:m]...)
			if err != nil {
				return err
			}
		}
	}
	var err error
	if pace == "interrupted" {
		for ; len(b) > 0 && err == nil; b = b[1:] {
			_, _ = peer.Write(b[:1])
			require.NoError(t, n.SetReadDeadline(time.Now().Add(time.Nanosecond)))
			if err = read(); err == os.ErrDeadlineExceeded {
				require.NoError(t, n.SetReadDeadline(time.Time{}))
				err = nil
			}
		}
	}
	_, _ = peer.Write(b)
	_ = peer.CloseWrite()
	if err == nil {
		err = read()
	}
	_, again := n.Read(buf)
	require.Equal(t, err, again, "a permanent error stays")
	_, _, permanent := c.Read(t.Context(), nil)
	require.Equal(t, netReadError(permanent), err)
	return got, plainly(o.end(t, c, permanent, sent), cfg.client)
}

// replayConn is a network connection from which a stream is read, without deadlines.
type replayConn struct {
	net.Conn
	in, out []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	n := copy(p, c.in)
	c.in = c.in[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *replayConn) Write(p []byte) (int, error) {
	c.out = append(c.out, p...)
	return len(p), nil
}

func (c *replayConn) Close() error                     { return nil }
func (c *replayConn) SetReadDeadline(time.Time) error  { return nil }
func (c *replayConn) SetWriteDeadline(time.Time) error { return nil }

// bufferMemory is what a connection may take however little arrives: it and the buffers, which
// are not in their pools for instance because these have just been emptied.
const bufferMemory = 128 << 10

// inflaterMemory is the same for the inflater.
const inflaterMemory = 256 << 10

// requireMemory checks that what is allocated while b is received is in proportion to it, and to
// what it inflates to. It returns how much is read of messages.
func requireMemory(t testing.TB, cfg config, b []byte) (size uint64) {
	allocated, size := memoryOf(cfg, b)
	limit := bufferMemory + 32*uint64(len(b))
	if cfg.deflate != nil {
		limit += inflaterMemory + 32*uint64(len(b)) + 8*size
		if cfg.maxMessageSize < 0 {
			// After the first 64 KiB of a message, up to 15 times that is taken at once.
			limit += 1<<20 + 16*size
		}
	}
	if !raceEnabled { // its sync.Pool loses things at random
		require.Less(t, allocated, limit)
	}
	return size
}

// memoryOf returns what a connection allocates while b is received, in the worst of all ways,
// and how much is read of messages.
func memoryOf(cfg config, b []byte) (most, size uint64) {
	for _, discard := range []func(*Conn) (n int64, err error){
		func(c *Conn) (int64, error) {
			_, msg, err := c.Read(context.Background(), nil)
			return int64(len(msg)), err
		},
		func(c *Conn) (n int64, err error) {
			for m, err := range c.Messages(context.Background()) {
				if err != nil {
					return n, err
				}
				n += int64(len(m.Payload))
			}
			return n, nil
		},
		func(c *Conn) (int64, error) {
			_, r, err := c.NextReader(context.Background())
			if err != nil {
				return 0, err
			}
			return io.Copy(struct{ io.Writer }{io.Discard}, r)
		},
		func(c *Conn) (int64, error) {
			n, err := io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{NetConn(c, 0)})
			return n, cmp.Or(err, io.EOF)
		},
	} {
		var all uint64
		n := allocated(func() {
			c := newConn(&replayConn{in: b}, nil, cfg)
			for {
				n, err := discard(c)
				all += uint64(n)
				if err != nil {
					break
				}
			}
		})
		most = max(most, uint64(n))
		size = max(size, all)
	}
	return most, size
}
