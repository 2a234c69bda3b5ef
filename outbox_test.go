package websocket

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func text(p string) Header { return Header{Fin: true, Opcode: OpText, Length: uint64(len(p))} }

func TestOutbox(t *testing.T) {
	add := func(o *outbox, p string) uint64 { return o.add(text(p), []byte(p), joinedSize) }
	wire := func(texts ...string) string {
		var b []byte
		for _, p := range texts {
			b = append(b, frame(true, OpText, p, false)...)
		}
		return string(b)
	}

	t.Run("in order, what gathers goes together", func(t *testing.T) {
		var o outbox
		require.Zero(t, o.latest())
		require.Nil(t, o.load())
		a := add(&o, "a")
		require.Equal(t, wire("a"), string(o.load()))
		b, c := add(&o, "bb"), add(&o, "ccc")
		require.Equal(t, wire("a"), string(o.load()), "what is being written stays as it is")
		o.advance(2)
		require.False(t, o.isOut(a))
		require.Equal(t, "a", string(o.load()))
		o.advance(1)
		require.True(t, o.isOut(a))
		require.False(t, o.unfinished())
		require.Equal(t, wire("bb", "ccc"), string(o.load()))
		o.advance(5)
		require.True(t, o.isOut(b))
		require.False(t, o.isOut(c))
		require.True(t, o.unfinished())
		require.Equal(t, c, o.latest())
		o.advance(4)
		require.True(t, o.isOut(c))
		require.Zero(t, o.latest())
		require.Nil(t, o.load())
	})
	t.Run("room", func(t *testing.T) {
		var o outbox
		require.Zero(t, o.add(text(""), make([]byte, joinedSize+1), joinedSize))
		require.NotZero(t, o.add(text(""), make([]byte, joinedSize), joinedSize))
		require.Zero(t, add(&o, "x"))
		require.NotZero(t, o.addControl(OpPing, make([]byte, maxControlPayloadSize)))
		o.advance(len(o.load()))
		for n := 0; o.queue(text(""), make([]byte, 1000)); n++ {
			require.Less(t, n, 17)
		}
		require.True(t, o.queued.Load())
		require.Greater(t, len(o.load()), 15_000)
		require.False(t, o.queued.Load())
	})
	t.Run("past it", func(t *testing.T) {
		var o outbox
		past := o.pass()
		require.NotZero(t, past)
		a := add(&o, "a")
		require.Greater(t, a, past)
		require.Zero(t, o.pass(), "something has gathered")
		o.rest(past, frame(true, OpText, "rest", false), 3)
		require.Equal(t, "est", string(o.load()))
		require.Equal(t, fateBegun, o.takeBackNow(past))
		o.advance(3)
		require.True(t, o.isOut(past))
		require.Equal(t, wire("a"), string(o.load()))
		require.Zero(t, o.pass(), "something is being written")
		o.advance(3)

		past = o.pass()
		o.rest(past, frame(true, OpText, "rest", false), 0)
		require.Equal(t, fateTakenBack, o.takeBackNow(past))
		require.Zero(t, o.latest())

		past = o.pass()
		o.discard()
		require.Zero(t, o.pass(), "closed")
		o.rest(past, frame(true, OpText, "rest", false), 3)
		require.Nil(t, o.load())
	})
	t.Run("in a buffer that has grown", func(t *testing.T) {
		var o, other outbox
		var numbers []uint64
		for range 5 {
			numbers = append(numbers, add(&o, "a"))
		}
		numbers = append(numbers, add(&o, strings.Repeat("b", 2000)))
		add(&other, strings.Repeat("c", 100)) // in the buffer that was too small
		require.Equal(t, wire("a", "a", "a", "a", "a", strings.Repeat("b", 2000)), string(o.load()))
		for _, number := range numbers[:5] {
			require.False(t, o.isOut(number))
			o.advance(3)
			require.True(t, o.isOut(number))
		}
		require.Equal(t, fateTakenBack, o.takeBackNow(numbers[5]))
	})
	t.Run("nothing follows a Close", func(t *testing.T) {
		var o outbox
		require.NotZero(t, add(&o, "a"))
		require.NotZero(t, o.addControl(OpClose, nil))
		require.Zero(t, add(&o, "b"))
		require.Zero(t, o.addControl(OpPong, nil))
		require.Zero(t, o.addControl(OpClose, nil))
		require.Equal(t, wire("a")+string(frame(true, OpClose, "", false)), string(o.load()))
	})
	t.Run("taken back", func(t *testing.T) {
		var o outbox
		a, b, c := add(&o, "a"), add(&o, "bb"), add(&o, "ccc")
		f, given := o.takeBack(b)
		require.Equal(t, fateTakenBack, f)
		require.Nil(t, given)
		require.Equal(t, wire("a", "ccc"), string(o.load()))

		// While it is being written nobody knows, until the writer is interrupted.
		o.advance(1)
		_, givenA := o.takeBack(a)
		_, givenC := o.takeBack(c)
		d := add(&o, "d")
		o.advance(1)
		o.interrupted()
		<-givenA.done
		<-givenC.done
		require.Equal(t, fateBegun, givenA.fate)
		require.Equal(t, fateTakenBack, givenC.fate)
		require.Equal(t, "a", string(o.load()))
		_, givenA = o.takeBack(a)
		o.advance(1)
		<-givenA.done
		require.Equal(t, fateOut, givenA.fate)
		require.Equal(t, fateTakenBack, o.takeBackNow(d))
		require.Equal(t, fateOut, o.takeBackNow(a))
		require.Nil(t, o.load())
		require.Equal(t, fateAbsent, o.takeBackNow(d))

		// The last one of a write.
		e := add(&o, "e")
		require.Equal(t, wire("e"), string(o.load()))
		require.Equal(t, fateTakenBack, o.takeBackNow(e))
		require.Nil(t, o.load())
	})
	t.Run("discarded", func(t *testing.T) {
		var o outbox
		a := add(&o, "a")
		n := len(o.load())
		b := add(&o, "b")
		_, given := o.takeBack(a)
		o.discard()
		<-given.done
		require.Equal(t, fateAbsent, given.fate)
		o.advance(n)
		require.Equal(t, fateAbsent, o.takeBackNow(b))
		require.Zero(t, add(&o, "c"))
		require.Nil(t, o.load())
	})
	t.Run("masked", func(t *testing.T) {
		o := outbox{mask: true}
		add(&o, "Hello")
		add(&o, "world")
		b := o.load()
		for _, want := range []string{"Hello", "world"} {
			h, n, err := ParseHeader(b)
			require.NoError(t, err)
			p := bytes.Clone(b[n : n+5])
			Mask(p, h.Key, 0)
			require.Equal(t, want, string(p))
			b = b[n+5:]
		}
		require.Empty(t, b)
	})
}

