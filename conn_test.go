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
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// frame returns a frame in wire format. masked, it is one of a client.
func frame(fin bool, op Opcode, payload string, masked bool) []byte {
	h := Header{Fin: fin, Opcode: op, Length: uint64(len(payload)), Masked: masked}
	if masked {
		h.Key = [4]byte{0x37, 0xfa, 0x21, 0x3d}
	}
	b := AppendHeader(nil, h)
	n := len(b)
	b = append(b, payload...)
	if masked {
		Mask(b[n:], h.Key, 0)
	}
	return b
}

// closeFrame returns a Close frame in wire format.
func closeFrame(code StatusCode, reason string, masked bool) []byte {
	return frame(true, OpClose, string(appendClose(nil, code, reason)), masked)
}

// serve returns a server's Conn, the other end of its network connection, and ends both with
// the test.
func serve(t testing.TB, cfg config) (*Conn, *pipeConn) {
	t.Helper()
	nc, peer := newPipe()
	c := newConn(nc, nil, cfg)
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer
}

// connect returns both ends of a connection.
func connect(t testing.TB, client, server config) (*Conn, *Conn) {
	t.Helper()
	a, b := newPipe()
	client.client = true
	c, s := newConn(a, nil, client), newConn(b, nil, server)
	t.Cleanup(func() { c.Close(); s.Close() })
	return c, s
}

func send(t testing.TB, nc net.Conn, frames ...[]byte) {
	t.Helper()
	_, err := nc.Write(bytes.Join(frames, nil))
	require.NoError(t, err)
}

// expect reads from nc what it must be that was sent next.
func expect(t testing.TB, nc net.Conn, frames ...[]byte) {
	t.Helper()
	want := bytes.Join(frames, nil)
	got := make([]byte, len(want))
	n, err := io.ReadFull(nc, got)
	require.NoError(t, err, "%.100x of %.100x", got[:n], want)
	require.True(t, bytes.Equal(want, got), "%.100x instead of %.100x", got, want)
}

func expectEOF(t testing.TB, nc net.Conn) {
	t.Helper()
	rest, err := io.ReadAll(nc)
	require.NoError(t, err)
	require.Empty(t, rest)
}

// elapse lets time pass, in a bubble of synctest.
func elapse(d time.Duration) { <-time.After(d) }

func TestContextEndsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		buf := []byte("keep")
		start := time.Now()
		_, got, err := c.Read(ctx, buf)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(start))
		assert.Equal(t, "keep", string(got))

		_, _, err = c.Read(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded, "a context that has ended")

		cause := errors.New("my cause")
		withCause, cancelCause := context.WithCancelCause(t.Context())
		go cancelCause(cause)
		_, _, err = c.Read(withCause, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, cause)

		send(t, peer, frame(true, OpText, "Hello", true))
		typ, got, err := c.Read(t.Context(), buf)
		require.NoError(t, err)
		assert.Equal(t, Text, typ)
		assert.Equal(t, "keepHello", string(got))
	})
}

// A Pong that the network did not take at first goes out when it can, be there a keepalive or not.
func TestPongAfterAFullNetwork(t *testing.T) {
	for _, keepAlive := range []time.Duration{-1, 0} {
		for _, size := range []int{98, 200} { // all that the network takes, and more
			synctest.Test(t, func(t *testing.T) {
				nc, peer := newPipeSize(100, pipeSize)
				defer peer.Close()
				c := newConn(nc, nil, config{keepAlive: keepAlive})
				defer c.Close()
				payload := strings.Repeat("x", size)
				message := frame(true, OpBinary, payload, false)
				read, written := make(chan error, 1), make(chan error, 1)
				go func() { written <- c.Write(t.Context(), Binary, []byte(payload)) }()
				go func() { _, _, err := c.Read(t.Context(), nil); read <- err }()
				synctest.Wait()
				send(t, peer, frame(true, OpPing, "p", true))
				elapse(50 * time.Millisecond)
				expect(t, peer, message[:len(message)-100])
				require.NoError(t, <-written)
				elapse(5 * time.Second)
				expect(t, peer, message[len(message)-100:])
				require.NoError(t, peer.SetReadDeadline(time.Now().Add(time.Second)))
				expect(t, peer, frame(true, OpPong, "p", false))
				require.Empty(t, read)
			})
		}
	}
}

