//go:build unix

package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// socketPair returns a socket and the other end of its connection.
func socketPair(t *testing.T) (*socket, net.Conn, net.Conn) { return socketOf(t, tcpPair) }

func socketOf(t *testing.T, pair func(testing.TB) (net.Conn, net.Conn)) (*socket, net.Conn, net.Conn) {
	nc, peer := pair(t)
	s := new(socket)
	s.open(nc)
	require.True(t, s.usable())
	return s, nc, peer
}

func TestSocketOfOthers(t *testing.T) {
	a, _ := newPipe()
	nc, _ := tcpPair(t)
	for _, nc := range []net.Conn{a, struct{ net.Conn }{nc}} {
		var s socket
		s.open(nc)
		require.False(t, s.usable(), "what is above a socket is not gone past")
	}
}

// A write that waits shows how far it is while the peer takes it piece by piece.
func TestSocketWriteShowsProgress(t *testing.T) {
	s, nc, peer := socketPair(t)
	p := bytes.Repeat([]byte("0123456789"), 4<<20)
	var progress atomic.Uint64
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := s.write(p, true, &progress)
		done <- result{n, err}
	}()
	deadline := time.Now().Add(10 * time.Second)
	moved := 0
	var got []byte
	for chunk := make([]byte, 4<<20); len(got) < len(p); {
		before := progress.Load()
		n, err := io.ReadFull(peer, chunk[:min(len(chunk), len(p)-len(got))])
		require.NoError(t, err)
		got = append(got, chunk[:n]...)
		for len(done) == 0 && progress.Load() == before {
			require.True(t, time.Now().Before(deadline))
			runtime.Gosched()
		}
		if progress.Load() > before {
			moved++
		}
	}
	require.True(t, bytes.Equal(p, got))
	require.Equal(t, result{len(p), nil}, <-done)
	require.GreaterOrEqual(t, moved, 4, "all but what the kernel holds")

	// A deadline interrupts it, and says how much is out.
	require.NoError(t, nc.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
	progress.Store(0)
	n, err := s.write(p, true, &progress)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Less(t, n, len(p))
	require.NoError(t, nc.SetWriteDeadline(time.Time{}))
	m, err := s.write(nil, true, &progress)
	require.NoError(t, err)
	require.Zero(t, m)
	require.NoError(t, nc.Close())
	rest, err := io.ReadAll(peer)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p[:n], rest), "what is said to be out is what arrives")
}

// A write that does not wait returns what the socket has taken.
func TestSocketWriteWithoutWaiting(t *testing.T) {
	s, nc, peer := socketOf(t, unixPair)
	var progress atomic.Uint64
	n, err := s.write([]byte("Hello"), false, &progress)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.EqualValues(t, 1, progress.Load())
	expect(t, peer, []byte("Hello"))

	p := make([]byte, 32<<20)
	n, err = s.write(p, false, &progress)
	require.NoError(t, err)
	require.NotZero(t, n)
	require.Less(t, n, len(p))
	fill(t, nc)
	before := progress.Load()
	n, err = s.write([]byte("Hello"), false, &progress)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, before, progress.Load())
}

