package websocket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writeCounter counts the writes that reach the network.
type writeCounter struct {
	net.Conn
	n int
}

func (w *writeCounter) Write(p []byte) (int, error) {
	w.n++
	return w.Conn.Write(p)
}

func TestWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipe()
		counter := &writeCounter{Conn: nc}
		c := newConn(counter, nil, config{})
		defer c.Close()
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, joinedSize + 1, writeSize, 1 << 20} {
			p := strings.Repeat("x", size)
			for typ, op := range map[MessageType]Opcode{Text: OpText, Binary: OpBinary} {
				counter.n = 0
				done := make(chan error, 1)
				go func() { done <- c.Write(t.Context(), typ, []byte(p)) }()
				expect(t, peer, frame(true, op, p, false))
				require.NoError(t, <-done)
				if size <= joinedSize {
					require.Equal(t, 1, counter.n, "writes for %d bytes", size)
				}
			}
		}
		require.ErrorContains(t, c.Write(t.Context(), 0, nil), "not a message type")
		require.ErrorContains(t, c.Write(t.Context(), MessageType(OpPing), nil), "not a message type")
		_, err := c.NextWriter(t.Context(), MessageType(OpContinuation))
		require.ErrorContains(t, err, "not a message type")
	})
}

// RFC 6455 section 5.3: each frame has a fresh key, and the caller's bytes stay as they are.
func TestClientMasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipe()
		c := newConn(nc, nil, config{client: true})
		defer c.Close()
		keys := make(map[[4]byte]bool)
		next := func() string {
			head := make([]byte, maxHeaderSize)
			for got := 0; ; got++ {
				h, n, err := ParseHeader(head[:got])
				require.NoError(t, err)
				if n == 0 {
					_, err := io.ReadFull(peer, head[got:got+1])
					require.NoError(t, err)
					continue
				}
				require.True(t, h.Masked)
				require.False(t, keys[h.Key], "a key is used once")
				keys[h.Key] = true
				p := make([]byte, h.Length)
				_, err = io.ReadFull(peer, p)
				require.NoError(t, err)
				Mask(p, h.Key, 0)
				return string(p)
			}
		}
		m := Prepare(Text, []byte("prepared"))
		for _, size := range []int{1, 3, 125, 70_000, 300_001} {
			p := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
			kept := bytes.Clone(p)
			done := make(chan error, 1)
			go func() { done <- c.Write(t.Context(), Binary, p) }()
			require.Equal(t, string(kept), next())
			require.NoError(t, <-done)
			require.Equal(t, kept, p)

			go func() { done <- c.WritePrepared(t.Context(), m) }()
			require.Equal(t, "prepared", next())
			require.NoError(t, <-done)
		}
		w, err := c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		go func() { _, _ = io.WriteString(w, strings.Repeat("y", streamBufferSize)+"z"); _ = w.Close() }()
		require.Equal(t, strings.Repeat("y", streamBufferSize)+"z", next()+next())
		send(t, peer, frame(true, OpPing, "ping", false))
		go func() { _, _, _ = c.Read(t.Context(), nil) }()
		require.Equal(t, "ping", next())
	})
}

func TestNextWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		w, err := c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		expect(t, peer, frame(true, OpText, "", false))

		w, err = c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		for _, s := range []string{"Hel", "", "lo"} {
			n, err := io.WriteString(w, s)
			require.NoError(t, err)
			require.Equal(t, len(s), n)
		}
		require.NoError(t, w.Close())
		require.NoError(t, w.Close())
		_, err = io.WriteString(w, "x")
		require.ErrorContains(t, err, "has ended")
		expect(t, peer, frame(true, OpText, "Hello", false))

		// Pieces that fill frames; a large one is a frame of its own; the last frame has FIN.
		x := strings.Repeat("x", streamBufferSize)
		large := strings.Repeat("y", 100_000)
		w, err = c.NextWriter(t.Context(), Binary)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, _ = io.WriteString(w, x[1:])
			_, _ = io.WriteString(w, "12")
			_, _ = io.WriteString(w, x[1:])
			_, _ = io.WriteString(w, large)
			_, err := w.(io.ReaderFrom).ReadFrom(iotest.OneByteReader(strings.NewReader(x + x)))
			assert.NoError(t, err)
			done <- w.Close()
		}()
		var got strings.Builder
		frames := 0
		rest := readFrames(t, peer, func(h Header, payload string) bool {
			require.Equal(t, frames == 0, h.Opcode == OpBinary)
			frames++
			got.WriteString(payload)
			return h.Fin
		})
		require.Empty(t, rest)
		require.NoError(t, <-done)
		require.Equal(t, x[1:]+"12"+x[1:]+large+x+x, got.String())
		require.LessOrEqual(t, frames, 6)

		// A frame of its own.
		w, err = c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		go func() { _, _ = io.WriteString(w, large); done <- w.Close() }()
		expect(t, peer, frame(false, OpText, large, false), frame(true, OpContinuation, "", false))
		require.NoError(t, <-done)
	})
}

