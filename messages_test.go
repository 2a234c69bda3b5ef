package websocket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scribble writes over what the pools hold.
func scribble() {
	var all []*buffer
	for range 4 {
		for _, size := range bufferSizes[:4] {
			b := getBuffer(size)
			spoil(b.b[:cap(b.b)])
			all = append(all, b)
		}
	}
	for _, b := range all {
		putBuffer(b)
	}
}

// loop runs a Messages loop in a goroutine. It returns what comes, as "type payload", and the
// error.
func loop(ctx context.Context, c *Conn) (<-chan string, <-chan error) {
	got, done := make(chan string, 100), make(chan error, 1)
	go func() {
		done <- wholeWays[1].read(ctx, c, func(typ MessageType, p []byte) { got <- typ.String() + " " + string(p) })
	}()
	return got, done
}

// allMessages returns messages as one sends them, and what is received then.
func allMessages(t *testing.T) (frames [][]byte, want []string) {
	deflated := func(p string) string {
		z, ok := newDeflater(agreed(false, 15)).appendMessage(nil, []byte(p))
		require.True(t, ok)
		return string(z)
	}
	zeros := strings.Repeat("0", 3000)
	z := deflated(zeros)
	add := func(typ MessageType, payload string, parts ...[]byte) {
		frames = append(frames, bytes.Join(parts, nil))
		want = append(want, typ.String()+" "+payload)
	}
	add(Text, "Hello", frame(true, OpText, "Hello", true))
	add(Binary, "", frame(true, OpBinary, "", true))
	add(Text, "", frame(true, OpPing, "", true), frame(true, OpText, "", true))
	add(Text, "", frame(false, OpText, "", true), frame(true, OpContinuation, "", true))
	add(Text, "Hello", frame(false, OpText, "Hel", true), frame(true, OpPing, "", true), frame(true, OpContinuation, "lo", true))
	add(Binary, zeros, frame(true, OpBinary, zeros, true))
	add(Text, zeros+"!", frame(false, OpText, zeros, true), frame(true, OpPing, "", true), frame(true, OpContinuation, "!", true))
	add(Text, "!"+zeros, frame(false, OpText, "!", true), frame(true, OpContinuation, zeros, true))
	add(Text, zeros, compressedFrame(true, OpText, z))
	add(Text, "", compressedFrame(true, OpText, "\x00"))
	add(Text, zeros, compressedFrame(false, OpText, z[:3]), frame(true, OpPing, "", true), frame(true, OpContinuation, z[3:], true))
	for _, size := range []int{1, headroom, 4<<10 - 1, 4 << 10, readBufferSize, 40_000, 70_000, 1 << 20} {
		large := string(patterned(size))
		add(Binary, large, frame(true, OpBinary, large, true))
		large = strings.Repeat("large ", size/6+10)
		add(Text, large, compressedFrame(true, OpText, deflated(large)))
	}
	return frames, want
}

func TestMessages(t *testing.T) {
	cfg := config{deflate: agreed(false, 15), maxMessageSize: 2 << 20}
	frames, want := allMessages(t)
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){
		"TCP": tcpPair, "Unix": unixPair, "TLS": tlsPair,
		"memory": func(testing.TB) (net.Conn, net.Conn) { return newPipe() },
	} {
		t.Run(name, func(t *testing.T) {
			peer, nc := pair(t)
			c := newConn(nc, nil, cfg)
			defer c.Close()
			sent := collect(peer)
			go func() {
				rnd := rand.New(rand.NewPCG(1, 2))
				for range 3 {
					for _, f := range frames { // each by itself
						_, _ = peer.Write(f)
					}
					all := bytes.Join(frames, nil)
					_, _ = peer.Write(all)
					for len(all) > 0 { // in pieces
						piece := all[:min(len(all), 1<<rnd.IntN(18))]
						_, _ = peer.Write(piece)
						all = all[len(piece):]
					}
				}
				_ = peer.(interface{ CloseWrite() error }).CloseWrite()
			}()
			n := 0
			var last error
			for m, err := range c.Messages(t.Context()) {
				require.NoError(t, last, "an error is the last")
				if last = err; err != nil {
					require.Zero(t, m)
					continue
				}
				require.True(t, want[n%len(want)] == m.Type.String()+" "+string(m.Payload), "message %d, of %d bytes", n, len(m.Payload))
				spoil(m.Payload)
				n++
			}
			require.Equal(t, 9*len(want), n)
			require.ErrorIs(t, last, io.ErrUnexpectedEOF)
			pongs := <-sent // of Pings that come fast, not each has one
			require.NotEmpty(t, pongs)
			require.True(t, bytes.HasPrefix(bytes.Repeat(frame(true, OpPong, "", false), 9*4), pongs))
		})
	}
}