func TestSocketOfAPeerThatHasReset(t *testing.T) {
	for _, waits := range []bool{false, true} {
		s, nc, peer := socketPair(t)
		require.NoError(t, peer.(*net.TCPConn).SetLinger(0))
		require.NoError(t, peer.Close())
		var progress atomic.Uint64
		n, err := s.write([]byte("Hello"), waits, &progress)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Zero(t, n)
		require.Zero(t, progress.Load())
		se, ok := errors.AsType[*os.SyscallError](err)
		require.True(t, ok)
		require.Equal(t, "write", se.Syscall)
		_, err = s.write([]byte("Hello"), waits, &progress)
		require.ErrorIs(t, err, syscall.EPIPE, "what is in the pool does not keep an error")
		_, err = s.read(readBufferSize, false)
		require.ErrorIs(t, err, io.EOF)
		require.Nil(t, s.take())
		require.NoError(t, nc.Close())
		_, err = s.write([]byte("Hello"), waits, &progress)
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = s.read(readBufferSize, false)
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

// A first try that the socket takes in part is gone on with.
func TestWriteOfMoreThanTheSocketTakes(t *testing.T) {
	peer, nc := tcpPair(t)
	require.NoError(t, nc.(*net.TCPConn).SetWriteBuffer(16<<10)) // less than a message
	c := newConn(nc, nil, config{})
	defer c.Close()
	p := string(bytes.Repeat([]byte("0123456789"), 6<<10))
	const messages = 300 // more than the network holds
	written := later(func() error {
		for range messages {
			if err := c.Write(t.Context(), Text, []byte(p)); err != nil {
				return err
			}
		}
		return nil
	})
	for range messages {
		expect(t, peer, frame(true, OpText, p, false))
	}
	require.NoError(t, <-written)
	require.Greater(t, c.out.sent.Load(), uint64(messages), "some were taken in pieces")
}

// A reader lets its peer go on before it asks the network for more.
func TestReaderYields(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // or the peer goes on anyway
	const messages = 50
	requireBelow(t, messages/5, func() int { return waitsForABusyPeer(t, messages) })
}

// waitsForABusyPeer returns how often an echo waits for one of so many messages.
func waitsForABusyPeer(t *testing.T, messages int) int {
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	waits, readable := 0, c.socket.readable
	c.socket.readable = func(fd uintptr) bool {
		ok := readable(fd)
		if !ok {
			waits++
		}
		return ok
	}
	raw, err := peer.(*net.UnixConn).SyscallConn()
	require.NoError(t, err)
	n := 0
	var over atomic.Bool
	echo := later(func() error {
		defer over.Store(true)
		for m, err := range c.Messages(t.Context()) {
			if err == nil {
				err = c.Write(t.Context(), m.Type, m.Payload)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	answer := frame(true, OpText, "Hello", false)
	for range messages {
		send(t, peer, frame(true, OpText, "Hello", true))
		// The poller is for those who wait. This peer is always busy.
		got := make([]byte, len(answer))
		try := func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), got)
			return true
		}
		for n = 0; n <= 0 && !over.Load(); {
			runtime.Gosched()
			require.NoError(t, raw.Read(try))
		}
		require.Equal(t, answer, got)
	}
	require.NoError(t, peer.Close())
	require.ErrorIs(t, <-echo, io.ErrUnexpectedEOF)
	return waits
}

// A reader with more to read goes on with it.
func TestReaderOfAStreamDoesNotYield(t *testing.T) {
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	c.socket.yield.credit = 0 // so that the reads that might yield are counted
	const messages = 50
	for range messages {
		send(t, peer, frame(true, OpText, strings.Repeat("x", 1<<10), true))
	}
	n := 0
	for _, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		switch n++; n {
		case messages:
			require.Zero(t, c.socket.yield.skipped)
			send(t, peer, frame(true, OpText, "Hello", true))
		case messages + 1:
			require.EqualValues(t, 1, c.socket.yield.skipped)
			return
		}
	}
}

// Whoever has received all that was sent knows it, and need not ask: whatever the size of the
// message, and however it is read. So the byte more is nobody's loss.
func TestReaderSeesThatItHasAll(t *testing.T) {
	for _, size := range []int{5, 125, 1 << 10, 16 << 10, 64 << 10, 256 << 10, 300_001, 1 << 20, 4 << 20, 4<<20 + 1000} {
		for name, reads := range map[string]func(t *testing.T, c *Conn, more func([]byte) bool){
			"Messages": func(t *testing.T, c *Conn, more func([]byte) bool) {
				for m, err := range c.Messages(t.Context()) {
					require.NoError(t, err)
					if !more(m.Payload) {
						return
					}
				}
			},
			"Read": func(t *testing.T, c *Conn, more func([]byte) bool) {
				for buf := []byte(nil); ; {
					_, p, err := c.Read(t.Context(), buf[:0])
					require.NoError(t, err)
					if !more(p) {
						return
					}
					if buf = p; cap(p) == len(p) {
						buf = nil // there is no room for a byte more
					}
				}
			},
		} {
			t.Run(fmt.Sprint(size, name), func(t *testing.T) {
				peer, nc := unixPair(t)
				c := newConn(nc, nil, config{maxMessageSize: -1})
				payload := strings.Repeat("0123456789", size/10+1)[:size]
				f := frame(true, OpText, payload, true)
				next := func(frames int) {
					go func() { _, _ = peer.Write(bytes.Repeat(f, frames)) }()
				}
				next(1)
				n := 0
				reads(t, c, func(p []byte) bool {
					require.True(t, payload == string(p))
					switch n++; n {
					case 1:
						require.True(t, c.in.drained)
						next(2)
					case 3:
						require.True(t, c.in.drained)
					}
					return n < 3
				})
			})
		}
	}
}

// A reader that yields in vain soon does it less, and takes notice when it would not be in vain.
func TestYieldingPays(t *testing.T) {
	y := yielding{credit: yieldCredit}
	// yields returns how many of a thousand reads yield, if each of every so many finds something.
	yields := func(every int) (n int) {
		for i := range 1000 {
			if y.due() {
				y.done(i%every == 0)
				n++
			}
		}
		return n
	}
	require.Equal(t, 1000, yields(1))
	require.Equal(t, 1000, yields(4))
	require.Less(t, yields(1001), 60)
	require.Less(t, yields(20), 60)
	require.Greater(t, yields(1), 900)
}

// A prepared message is not copied unless the socket does not take it.
func TestPreparedIsNotCopied(t *testing.T) {
	pooledExactly(t)
	for _, size := range []int{10, 60_000} {
		peer, nc := tcpPair(t)
		c := newConn(nc, nil, config{})
		p := string(patterned(size))
		m := Prepare(Binary, []byte(p))
		class := bufferClass(maxHeaderSize + size)
		pooled(class)
		require.NoError(t, c.WritePrepared(t.Context(), m))
		expect(t, peer, frame(true, OpBinary, p, false))
		sent, err := c.TryWritePrepared(m)
		require.NoError(t, err)
		require.True(t, sent)
		expect(t, peer, frame(true, OpBinary, p, false))
		require.Empty(t, pooled(class))

		require.NoError(t, c.Queue(t.Context(), Text, []byte("queued")))
		require.NoError(t, c.WritePrepared(t.Context(), m))
		expect(t, peer, frame(true, OpText, "queued", false), frame(true, OpBinary, p, false))
		c.Close()
	}
}

// What a socket does not take of prepared messages goes out later, in their order.
func TestPreparedForASlowPeer(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){"TCP": tcpPair, "unix": unixPair} {
		t.Run(name, func(t *testing.T) {
			nc, peer := pair(t)
			c := newConn(nc, nil, config{})
			defer c.Close()
			p := string(patterned(50_001))
			m := Prepare(Binary, []byte(p))
			n := 0
			for {
				sent, err := c.TryWritePrepared(m)
				require.NoError(t, err)
				if !sent {
					break
				}
				n++
				require.Less(t, n, 10_000)
			}
			require.LessOrEqual(t, boxed(c), 2*(joinedSize+maxHeaderSize))
			for range n {
				expect(t, peer, frame(true, OpBinary, p, false))
			}
			require.NoError(t, c.WritePrepared(t.Context(), m))
			expect(t, peer, frame(true, OpBinary, p, false))

			large := string(patterned(16 << 20))
			sent, err := c.TryWritePrepared(Prepare(Binary, []byte(large)))
			require.NoError(t, err)
			require.True(t, sent)
			require.Zero(t, boxed(c), "a large message is no copy of itself")
			sent, err = c.TryWritePrepared(m)
			require.NoError(t, err)
			require.True(t, sent)
			expect(t, peer, frame(true, OpBinary, large, false), frame(true, OpBinary, p, false))
		})
	}
}

// The end of its context takes a prepared message back of which nothing is out, and with one
// that has begun the connection.
func TestContextEndsPrepared(t *testing.T) {
	hello := Prepare(Text, []byte("Hello"))
	t.Run("before it begins", func(t *testing.T) {
		nc, peer := unixPair(t)
		fill(t, nc)
		c := newConn(nc, nil, config{})
		ctx, cancel := context.WithCancel(t.Context())
		write := later(func() error { return c.WritePrepared(ctx, hello) })
		awaitFrames(t, c, &c.out.box.leaving, 1)
		cancel()
		require.ErrorIs(t, <-write, context.Canceled)
		require.Zero(t, boxed(c))

		done := later(func() error { return c.WritePrepared(t.Context(), Prepare(Text, []byte("after it"))) })
		r := bufio.NewReader(peer)
		first, err := byte(0), error(nil)
		for first == 0 && err == nil { // what fill wrote
			first, err = r.ReadByte()
		}
		require.NoError(t, err)
		rest := make([]byte, 1+len("after it"))
		_, err = io.ReadFull(r, rest)
		require.NoError(t, err)
		require.Equal(t, frame(true, OpText, "after it", false), append([]byte{first}, rest...))
		require.NoError(t, <-done)
	})
	t.Run("after it has begun", func(t *testing.T) {
		nc, peer := tcpPair(t)
		c := newConn(nc, nil, config{})
		m := Prepare(Binary, make([]byte, 50_001))
		for err := error(nil); err == nil; {
			ctx, cancel := context.WithCancel(t.Context())
			write := later(func() error { return c.WritePrepared(ctx, m) })
			left := 0
			for len(write) == 0 && left == 0 {
				runtime.Gosched()
				left = boxed(c)
			}
			cancel()
			err = <-write
			if left == len(m.plain.frame) { // nothing of it is out: once more
				_, _ = io.CopyN(io.Discard, peer, 100_000)
				err = nil
			}
			require.True(t, err == nil || errors.Is(err, context.Canceled), "%v", err)
		}
		require.ErrorIs(t, c.WritePrepared(t.Context(), hello), net.ErrClosed)
	})
}