// What ReadFrom has read before an error is part of the message, which goes on.
func TestReadFromFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		w, err := c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		n, err := w.(io.ReaderFrom).ReadFrom(io.MultiReader(strings.NewReader("Hel"), iotest.ErrReader(io.ErrClosedPipe)))
		require.Equal(t, io.ErrClosedPipe, err)
		require.EqualValues(t, 3, n)
		_, err = io.WriteString(w, "lo")
		require.NoError(t, err)
		require.NoError(t, w.Close())
		expect(t, peer, frame(true, OpText, "Hello", false))

		_, err = w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
		require.ErrorContains(t, err, "has ended")

		w, err = c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		c.Close()
		n, err = w.(io.ReaderFrom).ReadFrom(strings.NewReader(strings.Repeat("x", 2*streamBufferSize)))
		require.ErrorIs(t, err, net.ErrClosed)
		require.EqualValues(t, streamBufferSize, n)
	})
}

// RFC 6455 section 5.4: messages do not interleave, control frames pass between fragments.
func TestStreamedMessageHoldsTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		go func() { _, _, _ = c.Read(context.Background(), nil) }()
		w, err := c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		x := strings.Repeat("x", streamBufferSize)
		_, err = io.WriteString(w, x)
		require.NoError(t, err)
		expect(t, peer, frame(false, OpText, x, false))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Write(ctx, Text, []byte("no")), context.DeadlineExceeded)
		_, err = c.NextWriter(ctx, Text)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, c.WritePrepared(ctx, Prepare(Text, nil)), context.DeadlineExceeded)

		waiting := make(chan error, 1)
		go func() { waiting <- c.Write(t.Context(), Text, []byte("after")) }()
		synctest.Wait()
		send(t, peer, frame(true, OpPing, "between", true))
		expect(t, peer, frame(true, OpPong, "between", false))
		pinged := make(chan error, 1)
		go func() { pinged <- c.Ping(t.Context()) }()
		number := "\x00\x00\x00\x00\x00\x00\x00\x01"
		expect(t, peer, frame(true, OpPing, number, false))
		send(t, peer, frame(true, OpPong, number, true))
		require.NoError(t, <-pinged)
		require.Empty(t, waiting)
		require.NoError(t, w.Close())
		expect(t, peer, frame(true, OpContinuation, "", false), frame(true, OpText, "after", false))
		require.NoError(t, <-waiting)
	})
}

func TestWritersFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := connect(t, config{}, config{maxMessageSize: -1})
		go func() { _, _, _ = c.Read(context.Background(), nil) }()
		const writers, messages = 8, 30
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for j := range messages {
					msg := []byte(fmt.Sprintf("%d %d %s", i, j, strings.Repeat("x", i*j*40)))
					switch j % 3 {
					case 0:
						assert.NoError(t, c.Write(t.Context(), Text, msg))
					case 1:
						w, err := c.NextWriter(t.Context(), Text)
						assert.NoError(t, err)
						_, err = w.Write(msg)
						assert.NoError(t, err)
						assert.NoError(t, w.Close())
					case 2:
						assert.NoError(t, c.WritePrepared(t.Context(), Prepare(Text, msg)))
						assert.NoError(t, c.Ping(t.Context()))
					}
				}
			})
		}
		next := make([]int, writers)
		for range writers * messages {
			_, got, err := s.Read(t.Context(), nil)
			require.NoError(t, err)
			var i, j int
			var xs string
			_, _ = fmt.Sscanf(string(got), "%d %d %s", &i, &j, &xs)
			require.Equal(t, next[i], j, "each goroutine's messages arrive in order")
			next[i]++
			require.Equal(t, strings.Repeat("x", i*j*40), xs)
		}
		read := make(chan struct{})
		go func() { _, _, _ = s.Read(t.Context(), nil); close(read) }()
		wg.Wait()
		c.Close()
		<-read
	})
}

