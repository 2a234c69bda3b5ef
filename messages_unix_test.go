//go:build unix

package websocket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests of this file look at where a message is that has come over a socket: in the buffer
// that it was read into.

// Whoever reads what is behind a message leaves it alone, and takes nothing but messages that
// the loop then does not get. Over a Unix connection, what is sent at once arrives at once.
func TestMessageStaysWhileOthersRead(t *testing.T) {
	const count = 60 // some 12 KiB
	for name, read := range others {
		for _, elsewhere := range []bool{false, true} {
			for _, n := range []int{1, 2, 7} {
				t.Run(fmt.Sprintf("%s, %d, another goroutine: %t", name, n, elsewhere), func(t *testing.T) {
					peer, nc := unixPair(t)
					c := newConn(nc, nil, config{})
					send(t, peer, segment(0, count))
					seen, lent := 0, 0
					got := func(typ MessageType, p []byte) {
						require.Equal(t, Text, typ)
						require.Equal(t, numbered(seen), string(p))
						seen++
					}
					for m, err := range c.Messages(t.Context()) {
						require.NoError(t, err)
						got(m.Type, m.Payload)
						if c.in.lent {
							lent++
						}
						before := string(m.Payload)
						if seen+n > count {
							for ; seen < count; got(Text, m.Payload) {
								_, m.Payload, err = c.Read(t.Context(), nil)
								require.NoError(t, err)
							}
							break
						}
						if elsewhere {
							var wg sync.WaitGroup
							wg.Go(func() { read(t, c, n, got) })
							wg.Wait()
						} else {
							read(t, c, n, got)
						}
						scribble()
						require.Equal(t, before, string(m.Payload))
						spoil(m.Payload)
						if seen == count {
							break
						}
					}
					require.NotZero(t, lent)
					send(t, peer, segment(count, count+1))
					_, p, err := c.Read(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, numbered(count), string(p))
				})
			}
		}
	}
}

// Nor does who reads no message.
func TestMessageStaysWhileNothingIsRead(t *testing.T) {
	const number = "\x00\x00\x00\x00\x00\x00\x00\x01"
	pings := bytes.Repeat(frame(true, OpPing, strings.Repeat("p", 100), true), 3)
	for name, tc := range map[string]struct {
		behind []byte // the message, in the same segment
		do     func(t *testing.T, c *Conn, peer net.Conn)
		over   bool
	}{
		"Ping": {pings, func(t *testing.T, c *Conn, peer net.Conn) {
			ping := later(func() error { return c.Ping(t.Context()) })
			expect(t, peer, frame(true, OpPing, number, false))
			send(t, peer, frame(true, OpPong, number, true))
			require.NoError(t, <-ping)
		}, false},
		"Ping, half a control frame behind": {pings[:len(pings)-10], func(t *testing.T, c *Conn, peer net.Conn) {
			ping := later(func() error { return c.Ping(t.Context()) })
			expect(t, peer, frame(true, OpPing, number, false))
			send(t, peer, pings[len(pings)-10:], frame(true, OpPong, number, true))
			require.NoError(t, <-ping)
		}, false},
		"Ping that is given up": {pings, func(t *testing.T, c *Conn, peer net.Conn) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded)
		}, false},
		"Ping, a message behind": {append(bytes.Clone(pings), segment(1, 2)...), func(t *testing.T, c *Conn, peer net.Conn) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded)
			_, p, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, numbered(1), string(p))
		}, false},
		"Shutdown": {segment(1, 20), func(t *testing.T, c *Conn, peer net.Conn) {
			shutdown := later(func() error { return c.Shutdown(t.Context(), 4000, "") })
			expect(t, peer, closeFrame(4000, "", false))
			send(t, peer, segment(20, 40), closeFrame(4000, "", true))
			require.NoError(t, <-shutdown)
		}, true},
		"Close": {segment(1, 20), func(t *testing.T, c *Conn, _ net.Conn) { require.NoError(t, c.Close()) }, true},
		"Queue and Write": {append(bytes.Clone(pings), pings...), func(t *testing.T, c *Conn, peer net.Conn) {
			large := string(patterned(100_000))
			for range 10 {
				require.NoError(t, c.Queue(t.Context(), Text, []byte(numbered(7))))
				written := later(func() error { return c.Write(t.Context(), Binary, []byte(large)) })
				expect(t, peer, frame(true, OpText, numbered(7), false), frame(true, OpBinary, large, false))
				require.NoError(t, <-written)
			}
		}, false},
		"a Read that is given up": {pings, func(t *testing.T, c *Conn, peer net.Conn) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			peer, nc := unixPair(t)
			c := newConn(nc, nil, config{})
			send(t, peer, segment(0, 1), tc.behind)
			seen := 0
			for m, err := range c.Messages(t.Context()) {
				if tc.over && seen == 1 {
					require.ErrorIs(t, err, net.ErrClosed)
					return
				}
				require.NoError(t, err)
				if seen == 1 {
					require.Equal(t, numbered(50), string(m.Payload))
					break
				}
				require.True(t, c.in.lent)
				tc.do(t, c, peer)
				scribble()
				require.Equal(t, numbered(0), string(m.Payload))
				if name != "Close" && name != "Queue and Write" {
					require.False(t, c.in.lent, "what is behind is elsewhere, once for all")
				}
				seen++
				if !tc.over {
					go send(t, peer, segment(50, 51))
				}
			}
			require.False(t, tc.over)
		})
	}
}