// A context that ended between two calls of one loop must not reach into calls with another.
func TestContextEndsBetweenCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			send(t, peer, frame(true, OpText, "a", true), frame(true, OpText, "b", true))
			_, got, err := c.Read(ctx, nil)
			require.NoError(t, err)
			require.NoError(t, c.Write(ctx, Text, got))
			cancel()
			synctest.Wait()
			_, got, err = c.Read(t.Context(), got)
			require.NoError(t, err)
			require.Equal(t, "ab", string(got))
			require.NoError(t, c.Write(t.Context(), Text, got))
			expect(t, peer, frame(true, OpText, "a", false), frame(true, OpText, "ab", false))
		}
	})
}

func TestSecondReaderWaitsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		got := make(chan string, 2)
		for range 2 {
			go func() {
				_, msg, err := c.Read(t.Context(), nil)
				assert.NoError(t, err)
				got <- string(msg)
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := c.Read(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded, "waiting for the turn obeys the context")

		send(t, peer, frame(false, OpText, "a", true))
		synctest.Wait()
		send(t, peer, frame(true, OpContinuation, "b", true), frame(true, OpText, "c", true))
		assert.ElementsMatch(t, []string{"ab", "c"}, []string{<-got, <-got})
	})
}

func TestPing(t *testing.T) {
	t.Run("while another goroutine reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := connect(t, config{}, config{})
			go func() { _, _, _ = c.Read(t.Context(), nil) }()
			go func() { _, _, _ = s.Read(t.Context(), nil) }()
			synctest.Wait()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { assert.NoError(t, c.Ping(t.Context())) })
				wg.Go(func() { assert.NoError(t, s.Ping(t.Context())) })
			}
			wg.Wait()
		})
	})
	t.Run("leaves a Close that is behind a message which is being read", func(t *testing.T) {
		text := []byte(strings.Repeat("x", 5000))
		for _, stream := range []func(*Conn) (io.Reader, error){
			func(c *Conn) (io.Reader, error) {
				_, r, err := c.NextReader(context.Background())
				return r, err
			},
			func(c *Conn) (io.Reader, error) { return NetConn(c, Text), nil },
		} {
			synctest.Test(t, func(t *testing.T) {
				p := agreed(true, 15)
				c, peer := serve(t, config{deflate: p})
				z, ok := newDeflater(p).appendMessage(nil, text)
				require.True(t, ok)
				send(t, peer, compressedFrame(true, OpText, string(z)), closeFrame(1000, "", true))
				r, err := stream(c)
				require.NoError(t, err)
				got := make([]byte, len(text))
				_, err = io.ReadFull(r, got[:10])
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded)
				_, err = io.ReadFull(r, got[10:])
				require.NoError(t, err)
				require.Equal(t, text, got)
				var ce *CloseError
				require.ErrorAs(t, c.Ping(t.Context()), &ce)
			})
		}
	})
	t.Run("reads itself, and leaves data for Read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			done := make(chan error, 1)
			go func() { done <- c.Ping(t.Context()) }()
			ping := frame(true, OpPing, "\x00\x00\x00\x00\x00\x00\x00\x01", false)
			expect(t, peer, ping)
			send(t, peer, frame(true, OpPing, "x", true))
			expect(t, peer, frame(true, OpPong, "x", false))
			send(t, peer, frame(true, OpText, "first", true),
				frame(true, OpPong, "\x00\x00\x00\x00\x00\x00\x00\x01", true), frame(true, OpText, "second", true))
			synctest.Wait()
			require.Empty(t, done, "the Pong is behind a message")
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "first", string(got))
			require.NoError(t, <-done)
			_, got, err = c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "second", string(got))
		})
	})
	t.Run("only the latest answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			done := make(chan error, 3)
			for range 3 {
				go func() { done <- c.Ping(t.Context()) }()
			}
			synctest.Wait()
			send(t, peer,
				frame(true, OpPong, "unasked", true),
				frame(true, OpPong, "\x00\x00\x00\x00\x00\x00\x00\x09", true)) // not ours
			synctest.Wait()
			require.Empty(t, done)
			send(t, peer, frame(true, OpPong, "\x00\x00\x00\x00\x00\x00\x00\x02", true))
			require.NoError(t, <-done)
			require.NoError(t, <-done)
			synctest.Wait()
			require.Empty(t, done)
			send(t, peer, frame(true, OpPong, "\x00\x00\x00\x00\x00\x00\x00\x03", true))
			require.NoError(t, <-done)
		})
	})
	t.Run("behind it one of the keepalive, and only that answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			done := make(chan error, 1)
			go func() { done <- c.Ping(t.Context()) }()
			expect(t, peer, frame(true, OpPing, "\x00\x00\x00\x00\x00\x00\x00\x01", false))
			elapse(31 * time.Second)
			expect(t, peer, frame(true, OpPing, "\x00\x00\x00\x00\x00\x00\x00\x02", false))
			send(t, peer, frame(true, OpPong, "\x00\x00\x00\x00\x00\x00\x00\x02", true))
			require.NoError(t, <-done)
		})
	})
	t.Run("context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded)
			require.Empty(t, c.pings.waiting)
			send(t, peer, frame(true, OpText, "goes on", true))
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "goes on", string(got))
		})
	})
	t.Run("connection ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			go func() {
				synctest.Wait()
				send(t, peer, frame(true, OpText, "not read", true))
				synctest.Wait()
				c.Close()
			}()
			require.ErrorIs(t, c.Ping(t.Context()), net.ErrClosed)
			require.ErrorIs(t, c.Ping(t.Context()), net.ErrClosed)
		})
	})
}