// Each comes when it is there, and not before.
func TestMessagesComeAtOnce(t *testing.T) {
	frames, want := allMessages(t)
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{deflate: agreed(false, 15), maxMessageSize: 2 << 20})
		got, done := loop(t.Context(), c)
		for i, f := range frames {
			go send(t, peer, f[:len(f)-1])
			synctest.Wait()
			require.Empty(t, got)
			send(t, peer, f[len(f)-1:])
			require.True(t, want[i] == <-got, i)
		}
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-done, net.ErrClosed)
	})
}

// Messages that are larger than the largest buffer there is.
func TestMessagesBeyondAllBuffers(t *testing.T) {
	largest := bufferSizes[len(bufferSizes)-1]
	payload := patterned(2*largest + 10)
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){
		"TCP":    tcpPair,
		"memory": func(testing.TB) (net.Conn, net.Conn) { return newPipeSize(1<<20, pipeSize) },
	} {
		t.Run(name, func(t *testing.T) {
			peer, nc := pair(t)
			c := newConn(nc, nil, config{maxMessageSize: -1})
			defer c.Close()
			sizes := []int{10, largest - maxHeaderSize, largest, largest + 1, len(payload), 10, 10}
			go func() {
				for _, size := range sizes {
					p := string(payload[:size])
					_, _ = peer.Write(frame(true, OpBinary, p, true))
					_, _ = peer.Write(append(frame(false, OpBinary, p[:size/2], true), frame(true, OpContinuation, p[size/2:], true)...))
				}
				_ = peer.(interface{ CloseWrite() error }).CloseWrite()
			}()
			n := 0
			for m, err := range c.Messages(t.Context()) {
				if err != nil {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
					break
				}
				require.True(t, bytes.Equal(payload[:sizes[n/2]], m.Payload), n)
				n++
			}
			require.Equal(t, 2*len(sizes), n)
		})
	}
}

// What comes in many pieces is not copied for each of them.
func TestMessagesBeyondAllBuffersInPieces(t *testing.T) {
	const pieces = 1000
	piece := strings.Repeat("x", 2*bufferSizes[len(bufferSizes)-1]/pieces)
	peer, nc := newPipeSize(1<<20, pipeSize)
	c := newConn(nc, nil, config{maxMessageSize: -1})
	defer c.Close()
	go func() {
		_, _ = peer.Write(frame(false, OpBinary, piece, true))
		for range pieces - 2 {
			_, _ = peer.Write(frame(false, OpContinuation, piece, true))
		}
		_, _ = peer.Write(frame(true, OpContinuation, piece, true))
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		require.Len(t, m.Payload, pieces*len(piece))
		break
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(20*pieces*len(piece)))
}

