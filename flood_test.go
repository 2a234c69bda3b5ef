package websocket

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests of this file flood a connection, and look at the memory that is live meanwhile
// and at a neighbour, another connection of the process that goes on with its echo.

// floods is how many frames or connections make a flood. The race detector makes each ten
// to twenty times as expensive, and dies of more than 8128 goroutines.
func floods(n int) int {
	if raceEnabled {
		return n / 20
	}
	return n
}

// liveMemory returns the bytes of heap that a collection leaves, and of stacks.
func liveMemory() int {
	runtime.GC()
	runtime.GC() // what lies in a sync.Pool survives one
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(m)
	return int(m[0].Value.Uint64() + m[1].Value.Uint64())
}

// requireBelow requires that measure returns less than limit, in one of several tries: what
// another test has left behind may run meanwhile, and the machine may have other things to do.
func requireBelow(t *testing.T, limit int, measure func() int) {
	t.Helper()
	var got []int
	for range 5 {
		n := measure()
		if n < limit {
			return
		}
		got = append(got, n)
	}
	require.Failf(t, "too much", "%d, none less than %d", got, limit)
}

// underFlood calls flood. While it runs, live memory may grow by limit bytes, and the
// neighbour must be answered each time within patience.
func underFlood(t *testing.T, limit int, flood func()) {
	t.Helper()
	requireBelow(t, limit+1, func() int { return peakUnderFlood(t, flood) })
}

// peakUnderFlood returns by how many bytes live memory grows, with what is allocated while the
// collector looks: the longer that takes, the more.
func peakUnderFlood(t *testing.T, flood func()) int {
	const patience = 2 * time.Second // of a machine that does other things too
	a, b := tcpPair(t)
	client, server := newConn(a, nil, config{client: true}), newConn(b, nil, config{})
	defer client.Close()
	defer server.Close()
	go func() {
		for {
			typ, msg, err := server.Read(context.Background(), nil)
			if err != nil || server.Write(context.Background(), typ, msg) != nil {
				return
			}
		}
	}()
	before := liveMemory()
	rounds, peak := 0, before
	var slowest time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for over := false; !over; rounds++ {
			select {
			case <-stop:
				over = true // one more, with all of the flood in
			default:
			}
			start := time.Now()
			if !assert.NoError(t, client.Write(t.Context(), Text, []byte("Hello"))) {
				return
			}
			_, msg, err := client.Read(t.Context(), nil)
			if !assert.NoError(t, err) || !assert.Equal(t, "Hello", string(msg)) {
				return
			}
			slowest = max(slowest, time.Since(start))
			if over || rounds%1000 == 0 {
				peak = max(peak, liveMemory())
			}
		}
	}()
	start := time.Now()
	flood()
	took := time.Since(start)
	close(stop)
	<-stopped
	t.Logf("%v, %d KiB more, %d echoes beside it, the slowest in %v", took, (peak-before)>>10, rounds, slowest)
	assert.Less(t, slowest, patience)
	return peak - before
}

// pour writes frame to nc n times.
func pour(nc net.Conn, frame []byte, n int) error {
	batch := max(64<<10/len(frame), 1)
	many := bytes.Repeat(frame, batch)
	for ; n > 0; n -= batch {
		if _, err := nc.Write(many[:len(frame)*min(n, batch)]); err != nil {
			return err
		}
	}
	return nil
}

// A peer that pings and does not read: the Pongs get stuck, all but the latest are dropped,
// and reading goes on to what is behind the flood.
func TestFloodOfPings(t *testing.T) {
	peer, nc := tcpPair(t)
	c := newConn(nc, nil, config{})
	defer c.Close()
	underFlood(t, 4<<20, func() {
		go func() {
			if pour(peer, frame(true, OpPing, strings.Repeat("p", maxControlPayloadSize), true), floods(2_000_000)) == nil {
				_, _ = peer.Write(frame(true, OpText, "behind it", true))
			}
		}()
		_, msg, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "behind it", string(msg))
	})
	require.Len(t, c.pings.pong, maxControlPayloadSize)
	require.LessOrEqual(t, boxed(c), maxHeaderSize+maxControlPayloadSize)
}

