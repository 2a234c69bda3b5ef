package websocket

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests of this file run over real sockets: what the connection in memory cannot show.

// tcpPair returns both ends of a TCP connection.
func tcpPair(t testing.TB) (net.Conn, net.Conn) { return socketsPair(t, "tcp", "127.0.0.1:0") }

// unixPair returns both ends of a Unix connection. Unlike TCP's, once it is full it stays so
// until its peer reads.
func unixPair(t testing.TB) (net.Conn, net.Conn) {
	dir, err := os.MkdirTemp("", "") // t.TempDir may be too long for an address
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return socketsPair(t, "unix", filepath.Join(dir, "s"))
}

func socketsPair(t testing.TB, network, address string) (net.Conn, net.Conn) {
	l, err := net.Listen(network, address)
	require.NoError(t, err)
	defer l.Close()
	a, err := net.Dial(network, l.Addr().String())
	require.NoError(t, err)
	b, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// tlsPair returns both ends of a TLS connection.
func tlsPair(t testing.TB) (net.Conn, net.Conn) {
	a, b := tcpPair(t)
	server, client := tlsOver(t, b, a)
	return client, server
}

// tlsOver turns the ends of a connection into those of one of TLS.
func tlsOver(t testing.TB, a, b net.Conn) (server, client net.Conn) {
	s := tls.Server(a, &tls.Config{Certificates: certificates()})
	c := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	require.NoError(t, c.Handshake())
	require.NoError(t, <-done)
	return s, c
}

// certificates returns those of httptest. In a bubble of synctest, they have to be there.
var certificates = sync.OnceValue(func() []tls.Certificate {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	return srv.TLS.Certificates
})

var networks = map[string]func(testing.TB) (net.Conn, net.Conn){"TCP": tcpPair, "TLS": tlsPair}

func TestStreamsOverTheNetwork(t *testing.T) {
	for name, pair := range networks {
		t.Run(name, func(t *testing.T) {
			for _, w := range wholeWays {
				for _, s := range streams() {
					peer, nc := pair(t)
					c := newConn(nc, nil, streamConfig)
					sent := collect(peer)
					go func() {
						_, _ = peer.Write(s.bytes)
						_ = peer.(interface{ CloseWrite() error }).CloseWrite()
					}()
					var messages []string
					err := w.read(t.Context(), c, func(typ MessageType, msg []byte) {
						messages = append(messages, typ.String()+" "+string(msg))
					})
					require.Equal(t, s.messages, messages, "%s, %s", w.name, s.name)
					require.ErrorContains(t, err, s.err, "%s, %s", w.name, s.name)
					if perr, ok := errors.AsType[*ProtocolError](err); ok {
						require.True(t, bytes.HasSuffix(<-sent, closeFrame(perr.Code, perr.Reason, false)), "%s: the peer reads why", s.name)
					}
				}
			}
		})
	}
}

// Interrupted before, inside and behind frames, by contexts of all kinds.
func TestInterruptedOverTheNetwork(t *testing.T) {
	for name, pair := range networks {
		for _, w := range wholeWays {
			t.Run(name+", "+w.name, func(t *testing.T) {
				peer, nc := pair(t)
				c := newConn(nc, nil, config{keepAlive: -1})
				large := strings.Repeat("0123456789", 10_000)
				all := append(frame(true, OpText, "Hello", true), frame(true, OpText, large, true)...)
				cuts := []int{0, 1, 2, 6, 11, 12, 13, 20, 25, 5000, 40_000, len(all) - 1, len(all)}
				var got []string
				read := func(ctx context.Context) error {
					return w.read(ctx, c, func(_ MessageType, msg []byte) { got = append(got, string(msg)) })
				}
				for i, at := range cuts {
					if i > 0 {
						_, err := peer.Write(all[cuts[i-1]:at])
						require.NoError(t, err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					require.ErrorIs(t, read(ctx), context.DeadlineExceeded)
					cancel()
				}
				// The network may have been slower than our patience.
				require.NoError(t, peer.(interface{ CloseWrite() error }).CloseWrite())
				require.ErrorIs(t, read(t.Context()), io.ErrUnexpectedEOF)
				require.Equal(t, []string{"Hello", large}, got)
			})
		}
	}
}

func TestCutWriteOverTheNetwork(t *testing.T) {
	for name, pair := range networks {
		t.Run(name, func(t *testing.T) {
			_, nc := pair(t)
			c := newConn(nc, nil, config{})
			read := make(chan error, 1)
			go func() { _, _, err := c.Read(context.Background(), nil); read <- err }()
			large := make([]byte, 64<<20) // more than the network holds
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				defer cancel()
				for c.out.sent.Load() == 0 {
					runtime.Gosched()
				}
			}()
			require.ErrorIs(t, c.Write(ctx, Binary, large), context.Canceled)
			require.ErrorIs(t, <-read, net.ErrClosed)
			require.ErrorIs(t, c.Write(t.Context(), Binary, nil), net.ErrClosed)
		})
	}
}

// A peer that does not read, with a Write of ours stuck: reading goes on, all else ends in
// time, and no more memory is held than the Write was given.
func TestStuckPeerOverTheNetwork(t *testing.T) {
	const prompt = time.Second    // on a machine that does other things too; nothing waits so long
	large := make([]byte, 64<<20) // more than the network holds
	for name, pair := range networks {
		for _, client := range []bool{false, true} {
			for _, end := range []struct {
				name string
				call func(ctx context.Context, c *Conn) error
				want error
			}{
				{"Close", func(_ context.Context, c *Conn) error { return c.Close() }, nil},
				{"Shutdown", func(ctx context.Context, c *Conn) error { return c.Shutdown(ctx, 1000, "") }, context.DeadlineExceeded},
			} {
				t.Run(fmt.Sprintf("%s, client %t, %s", name, client, end.name), func(t *testing.T) {
					peer, nc := pair(t)
					c := newConn(nc, nil, config{client: client})
					before := liveMemory()
					written := make(chan error, 1)
					go func() { written <- c.Write(context.Background(), Binary, large) }()
					for c.out.sent.Load() == 0 {
						runtime.Gosched()
					}
					go func() {
						_ = pour(peer, frame(true, OpPing, "ping", !client), 10_000)
						_, _ = peer.Write(frame(true, OpText, "read", !client))
					}()
					_, got, err := c.Read(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, "read", string(got))
					require.Empty(t, written)
					requireBelow(t, 2<<20, func() int { return liveMemory() - before })

					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
					defer cancel()
					start := time.Now()
					require.ErrorIs(t, c.Write(ctx, Text, nil), context.DeadlineExceeded)
					require.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded)
					_, _, err = c.Read(ctx, nil)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Less(t, time.Since(start), prompt)

					ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
					defer cancel()
					start = time.Now()
					require.ErrorIs(t, end.call(ctx, c), end.want)
					require.ErrorIs(t, <-written, net.ErrClosed)
					_, _, err = c.Read(t.Context(), nil)
					require.ErrorIs(t, err, net.ErrClosed)
					require.Less(t, time.Since(start), prompt)
					runtime.KeepAlive(large)
				})
			}
		}
	}
}

func TestCloseEndsReadOverTheNetwork(t *testing.T) {
	for name, pair := range networks {
		t.Run(name, func(t *testing.T) {
			peer, nc := pair(t)
			c := newConn(nc, nil, config{})
			read := make(chan error, 1)
			go func() { _, _, err := c.Read(context.Background(), nil); read <- err }()
			require.NoError(t, c.Close())
			require.ErrorIs(t, <-read, net.ErrClosed)
			got, err := io.ReadAll(peer)
			require.NoError(t, err)
			require.Equal(t, closeFrame(StatusGoingAway, "", false), got)
		})
	}
}

func TestReadFromAPeerThatHasReset(t *testing.T) {
	peer, nc := tcpPair(t)
	c := newConn(nc, nil, config{})
	require.NoError(t, peer.(*net.TCPConn).SetLinger(0))
	require.NoError(t, peer.Close())
	_, _, err := c.Read(t.Context(), nil)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.ErrorContains(t, err, "websocket: read: ")
	require.ErrorIs(t, c.Write(t.Context(), Text, nil), syscall.ECONNRESET)
}

// A connection that waits on TCP holds no buffer; one that waits inside a frame neither.
func TestWaitingOnTCPHoldsNoBuffer(t *testing.T) {
	peer, nc := tcpPair(t)
	c := newConn(nc, nil, config{})
	all := frame(true, OpBinary, strings.Repeat("x", 6000), true)
	for _, cut := range [][]byte{nil, all[:1], all[1:7], all[7:1000], all[1000:5000]} {
		_, err := peer.Write(cut)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, _, err = c.Read(ctx, nil)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Nil(t, c.in.pooled)
	}
}

// requireNoAllocs requires that a call of f makes no allocation, in one of several tries.
func requireNoAllocs(t *testing.T, f func()) {
	t.Helper()
	requireBelow(t, 1, func() int { return int(testing.AllocsPerRun(100, f)) })
}

func TestNothingIsAllocated(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	a, b := tcpPair(t)
	c, s := newConn(a, nil, config{client: true}), newConn(b, nil, config{})
	p := []byte("Hello, this is a small message.")
	buf := make([]byte, 0, 100)
	m := Prepare(Text, p)
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": t.Context()} {
		t.Run(name, func(t *testing.T) {
			requireNoAllocs(t, func() {
				_ = c.Write(ctx, Text, p)
				_, _, _ = s.Read(ctx, buf)
				_ = s.Write(ctx, Text, p)
				_ = s.WritePrepared(ctx, m)
				_, _, _ = c.Read(ctx, buf)
				_, _, _ = c.Read(ctx, buf)
			})
		})
	}
}