func TestKeepAlive(t *testing.T) {
	emptyPing := frame(true, OpPing, "", false)

	t.Run("a dead peer is noticed within two intervals", func(t *testing.T) {
		for _, interval := range []time.Duration{0, time.Minute, 3 * time.Nanosecond} {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{keepAlive: interval})
				if interval == 0 {
					interval = 30 * time.Second
				}
				start := time.Now()
				_, _, err := c.Read(context.Background(), nil)
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				require.ErrorContains(t, err, "silent")
				assert.LessOrEqual(t, time.Since(start), 2*interval)
				_, _, again := c.Read(context.Background(), nil)
				assert.Equal(t, err, again)
				assert.Equal(t, err, c.Write(context.Background(), Text, nil))
				expect(t, peer, emptyPing)
				expectEOF(t, peer)
			})
		}
	})
	t.Run("a peer that answers is alive", func(t *testing.T) {
		for _, client := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{client: client, keepAlive: time.Minute})
				pings := 0
				done := make(chan struct{})
				go func() { // answers each Ping at the last moment
					defer close(done)
					ping := frame(true, OpPing, "", client)
					for {
						if _, err := io.ReadFull(peer, ping); err != nil {
							return
						}
						pings++
						elapse(time.Minute - time.Nanosecond)
						if _, err := peer.Write(frame(true, OpPong, "", !client)); err != nil {
							return
						}
					}
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				_, _, err := c.Read(ctx, nil)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				c.Close()
				<-done
				require.Greater(t, pings, 24*60/3)
			})
		}
	})
	t.Run("a peer that talks is not asked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			go func() {
				for range 100 {
					elapse(29 * time.Second)
					_, _ = peer.Write(frame(true, OpText, "tick", true))
				}
			}()
			for range 100 {
				_, _, err := c.Read(t.Context(), nil)
				require.NoError(t, err)
			}
			c.Close()
			expect(t, peer, closeFrame(StatusGoingAway, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("across short Reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := serve(t, config{keepAlive: time.Minute})
			start := time.Now()
			for {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, _, err := c.Read(ctx, nil)
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) {
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
					break
				}
			}
			assert.LessOrEqual(t, time.Since(start), 2*time.Minute)
		})
	})
	t.Run("time without a Read is no silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			for range 10 {
				send(t, peer, frame(true, OpText, "x", true))
				elapse(time.Hour)
				_, _, err := c.Read(t.Context(), nil)
				require.NoError(t, err)
			}
		})
	})
	t.Run("silence begins anew with each word although a Write is stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			written := later(func() error { return c.Write(t.Context(), Binary, make([]byte, 16<<20)) })
			start := time.Now()
			go func() {
				for range 5 {
					elapse(65 * time.Second)
					send(t, peer, frame(true, OpPong, "", true))
				}
			}()
			last := start.Add(5 * 65 * time.Second)
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, error(errConnectionSilent))
			require.ErrorIs(t, <-written, error(errConnectionSilent))
			require.GreaterOrEqual(t, time.Since(last), time.Minute)
			require.LessOrEqual(t, time.Since(last), 2*time.Minute)
		})
	})
	t.Run("a peer that was stuck has as long to answer as any", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			const size = 1 << 20
			written := later(func() error { return c.Write(t.Context(), Binary, make([]byte, size)) })
			read := later(func() error { _, _, err := c.Read(t.Context(), nil); return err })
			elapse(65 * time.Second)
			expect(t, peer, frame(true, OpBinary, string(make([]byte, size)), false))
			require.NoError(t, <-written)
			expect(t, peer, emptyPing)
			elapse(time.Minute - time.Nanosecond)
			require.Empty(t, read)
			send(t, peer, frame(true, OpText, "here", true))
			require.NoError(t, <-read)
		})
	})
	t.Run("a peer that stops inside a large message is asked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			large := strings.Repeat("x", 50_000)
			all := frame(true, OpBinary, large, true)
			send(t, peer, all[:10_000])
			read := later(func() error {
				_, got, err := c.Read(t.Context(), nil)
				assert.Len(t, got, len(large))
				return err
			})
			expect(t, peer, emptyPing)
			send(t, peer, all[10_000:])
			require.NoError(t, <-read)
			elapse(10 * time.Minute)
			send(t, peer, all[:10_000])
			start := time.Now()
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, error(errConnectionSilent))
			require.LessOrEqual(t, time.Since(start), 2*time.Minute)
			expect(t, peer, emptyPing)
			expectEOF(t, peer)
		})
	})
	t.Run("what arrived just before the end is seen", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Minute})
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 89*time.Second)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			expect(t, peer, emptyPing)
			require.Equal(t, 89*time.Second, time.Since(start))
			// Nobody reads when the last tick ends.
			send(t, peer, frame(true, OpText, "here", true))
			elapse(time.Hour)
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "here", string(got))
			start = time.Now()
			_, _, err = c.Read(t.Context(), nil)
			require.ErrorIs(t, err, error(errConnectionSilent))
			require.Greater(t, time.Since(start), time.Minute, "it begins anew")
		})
	})
	t.Run("a tick while a client waits for the server to drop TCP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{client: true, keepAlive: 2 * time.Second})
			elapse(900 * time.Millisecond) // the tick is a second
			start := time.Now()
			send(t, peer, closeFrame(1000, "", false))
			_, _, err := c.Read(t.Context(), nil)
			require.Equal(t, &CloseError{Code: 1000}, err)
			require.Equal(t, lingerTimeout, time.Since(start))
		})
	})
	t.Run("off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: -1})
			ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			c.Close()
			expect(t, peer, closeFrame(StatusGoingAway, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("a peer that slowly takes a message is alive", func(t *testing.T) {
		const size = 16 << 20
		for name, x := range map[string]struct {
			dress func(testing.TB, net.Conn, net.Conn) (server, client net.Conn)
			chunk int // that the peer takes every 25 seconds
		}{
			"plain": {func(_ testing.TB, a, b net.Conn) (net.Conn, net.Conn) { return a, b }, writeSize},
			"TLS":   {tlsOver, 16 << 10},
		} {
			certificates() // outside of the bubble
			for _, client := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, client %t", name, client), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, b := newPipe()
						nc, peer := x.dress(t, a, b)
						c := newConn(nc, nil, config{client: client, keepAlive: time.Minute})
						written := make(chan error, 1)
						go func() { written <- c.Write(t.Context(), Binary, make([]byte, size)) }()
						read := make(chan error, 1)
						go func() { _, _, err := c.Read(t.Context(), nil); read <- err }()
						start := time.Now()
						for len(written) == 0 {
							elapse(25 * time.Second)
							_, err := io.ReadFull(peer, make([]byte, x.chunk))
							require.NoError(t, err, "after %v", time.Since(start))
							synctest.Wait()
						}
						require.NoError(t, <-written)
						require.Empty(t, read)
						require.Greater(t, time.Since(start), 20*time.Minute)
						c.Close()
						<-read
						peer.Close()
					})
				})
			}
		}
	})
	t.Run("a dead peer is noticed although a Write is stuck", func(t *testing.T) {
		for _, client := range []bool{false, true} {
			for dies := range 8 { // at some point between two ticks
				synctest.Test(t, func(t *testing.T) {
					c, peer := serve(t, config{client: client, keepAlive: time.Minute})
					written := make(chan error, 1)
					go func() { written <- c.Write(t.Context(), Binary, make([]byte, 16<<20)) }()
					go func() {
						for range dies {
							elapse(9 * time.Second)
							_, _ = io.ReadFull(peer, make([]byte, 1000))
						}
					}()
					start := time.Now()
					_, _, err := c.Read(t.Context(), nil)
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
					require.ErrorIs(t, <-written, os.ErrDeadlineExceeded)
					last := time.Duration(dies) * 9 * time.Second
					assert.LessOrEqual(t, time.Since(start)-last, 2*time.Minute)
				})
			}
		}
	})
	t.Run("a dead peer is noticed whenever it dies", func(t *testing.T) {
		for _, client := range []bool{false, true} {
			for dies := time.Duration(0); dies <= 2*time.Minute; dies += 7 * time.Second {
				synctest.Test(t, func(t *testing.T) {
					c, peer := serve(t, config{client: client, keepAlive: time.Minute})
					go func() {
						elapse(dies)
						send(t, peer, frame(true, OpText, "last words", !client))
					}()
					start := time.Now()
					ping := make(chan struct{})
					go func() { // it answers as long as it is there
						defer close(ping)
						b := make([]byte, 100)
						for time.Since(start) < dies {
							_ = peer.SetReadDeadline(start.Add(dies))
							if _, err := peer.Read(b); err == nil {
								send(t, peer, frame(true, OpPong, "", !client))
							}
						}
					}()
					_, _, err := c.Read(t.Context(), nil)
					require.NoError(t, err)
					_, _, err = c.Read(t.Context(), nil)
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
					assert.LessOrEqual(t, time.Since(start)-dies, 2*time.Minute)
					<-ping
				})
			}
		}
	})
}

