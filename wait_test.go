package websocket

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// afterWait are the ways to go on when Wait has returned.
var afterWait = map[string]func(context.Context, *Conn) (MessageType, []byte, error){
	"Read": func(ctx context.Context, c *Conn) (MessageType, []byte, error) { return c.Read(ctx, nil) },
	"NextReader": func(ctx context.Context, c *Conn) (MessageType, []byte, error) {
		typ, r, err := c.NextReader(ctx)
		if err != nil {
			return 0, nil, err
		}
		msg, err := io.ReadAll(r)
		return typ, msg, err
	},
}

func TestWait(t *testing.T) {
	zeros := strings.Repeat("0", 3000)
	compressed := func(t *testing.T, p string) string {
		z, ok := newDeflater(agreed(false, 15)).appendMessage(nil, []byte(p))
		require.True(t, ok)
		return string(z)
	}
	for how, next := range afterWait {
		t.Run("each message once, "+how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{deflate: agreed(false, 15)})
				z := compressed(t, zeros)
				for _, m := range []struct {
					frames  [][]byte
					typ     MessageType
					payload string
				}{
					{[][]byte{frame(true, OpText, "Hello", true)}, Text, "Hello"},
					{[][]byte{frame(true, OpBinary, "", true)}, Binary, ""},
					{[][]byte{frame(true, OpPing, "", true), frame(true, OpText, "", true)}, Text, ""},
					{[][]byte{frame(false, OpText, "", true), frame(true, OpContinuation, "", true)}, Text, ""},
					{[][]byte{frame(false, OpText, "Hel", true), frame(true, OpPing, "", true), frame(true, OpContinuation, "lo", true)}, Text, "Hello"},
					{[][]byte{frame(true, OpBinary, zeros, true)}, Binary, zeros},
					{[][]byte{compressedFrame(true, OpText, z)}, Text, zeros},
					{[][]byte{compressedFrame(true, OpText, "\x00")}, Text, ""},
					{[][]byte{compressedFrame(false, OpText, z[:3]), frame(true, OpContinuation, z[3:], true)}, Text, zeros},
				} {
					waiting := later(func() error { return c.Wait(t.Context()) })
					synctest.Wait()
					require.Empty(t, waiting, "the message before was read to its end")
					send(t, peer, m.frames...)
					require.NoError(t, <-waiting)
					require.NoError(t, c.Wait(t.Context()), "the message is still there")
					typ, got, err := next(t.Context(), c)
					require.NoError(t, err)
					require.Equal(t, m.typ, typ)
					require.Equal(t, m.payload, string(got))
				}
			})
		})
		t.Run("returns when a message begins, "+how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{})
				hello := frame(true, OpText, "Hello", true)
				waiting := later(func() error { return c.Wait(t.Context()) })
				for i := range 6 { // of the header
					synctest.Wait()
					require.Empty(t, waiting)
					send(t, peer, hello[i:i+1])
				}
				require.NoError(t, <-waiting)
				go func() { send(t, peer, hello[6:]) }()
				_, got, err := next(t.Context(), c)
				require.NoError(t, err)
				require.Equal(t, "Hello", string(got))
			})
		})
		t.Run("an interrupted one loses nothing, "+how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{})
				hello := frame(true, OpText, "Hello", true)
				send(t, peer, frame(true, OpPing, "p", true))
				for i := range 6 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					require.ErrorIs(t, c.Wait(ctx), context.DeadlineExceeded)
					require.ErrorIs(t, c.Wait(ctx), context.DeadlineExceeded, "a context that has ended")
					cancel()
					send(t, peer, hello[i:i+1])
				}
				expect(t, peer, frame(true, OpPong, "p", false))
				require.NoError(t, c.Wait(t.Context()))
				send(t, peer, hello[6:])
				_, got, err := next(t.Context(), c)
				require.NoError(t, err)
				require.Equal(t, "Hello", string(got))
			})
		})
		t.Run("after a reader that has not ended, "+how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{})
				first := frame(false, OpText, strings.Repeat("a", 100), true)
				send(t, peer, first[:50])
				_, r, err := c.NextReader(t.Context())
				require.NoError(t, err)
				_, err = r.Read(make([]byte, 10))
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, c.Wait(ctx), context.DeadlineExceeded)
				waiting := later(func() error { return c.Wait(t.Context()) })
				send(t, peer, first[50:], frame(true, OpContinuation, "b", true))
				synctest.Wait()
				require.Empty(t, waiting, "that is the rest of the first message")
				send(t, peer, frame(true, OpText, "next", true))
				require.NoError(t, <-waiting)
				_, err = r.Read(make([]byte, 1))
				require.ErrorContains(t, err, "earlier message")
				_, got, err := next(t.Context(), c)
				require.NoError(t, err)
				require.Equal(t, "next", string(got))
			})
		})
	}
	t.Run("NetConn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			nc := NetConn(c, Binary)
			send(t, peer, frame(true, OpBinary, "", true), frame(true, OpBinary, "abc", true))
			require.NoError(t, c.Wait(t.Context()))
			b := make([]byte, 3)
			_, err := io.ReadFull(nc, b)
			require.NoError(t, err)
			require.Equal(t, "abc", string(b))
			waiting := later(func() error { return c.Wait(t.Context()) })
			synctest.Wait()
			require.Empty(t, waiting)
			send(t, peer, frame(true, OpText, "no", true))
			require.NoError(t, <-waiting)
			require.NoError(t, peer.CloseWrite())
			_, err = nc.Read(b)
			require.ErrorIs(t, err, error(errWrongType))
		})
	})
	t.Run("goes on with what an interrupted Read has", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(false, OpText, "Hel", true))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NoError(t, c.Wait(t.Context()))
			send(t, peer, frame(true, OpContinuation, "lo", true))
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "Hello", string(got))
		})
	})
	t.Run("another goroutine reads between", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "", true))
			require.NoError(t, c.Wait(t.Context()))
			other := make(chan string)
			go func() { _, got, _ := c.Read(t.Context(), nil); other <- "other " + string(got) }()
			require.Equal(t, "other ", <-other)
			go func() { _, got, _ := c.Read(t.Context(), nil); other <- "mine " + string(got) }()
			synctest.Wait()
			require.Empty(t, other)
			send(t, peer, frame(true, OpText, "second", true))
			require.Equal(t, "mine second", <-other)
		})
	})
	t.Run("Ping stays behind the message", func(t *testing.T) {
		const number = "\x00\x00\x00\x00\x00\x00\x00\x01"
		for _, message := range []string{"", "Hello"} {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{})
				waiting := later(func() error { return c.Wait(t.Context()) })
				synctest.Wait()
				ping := later(func() error { return c.Ping(t.Context()) })
				expect(t, peer, frame(true, OpPing, number, false))
				send(t, peer, frame(true, OpText, message, true), frame(true, OpPong, number, true), closeFrame(1000, "", true))
				require.NoError(t, <-waiting)
				synctest.Wait()
				require.Empty(t, ping)
				_, got, err := c.Read(t.Context(), nil)
				require.NoError(t, err, "the Close behind it does not come first")
				require.Equal(t, message, string(got))
				require.NoError(t, <-ping)
			})
		}
	})
	t.Run("ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := serve(t, config{})
			waiting := later(func() error { return c.Wait(t.Context()) })
			synctest.Wait()
			require.NoError(t, c.Close())
			require.ErrorIs(t, <-waiting, net.ErrClosed)
			require.ErrorIs(t, c.Wait(t.Context()), net.ErrClosed)

			c, peer := serve(t, config{})
			send(t, peer, closeFrame(4000, "away", true))
			require.Equal(t, &CloseError{4000, "away"}, c.Wait(t.Context()))

			// The message that was waited for is not there any more.
			c, peer = serve(t, config{})
			send(t, peer, frame(true, OpText, "", true))
			require.NoError(t, c.Wait(t.Context()))
			require.NoError(t, c.Close())
			require.ErrorIs(t, c.Wait(t.Context()), net.ErrClosed)
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, net.ErrClosed)

			c, peer = serve(t, config{})
			send(t, peer, frame(true, OpBinary, "\xff", true), frame(true, 3, "", true))
			require.NoError(t, peer.CloseWrite())
			require.NoError(t, c.Wait(t.Context()))
			_, _, err = c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.ErrorContains(t, c.Wait(t.Context()), "section 5.2")
		})
	})
	t.Run("notices a dead peer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			start := time.Now()
			require.ErrorIs(t, c.Wait(t.Context()), error(errConnectionSilent))
			require.LessOrEqual(t, time.Since(start), 2*time.Minute)
			expect(t, peer, frame(true, OpPing, "", false))
		})
	})
	t.Run("sends what is queued", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			require.NoError(t, c.Queue(t.Context(), Text, []byte("Hello")))
			waiting := later(func() error { return c.Wait(t.Context()) })
			expect(t, peer, frame(true, OpText, "Hello", false))
			send(t, peer, frame(true, OpText, "x", true))
			require.NoError(t, <-waiting)
		})
	})
}