// counted returns a server's Conn with the number of writes it makes.
func counted(t *testing.T) (*Conn, *pipeConn, *writeCounter) {
	nc, peer := newPipe()
	counter := &writeCounter{Conn: nc}
	c := newConn(counter, nil, config{})
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer, counter
}

func TestQueue(t *testing.T) {
	hello, world := frame(true, OpText, "Hello", false), frame(true, OpText, "world", false)
	queue := func(t *testing.T, c *Conn, texts ...string) {
		for _, p := range texts {
			require.NoError(t, c.Queue(t.Context(), Text, []byte(p)))
		}
	}
	for name, send := range map[string]func(*testing.T, *Conn, *pipeConn){
		"Flush": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello", "world")
			require.NoError(t, c.Flush(t.Context()))
			require.NoError(t, c.Flush(t.Context()))
		},
		"Write": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello")
			require.NoError(t, c.Write(t.Context(), Text, []byte("world")))
		},
		"WritePrepared": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello")
			require.NoError(t, c.WritePrepared(t.Context(), Prepare(Text, []byte("world"))))
		},
		"NextWriter": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello")
			w, err := c.NextWriter(t.Context(), Text)
			require.NoError(t, err)
			_, err = w.Write([]byte("world"))
			require.NoError(t, err)
			require.NoError(t, w.Close())
		},
		"a Read that waits": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello", "world")
			go func() { _, _, _ = c.Read(context.Background(), nil) }()
		},
		"a Ping that is answered": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello", "world")
			go func() { _ = c.Ping(context.Background()) }()
		},
		"Shutdown": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello", "world")
			go func() { _ = c.Shutdown(context.Background(), 4000, "") }()
		},
		"Close": func(t *testing.T, c *Conn, peer *pipeConn) {
			queue(t, c, "Hello", "world")
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer, counter := counted(t)
				send(t, c, peer)
				synctest.Wait()
				require.Equal(t, 1, counter.n, "writes of the network")
				expect(t, peer, hello, world)
			})
		})
	}
	t.Run("not before it has to", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer, counter := counted(t)
			send(t, peer, bytes.Repeat(frame(true, OpText, "x", true), 64))
			for range 64 {
				_, msg, err := c.Read(t.Context(), nil)
				require.NoError(t, err)
				require.NoError(t, c.Queue(t.Context(), Text, msg))
			}
			go func() { _, _, _ = c.Read(context.Background(), nil) }()
			synctest.Wait()
			require.Equal(t, 2, counter.n, "one for each read of the network: the first was of 64 bytes")
			expect(t, peer, bytes.Repeat(frame(true, OpText, "x", false), 64))
		})
	})
	t.Run("when enough has gathered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer, counter := counted(t)
			for range 40 {
				queue(t, c, strings.Repeat("x", 1000))
				require.LessOrEqual(t, boxed(c), queueSize)
			}
			require.Equal(t, 2, counter.n)
			require.NoError(t, c.Queue(t.Context(), Binary, make([]byte, queueSize)))
			require.Equal(t, 3, counter.n)
			require.Zero(t, boxed(c))
			expect(t, peer, bytes.Repeat(frame(true, OpText, strings.Repeat("x", 1000), false), 40))
		})
	})
	t.Run("while somebody writes and a Read waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			big := strings.Repeat("x", 1<<20)
			go func() { _ = c.Write(context.Background(), Binary, []byte(big)) }()
			synctest.Wait()
			queue(t, c, "Hello", "world")
			go func() { _, _, _ = c.Read(context.Background(), nil) }()
			synctest.Wait()
			expect(t, peer, frame(true, OpBinary, big, false), hello, world)
		})
	})
	t.Run("forgotten, it goes out with the keepalive", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			go func() { _, _, _ = c.Read(context.Background(), nil) }()
			synctest.Wait()
			queue(t, c, "Hello")
			send(t, peer, frame(true, OpPong, "", true))
			elapse(time.Minute)
			expect(t, peer, hello)
		})
	})
	t.Run("errors", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			require.ErrorContains(t, c.Queue(t.Context(), 0, nil), "not a message type")
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, c.Queue(ctx, Text, nil), context.Canceled)
			require.ErrorIs(t, c.Flush(ctx), context.Canceled)
			require.NoError(t, c.Flush(t.Context()))
			c.Close()
			require.ErrorIs(t, c.Queue(t.Context(), Text, nil), net.ErrClosed)
			require.ErrorIs(t, c.Flush(t.Context()), net.ErrClosed)
			expect(t, peer, closeFrame(StatusGoingAway, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("compressed, with WritePrepared between", func(t *testing.T) {
		for _, takeover := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				a, b := connect(t, config{deflate: agreed(takeover, 15)}, config{deflate: agreed(takeover, 15)})
				counter := &writeCounter{Conn: b.nc}
				b.nc = counter
				var sent []string
				for i := range 10 {
					msg := fmt.Sprint(i, strings.Repeat(" Hello", 100))
					queue(t, b, msg)
					require.NoError(t, b.WritePrepared(t.Context(), Prepare(Text, []byte(msg+"!"))))
					sent = append(sent, msg, msg+"!")
				}
				require.Equal(t, 10, counter.n)
				for _, msg := range sent {
					_, got, err := a.Read(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, msg, string(got))
				}
			})
		}
	})
	t.Run("an error shows at the next call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			queue(t, c, "Hello")
			peer.reset()
			err := c.Flush(t.Context())
			require.ErrorContains(t, err, "websocket: write: ")
			require.Equal(t, err, c.Flush(t.Context()))
			require.Equal(t, err, c.Queue(t.Context(), Text, nil))
			require.Zero(t, boxed(c))
		})
	})
	t.Run("compressed with takeover", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := connect(t, config{deflate: agreed(true, 15)}, config{deflate: agreed(true, 15)})
			msg := strings.Repeat("Hello ", 100)
			for range 3 {
				queue(t, b, msg, msg)
				require.NoError(t, b.Write(t.Context(), Text, []byte(msg)))
				for range 3 {
					_, got, err := a.Read(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, msg, string(got))
				}
			}
		})
	})
}