// Memory beyond a message is not that of the loop.
func TestMessagePayloadEndsWhereItEnds(t *testing.T) {
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	send(t, peer, segment(0, 20))
	n := 0
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		require.Equal(t, numbered(n), string(m.Payload))
		if n++; n == 20 {
			break
		}
		require.NotNil(t, c.in.pooled)
		require.Equal(t, len(m.Payload), cap(m.Payload))
	}
}

// readHook calls f before each Read.
type readHook struct {
	net.Conn
	f func()
}

func (h readHook) Read(p []byte) (int, error) {
	h.f()
	return h.Conn.Read(p)
}

// The same over a socket, where the first read is as large as what came before, and for those
// who go on otherwise.
func TestClaimsAfterALargeMessage(t *testing.T) {
	const size = 1 << 20
	large := string(patterned(size))
	plain := frame(true, OpBinary, large, true)
	fragments := append(frame(false, OpBinary, large[:size/2], true), frame(true, OpContinuation, large[size/2:], true)...)
	for form, message := range map[string][]byte{"plain": plain, "fragments": fragments} {
		for _, w := range wholeWays {
			for _, arrived := range []int{14 + 100, 14 + 10_000} {
				t.Run(fmt.Sprintf("%s, %s, %d", form, w.name, arrived), func(t *testing.T) {
					peer, nc := unixPair(t)
					c := newConn(nc, nil, config{keepAlive: -1})
					n, waits := 0, 0
					go func() { _, _ = peer.Write(plain) }()
					got := func(_ MessageType, p []byte) {
						require.True(t, large == string(p))
						n++
					}
					for m, err := range c.Messages(t.Context()) {
						require.NoError(t, err)
						got(m.Type, m.Payload)
						break
					}
					send(t, peer, message[:arrived])
					c.nc = readHook{c.nc, func() {
						if waits++; waits > 1 {
							return // that was the wait for what is claimed
						}
						if c.in.pooled != nil {
							require.LessOrEqual(t, c.in.pooled.class, bufferClass(max(readBufferSize, 2*arrived)))
						}
						go func() {
							_, _ = peer.Write(message[arrived:])
							_ = peer.(*net.UnixConn).CloseWrite()
						}()
					}}
					require.ErrorIs(t, w.read(t.Context(), c, got), io.ErrUnexpectedEOF)
					require.Equal(t, 2, n)
					require.NotZero(t, waits)
				})
			}
		}
	}
}