// A loop that answers by Queue: the memory of a message comes from the pools and goes back.
func TestNothingIsAllocatedInALoop(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	for _, size := range []int{0, 30, 1 << 10, 64 << 10} {
		for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": t.Context()} {
			for _, batch := range []int{1, 10} {
				if batch*size > 64<<10 {
					continue // nobody would read what the other one writes
				}
				t.Run(fmt.Sprintf("%d, %s, %d at once", size, name, batch), func(t *testing.T) {
					a, b := tcpPair(t)
					c, s := newConn(a, nil, config{client: true}), newConn(b, nil, config{})
					done := later(func() error {
						for m, err := range s.Messages(ctx) {
							if err == nil {
								err = s.Queue(ctx, m.Type, m.Payload)
							}
							if err != nil {
								return err
							}
						}
						return nil
					})
					p := bytes.Repeat([]byte("x"), size)
					buf := make([]byte, 0, size)
					requireNoAllocs(t, func() {
						for range batch {
							_ = c.Queue(ctx, Binary, p)
						}
						_ = c.Flush(ctx)
						for range batch {
							_, _, _ = c.Read(ctx, buf)
						}
					})
					require.NoError(t, c.Shutdown(t.Context(), 1000, ""))
					require.Equal(t, &CloseError{1000, ""}, <-done)
				})
			}
		}
	}
}