// The reader does not wait for a peer that does not take what was queued.
func TestQueueForAStuckPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		filler := strings.Repeat("x", pipeSize-5) // leaves a byte
		require.NoError(t, c.Write(t.Context(), Binary, []byte(filler)))
		for i := range 10 {
			require.NoError(t, c.Queue(t.Context(), Text, []byte(fmt.Sprint(i))))
		}
		send(t, peer, frame(true, OpText, "read", true))
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, got, err := c.Read(ctx, nil)
			cancel()
			if err == nil {
				require.Equal(t, "read", string(got))
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Flush(ctx), context.DeadlineExceeded)
		require.ErrorIs(t, c.Write(ctx, Text, []byte("no effect")), context.DeadlineExceeded)
		expect(t, peer, frame(true, OpBinary, filler, false))
		for i := range 10 {
			expect(t, peer, frame(true, OpText, fmt.Sprint(i), false))
		}
		require.NoError(t, c.Write(t.Context(), Text, []byte("end")))
		expect(t, peer, frame(true, OpText, "end", false))
	})
}

// A Flush that is cut short goes on by itself, and leaves the peer no half of a frame.
func TestContextEndsFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipeSize(10, pipeSize)
		c := newConn(nc, nil, config{})
		defer c.Close()
		require.NoError(t, c.Queue(t.Context(), Text, []byte("Hello")))
		require.NoError(t, c.Queue(t.Context(), Text, []byte("world")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Flush(ctx), context.DeadlineExceeded)
		expect(t, peer, frame(true, OpText, "Hello", false), frame(true, OpText, "world", false))
		require.NoError(t, c.Flush(t.Context()))
	})
}