func TestContextEndsWrite(t *testing.T) {
	t.Run("while waiting for the wire", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			big := strings.Repeat("x", 1<<20)
			first := make(chan error, 1)
			go func() { first <- c.Write(t.Context(), Binary, []byte(big)) }()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := c.Write(ctx, Text, []byte("no effect"))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, net.ErrClosed)
			expect(t, peer, frame(true, OpBinary, big, false))
			require.NoError(t, <-first)
			require.NoError(t, c.Write(t.Context(), Text, []byte("next")))
			expect(t, peer, frame(true, OpText, "next", false))
		})
	})
	t.Run("before the first byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipe()
			c := newConn(nc, nil, config{})
			defer c.Close()
			filler := strings.Repeat("x", pipeSize-4) // with its header, all that the network takes
			require.NoError(t, c.Write(t.Context(), Binary, []byte(filler)))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := c.Write(ctx, Text, []byte("no effect"))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, net.ErrClosed)
			expect(t, peer, frame(true, OpBinary, filler, false))
			require.NoError(t, c.Write(t.Context(), Text, []byte("next")))
			expect(t, peer, frame(true, OpText, "next", false))
		})
	})
	for name, size := range map[string]int{"inside a frame": 60_000, "inside a large frame": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nc, peer := newPipeSize(1000, pipeSize)
				c := newConn(nc, nil, config{})
				defer c.Close()
				read := make(chan error, 1)
				go func() { _, _, err := c.Read(t.Context(), nil); read <- err }()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := c.Write(ctx, Binary, make([]byte, size))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, net.ErrClosed, "else nothing would have happened")
				require.ErrorIs(t, <-read, net.ErrClosed)
				err = c.Write(t.Context(), Text, nil)
				require.ErrorIs(t, err, net.ErrClosed)
				require.NotErrorIs(t, err, context.DeadlineExceeded)
				_, err = io.Copy(io.Discard, peer)
				require.NoError(t, err)
			})
		})
	}
	t.Run("inside a frame over TLS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipe()
			nc, _ := tlsOver(t, a, b)
			defer b.Close()
			c := newConn(nc, nil, config{})
			defer c.Close()
			window(b, 0)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := c.Write(ctx, Text, []byte("Hello"))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, net.ErrClosed)
			require.ErrorIs(t, c.Write(t.Context(), Text, nil), net.ErrClosed)
		})
	})
	t.Run("inside a streamed message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			w, err := c.NextWriter(ctx, Text)
			require.NoError(t, err)
			x := strings.Repeat("x", streamBufferSize)
			_, err = io.WriteString(w, x)
			require.NoError(t, err)
			elapse(2 * time.Second)
			_, err = io.WriteString(w, x)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, net.ErrClosed)
			require.Equal(t, err, w.Close())
			require.ErrorIs(t, c.Write(t.Context(), Text, nil), net.ErrClosed)
			expect(t, peer, frame(false, OpText, x, false), closeFrame(StatusGoingAway, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("before a streamed message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			w, err := c.NextWriter(ctx, Text)
			require.NoError(t, err)
			_, err = io.WriteString(w, "not sent")
			require.NoError(t, err)
			elapse(2 * time.Second)
			err = w.Close()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, net.ErrClosed)
			require.NoError(t, c.Write(t.Context(), Text, []byte("next")))
			expect(t, peer, frame(true, OpText, "next", false))
		})
	})
}

