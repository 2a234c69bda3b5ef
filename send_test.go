package websocket

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// later runs f in a goroutine and returns its result.
func later(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// A Write that finds no room sends what has gathered first. Others may take the room
// meanwhile.
func TestRoomIsTakenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipeSize(10, pipeSize)
		c := newConn(nc, nil, config{})
		defer c.Close()
		queued, written := strings.Repeat("q", 10_000), strings.Repeat("w", 60_000)
		require.NoError(t, c.Queue(t.Context(), Binary, []byte(queued)))
		write := later(func() error { return c.Write(t.Context(), Binary, []byte(written)) })
		synctest.Wait()
		require.NoError(t, c.Queue(t.Context(), Binary, []byte(queued)))
		expect(t, peer, frame(true, OpBinary, queued, false))
		window(peer, pipeSize)
		expect(t, peer, frame(true, OpBinary, queued, false), frame(true, OpBinary, written, false))
		require.NoError(t, <-write)
	})
}

// A large message does not begin inside another one's frame, whoever gave up what meanwhile.
func TestLargeMessageBeginsBetweenFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipeSize(0, pipeSize)
		c := newConn(nc, nil, config{})
		defer c.Close()
		write := func(ctx context.Context, p string) <-chan error {
			done := later(func() error { return c.Write(ctx, Text, []byte(p)) })
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := write(t.Context(), "first")
		require.NoError(t, c.Queue(t.Context(), Text, []byte("queued")))
		gone := write(ctx, "gone")
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		big := strings.Repeat("x", joinedSize+1)
		large := write(t.Context(), big)

		// The large message's writer has the wire, and sends what is queued.
		window(peer, 2+5)
		require.NoError(t, <-first)
		synctest.Wait()
		one, two := write(t.Context(), "one"), write(t.Context(), "two")
		ctx, cancel = context.WithCancel(t.Context())
		three := write(ctx, "three")
		window(peer, 2+5+2+6+2+3+3) // up to the middle of the second
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-three, context.Canceled)
		synctest.Wait()
		window(peer, pipeSize)
		for _, p := range []string{"first", "queued", "one", "two"} {
			expect(t, peer, frame(true, OpText, p, false))
		}
		expect(t, peer, frame(true, OpText, big, false))
		for _, done := range []<-chan error{one, two, large} {
			require.NoError(t, <-done)
		}
	})
}

// awaitFrames waits for frames to be in a batch of c's outbox.
func awaitFrames(t *testing.T, c *Conn, b *batch, frames int) {
	t.Helper()
	for n, start := -1, time.Now(); n != frames; runtime.Gosched() {
		require.Less(t, time.Since(start), 20*time.Second)
		c.out.box.mu.Lock()
		n = 0
		if b.buf != nil {
			n = len(b.buf.frames)
		}
		c.out.box.mu.Unlock()
	}
}

// Writers that one context ends return all, whoever of them was writing for the others.
func TestContextEndsAllWriters(t *testing.T) {
	const writers, message = 10, "no effect"
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){
		"pipe":   func(testing.TB) (net.Conn, net.Conn) { a, b := newPipe(); return a, b },
		"socket": unixPair,
	} {
		t.Run(name, func(t *testing.T) {
			for range 4 {
				nc, peer := pair(t)
				fill(t, nc)
				c := newConn(nc, nil, config{})
				write := func(ctx context.Context) <-chan error {
					return later(func() error { return c.Write(ctx, Text, []byte(message)) })
				}
				// The first one has the wire and gives it up to one of the others.
				firstCtx, cancelFirst := context.WithCancel(t.Context())
				ctx, cancel := context.WithCancel(t.Context())
				first := write(firstCtx)
				awaitFrames(t, c, &c.out.box.leaving, 1)
				var others []<-chan error
				for range writers {
					others = append(others, write(ctx))
				}
				awaitFrames(t, c, &c.out.box.gathered, writers)
				cancelFirst()
				awaitFrames(t, c, &c.out.box.leaving, writers)
				cancel()
				for _, done := range append(others, first) {
					require.ErrorIs(t, <-done, context.Canceled)
				}
				require.Zero(t, boxed(c))
				require.Zero(t, c.out.sent.Load())
				c.Close()
				peer.Close()
			}
		})
	}
}

// cutConn is a network connection that breaks after so many bytes.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if n < len(p) {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