// others are what may be done while a message is on loan, and take n messages.
var others = map[string]func(t *testing.T, c *Conn, n int, got func(MessageType, []byte)){
	"Read": func(t *testing.T, c *Conn, n int, got func(MessageType, []byte)) {
		for range n {
			typ, p, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			got(typ, p)
		}
	},
	"NextReader": func(t *testing.T, c *Conn, n int, got func(MessageType, []byte)) {
		for range n {
			typ, r, err := c.NextReader(t.Context())
			require.NoError(t, err)
			p, err := io.ReadAll(iotest.OneByteReader(r))
			require.NoError(t, err)
			got(typ, p)
		}
	},
	"a loop": func(t *testing.T, c *Conn, n int, got func(MessageType, []byte)) {
		for m, err := range c.Messages(t.Context()) {
			require.NoError(t, err)
			got(m.Type, m.Payload)
			spoil(m.Payload)
			if n--; n == 0 {
				break
			}
		}
	},
	"loops": func(t *testing.T, c *Conn, n int, got func(MessageType, []byte)) {
		for range n {
			for m, err := range c.Messages(t.Context()) {
				require.NoError(t, err)
				got(m.Type, m.Payload)
				spoil(m.Payload)
				break
			}
		}
	},
	"loops in each other": loopsInEachOther,
	"NetConn": func(t *testing.T, c *Conn, n int, got func(MessageType, []byte)) {
		nc := NetConn(c, Text)
		for range n {
			p := make([]byte, len(numbered(0)))
			_, err := io.ReadFull(nc, p)
			require.NoError(t, err)
			got(Text, p)
		}
	},
}

func loopsInEachOther(t *testing.T, c *Conn, n int, got func(MessageType, []byte)) {
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		p := string(m.Payload)
		got(m.Type, m.Payload)
		if n > 1 {
			loopsInEachOther(t, c, n-1, got)
		}
		scribble()
		require.Equal(t, p, string(m.Payload))
		break
	}
}

// numbered is message number i.
func numbered(i int) string { return fmt.Sprintf("%03d", i) + strings.Repeat(" this is a message", 10) }

// segment is messages that arrive at once.
func segment(from, to int) (b []byte) {
	for i := from; i < to; i++ {
		b = append(b, frame(true, OpText, numbered(i), true)...)
	}
	return b
}

// A loop that is left loses nothing of what is behind the message.
func TestMessagesLeft(t *testing.T) {
	const count = 40
	for name, read := range others {
		t.Run(name, func(t *testing.T) {
			peer, nc := unixPair(t)
			c := newConn(nc, nil, config{})
			send(t, peer, segment(0, count))
			seen := 0
			got := func(_ MessageType, p []byte) {
				require.Equal(t, numbered(seen), string(p))
				seen++
			}
			for seen < count {
				for m, err := range c.Messages(t.Context()) {
					require.NoError(t, err)
					got(m.Type, m.Payload)
					break
				}
				scribble()
				if seen < count {
					read(t, c, 1, got)
				}
			}
		})
	}
}

// A context that ends between messages leaves what is behind the last one, too.
func TestMessagesContextEndsInTheBody(t *testing.T) {
	const count = 40
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	send(t, peer, segment(0, count))
	for seen := 0; seen < count; {
		ctx, cancel := context.WithCancel(t.Context())
		var last error
		for m, err := range c.Messages(ctx) {
			require.NoError(t, last)
			if last = err; err != nil {
				require.ErrorIs(t, err, context.Canceled)
				require.Zero(t, m)
				continue
			}
			require.Equal(t, numbered(seen), string(m.Payload))
			seen++
			cancel()
			scribble()
		}
		require.Error(t, last)
		cancel()
	}
}