// What waits holds nothing, and a message that fits behind nothing else takes its buffer along.
func TestMessagesHoldNoBuffer(t *testing.T) {
	for _, size := range []int{0, 10, 5000, 40_000} {
		peer, nc := unixPair(t)
		c := newConn(nc, nil, config{})
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			for _, err := range c.Messages(ctx) {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			cancel()
			require.Nil(t, c.in.pooled)
			require.Nil(t, c.in.buf)
			send(t, peer, frame(true, OpBinary, strings.Repeat("x", size), true))
			for m, err := range c.Messages(t.Context()) {
				require.NoError(t, err)
				require.Len(t, m.Payload, size)
				require.Nil(t, c.in.pooled, "it is the loop's")
				break
			}
		}
		// A little that is behind the message is kept without a buffer.
		send(t, peer, frame(true, OpBinary, strings.Repeat("x", size), true), frame(true, OpText, "next", true))
		n := 0
		for m, err := range c.Messages(t.Context()) {
			require.NoError(t, err)
			if n++; n == 2 {
				require.Equal(t, "next", string(m.Payload))
				break
			}
			require.Nil(t, c.in.pooled)
			require.False(t, c.in.lent)
			require.NotNil(t, c.in.small)
		}
	}
}

// What is behind a message is kept whether it needs a buffer or not.
func TestLittleBehindAMessage(t *testing.T) {
	for size := headroom - 3; size <= headroom+3; size++ {
		for _, first := range [][]byte{
			frame(true, OpBinary, "first", true),
			append(frame(false, OpBinary, "fi", true), frame(true, OpContinuation, "rst", true)...),
		} {
			peer, nc := unixPair(t)
			c := newConn(nc, nil, config{})
			second := strings.Repeat("s", size-6)
			send(t, peer, first, frame(true, OpBinary, second, true))
			n := 0
			for m, err := range c.Messages(t.Context()) {
				require.NoError(t, err)
				if n++; n == 2 {
					require.Equal(t, second, string(m.Payload))
					break
				}
				require.Equal(t, "first", string(m.Payload))
				require.Equal(t, size > headroom, c.in.pooled != nil, "%d bytes behind it", size)
				scribble()
			}
		}
	}
}

// After one of its size, a message that is there whole is read at once.
func TestMessagesLearnTheSize(t *testing.T) {
	pooledExactly(t)
	pooled(readBufferClass) // one that has grown might hold all of the first
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	reads := 0
	c.nc = readHook{nc, func() { reads++ }}
	message := frame(true, OpBinary, string(patterned(64<<10)), true)
	send(t, peer, message)
	n := 0
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		require.Len(t, m.Payload, 64<<10)
		if n++; n == 3 {
			break
		}
		require.Equal(t, n > 1, reads == 0)
		reads = 0
		send(t, peer, message)
	}
	require.Zero(t, reads)
}

// halfRandom returns n bytes that half as many can say.
func halfRandom(n int) []byte {
	return fmt.Appendf(nil, "%x", randomBytes(rand.New(rand.NewPCG(1, 2)), n/2))
}

// Memory that was taken for a message that does not come whole, or is none, is given back.
func TestMessagesGiveBackAfterErrors(t *testing.T) {
	pooledExactly(t)
	const size = 40_000
	class := bufferClass(size)
	z, ok := newDeflater(agreed(false, 15)).appendMessage(nil, halfRandom(size))
	require.True(t, ok)
	cut := append(bytes.Clone(z[:size/3]), bytes.Repeat([]byte{0xff}, 1000)...)
	for form, sent := range map[string][]byte{
		"fragments": frame(false, OpBinary, string(patterned(size)), true),
		"corrupt":   compressedFrame(true, OpBinary, string(cut)),
	} {
		peer, nc := unixPair(t)
		c := newConn(nc, nil, config{deflate: agreed(false, 15)})
		send(t, peer, sent)
		require.NoError(t, peer.(*net.UnixConn).CloseWrite())
		for class := range bufferSizes {
			pooled(class)
		}
		for _, err := range c.Messages(t.Context()) {
			if err != nil {
				break
			}
		}
		require.NotEmpty(t, pooled(class), form)
	}
}

// Nor is much allocated for a compressed message, once there was one of its size.
func TestInflatedMessagesComeFromThePool(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // which share no pool
	const size, count = 60_000, 50
	z, ok := newDeflater(agreed(false, 15)).appendMessage(nil, halfRandom(size))
	require.True(t, ok)
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{deflate: agreed(false, 15)})
	message := compressedFrame(true, OpBinary, string(z))
	var before, after runtime.MemStats
	n := 0
	send(t, peer, message)
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		require.Len(t, m.Payload, size)
		switch n++; n {
		case 10:
			runtime.ReadMemStats(&before)
		case 10 + count:
			runtime.ReadMemStats(&after)
		}
		if n == 10+count {
			break
		}
		_, err = peer.Write(message)
		require.NoError(t, err)
	}
	require.Less(t, (after.TotalAlloc-before.TotalAlloc)/count, uint64(size/4), "bytes each")
}