// Of the messages that were on their way when the network broke, those that are out have
// been sent, whoever wrote them.
func TestNetworkBreaksBetweenFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := newPipe()
		c := newConn(&cutConn{nc, 2 + 5 + 2 + 6 + 1}, nil, config{})
		defer c.Close()
		require.True(t, c.out.wire.try())
		write := func(p string) <-chan error {
			done := later(func() error { return c.Write(t.Context(), Text, []byte(p)) })
			synctest.Wait()
			return done
		}
		first, second, third := write("first"), write("second"), write("third")
		c.releaseWire()
		require.NoError(t, <-first)
		require.NoError(t, <-second)
		require.ErrorIs(t, <-third, io.ErrClosedPipe)
		require.ErrorIs(t, c.Write(t.Context(), Text, nil), io.ErrClosedPipe)
	})
}

// fill fills what the network has room for, below a Conn: none of its own frames begins.
func fill(t *testing.T, nc net.Conn) {
	t.Helper()
	p := make([]byte, 1<<20)
	// On a busy machine the deadline may come before the first try.
	for full := 0; full < 2; full++ {
		require.NoError(t, nc.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
		for {
			n, err := nc.Write(p)
			if n > 0 {
				full = -1
			}
			if err != nil {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				break
			}
		}
	}
	require.NoError(t, nc.SetWriteDeadline(time.Time{}))
}

// The error that the network reports once is not lost by a first try.
func TestWriteToAPeerThatHasReset(t *testing.T) {
	for name, write := range map[string]func(*Conn) error{
		"Write":    func(c *Conn) error { return c.Write(context.Background(), Text, []byte("Hello")) },
		"large":    func(c *Conn) error { return c.Write(context.Background(), Text, make([]byte, joinedSize+1)) },
		"prepared": func(c *Conn) error { return c.WritePrepared(context.Background(), Prepare(Text, []byte("Hello"))) },
		"Flush": func(c *Conn) error {
			assert.NoError(t, c.Queue(context.Background(), Text, []byte("Hello")))
			return c.Flush(context.Background())
		},
	} {
		t.Run(name, func(t *testing.T) {
			peer, nc := tcpPair(t)
			c := newConn(nc, nil, config{})
			require.NoError(t, peer.(*net.TCPConn).SetLinger(0))
			require.NoError(t, peer.Close())
			err := write(c)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			require.ErrorContains(t, err, "websocket: write: ")
			require.Equal(t, err, c.Write(t.Context(), Text, nil), "it stays")
			_, _, err = c.Read(t.Context(), nil)
			require.Error(t, err)
		})
	}
}

// A frame that is dropped with the connection has the connection's error, though its context
// has ended meanwhile.
func TestContextEndsAsTheNetworkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := newPipe()
		goes := make(chan struct{}, 1)
		u := &unwell{Conn: noDeadline{nc}, called: func() { <-goes }}
		c := newConn(u, nil, config{})
		defer c.Close()
		write := func(ctx context.Context) <-chan error {
			done := later(func() error { return c.Write(ctx, Text, nil) })
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first, second, third := write(t.Context()), write(t.Context()), write(ctx)
		goes <- struct{}{}
		require.NoError(t, <-first)
		synctest.Wait() // the second writes for the third too
		cancel()
		synctest.Wait()
		require.Empty(t, third)
		u.write = syscall.ECONNRESET
		goes <- struct{}{}
		require.ErrorIs(t, <-second, syscall.ECONNRESET)
		require.ErrorIs(t, <-third, syscall.ECONNRESET)
	})
}

// noDeadline does not obey deadlines.
type noDeadline struct{ net.Conn }

func (noDeadline) SetWriteDeadline(time.Time) error { return nil }

// What waits in the outbox when the connection is dropped ends with it.
func TestCloseEndsWhatHasGathered(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			window(peer, 0)
			var results []<-chan error
			for range 10 {
				results = append(results, later(func() error { return c.Write(t.Context(), Text, []byte("Hello")) }))
			}
			synctest.Wait()
			results = append(results, later(func() error { return c.Flush(t.Context()) }))
			synctest.Wait()
			require.NoError(t, c.Queue(t.Context(), Text, []byte("queued")))
			require.NoError(t, c.Close())
			for _, done := range results {
				require.ErrorIs(t, <-done, net.ErrClosed)
			}
			synctest.Wait()
			require.Zero(t, boxed(c))
		})
	}
}

