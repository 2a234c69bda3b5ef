package websocket

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// loopConn is a peer without a network: it sends the same bytes over and over and takes
// whatever comes.
type loopConn struct {
	nullConn
	stream []byte
	at     int
}

func (c *loopConn) Read(p []byte) (int, error) {
	if c.at == len(c.stream) {
		c.at = 0
	}
	n := copy(p, c.stream[c.at:])
	c.at += n
	return n, nil
}

// loopStream is messages of n bytes, each in so many fragments, that add up to what a network
// may have there at once, or to one message.
func loopStream(typ MessageType, n, fragments int, masked bool) []byte {
	payload := string(bytes.Repeat([]byte("x"), n))
	var b []byte
	for len(b) == 0 || len(b)+n < 16<<10 {
		op := Opcode(typ)
		for i := range fragments {
			b = append(b, frame(i == fragments-1, op, payload[i*n/fragments:(i+1)*n/fragments], masked)...)
			op = OpContinuation
		}
	}
	return b
}

var (
	loopSizes = []int{16, 125, 1 << 10, 16 << 10, 64 << 10}
	loopRoles = map[string]config{"client": {client: true}, "server": {}}
)

// What TestNothingIsAllocated shows over TCP for small messages, for all sizes and both roles.
func TestNothingIsAllocatedInMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	for role, cfg := range loopRoles {
		for _, size := range loopSizes {
			for _, typ := range []MessageType{Text, Binary} {
				p := bytes.Repeat([]byte("x"), size)
				m := Prepare(typ, p)
				buf := make([]byte, 0, size)
				for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": t.Context()} {
					t.Run(fmt.Sprintf("%s/%s/%d/%s", role, typ, size, name), func(t *testing.T) {
						for _, fragments := range []int{1, 4} {
							nc := &loopConn{stream: loopStream(typ, size, fragments, !cfg.client)}
							c := newConn(nc, nil, cfg)
							_, msg, err := c.Read(ctx, buf)
							require.NoError(t, err)
							require.Equal(t, p, msg)
							assert.Zero(t, testing.AllocsPerRun(50, func() { _, _, _ = c.Read(ctx, buf) }), "Read of %d fragments", fragments)
						}
						c := newConn(nullConn{}, nil, cfg)
						require.NoError(t, c.Write(ctx, typ, p))
						assert.Zero(t, testing.AllocsPerRun(50, func() { _ = c.Write(ctx, typ, p) }), "Write")
						require.NoError(t, c.WritePrepared(ctx, m))
						assert.Zero(t, testing.AllocsPerRun(50, func() { _ = c.WritePrepared(ctx, m) }), "WritePrepared")
					})
				}
			}
		}
	}
}

// The benchmarks of this file run without a network and its system calls, so that what they
// measure is this package. BenchmarkEcho is over TCP.

func BenchmarkRead(b *testing.B) {
	for role, cfg := range loopRoles {
		for _, typ := range []MessageType{Text, Binary} {
			for _, size := range loopSizes {
				for _, fragments := range []int{1, 4} {
					b.Run(fmt.Sprintf("%s/%s/%d/fragments=%d", role, typ, size, fragments), func(b *testing.B) {
						c := newConn(&loopConn{stream: loopStream(typ, size, fragments, !cfg.client)}, nil, cfg)
						ctx := context.Background()
						buf := make([]byte, 0, size)
						b.SetBytes(int64(size))
						b.ReportAllocs()
						for b.Loop() {
							if _, _, err := c.Read(ctx, buf); err != nil {
								b.Fatal(err)
							}
						}
					})
				}
			}
		}
	}
}

// A peer that sends much at once: what is behind a message is not moved for its sake.
func TestReadLeavesTheRestInPlace(t *testing.T) {
	one := frame(true, OpText, "Hello, this is a small message.", true)
	c := newConn(nullConn{}, bytes.Repeat(one, 100), config{})
	for i := range 98 {
		_, _, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, (i+1)*len(one), c.in.r)
	}
}

// BenchmarkReadBuffered is BenchmarkRead of what is in the buffer already.
func BenchmarkReadBuffered(b *testing.B) {
	for _, size := range []int{16, 125, 1 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			stream := loopStream(Binary, size, 1, true)
			count := len(stream) / len(frame(true, OpBinary, string(make([]byte, size)), true))
			buf := make([]byte, 0, size)
			b.SetBytes(int64(size))
			for i := 0; i < b.N; i += count {
				c := newConn(nullConn{}, stream, config{})
				for range count {
					if _, _, err := c.Read(context.Background(), buf); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkMessages(b *testing.B) {
	for role, cfg := range loopRoles {
		for _, size := range loopSizes {
			b.Run(fmt.Sprintf("%s/%d", role, size), func(b *testing.B) {
				c := newConn(&loopConn{stream: loopStream(Binary, size, 1, !cfg.client)}, nil, cfg)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for _, err := range c.Messages(context.Background()) {
					if err != nil {
						b.Fatal(err)
					}
					if !b.Loop() {
						break
					}
				}
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for role, cfg := range loopRoles {
		for _, size := range loopSizes {
			p := make([]byte, size)
			m := Prepare(Binary, p)
			ctx := context.Background()
			for name, write := range map[string]func(*Conn) error{
				"Write":         func(c *Conn) error { return c.Write(ctx, Binary, p) },
				"WritePrepared": func(c *Conn) error { return c.WritePrepared(ctx, m) },
			} {
				b.Run(fmt.Sprintf("%s/%d/%s", role, size, name), func(b *testing.B) {
					c := newConn(nullConn{}, nil, cfg)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						if err := write(c); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