// A loop does not move what is behind its message, whatever made the buffer larger once.
func TestMessagesLeaveTheRestInPlace(t *testing.T) {
	pooledExactly(t)
	const count = 60
	pooled(readBufferClass)
	for range 3 {
		putBuffer(&buffer{b: make([]byte, 3*readBufferSize), class: readBufferClass})
	}
	defer pooled(readBufferClass)
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	send(t, peer, segment(0, count))
	n, buf, r := 0, (*buffer)(nil), 0
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		require.Equal(t, numbered(n), string(m.Payload))
		if n++; n == count {
			break
		}
		if n > 1 {
			require.Same(t, buf, c.in.pooled)
			require.Greater(t, c.in.r, r)
		}
		buf, r = c.in.pooled, c.in.r
	}
}

// What a large message takes is not taken for a small one after it.
func TestSmallMessageAfterALargeOne(t *testing.T) {
	pooledExactly(t)
	const size = 100_000
	class := bufferClass(size)
	large, small := frame(true, OpBinary, strings.Repeat("x", size), true), frame(true, OpBinary, "small", true)
	for name, small := range map[string][]byte{
		"alone":            small,
		"one of many":      bytes.Repeat(small, 100),
		"and half a frame": append(bytes.Clone(small), large[:100]...),
	} {
		peer, nc := unixPair(t)
		c := newConn(nc, nil, config{})
		send(t, peer, large)
		n := 0
		for m, err := range c.Messages(t.Context()) {
			require.NoError(t, err)
			if n++; n == 1 {
				require.Len(t, m.Payload, size)
				send(t, peer, small)
				continue
			}
			require.Equal(t, "small", string(m.Payload))
			require.NotEmpty(t, pooled(class), "%s: the loop's body has it", name)
			break
		}
	}
	// Nor for a Read, which knows nothing of what a loop has seen.
	peer, nc := unixPair(t)
	c := newConn(nc, nil, config{})
	send(t, peer, large)
	for range c.Messages(t.Context()) {
		break
	}
	pooled(class)
	send(t, peer, small)
	_, got, err := c.Read(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, "small", string(got))
	require.Empty(t, pooled(class))
}

// A goroutine that waits keeps the stack that it begins with: what the keepalive does, and what
// control frames make of the wait, would leave it a larger one for as long as it is idle.
func TestStackOfAnIdleLoop(t *testing.T) {
	const count = 200
	stacks := func() int {
		runtime.GC()
		m := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
		metrics.Read(m)
		return int(m[0].Value.Uint64())
	}
	requireBelow(t, count*3<<10, func() int {
		var conns []*Conn
		var peers []net.Conn
		for range count {
			peer, nc := tcpPair(t)
			conns, peers = append(conns, newConn(nc, nil, config{keepAlive: time.Hour})), append(peers, peer)
		}
		before := stacks()
		got := make(chan string)
		var dones []<-chan error
		for _, c := range conns {
			dones = append(dones, later(func() error {
				for m, err := range c.Messages(context.Background()) {
					if err != nil {
						return err
					}
					got <- string(m.Payload)
				}
				return nil
			}))
		}
		for _, c := range conns {
			require.NoError(t, c.nc.SetReadDeadline(longAgo)) // the tick is over
		}
		for _, peer := range peers {
			expect(t, peer, frame(true, OpPing, "", false))
			send(t, peer, frame(true, OpPong, "", true), frame(true, OpPing, strings.Repeat("y", maxControlPayloadSize), true))
			expect(t, peer, frame(true, OpPong, strings.Repeat("y", maxControlPayloadSize), false))
			send(t, peer, frame(true, OpText, "Hello", true))
			require.Equal(t, "Hello", <-got)
		}
		used := stacks() - before
		for i, c := range conns {
			require.NoError(t, c.Close())
			require.ErrorIs(t, <-dones[i], net.ErrClosed)
		}
		return used
	})
}
