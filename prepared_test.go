package websocket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := []byte("Hello")
		m := Prepare(Text, p)
		copy(p, "spoil")
		for range 3 {
			c, peer := serve(t, config{})
			require.NoError(t, c.WritePrepared(t.Context(), m))
			require.NoError(t, c.WritePrepared(t.Context(), m))
			expect(t, peer, frame(true, OpText, "Hello", false), frame(true, OpText, "Hello", false))
			c.Close()
			require.ErrorIs(t, c.WritePrepared(t.Context(), m), net.ErrClosed)
		}
		c, _ := serve(t, config{})
		require.ErrorContains(t, c.WritePrepared(t.Context(), Prepare(9, nil)), "not a message type")
	})
}

func TestTryWritePrepared(t *testing.T) {
	hello := Prepare(Text, []byte("Hello"))
	t.Run("at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			for range 2 {
				sent, err := c.TryWritePrepared(hello)
				require.NoError(t, err)
				require.True(t, sent)
				expect(t, peer, frame(true, OpText, "Hello", false))
			}
			for _, size := range []int{streamBufferSize, joinedSize + 1} {
				w, err := c.NextWriter(t.Context(), Text)
				require.NoError(t, err)
				sent, err := c.TryWritePrepared(hello)
				require.NoError(t, err)
				require.True(t, sent, "before another message")
				part := strings.Repeat("x", size)
				done := later(func() error { _, err := io.WriteString(w, part); return errors.Join(err, w.(*messageWriter).ready()) })
				expect(t, peer, frame(true, OpText, "Hello", false), frame(false, OpText, part, false))
				require.NoError(t, <-done)
				for _, m := range []*Prepared{hello, Prepare(Binary, make([]byte, joinedSize+1))} {
					sent, err = c.TryWritePrepared(m)
					require.NoError(t, err)
					require.False(t, sent, "inside another message")
				}
				require.NoError(t, w.Close())
				sent, err = c.TryWritePrepared(hello)
				require.NoError(t, err)
				require.True(t, sent, "after it")
				expect(t, peer, frame(true, OpContinuation, "", false), frame(true, OpText, "Hello", false))
			}

			_, err := c.TryWritePrepared(Prepare(9, nil))
			require.ErrorContains(t, err, "not a message type")
			c.Close()
			sent, err := c.TryWritePrepared(hello)
			require.ErrorIs(t, err, net.ErrClosed)
			require.False(t, sent)
		})
	})
	t.Run("a slow peer is not waited for", func(t *testing.T) {
		for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){
			"pipe": func(testing.TB) (net.Conn, net.Conn) { return newPipe() },
			"TLS": func(t testing.TB) (net.Conn, net.Conn) {
				a, b := newPipe()
				return tlsOver(t, a, b)
			},
		} {
			t.Run(name, func(t *testing.T) {
				certificates()
				synctest.Test(t, func(t *testing.T) {
					nc, peer := pair(t)
					c := newConn(nc, nil, config{})
					m := Prepare(Binary, make([]byte, 1000))
					n := 0
					for ; ; n++ {
						sent, err := c.TryWritePrepared(m)
						require.NoError(t, err)
						if !sent {
							break
						}
						require.Less(t, n, 1000)
						synctest.Wait()
					}
					require.Greater(t, n, 100)
					require.LessOrEqual(t, boxed(c), 2*joinedSize+2*maxHeaderSize)
					for range n {
						expect(t, peer, frame(true, OpBinary, string(make([]byte, 1000)), false))
					}
					synctest.Wait()
					sent, err := c.TryWritePrepared(hello)
					require.NoError(t, err)
					require.True(t, sent)
					expect(t, peer, frame(true, OpText, "Hello", false))
					c.Close()
					peer.Close()
				})
			})
		}
	})
	t.Run("a large message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			large := strings.Repeat("x", 1<<20)
			sent, err := c.TryWritePrepared(Prepare(Text, []byte(large)))
			require.NoError(t, err)
			require.True(t, sent)
			synctest.Wait()
			for m, want := range map[*Prepared]bool{hello: true, Prepare(Text, []byte(large)): false} {
				sent, err = c.TryWritePrepared(m)
				require.NoError(t, err)
				require.Equal(t, want, sent)
			}
			expect(t, peer, frame(true, OpText, large, false), frame(true, OpText, "Hello", false))
			synctest.Wait()
			sent, err = c.TryWritePrepared(Prepare(Text, []byte(large)))
			require.NoError(t, err)
			require.True(t, sent)
			expect(t, peer, frame(true, OpText, large, false))
		})
	})
	t.Run("behind what is queued", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			queued, large := strings.Repeat("q", 10_000), strings.Repeat("x", 60_000)
			require.NoError(t, c.Queue(t.Context(), Text, []byte(queued)))
			sent, err := c.TryWritePrepared(Prepare(Text, []byte(large)))
			require.NoError(t, err)
			require.True(t, sent)
			expect(t, peer, frame(true, OpText, queued, false), frame(true, OpText, large, false))
		})
	})
	t.Run("compressed with takeover", func(t *testing.T) {
		for _, size := range []int{700, 2 * joinedSize} { // the large one is about as large when compressed
			synctest.Test(t, func(t *testing.T) {
				a, b := connect(t, config{deflate: agreed(true, 15)}, config{deflate: agreed(true, 15)})
				rnd := rand.New(rand.NewPCG(1, 2))
				plain := jsonMessage(rnd, 1000)
				for range 3 {
					msg := jsonMessage(rnd, size)
					if size > 1000 {
						msg = append(randomBytes(rnd, size), msg...)
					}
					require.NoError(t, b.Write(t.Context(), Binary, plain))
					sent, err := b.TryWritePrepared(Prepare(Binary, msg))
					require.NoError(t, err)
					require.True(t, sent)
					done := later(func() error { return b.Write(t.Context(), Binary, plain) })
					for _, want := range [][]byte{plain, msg, plain} {
						_, got, err := a.Read(t.Context(), nil)
						require.NoError(t, err)
						require.True(t, bytes.Equal(want, got))
					}
					require.NoError(t, <-done)
				}
			})
		}
	})
	t.Run("while another message is being written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, takeover := range []bool{false, true} {
				nc, peer := newPipe()
				c := newConn(nc, nil, config{deflate: agreed(takeover, 15)})
				require.True(t, c.out.message.try())
				for m, want := range map[*Prepared]bool{hello: true, Prepare(Text, make([]byte, 1000)): !takeover} {
					sent, err := c.TryWritePrepared(m)
					require.NoError(t, err)
					require.Equal(t, want, sent)
				}
				c.out.message.release()
				c.Close()
				peer.Close()
			}
		})
	})
	t.Run("Shutdown waits for a large one", func(t *testing.T) {
		peer, nc := tcpPair(t)
		c := newConn(nc, nil, config{})
		large := string(patterned(4 << 20))
		sent, err := c.TryWritePrepared(Prepare(Binary, []byte(large)))
		require.NoError(t, err)
		require.True(t, sent)
		done := later(func() error { return c.Shutdown(t.Context(), 1000, "") })
		expect(t, peer, frame(true, OpBinary, large, false), closeFrame(1000, "", false))
		send(t, peer, closeFrame(1000, "", true))
		require.NoError(t, <-done)
	})
}