// A Write that waits for room has no effect when its context ends, and Flush goes on.
func TestContextEndsWhileWaitingForRoom(t *testing.T) {
	for _, size := range []int{60_000, joinedSize + 1} {
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipeSize(10, pipeSize)
			c := newConn(nc, nil, config{})
			defer c.Close()
			queued := strings.Repeat("q", 10_000)
			require.NoError(t, c.Queue(t.Context(), Binary, []byte(queued)))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, c.Write(ctx, Binary, make([]byte, size)), context.DeadlineExceeded)
			expect(t, peer, frame(true, OpBinary, queued, false))
			require.NoError(t, c.Write(t.Context(), Text, []byte("next")))
			expect(t, peer, frame(true, OpText, "next", false))
		})
	}
}

// Two that flush do not get into each other's way, nor does one whose context ends.
func TestFlushWhileAnotherWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		big := strings.Repeat("x", 1<<20)
		write := later(func() error { return c.Write(t.Context(), Binary, []byte(big)) })
		synctest.Wait()
		require.NoError(t, c.Queue(t.Context(), Text, []byte("Hello")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Flush(ctx), context.DeadlineExceeded)
		flush, again := later(func() error { return c.Flush(t.Context()) }), later(func() error { return c.Flush(t.Context()) })
		synctest.Wait()
		require.Empty(t, flush)
		require.Empty(t, again)
		expect(t, peer, frame(true, OpBinary, big, false), frame(true, OpText, "Hello", false))
		for _, done := range []<-chan error{write, flush, again} {
			require.NoError(t, <-done)
		}
	})
}

// pipeAndTCP are a connection that is no socket, and one that is.
var pipeAndTCP = map[string]func(testing.TB) (net.Conn, net.Conn){
	"pipe": func(testing.TB) (net.Conn, net.Conn) { a, b := newPipe(); return a, b },
	"TCP":  tcpPair,
}

// An interrupt that comes when nobody writes any more does the next writer no harm.
func TestInterruptOfNobody(t *testing.T) {
	for name, pair := range pipeAndTCP {
		t.Run(name, func(t *testing.T) {
			nc, peer := pair(t)
			c := newConn(nc, nil, config{})
			defer c.Close()
			big := strings.Repeat("x", joinedSize+1)
			var got chan error
			for _, ctx := range []context.Context{context.Background(), t.Context()} {
				for _, p := range []string{"Hello", big} {
					got = make(chan error, 1)
					go func() {
						b := make([]byte, len(frame(true, OpText, p, false)))
						_, err := io.ReadFull(peer, b)
						got <- err
					}()
					c.out.watch.poke(c, nil)
					require.NoError(t, c.Write(ctx, Text, []byte(p)))
					require.NoError(t, <-got)
				}
				c.out.watch.poke(c, nil)
				require.NoError(t, c.Queue(ctx, Text, []byte("queued")))
				require.NoError(t, c.Flush(ctx))
				expect(t, peer, frame(true, OpText, "queued", false))
			}
		})
	}
}

// The end of a call's context leaves no deadline behind for what is written without a call, by us
// or by TLS itself.
func TestContextEndsAfterTheWrite(t *testing.T) {
	for name, pair := range pipeAndTCP {
		t.Run(name, func(t *testing.T) {
			nc, peer := pair(t)
			c := newConn(nc, nil, config{})
			defer c.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w, err := c.NextWriter(ctx, Text)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			expect(t, peer, frame(true, OpText, "", false))
			require.NotNil(t, c.out.watch.armed, "it stays, for a loop with one context")
			c.out.watch.poke(c, c.out.watch.armed) // as the end of ctx does
			_, err = nc.Write([]byte("x"))
			require.NoError(t, err)
			expect(t, peer, []byte("x"))

			// If it ends while nobody is there to be interrupted, a call that has looked
			// before is interrupted all the same.
			cancel()
			c.out.watch.watch(c, ctx)
			_, err = nc.Write([]byte("x"))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			c.out.watch.rest(c)
			_, err = nc.Write([]byte("x"))
			require.NoError(t, err)
		})
	}
}

// A Write does not wait for its turn if writing is over.
func TestWriteWhenWritingIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		_, err := c.NextWriter(t.Context(), Text) // which nobody ends
		require.NoError(t, err)
		peer.Close()
		require.Error(t, c.Ping(t.Context()))
		require.ErrorIs(t, c.Write(t.Context(), Text, nil), syscall.EPIPE)
	})
}