// unwell is a connection on which calls end with an error.
type unwell struct {
	net.Conn
	read, write error  // nil: the call is made
	called      func() // before a Write
	wrote       func() // after one
}

func (u *unwell) Read(p []byte) (int, error) {
	if u.read != nil {
		return 0, u.read
	}
	return u.Conn.Read(p)
}

func (u *unwell) Write(p []byte) (int, error) {
	if u.called != nil {
		u.called()
	}
	if u.write != nil {
		return 0, u.write
	}
	if u.wrote != nil {
		defer u.wrote()
	}
	return u.Conn.Write(p)
}

// unwellTLS is one that looks as if it were of crypto/tls.
type unwellTLS struct{ *unwell }

func (unwellTLS) HandshakeContext(context.Context) error { return nil }

// A deadline that is not ours is an error of the network.
func TestDeadlinesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := newPipe()
		c := newConn(&unwell{Conn: nc, read: os.ErrDeadlineExceeded}, nil, config{keepAlive: -1})
		_, _, err := c.Read(t.Context(), nil)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorContains(t, err, "websocket: read: ")

		nc, _ = newPipe()
		c = newConn(unwellTLS{&unwell{Conn: nc, write: os.ErrDeadlineExceeded}}, nil, config{})
		err = c.Write(t.Context(), Text, nil)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorContains(t, err, "websocket: write: ")
		require.Equal(t, err, c.Write(t.Context(), Text, nil))
		c.Close()

		// A layer that hides what is below it, as one that hides TLS does.
		nc, _ = newPipe()
		c = newConn(&unwell{Conn: nc, write: os.ErrDeadlineExceeded}, nil, config{})
		err = c.Write(t.Context(), Text, nil)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorContains(t, err, "websocket: write: ")
		c.Close()
	})
}