// A peer that does not read gets no Pong, and the latest one when it does. Reading goes on.
func TestStuckPeerDoesNotStopReading(t *testing.T) {
	t.Run("a Write is stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			big := strings.Repeat("x", 1<<20)
			written := make(chan error, 1)
			go func() { written <- c.Write(t.Context(), Binary, []byte(big)) }()
			synctest.Wait()
			for i := range 1000 {
				send(t, peer, frame(true, OpPing, fmt.Sprint(i), true))
			}
			send(t, peer, frame(true, OpText, "read", true))
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "read", string(got))
			expect(t, peer, frame(true, OpBinary, big, false), frame(true, OpPong, "999", false))
			require.NoError(t, <-written)
		})
	})
	t.Run("Pongs are stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: -1})
			payload := strings.Repeat("p", 100)
			go func() {
				for i := range 5000 { // 500 KB of Pongs, far more than the network holds
					_, _ = peer.Write(frame(true, OpPing, fmt.Sprint(i)+payload, true))
				}
				_, _ = peer.Write(frame(true, OpText, "read", true))
			}()
			start := time.Now()
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "read", string(got))
			require.LessOrEqual(t, time.Since(start), promptTimeout, "it does not try again for each Ping")
			require.LessOrEqual(t, boxed(c), maxHeaderSize+maxControlPayloadSize)

			// What was cut goes on at its next byte, then comes the Pong that was due last.
			go func() {
				_ = c.Write(t.Context(), Text, []byte("after"))
				_ = c.Write(t.Context(), Text, []byte("end"))
			}()
			var last string
			rest := readFrames(t, peer, func(h Header, p string) bool {
				if h.Opcode == OpPong {
					last = p
				}
				return p == "end"
			})
			require.Empty(t, rest)
			require.Equal(t, "4999"+payload, last)
		})
	})
}

// A peer that breaks a rule, and takes nothing, does not hold a Read for longer than Close does.
func TestProtocolErrorWhileAWriteIsStuck(t *testing.T) {
	for name, over := range map[string]func(t testing.TB, a, b net.Conn) (nc, peer net.Conn){
		"plain": func(_ testing.TB, a, b net.Conn) (net.Conn, net.Conn) { return a, b },
		"TLS":   tlsOver,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newPipe()
				nc, peer := over(t, a, b)
				c := newConn(nc, nil, config{})
				written := later(func() error { return c.Write(context.Background(), Binary, make([]byte, 1<<20)) })
				synctest.Wait()
				send(t, peer, []byte{0x83, 0x80, 0, 0, 0, 0})
				start := time.Now()
				_, _, err := c.Read(t.Context(), nil)
				var perr *ProtocolError
				require.ErrorAs(t, err, &perr)
				require.LessOrEqual(t, time.Since(start), closeTimeout+lingerTimeout)
				require.Equal(t, err, <-written)
				_ = b.Close()
			})
		})
	}
}

// window sets how many bytes can be written to end that it has not read.
func window(end *pipeConn, size int) {
	end.mu.Lock()
	defer end.mu.Unlock()
	end.size = size
	end.peer.writing.wakeUp()
}