// Wherever a context ends, whoever goes on loses nothing.
func TestMessagesInterrupted(t *testing.T) {
	payload := strings.Repeat("0123456789", 30)
	z, ok := newDeflater(agreed(false, 15)).appendMessage(nil, []byte(payload))
	require.True(t, ok)
	goOn := map[string]func(context.Context, *Conn) (MessageType, []byte, error){
		"Messages": func(ctx context.Context, c *Conn) (typ MessageType, p []byte, err error) {
			for m, err := range c.Messages(ctx) {
				return m.Type, bytes.Clone(m.Payload), err
			}
			return
		},
		"Read": func(ctx context.Context, c *Conn) (MessageType, []byte, error) { return c.Read(ctx, nil) },
		"NextReader": func(ctx context.Context, c *Conn) (MessageType, []byte, error) {
			typ, r, err := c.NextReader(ctx)
			if err != nil {
				return 0, nil, err
			}
			p, err := io.ReadAll(r)
			return typ, p, err
		},
	}
	for form, message := range map[string][]byte{
		"plain":      frame(true, OpText, payload, true),
		"fragments":  bytes.Join([][]byte{frame(false, OpText, payload[:100], true), frame(true, OpPing, "", true), frame(true, OpContinuation, payload[100:], true)}, nil),
		"empty ones": bytes.Join([][]byte{frame(false, OpText, "", true), frame(false, OpContinuation, "", true), frame(true, OpContinuation, payload, true)}, nil),
		"compressed": compressedFrame(true, OpText, string(z)),
		"compressed fragments": bytes.Join([][]byte{compressedFrame(false, OpText, string(z[:5])),
			frame(true, OpPing, "", true), frame(true, OpContinuation, string(z[5:]), true)}, nil),
	} {
		// In a buffer of the pools, the message is behind another one.
		for where, before := range map[string]string{"": "", ", in a buffer": strings.Repeat("before ", 50)} {
			for how, next := range goOn {
				t.Run(form+where+", "+how, func(t *testing.T) {
					for cut := 0; cut < len(message); cut += 1 + cut/16*7 {
						synctest.Test(t, func(t *testing.T) {
							c, peer := serve(t, config{deflate: agreed(false, 15)})
							send(t, peer, frame(true, OpBinary, before, true), message[:cut])
							for i := range 2 {
								ctx, cancel := context.WithTimeout(t.Context(), time.Second)
								got, done := loop(ctx, c)
								require.ErrorIs(t, <-done, context.DeadlineExceeded)
								cancel()
								if i == 0 {
									require.Equal(t, "binary "+before, <-got)
								}
								require.Empty(t, got)
								require.Nil(t, c.in.pooled)
							}
							scribble()
							send(t, peer, message[cut:], frame(true, OpText, "next", true))
							typ, p, err := next(t.Context(), c)
							require.NoError(t, err)
							require.Equal(t, Text, typ)
							require.Equal(t, payload, string(p))
							_, p, err = next(t.Context(), c)
							require.NoError(t, err)
							require.Equal(t, "next", string(p))
						})
					}
				})
			}
		}
	}
}