// muxed is a connection whose deadlines end calls with an error that is only a net.Error, as that
// of the streams of some multiplexers.
type muxed struct{ net.Conn }

func (m muxed) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	return n, muxedError(err)
}

func (m muxed) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	return n, muxedError(err)
}

func muxedError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return muxTimeout{}
	}
	return err
}

type muxTimeout struct{}

func (muxTimeout) Error() string   { return "i/o deadline reached" }
func (muxTimeout) Timeout() bool   { return true }
func (muxTimeout) Temporary() bool { return true }

func TestDeadlinesOfMultiplexers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipe()
		c := newConn(muxed{nc}, nil, config{})
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, _, err := c.Read(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		expect(t, peer, frame(true, OpPing, "", false))
		send(t, peer, frame(true, OpText, "Hello", true))
		_, _, err = c.Read(t.Context(), nil)
		require.NoError(t, err)

		filler := strings.Repeat("x", pipeSize-4) // with its header, all that the network takes
		require.NoError(t, c.Write(t.Context(), Binary, []byte(filler)))
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = c.Write(ctx, Text, []byte("no effect"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, net.ErrClosed)
		expect(t, peer, frame(true, OpBinary, filler, false))
		require.NoError(t, c.Write(t.Context(), Text, []byte("next")))
		expect(t, peer, frame(true, OpText, "next", false))
	})
}