// A client masks, over a socket too.
func TestPreparedOfAClient(t *testing.T) {
	a, b := tcpPair(t)
	client, server := newConn(a, nil, config{client: true}), newConn(b, nil, config{})
	m := Prepare(Text, []byte("Hello"))
	require.NoError(t, client.WritePrepared(t.Context(), m))
	sent, err := client.TryWritePrepared(m)
	require.NoError(t, err)
	require.True(t, sent)
	for range 2 {
		_, p, err := server.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "Hello", string(p))
	}
}

// Messages that go past the outbox keep their order with those that do not.
func TestPreparedAmongOthers(t *testing.T) {
	const count = 50
	payload := func(i int) []byte { return patterned(i * 7919 % (joinedSize + 100)) }
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){"TCP": tcpPair, "unix": unixPair} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			client, server := newConn(a, nil, config{client: true}), newConn(b, nil, config{})
			defer client.Close()
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var done []<-chan error
			for who, send := range []func(p []byte) error{
				func(p []byte) error { return server.Write(ctx, Binary, p) },
				func(p []byte) error { return server.Queue(ctx, Binary, p) },
				func(p []byte) error { return server.WritePrepared(ctx, Prepare(Binary, p)) },
				func(p []byte) error {
					for m := Prepare(Binary, p); ; runtime.Gosched() {
						if sent, err := server.TryWritePrepared(m); sent || err != nil {
							return err
						}
						if ctx.Err() != nil {
							return ctx.Err()
						}
					}
				},
				func(p []byte) error {
					w, err := server.NextWriter(ctx, Binary)
					if err != nil {
						return err
					}
					_, err = w.Write(p[:len(p)/2])
					runtime.Gosched()
					_, rest := w.Write(p[len(p)/2:])
					return errors.Join(err, rest, w.Close())
				},
			} {
				done = append(done, later(func() error {
					for i := range count {
						if err := send(append([]byte{byte(who), byte(i), byte(i >> 8)}, payload(i)...)); err != nil {
							return err
						}
					}
					return nil
				}))
			}
			flushed := later(func() error {
				for _, d := range done {
					if err := <-d; err != nil {
						return err
					}
				}
				return server.Flush(ctx)
			})
			var next [5]int
			for range len(next) * count {
				_, p, err := client.Read(ctx, nil)
				require.NoError(t, err)
				i := next[p[0]]
				require.Equal(t, i, int(p[1])|int(p[2])<<8, "of sender %d", p[0])
				require.Equal(t, string(payload(i)), string(p[3:]))
				next[p[0]]++
			}
			require.NoError(t, <-flushed)
		})
	}
}