// Writers that wait while one is on the wire go out together with the next write.
func TestCollidingWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, counter := counted(t)
		big := strings.Repeat("x", 1<<20)
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, c.Write(t.Context(), Binary, []byte(big))) })
		synctest.Wait()
		for i := range 100 {
			wg.Go(func() { assert.NoError(t, c.Write(t.Context(), Text, []byte(fmt.Sprintf("%02d", i)))) })
		}
		synctest.Wait()
		expect(t, peer, frame(true, OpBinary, big, false))
		synctest.Wait()
		before := counter.n
		seen := make(map[string]bool)
		readFrames(t, peer, func(h Header, p string) bool {
			seen[p] = true
			return len(seen) == 100
		})
		wg.Wait()
		require.Equal(t, before, counter.n, "one write took them all")
	})
}

// A writer whose context ends while another one is writing its frame along takes it back, if
// nothing of it is out.
func TestContextEndsWhileAnotherWrites(t *testing.T) {
	// The first message fills the wire, the other three go out together behind it.
	for name, tc := range map[string]struct {
		room int // that the network has for them
		cut  bool
	}{
		"nothing is out":      {room: 0},
		"the one before is":   {room: 7},
		"the one before half": {room: 5},
		"half of it is":       {room: 10, cut: true},
		"all of it is":        {room: 14},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := strings.Repeat("x", 100)
				nc, peer := newPipeSize(50, pipeSize)
				c := newConn(nc, nil, config{})
				defer c.Close()
				results := make([]chan error, 4)
				write := func(i int, ctx context.Context, p string) {
					results[i] = make(chan error, 1)
					go func() { results[i] <- c.Write(ctx, Text, []byte(p)) }()
					synctest.Wait()
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				write(0, t.Context(), first)
				write(1, t.Context(), "hello")
				write(2, ctx, "taken")
				write(3, t.Context(), "world")
				// 50 bytes of the first are in the pipe; when 52 more have been read, all of them are.
				expect(t, peer, frame(true, OpText, first, false)[:52])
				synctest.Wait()
				require.NoError(t, <-results[0])
				require.Empty(t, results[1])
				expect(t, peer, frame(true, OpText, first, false)[52:52+tc.room])
				synctest.Wait()
				cancel()
				synctest.Wait()
				rest := append(frame(true, OpText, first, false)[52+tc.room:], frame(true, OpText, "hello", false)...)
				if tc.cut {
					require.ErrorIs(t, <-results[2], context.Canceled)
					require.NoError(t, <-results[1])
					require.ErrorIs(t, <-results[3], net.ErrClosed)
					return
				}
				if tc.room == 14 {
					require.NoError(t, <-results[2], "the network has it")
					rest = append(rest, frame(true, OpText, "taken", false)...)
				} else {
					require.ErrorIs(t, <-results[2], context.Canceled)
				}
				expect(t, peer, rest, frame(true, OpText, "world", false))
				require.NoError(t, <-results[1])
				require.NoError(t, <-results[3])
			})
		})
	}
}