func TestMessagesEnd(t *testing.T) {
	gone := func(c *Conn, _ *pipeConn) { _ = c.Close() }
	hello := frame(true, OpText, "Hello", true)
	for name, tc := range map[string]struct {
		sent []byte
		end  func(c *Conn, peer *pipeConn)
		want func(t *testing.T, err error)
	}{
		"Close": {hello, gone, func(t *testing.T, err error) { require.ErrorIs(t, err, net.ErrClosed) }},
		"Close inside a message": {append(bytes.Clone(hello), hello[:8]...), gone, func(t *testing.T, err error) {
			require.ErrorIs(t, err, net.ErrClosed)
		}},
		"Shutdown": {hello, func(c *Conn, peer *pipeConn) {
			done := later(func() error { return c.Shutdown(context.Background(), 4000, "") })
			synctest.Wait()
			send(t, peer, closeFrame(4000, "", true))
			require.NoError(t, <-done)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, net.ErrClosed) }},
		"the peer's Close": {append(bytes.Clone(hello), closeFrame(4000, "away", true)...), nil, func(t *testing.T, err error) {
			require.Equal(t, &CloseError{4000, "away"}, err)
		}},
		"the end of TCP": {hello, func(_ *Conn, peer *pipeConn) { _ = peer.CloseWrite() }, func(t *testing.T, err error) {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}},
		"a reset": {hello, func(_ *Conn, peer *pipeConn) { peer.reset() }, func(t *testing.T, err error) {
			require.ErrorContains(t, err, "websocket: read: ")
		}},
		"a broken rule": {append(bytes.Clone(hello), frame(true, 3, "", true)...), nil, func(t *testing.T, err error) {
			require.ErrorIs(t, err, error(errReservedOpcode))
		}},
		"a text that is none": {append(bytes.Clone(hello), frame(true, OpText, strings.Repeat("x", 100)+"\xff", true)...), nil, func(t *testing.T, err error) {
			require.ErrorIs(t, err, error(errInvalidUTF8))
		}},
		"a text that is none, in a buffer": {append(bytes.Repeat(hello, 20), frame(true, OpText, strings.Repeat("x", 100)+"\xff", true)...), nil, func(t *testing.T, err error) {
			require.ErrorIs(t, err, error(errInvalidUTF8))
		}},
		"a dead peer": {hello, nil, func(t *testing.T, err error) { require.ErrorIs(t, err, error(errConnectionSilent)) }},
		"a peer that dies inside a message": {append(bytes.Clone(hello), hello[:8]...), nil, func(t *testing.T, err error) {
			require.ErrorIs(t, err, error(errConnectionSilent))
		}},
		"a peer that dies inside a large one": {append(bytes.Repeat(hello, 20), frame(true, OpText, strings.Repeat("x", 3000), true)[:1000]...), nil, func(t *testing.T, err error) {
			require.ErrorIs(t, err, error(errConnectionSilent))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{keepAlive: time.Minute})
				send(t, peer, tc.sent)
				if tc.end != nil {
					go func() {
						synctest.Wait()
						tc.end(c, peer)
					}()
				}
				go func() { _, _ = io.Copy(io.Discard, peer); _ = peer.CloseWrite() }()
				start := time.Now()
				var first error
				for i := range 3 {
					n, ended := 0, false
					for m, err := range c.Messages(t.Context()) {
						require.False(t, ended, "an error is the last")
						if err == nil {
							require.Equal(t, "Hello", string(m.Payload))
							n++
							continue
						}
						ended = true
						require.Zero(t, m)
						if tc.want(t, err); i == 0 {
							first = err
						}
						require.Equal(t, first, err)
					}
					require.True(t, ended)
					require.Equal(t, i == 0, n > 0)
				}
				require.LessOrEqual(t, time.Since(start), 2*time.Minute)
			})
		})
	}
	t.Run("a context that has ended comes before a message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, hello)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for m, err := range c.Messages(ctx) {
				require.ErrorIs(t, err, context.Canceled)
				require.Zero(t, m)
			}
			for m, err := range c.Messages(t.Context()) {
				require.NoError(t, err)
				require.Equal(t, "Hello", string(m.Payload))
				break
			}
		})
	})
	t.Run("a loop that is in line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := serve(t, config{})
			ctx, cancel := context.WithCancel(t.Context())
			_, first := loop(t.Context(), c)
			synctest.Wait()
			_, second := loop(ctx, c)
			_, third := loop(t.Context(), c)
			synctest.Wait()
			cancel()
			require.ErrorIs(t, <-second, context.Canceled)
			require.NoError(t, c.Close())
			require.ErrorIs(t, <-first, net.ErrClosed)
			require.ErrorIs(t, <-third, net.ErrClosed)
		})
	})
}

// What is queued goes out before the loop waits, and a Ping stays behind the message.
func TestMessagesAndTheRest(t *testing.T) {
	const number = "\x00\x00\x00\x00\x00\x00\x00\x01"
	for _, message := range []string{"", "Hello", strings.Repeat("large ", 1000)} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			require.NoError(t, c.Queue(t.Context(), Text, []byte("queued")))
			got, done := loop(t.Context(), c)
			expect(t, peer, frame(true, OpText, "queued", false))
			ping := later(func() error { return c.Ping(t.Context()) })
			expect(t, peer, frame(true, OpPing, number, false))
			send(t, peer, frame(true, OpText, message, true), frame(true, OpPong, number, true), closeFrame(1000, "", true))
			require.Equal(t, "text "+message, <-got, "the Close behind it does not come first")
			require.NoError(t, <-ping)
			require.ErrorContains(t, <-done, "1000")
		})
	}
}