// Nor is anything by loops that are left after a message, with nothing behind it.
func TestNothingIsAllocatedByShortLoops(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	for _, size := range []int{30, 64 << 10} {
		a, b := tcpPair(t)
		c, s := newConn(a, nil, config{client: true}), newConn(b, nil, config{})
		p := bytes.Repeat([]byte("x"), size)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			_ = c.Write(context.Background(), Binary, p)
			for m, err := range s.Messages(context.Background()) {
				if err != nil || len(m.Payload) != size {
					t.Error(err, len(m.Payload))
				}
				break
			}
		}), size)
	}
}

// Nor is anything for a message that is larger than the last one.
func TestNothingIsAllocatedForALargerMessage(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	large := string(patterned(64 << 10))
	for form, message := range map[string][]byte{
		"plain":     frame(true, OpBinary, large, true),
		"fragments": append(frame(false, OpBinary, large[:10_000], true), frame(true, OpContinuation, large[10_000:], true)...),
	} {
		peer, nc := unixPair(t)
		c := newConn(nc, nil, config{})
		small := frame(true, OpText, "small", true)
		n, read := 0, make(chan struct{})
		done := later(func() error {
			for _, err := range c.Messages(t.Context()) {
				if err != nil {
					return err
				}
				n++
				read <- struct{}{}
			}
			return nil
		})
		allocs := testing.AllocsPerRun(100, func() {
			_, _ = peer.Write(small)
			<-read
			_, _ = peer.Write(message)
			<-read
		})
		assert.Zero(t, allocs, form)
		require.Equal(t, 202, n)
		require.NoError(t, peer.Close())
		require.ErrorIs(t, <-done, io.ErrUnexpectedEOF)
	}
}