// A timeout of the kernel's, when it gives TCP up, is not a deadline.
func TestKernelGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := newPipe()
		gone := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
		c := newConn(&unwell{Conn: nc, read: gone}, nil, config{})
		_, _, err := c.Read(t.Context(), nil)
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
	})
}

// A connection ends between the Ping and the wait for its Pong, with a message in front.
func TestPingOfAConnectionThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := newPipe()
		u := &unwell{Conn: nc}
		c := newConn(u, frame(true, OpText, "Hello", true), config{})
		u.wrote = func() { u.wrote = nil; c.Close() }
		require.ErrorIs(t, c.Ping(t.Context()), net.ErrClosed)
	})
}

// noDeadlines is a connection that cannot be interrupted but by closing it.
type noDeadlines struct{ net.Conn }

func (noDeadlines) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (noDeadlines) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (noDeadlines) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// Where a call cannot be interrupted, the end of its context closes the connection: its error
// matches both. That of later calls does not match the context's, else a loop that waits with
// a limit would never end.
func TestWithoutDeadlinesCancelCloses(t *testing.T) {
	stuck := make([]byte, 2*pipeSize)
	for _, call := range []struct {
		name string
		call func(ctx context.Context, c *Conn) error
	}{
		{"Read", func(ctx context.Context, c *Conn) error { _, _, err := c.Read(ctx, nil); return err }},
		{"NextReader", func(ctx context.Context, c *Conn) error { _, _, err := c.NextReader(ctx); return err }},
		{"Write", func(ctx context.Context, c *Conn) error { return c.Write(ctx, Binary, stuck) }},
		{"NextWriter", func(ctx context.Context, c *Conn) error {
			w, err := c.NextWriter(ctx, Binary)
			if err != nil {
				return err
			}
			defer w.Close()
			_, err = w.Write(stuck)
			return err
		}},
		{"Ping", func(ctx context.Context, c *Conn) error { return c.Ping(ctx) }},
		{"Shutdown", func(ctx context.Context, c *Conn) error { return c.Shutdown(ctx, StatusNormalClosure, "") }},
	} {
		t.Run(call.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nc, peer := newPipe()
				defer peer.Close()
				c := newConn(noDeadlines{nc}, nil, config{})
				send(t, peer, frame(true, OpText, "x", true), frame(true, OpPing, "y", true), frame(true, OpText, "z", true))
				for _, want := range []string{"x", "z"} {
					_, got, err := c.Read(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, want, string(got))
				}
				expect(t, peer, frame(true, OpPong, "y", false))
				cause := errors.New("my cause")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, cause)
				defer cancel()
				start := time.Now()
				err := call.call(ctx, c)
				require.Equal(t, time.Hour, time.Since(start))
				require.ErrorIs(t, err, net.ErrClosed)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, cause)
				require.ErrorContains(t, err, "no deadlines")
				_, _, later := c.Read(t.Context(), nil)
				for _, err := range []error{later, c.Write(t.Context(), Text, nil), c.Ping(t.Context())} {
					require.ErrorIs(t, err, net.ErrClosed)
					require.NotErrorIs(t, err, context.DeadlineExceeded)
				}
			})
		})
	}
	t.Run("calls with the same context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipe()
			defer peer.Close()
			c := newConn(noDeadlines{nc}, nil, config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			ended := make(chan error, 5)
			for range 2 {
				go func() { _, _, err := c.Read(ctx, nil); ended <- err }()
				go func() { ended <- c.Write(ctx, Binary, stuck) }()
			}
			go func() { ended <- c.Ping(ctx) }()
			for range 5 {
				require.ErrorIs(t, <-ended, context.DeadlineExceeded)
			}
		})
	})
	t.Run("but not after the call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipe()
			defer peer.Close()
			for _, keepAlive := range []time.Duration{0, -1} {
				c := newConn(noDeadlines{nc}, nil, config{keepAlive: keepAlive})
				for range 2 {
					ctx, cancel := context.WithCancel(t.Context())
					send(t, peer, frame(true, OpText, "Hello", true))
					_, _, err := c.Read(ctx, nil)
					require.NoError(t, err)
					require.NoError(t, c.Write(ctx, Text, nil))
					cancel()
					synctest.Wait()
				}
			}
		})
	})
	t.Run("a Ping that gets its turn to read then", func(t *testing.T) {
		nc, _ := newPipe()
		c := newConn(noDeadlines{nc}, nil, config{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.drop(errNoDeadlines)
		require.True(t, c.in.turn.try())
		err := c.awaitPong(ctx, &pending{done: make(chan struct{})})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, net.ErrClosed)
	})
	t.Run("calls with other contexts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipe()
			defer peer.Close()
			c := newConn(noDeadlines{nc}, nil, config{})
			written := make(chan error, 1)
			go func() { written <- c.Write(t.Context(), Binary, stuck) }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			err = <-written
			require.ErrorIs(t, err, net.ErrClosed)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
		})
	})
}