// A TLS connection that a Write has timed out on is lost. So nothing but a Write of the
// caller may time out there, slow as the peer may be.
func TestStuckPeerOverTLS(t *testing.T) {
	certificates()
	// stuck returns a Conn that owes 1000 Pongs to a peer whose window is closed, and what
	// opens that.
	stuck := func(t *testing.T, cfg config) (c *Conn, peer net.Conn, open func()) {
		a, b := newPipe()
		nc, peer := tlsOver(t, a, b)
		c = newConn(nc, nil, cfg)
		t.Cleanup(func() { c.Close(); b.Close() })
		window(b, 0)
		go func() {
			for i := range 1000 {
				_, _ = peer.Write(frame(true, OpPing, fmt.Sprint(i), true))
			}
			_, _ = peer.Write(frame(true, OpText, "read", true))
		}()
		start := time.Now()
		_, got, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "read", string(got))
		require.Zero(t, time.Since(start), "reading does not wait for Pongs")
		synctest.Wait() // one is being sent
		return c, peer, func() { window(b, pipeSize) }
	}
	t.Run("goes on when the peer reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer, open := stuck(t, config{})
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, c.Write(ctx, Text, []byte("no effect")), context.DeadlineExceeded)
			written := make(chan error, 2)
			go func() {
				written <- c.Write(t.Context(), Text, []byte("after"))
				written <- c.Write(t.Context(), Text, []byte("end"))
			}()
			open()
			var messages string
			var pongs []string
			readFrames(t, peer, func(h Header, p string) bool {
				if h.Opcode == OpPong {
					pongs = append(pongs, p)
				} else {
					messages += p + " "
				}
				return p == "end"
			})
			require.Equal(t, "999", pongs[len(pongs)-1])
			require.LessOrEqual(t, len(pongs), 2, "one that was stuck, and the latest")
			require.Equal(t, "after end ", messages)
			require.NoError(t, <-written)
			require.NoError(t, <-written)
		})
	})
	t.Run("Close and Shutdown return in time", func(t *testing.T) {
		for _, ctxEnds := range []time.Duration{0, time.Second} {
			synctest.Test(t, func(t *testing.T) {
				c, peer, _ := stuck(t, config{})
				send(t, peer, frame(true, OpPing, "and another", true))
				start := time.Now()
				if ctxEnds == 0 {
					require.NoError(t, c.Close())
				} else {
					ctx, cancel := context.WithTimeout(t.Context(), ctxEnds)
					defer cancel()
					require.ErrorIs(t, c.Shutdown(ctx, 1000, ""), context.DeadlineExceeded)
				}
				require.Equal(t, ctxEnds, time.Since(start))
				_, _, err := c.Read(t.Context(), nil)
				require.ErrorIs(t, err, net.ErrClosed)
			})
		}
	})
	t.Run("the peer's Close is not missed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer, _ := stuck(t, config{})
			send(t, peer, closeFrame(4000, "away", true))
			start := time.Now()
			_, _, err := c.Read(t.Context(), nil)
			require.Equal(t, &CloseError{4000, "away"}, err)
			require.Equal(t, closeTimeout, time.Since(start), "the answer cannot be sent")
		})
	})
	t.Run("a dead peer is noticed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, _ := stuck(t, config{keepAlive: time.Minute})
			start := time.Now()
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.ErrorContains(t, err, "silent")
			require.LessOrEqual(t, time.Since(start), 2*time.Minute)
		})
	})
	t.Run("the context of a Read is obeyed while a Ping of the keepalive is stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipe()
			nc, peer := tlsOver(t, a, b)
			defer b.Close()
			c := newConn(nc, nil, config{keepAlive: time.Minute})
			defer c.Close()
			window(b, 0)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 31*time.Second)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 31*time.Second, time.Since(start))
			window(b, pipeSize)
			expect(t, peer, frame(true, OpPing, "", false))
			require.NoError(t, c.Write(t.Context(), Text, []byte("goes on")))
			expect(t, peer, frame(true, OpText, "goes on", false))
		})
	})
}

// readFrames reads unmasked frames from nc until one is the last, and returns what came with
// that.
func readFrames(t *testing.T, nc net.Conn, last func(h Header, payload string) bool) []byte {
	var buf []byte
	for {
		h, n, err := ParseHeader(buf)
		require.NoError(t, err)
		if n == 0 || len(buf) < n+int(h.Length) {
			b := make([]byte, 1000)
			m, err := nc.Read(b)
			require.NoError(t, err)
			buf = append(buf, b[:m]...)
			continue
		}
		payload := string(buf[n : n+int(h.Length)])
		buf = buf[n+int(h.Length):]
		if last(h, payload) {
			return buf
		}
	}
}

// boxed returns how many bytes wait in c's outbox.
func boxed(c *Conn) (n int) {
	box := &c.out.box
	box.mu.Lock()
	defer box.mu.Unlock()
	for _, b := range []batch{box.gathered, box.leaving} {
		if b.buf != nil {
			n += len(b.buf.b) - b.sent
		}
	}
	return n
}

func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{16, 125, 4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y := tcpPair(b)
			c, s := newConn(x, nil, config{client: true}), newConn(y, nil, config{})
			defer c.Close()
			defer s.Close()
			ctx := context.Background()
			go func() {
				var buf []byte
				for {
					typ, msg, err := s.Read(ctx, buf[:0])
					if err != nil || s.Write(ctx, typ, msg) != nil {
						return
					}
					buf = msg
				}
			}()
			p := make([]byte, size)
			var buf []byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				go func() { _ = c.Write(ctx, Binary, p) }()
				_, msg, err := c.Read(ctx, buf[:0])
				if err != nil {
					b.Fatal(err)
				}
				buf = msg
			}
		})
	}
}