func TestFloodOfEmptyFragments(t *testing.T) {
	empty := frame(false, OpContinuation, "", true)
	t.Run("of one message", func(t *testing.T) {
		peer, nc := tcpPair(t)
		c := newConn(nc, nil, config{})
		underFlood(t, 4<<20, func() {
			go func() {
				_, _ = peer.Write(frame(false, OpText, "", true))
				_ = pour(peer, empty, floods(2_000_000))
				peer.Close()
			}()
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, error(errTooManyFragments))
			require.LessOrEqual(t, int(c.in.empty), maxEmptyFragments, "it is refused at the first one too many")
		})
	})
	t.Run("of many messages", func(t *testing.T) {
		peer, nc := tcpPair(t)
		c := newConn(nc, nil, config{})
		defer c.Close()
		most := append(frame(false, OpText, "", true), bytes.Repeat(empty, maxEmptyFragments-1)...)
		most = append(most, frame(true, OpContinuation, "end", true)...)
		messages := floods(2_000_000) / maxEmptyFragments
		underFlood(t, 4<<20, func() {
			go func() { _ = pour(peer, most, messages) }()
			var buf []byte
			for range messages {
				_, msg, err := c.Read(t.Context(), buf[:0])
				require.NoError(t, err)
				require.Equal(t, "end", string(msg))
				buf = msg
			}
		})
	})
}

// Peers that claim much and send little: memory follows what they sent.
func TestFloodOfClaims(t *testing.T) {
	const most = 1<<63 - 1 // RFC 6455 section 5.2
	claim := func(length uint64) []byte {
		return AppendHeader(nil, Header{Fin: true, Opcode: OpBinary, Masked: true, Length: length})
	}
	t.Run("over the limit", func(t *testing.T) {
		underFlood(t, 8<<20, func() {
			for range floods(10_000) {
				nc, peer := newPipe()
				c := newConn(nc, nil, config{})
				send(t, peer, claim(most))
				require.NoError(t, peer.CloseWrite())
				_, _, err := c.Read(t.Context(), nil)
				require.ErrorIs(t, err, error(errMessageTooBig))
				expect(t, peer, closeFrame(StatusMessageTooBig, errMessageTooBig.Reason, false))
				expectEOF(t, peer)
			}
		})
	})
	for name, x := range map[string]struct {
		length uint64
		limit  int64
	}{
		"at the limit": {defaultMaxMessageSize, 0},
		"no limit":     {most, -1},
	} {
		t.Run(name, func(t *testing.T) {
			const each = 1000 // bytes of payload that do arrive
			conns := floods(10_000) / 4
			underFlood(t, conns*(24<<10)+(1<<20), func() {
				var waiting []*Conn
				for range conns {
					nc, peer := newPipe()
					c := newConn(nc, nil, config{maxMessageSize: x.limit, keepAlive: -1})
					waiting = append(waiting, c)
					go func() { _, _, _ = c.Read(context.Background(), nil) }()
					send(t, peer, claim(x.length), make([]byte, each))
					for nc.unread() > 0 {
						runtime.Gosched()
					}
				}
				t.Cleanup(func() {
					for _, c := range waiting {
						c.Close()
					}
				})
			})
		})
	}
}

// A message of 1 MiB that inflates to 1 GiB is left at the limit.
func TestFloodOfInflatedBytes(t *testing.T) {
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestCompression)
	require.NoError(t, err)
	_, _ = w.Write(make([]byte, 1<<20))
	require.NoError(t, w.Flush())
	bomb := compressedFrame(true, OpBinary, string(bytes.Repeat(z.Bytes(), defaultMaxMessageSize/z.Len())))
	for _, takeover := range []bool{false, true} {
		underFlood(t, 32<<20, func() {
			for range floods(100) {
				nc, peer := newPipe()
				c := newConn(nc, nil, config{deflate: agreed(takeover, 15)})
				go func() {
					_, _ = peer.Write(bomb)
					_ = peer.CloseWrite()
				}()
				_, _, err := c.Read(t.Context(), nil)
				require.ErrorIs(t, err, error(errMessageTooBig))
			}
		})
	}
}