// A loop goes on with what an interrupted Read has, with what a NetConn has left, and behind
// what a reader has not read.
func TestMessagesAfterOthers(t *testing.T) {
	long := strings.Repeat("a long message ", 20)
	z, ok := newDeflater(agreed(false, 15)).appendMessage(nil, []byte(long))
	require.True(t, ok)
	whole := map[string][]byte{
		"plain":                frame(true, OpText, long, true),
		"fragments":            append(frame(false, OpText, long[:100], true), frame(true, OpContinuation, long[100:], true)...),
		"compressed":           compressedFrame(true, OpText, string(z)),
		"compressed fragments": append(compressedFrame(false, OpText, string(z[:10])), frame(true, OpContinuation, string(z[10:]), true)...),
	}
	for form, m := range whole {
		for at := range 3 {
			cut := []int{1, len(m) / 2, len(m)}[at]
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{deflate: agreed(false, 15)})
				send(t, peer, m[:cut])
				n, err := 0, error(nil)
				if cut == len(m) {
					n, err = NetConn(c, Text).Read(make([]byte, 10))
					require.NoError(t, err)
					require.Equal(t, 10, n)
				} else {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					_, _, err = c.Read(ctx, nil)
					cancel()
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}
				got, done := loop(t.Context(), c)
				send(t, peer, m[cut:])
				require.Equal(t, "text "+long[n:], <-got, form)

				send(t, peer, m[:len(m)/2])
				require.NoError(t, c.Close())
				require.ErrorIs(t, <-done, net.ErrClosed)
			})
		}
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{deflate: agreed(false, 15)})
			send(t, peer, m[:len(m)/2])
			_, r, err := c.NextReader(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, done := loop(ctx, c)
			require.ErrorIs(t, <-done, context.DeadlineExceeded)
			ctx, cancel = context.WithCancel(t.Context())
			got, done := loop(ctx, c)
			send(t, peer, m[len(m)/2:])
			synctest.Wait()
			require.Empty(t, got, "that is the rest of the first message")
			send(t, peer, m)
			require.Equal(t, "text "+long, <-got, form)
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			_, err = r.Read(make([]byte, 1))
			require.ErrorContains(t, err, "earlier message")
		})
	}
}

// The message that is worked on is answered, by Queue too, and none behind it is taken.
func TestConnsShutdownInALoop(t *testing.T) {
	for _, wait := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := new(Conns)
			c, peer := member(t, s, config{})
			work, n := make(chan struct{}), 0
			session := later(func() error {
				for m, err := range c.Messages(t.Context()) {
					if err != nil {
						return err
					}
					if n++; n == 10 {
						<-work
					}
					require.NoError(t, c.Queue(t.Context(), m.Type, m.Payload))
				}
				return nil
			})
			send(t, peer, segment(0, 10))
			if !wait {
				send(t, peer, segment(10, 20)) // it comes first, since the session does not wait
			}
			synctest.Wait()
			require.Equal(t, 10, n)
			drained := drain(t.Context(), s, StatusGoingAway, "bye")
			require.Empty(t, drained)
			close(work)
			expect(t, peer, unmasked(segment(0, 10)), closeFrame(StatusGoingAway, "bye", false))
			send(t, peer, segment(20, 30), closeFrame(StatusGoingAway, "bye", true))
			require.ErrorIs(t, <-session, net.ErrClosed)
			require.NoError(t, <-drained)
			require.Equal(t, 10, n)
		})
	}
}