// A message that Wait has returned for is the application's, and its answer goes out.
func TestConnsShutdownAfterWait(t *testing.T) {
	for how, next := range afterWait {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(Conns)
				c, peer := member(t, s, config{})
				send(t, peer, frame(true, OpText, "", true))
				require.NoError(t, c.Wait(t.Context()))
				drained := drain(t.Context(), s, StatusGoingAway, "bye")
				synctest.Wait()
				require.Empty(t, drained)
				typ, got, err := next(t.Context(), c)
				require.NoError(t, err)
				require.NoError(t, c.Write(t.Context(), typ, append(got, "answer"...)))
				waiting := later(func() error { return c.Wait(t.Context()) })
				expect(t, peer, frame(true, OpText, "answer", false), closeFrame(StatusGoingAway, "bye", false))
				send(t, peer, frame(true, OpText, "late", true), closeFrame(StatusGoingAway, "bye", true))
				require.ErrorIs(t, <-waiting, net.ErrClosed)
				require.NoError(t, <-drained)
			})
		})
	}
}

// Wait drops what a reader has left, over a socket too, before it waits without a buffer.
func TestWaitAfterAReaderOverTCP(t *testing.T) {
	peer, nc := tcpPair(t)
	c := newConn(nc, nil, config{})
	for _, size := range []int{10, 50, 5000} {
		send(t, peer, frame(true, OpBinary, strings.Repeat("x", size), true))
		_, r, err := c.NextReader(t.Context())
		require.NoError(t, err)
		_, err = r.Read(make([]byte, 5))
		require.NoError(t, err)
		waiting := later(func() error { return c.Wait(t.Context()) })
		send(t, peer, frame(true, OpText, "next", true))
		require.NoError(t, <-waiting)
		_, got, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "next", string(got))
	}
}

// What waits in Wait holds nothing, and neither does who is between it and a small message.
func TestWaitHoldsNoBuffer(t *testing.T) {
	peer, nc := tcpPair(t)
	c := newConn(nc, nil, config{})
	for _, size := range []int{0, 10, 5000} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		require.ErrorIs(t, c.Wait(ctx), context.DeadlineExceeded)
		cancel()
		assert.Nil(t, c.in.pooled)
		send(t, peer, frame(true, OpBinary, strings.Repeat("x", size), true))
		require.NoError(t, c.Wait(t.Context()))
		if size <= 10 {
			assert.Nil(t, c.in.pooled)
		}
		_, got, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, got, size)
	}
}