// What fails for one writer fails for all whose frames went along, or wait.
func TestAlongWithAWriteThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipeSize(0, pipeSize)
		c := newConn(nc, nil, config{})
		defer c.Close()
		write := func(p string) <-chan error {
			done := later(func() error { return c.Write(t.Context(), Text, []byte(p)) })
			synctest.Wait()
			return done
		}
		first := write("first")
		others := []<-chan error{write("second"), write("third")}
		window(peer, 7+1)
		require.NoError(t, <-first)
		synctest.Wait()
		others = append(others, write("fourth"))
		require.NoError(t, c.Queue(t.Context(), Text, []byte("queued")))
		peer.reset()
		for _, done := range others {
			require.ErrorIs(t, <-done, syscall.ECONNRESET)
		}
		require.Zero(t, boxed(c))
		require.ErrorIs(t, c.Write(t.Context(), Text, nil), syscall.ECONNRESET)
	})
}

// Over TLS nobody interrupts another one's write, since that would break the connection.
func TestContextEndsWhileAnotherWritesOverTLS(t *testing.T) {
	certificates()
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe()
		nc, peer := tlsOver(t, a, b)
		defer b.Close()
		c := newConn(nc, nil, config{})
		defer c.Close()
		window(b, 0)
		write := func(ctx context.Context, p string) <-chan error {
			done := later(func() error { return c.Write(ctx, Text, []byte(p)) })
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := write(context.Background(), "first"), write(context.Background(), "second")
		gone := write(ctx, "gone")
		const record = 5 + (2 + 5) + 1 + 16
		window(b, record+10) // the second is cut
		require.NoError(t, <-first)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		require.Empty(t, second)
		window(b, pipeSize)
		require.NoError(t, <-second)
		require.NoError(t, c.Write(t.Context(), Text, []byte("next")))
		for _, p := range []string{"first", "second", "next"} {
			expect(t, peer, frame(true, OpText, p, false))
		}
	})
}

// A Pong that becomes due while a writer gives the wire back is not forgotten.
func TestPongAsTheWireIsGivenBack(t *testing.T) {
	peer, nc := tcpPair(t)
	c := newConn(nc, nil, config{})
	defer c.Close()
	go func() { _, _, _ = c.Read(context.Background(), nil) }()
	require.NoError(t, peer.SetReadDeadline(time.Now().Add(20*time.Second)))
	ping, both := frame(true, OpPing, "p", true), make([]byte, 3+3)
	for range 5000 {
		written := later(func() error { return c.Write(context.Background(), Text, []byte("m")) })
		send(t, peer, ping)
		_, err := io.ReadFull(peer, both)
		require.NoError(t, err)
		require.NoError(t, <-written)
	}
}

// A context that ends between two writes of the network cuts none, which TLS would not survive.
func TestContextEndsBetweenFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipe()
		u := &unwell{Conn: nc}
		c := newConn(unwellTLS{u}, nil, config{})
		defer c.Close()
		queued := strings.Repeat("q", 10_000)
		require.NoError(t, c.Queue(t.Context(), Text, []byte(queued)))
		ctx, cancel := context.WithCancel(t.Context())
		u.wrote = cancel
		require.ErrorIs(t, c.Write(ctx, Binary, make([]byte, 60_000)), context.Canceled)
		require.NoError(t, c.Write(t.Context(), Text, []byte("next")))
		expect(t, peer, frame(true, OpText, queued, false), frame(true, OpText, "next", false))
	})
}

// Close ends a Write whose frame is in a write of the network that hangs.
func TestCloseEndsAWriteThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := newPipe()
		goes := make(chan struct{})
		c := newConn(&unwell{Conn: noDeadline{nc}, called: func() { <-goes }}, nil, config{})
		ctx, cancel := context.WithCancel(t.Context())
		first := later(func() error { return c.Write(t.Context(), Text, nil) })
		synctest.Wait()
		second := later(func() error { return c.Write(t.Context(), Text, nil) })
		synctest.Wait()
		third := later(func() error { return c.Write(ctx, Text, nil) })
		synctest.Wait()
		goes <- struct{}{}
		require.NoError(t, <-first)
		synctest.Wait() // the second writes for the third too
		cancel()
		synctest.Wait()
		require.Empty(t, third, "nobody knows yet")
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-third, net.ErrClosed)
		require.Empty(t, second)
		close(goes)
		require.ErrorIs(t, <-second, net.ErrClosed)
	})
}