// A message that has only been claimed takes what a small one may, though those before it were
// large and what has arrived came into their buffer.
func TestMessagesMemoryFollowsBytes(t *testing.T) {
	const size, count = 1 << 20, 8
	large := string(patterned(size))
	plain := frame(true, OpBinary, large, true)
	z, ok := newDeflater(agreed(false, 15)).appendMessage(nil, bytes.Repeat([]byte(large[:1<<10]), size>>10))
	require.True(t, ok)
	inflated := compressedFrame(true, OpBinary, string(z))
	claimed := compressedFrame(true, OpBinary, large)[:14+100]
	for name, tc := range map[string]struct {
		before []byte
		piece  []byte // of what never comes
		limit  int    // 32 KiB unless set
	}{
		"plain":                       {plain, plain[:14+100], 0},
		"fragments":                   {plain, frame(false, OpBinary, large, true)[:14+100], 0},
		"the second fragment":         {plain, append(frame(false, OpBinary, "first", true), frame(true, OpContinuation, large, true)[:14+100]...), 0},
		"compressed":                  {plain, claimed, 0},
		"compressed, behind one":      {inflated, claimed, 0},
		"a header":                    {plain, plain[:10], 0},
		"a control frame":             {plain, frame(true, OpPing, large[:maxControlPayloadSize], true)[:6+100], 0},
		"nothing":                     {plain, nil, 0},
		"as much as a read, and more": {plain, plain[:14+readBufferSize-1], 80 << 10},
	} {
		// held returns what one of many connections holds.
		held := func(t *testing.T) int {
			var conns []*Conn
			var peers []*pipeConn
			for range count {
				nc, peer := newPipeSize(pipeSize, 3*size)
				c := newConn(nc, nil, config{keepAlive: -1, maxMessageSize: 2 * size, deflate: agreed(false, 15)})
				defer c.Close()
				conns, peers = append(conns, c), append(peers, peer)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			before := liveMemory()
			var dones []<-chan error
			for i, c := range conns {
				// Behind a message that has filled the first read, the large one is in place.
				send(t, peers[i], segment(0, 1), tc.before, tc.piece)
				got := make(chan int, 2)
				dones = append(dones, later(func() error {
					for m, err := range c.Messages(ctx) {
						if err != nil {
							return err
						}
						got <- len(m.Payload)
					}
					return nil
				}))
				require.Equal(t, len(numbered(0)), <-got)
				require.Equal(t, size, <-got)
			}
			synctest.Wait()
			for i := range conns {
				require.Zero(t, peers[i].peer.unread())
			}
			// That is for the pipe's own memory, too, which stays as large as it was.
			for _, peer := range peers {
				peer.mu.Lock()
				peer.peer.in = bytes.Buffer{}
				peer.mu.Unlock()
			}
			held := (liveMemory() - before) / count
			cancel()
			for _, done := range dones {
				require.ErrorIs(t, <-done, context.Canceled)
			}
			return held
		}
		t.Run(name, func(t *testing.T) {
			requireBelow(t, max(tc.limit, 32<<10), func() (n int) {
				synctest.Test(t, func(t *testing.T) { n = held(t) })
				t.Log(n, "bytes each")
				return n
			})
		})
	}
}

// What is behind a message is kept, however much that is: a buffer that was made for a message
// beyond the largest there is may hold more than any other.
func TestMuchBehindAMessage(t *testing.T) {
	largest := bufferSizes[len(bufferSizes)-1]
	nc, peer := newPipeSize(pipeSize, 8*largest)
	c := newConn(nc, nil, config{maxMessageSize: -1})
	defer c.Close()
	sizes := []int{200, 10, largest * 3 / 4, largest / 2, largest / 2, largest / 2, 10}
	for i, size := range sizes {
		send(t, peer, frame(true, OpBinary, strings.Repeat(string(rune('a'+i)), size), true))
	}
	require.NoError(t, peer.CloseWrite())
	n := 0
	defer debug.SetGCPercent(debug.SetGCPercent(-1))  // it would empty the pools
	putBuffer(&buffer{b: make([]byte, 0, 2*largest)}) // as a message that was inflated leaves it
	require.ErrorIs(t, wholeWays[3].read(t.Context(), c, func(_ MessageType, p []byte) {
		require.True(t, strings.Repeat(string(rune('a'+n)), sizes[n]) == string(p), n)
		n++
	}), io.ErrUnexpectedEOF)
	require.Equal(t, len(sizes), n)
}

// However a loop ends, the memory of its last message is given back once.
func TestMessagesGiveBackOnce(t *testing.T) {
	closing := closeFrame(1000, "", true)
	for name, end := range map[string]func(t *testing.T, c *Conn, peer net.Conn, cancel func()) (leave bool){
		"break":    func(*testing.T, *Conn, net.Conn, func()) bool { return true },
		"context":  func(_ *testing.T, _ *Conn, _ net.Conn, cancel func()) bool { cancel(); return false },
		"Close":    func(_ *testing.T, c *Conn, _ net.Conn, _ func()) bool { _ = c.Close(); return false },
		"going on": func(t *testing.T, _ *Conn, peer net.Conn, _ func()) bool { send(t, peer, closing); return false },
		"a Read that gets a Close": func(t *testing.T, c *Conn, peer net.Conn, _ func()) bool {
			send(t, peer, closing)
			_, _, err := c.Read(t.Context(), nil)
			require.Error(t, err)
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, behind := range [][]byte{nil, bytes.Repeat(frame(true, OpPing, "", true), 100)} {
				peer, nc := unixPair(t)
				c := newConn(nc, nil, config{})
				send(t, peer, segment(0, 1), behind)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for _, err := range c.Messages(ctx) {
					if err != nil || end(t, c, peer, cancel) {
						break
					}
				}
				seen := make(map[*buffer]bool)
				for range 10 {
					b := getBuffer(readBufferSize)
					require.False(t, seen[b], "it is in the pool twice")
					seen[b] = true
				}
			}
		})
	}
}