// listener hands out ends of pipes.
type listener struct {
	conns chan net.Conn
	over  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { close(l.over); return nil }
func (l *listener) Addr() net.Addr { return pipeAddr("listener") }

// What bounds a handshake is what bounds any request of net/http.
func TestFloodOfHandshakes(t *testing.T) {
	// begin starts an echo server and returns it with how to connect to it.
	begin := func(t *testing.T) (*http.Server, func() *pipeConn) {
		l := &listener{make(chan net.Conn), make(chan struct{})}
		srv := &http.Server{
			ReadHeaderTimeout: 10 * time.Second,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := Accept(w, r, nil)
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					for {
						typ, msg, err := c.Read(context.Background(), nil)
						if err != nil || c.Write(context.Background(), typ, msg) != nil {
							return
						}
					}
				}()
			}),
		}
		go func() { _ = srv.Serve(l) }()
		return srv, func() *pipeConn {
			a, b := newPipe()
			l.conns <- b
			return a
		}
	}
	const request = "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

	t.Run("half open", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv, connect := begin(t)
			defer srv.Close()
			neighbour := func() *Conn {
				nc := connect()
				_, err := io.WriteString(nc, request+"\r\n")
				require.NoError(t, err)
				res, err := http.ReadResponse(bufio.NewReader(iotest.OneByteReader(nc)), nil)
				require.NoError(t, err)
				require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
				return newConn(nc, nil, config{client: true})
			}
			alive := func(c *Conn) {
				require.NoError(t, c.Write(t.Context(), Text, []byte("Hello")))
				_, msg, err := c.Read(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, "Hello", string(msg))
			}
			old := neighbour()
			defer old.Close()
			alive(old)

			before := liveMemory()
			start := time.Now()
			half := make([]*pipeConn, floods(10_000))
			for i := range half {
				half[i] = connect()
				_, err := io.WriteString(half[i], request[:len(request)-20])
				require.NoError(t, err)
			}
			for i := range 9 { // a byte a second does not help them
				synctest.Wait()
				if i == 0 {
					requireBelow(t, len(half)*(32<<10)+(1<<20), func() int {
						more := liveMemory() - before
						t.Logf("%d half-open handshakes hold %d bytes each", len(half), more/len(half))
						return more
					})
				}
				alive(old)
				c := neighbour() // who comes is served
				alive(c)
				require.NoError(t, c.Shutdown(t.Context(), StatusNormalClosure, ""))
				elapse(time.Second)
				for _, nc := range half {
					_, err := nc.Write([]byte{request[len(request)-20+i]})
					require.NoError(t, err)
				}
			}
			elapse(time.Until(start.Add(srv.ReadHeaderTimeout)))
			synctest.Wait()
			for _, nc := range half {
				_, err := nc.Write([]byte("x"))
				require.ErrorIs(t, err, syscall.EPIPE, "the server is through with it")
			}
			clear(half)
			elapse(time.Second) // net/http lingers
			// The runtime keeps its records of goroutines.
			requireBelow(t, len(half)*(1<<10)+(4<<20), func() int { return liveMemory() - before })
			alive(old)
		})
	})
	t.Run("without an end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv, connect := begin(t)
			defer srv.Close()
			before := liveMemory()
			nc := connect()
			go func() {
				_, _ = io.WriteString(nc, request)
				_ = pour(nc, []byte("X: "+strings.Repeat("x", 1000)+"\r\n"), 1_000_000)
			}()
			res, err := http.ReadResponse(bufio.NewReader(nc), nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, res.StatusCode)
			requireBelow(t, 4*http.DefaultMaxHeaderBytes, func() int { return liveMemory() - before })
			nc.Close()
			elapse(time.Second)
		})
	})
}