func TestBytesOfTheHandshakeAreRead(t *testing.T) {
	for _, size := range []int{0, 1, 63, 64, 65, 1000, 20000, 100000} {
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipe()
			payload := string(bytes.Repeat([]byte("x"), size))
			all := append(frame(true, OpText, payload, true), frame(true, OpText, "next", true)...)
			for _, cut := range []int{0, 1, 5, len(all) - 1, len(all)} {
				if cut > len(all) {
					continue
				}
				buffered := bytes.Clone(all[:cut])
				c := newConn(nc, buffered, config{})
				clear(buffered) // a copy was made
				go func() { _, _ = peer.Write(all[cut:]) }()
				_, got, err := c.Read(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, payload, string(got))
				_, got, err = c.Read(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, "next", string(got))
			}
		})
	}
}

// The bounds on a closing handshake are no interrupts, which would close such a connection.
func TestClosingWithoutDeadlines(t *testing.T) {
	for _, client := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipe()
			c := newConn(noDeadlines{nc}, nil, config{client: client})
			send(t, peer, closeFrame(4000, "bye", !client))
			_, _, err := c.Read(t.Context(), nil)
			require.Equal(t, &CloseError{4000, "bye"}, err)
			peer.Close()

			nc, peer = newPipe()
			c = newConn(noDeadlines{nc}, nil, config{client: client})
			send(t, peer, frame(true, 3, "", !client))
			_, _, err = c.Read(t.Context(), nil)
			require.ErrorIs(t, err, error(errReservedOpcode))
			peer.Close()
		})
	}
}