// Several loops that run at a time, each at its pace, keep their messages apart.
func TestMessagesOfSeveralLoops(t *testing.T) {
	const loops, count = 3, 200
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	send(t, peer, segment(0, count))
	var wg sync.WaitGroup
	var goOn [loops]chan struct{}
	got := make(chan string)
	for i := range loops {
		goOn[i] = make(chan struct{})
		wg.Go(func() {
			<-goOn[i]
			for m, err := range c.Messages(t.Context()) {
				if !assert.NoError(t, err) {
					break
				}
				p := string(m.Payload)
				got <- p
				_, more := <-goOn[i]
				assert.Equal(t, p, string(m.Payload))
				spoil(m.Payload)
				if !more {
					break
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range count {
		goOn[rnd.IntN(loops)] <- struct{}{}
		require.Equal(t, numbered(i), <-got)
		scribble()
	}
	for i := range loops {
		close(goOn[i])
	}
	wg.Wait()
}

// While a loop that was interrupted inside a message may go on, nobody but a reader of messages
// reads.
func TestPingBehindAnInterruptedLoop(t *testing.T) {
	const number = "\x00\x00\x00\x00\x00\x00\x00\x01"
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{keepAlive: -1})
		hello := frame(true, OpText, "Hello", true)
		send(t, peer, hello[:8])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, done := loop(ctx, c)
		require.ErrorIs(t, <-done, context.DeadlineExceeded)
		ping := later(func() error { return c.Ping(t.Context()) })
		expect(t, peer, frame(true, OpPing, number, false))
		send(t, peer, hello[8:], frame(true, OpPong, number, true))
		synctest.Wait()
		require.Empty(t, ping)
		got, done := loop(t.Context(), c)
		require.Equal(t, "text Hello", <-got)
		require.NoError(t, <-ping)
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-done, net.ErrClosed)
	})
}
