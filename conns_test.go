package websocket

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// member returns a server's Conn that belongs to s, and the other end of its network connection.
func member(t testing.TB, s *Conns, cfg config) (*Conn, *pipeConn) {
	t.Helper()
	c, peer := serve(t, cfg)
	c.out.deflate = nil // so that what is sent can be compared
	require.True(t, s.join(c))
	return c, peer
}

// drain calls Shutdown, and lets it get as far as it comes.
func drain(ctx context.Context, s *Conns, code StatusCode, reason string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx, code, reason) }()
	synctest.Wait()
	return done
}

// run runs a session that answers each message, and returns its final error.
func run(t testing.TB, c *Conn, w way, answer func(MessageType, []byte)) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- w.read(t.Context(), c, answer)
		_ = c.Close() // as sessions do
	}()
	return done
}

// oneByOne lists the ways to read of read_test.go that take a message when that before is
// answered.
var oneByOne = slices.DeleteFunc(slices.Clone(ways), func(w way) bool { return w.name == "Messages and Read in turns" })

// drained lists these, and NetConn.
var drained = append(slices.Clip(oneByOne), way{"NetConn", func(_ context.Context, c *Conn, got func(MessageType, []byte)) error {
	nc := NetConn(c, 0)
	for {
		b := make([]byte, 1<<10)
		n, err := nc.Read(b)
		if err != nil {
			return err
		}
		got(Text, b[:n])
	}
}})

// form is a form in which a client may send messages.
type form struct {
	cfg   config
	hello string                                           // payload of "Hello"
	first func(fin bool, op Opcode, payload string) []byte // frame of a message
}

var forms = map[string]form{
	"plain":      {config{}, "Hello", func(fin bool, op Opcode, payload string) []byte { return frame(fin, op, payload, true) }},
	"compressed": {config{deflate: agreed(true, 15)}, "\xf2\x48\xcd\xc9\xc9\x07\x00", compressedFrame},
}

// eachWay runs a test in a bubble of synctest for each way to read and each form of messages.
func eachWay(t *testing.T, ways []way, f func(t *testing.T, w way, in form)) {
	for _, w := range ways {
		for name, in := range forms {
			t.Run(w.name+", "+name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, w, in) }) })
		}
	}
}

func TestConnsMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		require.Zero(t, s.Len())
		for range s.All() {
			require.Fail(t, "the zero Conns has no connections")
		}
		a, _ := member(t, &s, config{})
		b, _ := member(t, &s, config{})
		require.Equal(t, 2, s.Len())
		require.ElementsMatch(t, []*Conn{a, b}, slices.Collect(s.All()))
		for range s.All() {
			break
		}
		seen := 0
		for c := range s.All() { // connections may come and go meanwhile
			seen++
			require.NoError(t, c.Close())
			member(t, &s, config{})
		}
		require.Equal(t, 2, seen)
		require.Equal(t, 2, s.Len())
		require.NotContains(t, slices.Collect(s.All()), a)
		require.NoError(t, a.Close())
		require.Equal(t, 2, s.Len())
	})
}

// However a connection ends, it leaves.
func TestConnsLeaves(t *testing.T) {
	for name, end := range map[string]func(c *Conn, peer *pipeConn){
		"Close":            func(c *Conn, _ *pipeConn) { _ = c.Close() },
		"Close of NetConn": func(c *Conn, _ *pipeConn) { _ = NetConn(c, 0).Close() },
		"Close frame":      func(_ *Conn, peer *pipeConn) { send(t, peer, closeFrame(1000, "", true)) },
		"protocol error":   func(_ *Conn, peer *pipeConn) { send(t, peer, frame(true, OpText, "", false)); _ = peer.CloseWrite() },
		"end of TCP":       func(_ *Conn, peer *pipeConn) { _ = peer.CloseWrite() },
		"reset":            func(_ *Conn, peer *pipeConn) { peer.reset() },
		"silence":          func(*Conn, *pipeConn) { elapse(2 * time.Minute) },
		"Shutdown, no Read": func(c *Conn, _ *pipeConn) {
			ctx, cancel := context.WithTimeout(context.Background(), 1)
			defer cancel()
			_ = c.Shutdown(ctx, 1000, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s Conns
				c, peer := member(t, &s, config{})
				stays, _ := member(t, &s, config{keepAlive: -1})
				done := run(t, c, ways[0], nil)
				synctest.Wait()
				end(c, peer)
				require.Error(t, <-done)
				require.Equal(t, []*Conn{stays}, slices.Collect(s.All()))
			})
		})
	}
}

// Connections that wait for a message are closed at once.
func TestConnsShutdownIdle(t *testing.T) {
	for _, code := range []StatusCode{StatusGoingAway, StatusServiceRestart, 4000} {
		eachWay(t, drained, func(t *testing.T, w way, in form) {
			var s Conns
			var peers []*pipeConn
			var sessions []<-chan error
			for range 3 {
				c, peer := member(t, &s, in.cfg)
				peers, sessions = append(peers, peer), append(sessions, run(t, c, w, func(MessageType, []byte) { assert.Fail(t, "a message") }))
			}
			synctest.Wait()
			start := time.Now()
			done := drain(t.Context(), &s, code, "restarting")
			for _, peer := range peers {
				expect(t, peer, closeFrame(code, "restarting", false))
				// What it had on the way gets no answer any more.
				send(t, peer, in.first(true, OpText, in.hello), frame(true, OpPing, "", true), in.first(false, OpText, in.hello[:3]))
				synctest.Wait()
			}
			require.Equal(t, 3, s.Len())
			require.Empty(t, done)
			for i, peer := range peers {
				require.Empty(t, sessions[i], "it ends with its connection")
				send(t, peer, closeFrame(code, "restarting", true))
				require.ErrorIs(t, <-sessions[i], net.ErrClosed)
				expectEOF(t, peer)
			}
			require.NoError(t, <-done)
			require.Zero(t, s.Len())
			require.Zero(t, time.Since(start))
		})
	}
}

// An application that is at work on a message answers it first, and only it.
func TestConnsShutdownWhileWorking(t *testing.T) {
	eachWay(t, drained, func(t *testing.T, w way, in form) {
		var s Conns
		c, peer := member(t, &s, in.cfg)
		work := make(chan struct{})
		session := run(t, c, w, func(_ MessageType, msg []byte) {
			<-work
			assert.NoError(t, c.Write(t.Context(), Text, []byte("re: "+string(msg))))
		})
		send(t, peer, in.first(true, OpText, in.hello), in.first(true, OpText, in.hello))
		synctest.Wait()
		done := drain(t.Context(), &s, StatusGoingAway, "")
		elapse(10 * time.Second)
		require.Zero(t, peer.unread(), "nothing was sent yet")
		close(work)
		expect(t, peer, frame(true, OpText, "re: Hello", false), closeFrame(StatusGoingAway, "", false))
		send(t, peer, closeFrame(StatusGoingAway, "", true))
		require.NoError(t, <-done)
		require.ErrorIs(t, <-session, net.ErrClosed)
		expectEOF(t, peer)
	})
}

// A message whose header is there is received to its end, and answered.
func TestConnsShutdownInsideMessage(t *testing.T) {
	eachWay(t, oneByOne, func(t *testing.T, w way, in form) {
		var s Conns
		c, peer := member(t, &s, in.cfg)
		session := run(t, c, w, func(typ MessageType, msg []byte) {
			assert.NoError(t, c.Write(t.Context(), typ, msg))
		})
		whole := frame(true, OpContinuation, in.hello, true)
		send(t, peer, in.first(false, OpText, ""), whole[:8])
		synctest.Wait()
		done := drain(t.Context(), &s, StatusGoingAway, "")
		for _, b := range whole[8:] {
			require.Zero(t, peer.unread())
			elapse(time.Second)
			send(t, peer, []byte{b})
		}
		expect(t, peer, frame(true, OpText, "Hello", false), closeFrame(StatusGoingAway, "", false))
		send(t, peer, closeFrame(StatusGoingAway, "", true))
		require.NoError(t, <-done)
		require.ErrorIs(t, <-session, net.ErrClosed)
	})
}

// One of whose header only a part has arrived has not begun, and is dropped.
func TestConnsShutdownInsideHeader(t *testing.T) {
	eachWay(t, drained, func(t *testing.T, w way, in form) {
		var s Conns
		c, peer := member(t, &s, in.cfg)
		session := run(t, c, w, func(MessageType, []byte) { assert.Fail(t, "a message") })
		f := in.first(true, OpText, in.hello)
		send(t, peer, f[:5])
		synctest.Wait()
		done := drain(t.Context(), &s, StatusGoingAway, "")
		expect(t, peer, closeFrame(StatusGoingAway, "", false))
		send(t, peer, f[5:], closeFrame(StatusGoingAway, "", true))
		require.NoError(t, <-done)
		require.ErrorIs(t, <-session, net.ErrClosed)
	})
}

// The rest of a message that the application does not want is nothing to wait for.
func TestConnsShutdownWhileSkipping(t *testing.T) {
	for name, in := range forms {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s Conns
				c, peer := member(t, &s, in.cfg)
				send(t, peer, in.first(false, OpText, in.hello[:1]))
				_, _, err := c.NextReader(t.Context())
				require.NoError(t, err)
				session := run(t, c, ways[0], nil)
				synctest.Wait()
				done := drain(t.Context(), &s, StatusGoingAway, "")
				expect(t, peer, closeFrame(StatusGoingAway, "", false))
				send(t, peer, frame(true, OpContinuation, in.hello[1:], true), closeFrame(StatusGoingAway, "", true))
				require.NoError(t, <-done)
				require.ErrorIs(t, <-session, net.ErrClosed)
			})
		})
	}
}

// A session that waits with limits is idle when it is back, and may be gone by then.
func TestConnsShutdownBetweenReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		c, peer := member(t, &s, config{keepAlive: -1})
		limited := func(d time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			_, _, err := c.Read(ctx, nil)
			return err
		}
		require.ErrorIs(t, limited(time.Second), context.DeadlineExceeded)
		done := drain(t.Context(), &s, StatusGoingAway, "")
		require.Zero(t, peer.unread())
		require.ErrorIs(t, limited(time.Second), context.DeadlineExceeded, "the peer does not answer yet")
		expect(t, peer, closeFrame(StatusGoingAway, "", false))
		require.ErrorIs(t, limited(time.Second), net.ErrClosed)
		require.ErrorIs(t, c.Write(t.Context(), Text, nil), net.ErrClosed)
		require.NoError(t, c.Close())
		require.NoError(t, NetConn(c, 0).Close())
		elapse(time.Minute)
		require.Empty(t, done, "Close leaves it to Shutdown")
		send(t, peer, closeFrame(StatusGoingAway, "", true))
		require.NoError(t, <-done)
	})
}

// A message that is being written is not cut, and while it is, messages are received.
func TestConnsShutdownWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		c, peer := member(t, &s, config{keepAlive: -1})
		acks := make(chan string)
		session := run(t, c, ways[0], func(_ MessageType, msg []byte) {
			acks <- string(msg)
			if string(msg) == "three" {
				assert.NoError(t, c.Write(t.Context(), Text, []byte("re: three")))
			}
		})
		w, err := c.NextWriter(t.Context(), Text)
		require.NoError(t, err)
		piece := strings.Repeat("x", streamBufferSize)
		_, err = io.WriteString(w, piece)
		require.NoError(t, err)
		_, err = io.WriteString(w, "y")
		require.NoError(t, err)
		expect(t, peer, frame(false, OpText, piece, false))

		done := drain(t.Context(), &s, StatusGoingAway, "")
		for _, ack := range []string{"one", "two"} {
			elapse(time.Minute)
			require.Zero(t, peer.unread())
			send(t, peer, frame(true, OpText, ack, true))
			require.Equal(t, ack, <-acks)
		}
		// The application is at work on a message when the other one ends.
		send(t, peer, frame(true, OpText, "three", true))
		synctest.Wait()
		require.NoError(t, w.Close())
		elapse(time.Minute)
		require.Equal(t, "three", <-acks)
		expect(t, peer, frame(true, OpContinuation, "y", false), frame(true, OpText, "re: three", false), closeFrame(StatusGoingAway, "", false))
		send(t, peer, closeFrame(StatusGoingAway, "", true))
		require.NoError(t, <-done)
		require.ErrorIs(t, <-session, net.ErrClosed)
	})
}

// A writer that sees the end and closes does not cut the handshake short.
func TestConnsShutdownOfWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		c, peer := member(t, &s, config{keepAlive: -1})
		session := run(t, c, ways[0], nil)
		writer := make(chan error, 1)
		go func() {
			for {
				if err := c.Write(t.Context(), Text, []byte("tick")); err != nil {
					writer <- err
					_ = c.Close()
					return
				}
				elapse(time.Second)
			}
		}()
		synctest.Wait()
		done := drain(t.Context(), &s, StatusGoingAway, "bye")
		expect(t, peer, frame(true, OpText, "tick", false), closeFrame(StatusGoingAway, "bye", false))
		require.ErrorIs(t, <-writer, net.ErrClosed)
		elapse(time.Minute)
		require.Equal(t, 1, s.Len())
		send(t, peer, closeFrame(StatusGoingAway, "bye", true))
		require.NoError(t, <-done)
		require.ErrorIs(t, <-session, net.ErrClosed)
	})
}

// When the context ends, whoever is left is cut.
func TestConnsShutdownCuts(t *testing.T) {
	for name, test := range map[string]struct {
		pipe  int // what our Writes find room for
		begin func(t *testing.T, c *Conn, peer *pipeConn)
		sent  []byte // what the peer finds in the end
	}{
		"peer does not answer": {pipeSize, func(t *testing.T, c *Conn, peer *pipeConn) {
			run(t, c, ways[0], nil)
		}, closeFrame(StatusServiceRestart, "now", false)},
		"peer takes nothing": {0, func(t *testing.T, c *Conn, peer *pipeConn) {
			run(t, c, ways[0], nil)
		}, nil},
		"peer takes no message": {3, func(t *testing.T, c *Conn, peer *pipeConn) {
			run(t, c, ways[0], nil)
			go c.Write(context.Background(), Text, []byte("longer"))
		}, frame(true, OpText, "longer", false)[:3]},
		"application is at work": {pipeSize, func(t *testing.T, c *Conn, peer *pipeConn) {
			send(t, peer, frame(true, OpText, "x", true))
			_, _, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
		}, closeFrame(StatusServiceRestart, "now", false)},
		"application writes": {pipeSize, func(t *testing.T, c *Conn, peer *pipeConn) {
			run(t, c, ways[0], nil)
			_, err := c.NextWriter(t.Context(), Text)
			require.NoError(t, err)
		}, closeFrame(StatusServiceRestart, "now", false)},
		"application never reads": {pipeSize, func(*testing.T, *Conn, *pipeConn) {},
			closeFrame(StatusServiceRestart, "now", false)},
		"application only pings": {pipeSize, func(t *testing.T, c *Conn, peer *pipeConn) {
			go c.Ping(context.Background())
		}, slices.Concat(frame(true, OpPing, "\x00\x00\x00\x00\x00\x00\x00\x01", false), closeFrame(StatusServiceRestart, "now", false))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s Conns
				nc, peer := newPipeSize(test.pipe, pipeSize)
				c := newConn(nc, nil, config{keepAlive: -1})
				require.True(t, s.join(c))
				test.begin(t, c, peer)
				synctest.Wait()
				cause := errors.New("out of patience")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
				defer cancel()
				start := time.Now()
				err := s.Shutdown(ctx, StatusServiceRestart, "now")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, cause)
				assertOnePrefix(t, err)
				require.InDelta(t, time.Minute, time.Since(start), float64(2*promptTimeout))
				require.Zero(t, s.Len())
				got, err := io.ReadAll(peer)
				require.NoError(t, err)
				require.Equal(t, string(test.sent), string(got))
				_, _, err = c.Read(t.Context(), nil)
				require.ErrorIs(t, err, net.ErrClosed)
				require.ErrorIs(t, c.Write(t.Context(), Text, nil), net.ErrClosed)
			})
		})
	}
}

// No connection is left, not even one that is about to be dropped.
func TestConnsShutdownWaitsForDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		nc, _ := newPipe()
		c := newConn(slowToClose{nc}, nil, config{})
		require.True(t, s.join(c))
		go c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, s.Shutdown(ctx, StatusGoingAway, ""), context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Zero(t, s.Len())
	})
}

// slowToClose is a connection whose Close takes its time, as one of TLS may.
type slowToClose struct{ net.Conn }

func (c slowToClose) Close() error {
	elapse(3 * time.Second)
	return c.Conn.Close()
}

// Whether the peer or the application was about to close: it is no error.
func TestConnsShutdownOfClosing(t *testing.T) {
	t.Run("the peer closes meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var s Conns
			c, peer := member(t, &s, config{})
			work := make(chan struct{})
			session := run(t, c, ways[0], func(MessageType, []byte) { <-work })
			send(t, peer, frame(true, OpText, "x", true), closeFrame(4000, "enough", true))
			synctest.Wait()
			done := drain(t.Context(), &s, StatusGoingAway, "")
			require.Empty(t, done)
			close(work)
			require.NoError(t, <-done)
			require.Error(t, <-session)
		})
	})
	t.Run("the peer broke a rule", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var s Conns
			c, peer := member(t, &s, config{})
			session := run(t, c, ways[0], nil)
			send(t, peer, frame(true, OpText, "unmasked", false))
			synctest.Wait()
			start := time.Now()
			require.NoError(t, s.Shutdown(t.Context(), StatusGoingAway, ""))
			require.Equal(t, lingerTimeout, time.Since(start), "the peer has time to read why")
			expect(t, peer, closeFrame(StatusProtocolError, errNotMasked.Reason, false))
			require.Equal(t, error(errNotMasked), <-session)
		})
	})
	t.Run("the peer drops TCP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var s Conns
			c, peer := member(t, &s, config{})
			session := run(t, c, ways[0], nil)
			synctest.Wait()
			done := drain(t.Context(), &s, StatusGoingAway, "")
			peer.reset()
			require.NoError(t, <-done)
			require.Error(t, <-session)
		})
	})
	t.Run("writing is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var s Conns
			c, _ := member(t, &s, config{keepAlive: -1})
			session := run(t, c, ways[0], nil)
			require.NoError(t, c.nc.(*pipeConn).CloseWrite())
			require.Error(t, c.Write(t.Context(), Text, nil))
			require.NoError(t, s.Shutdown(t.Context(), StatusGoingAway, ""))
			require.ErrorIs(t, <-session, net.ErrClosed)
		})
	})
	t.Run("Shutdown of the Conn", func(t *testing.T) {
		for _, working := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				var s Conns
				c, peer := member(t, &s, config{})
				if !working {
					run(t, c, ways[0], nil)
					synctest.Wait()
				}
				own := make(chan error, 1)
				go func() { own <- c.Shutdown(t.Context(), 4000, "mine") }()
				synctest.Wait()
				done := drain(t.Context(), &s, StatusGoingAway, "")
				expect(t, peer, closeFrame(4000, "mine", false))
				require.Empty(t, done)
				send(t, peer, closeFrame(4000, "", true))
				require.NoError(t, <-own)
				require.NoError(t, <-done)
				expectEOF(t, peer)
			})
		}
	})
	t.Run("Close of an application at work", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var s Conns
			c, peer := member(t, &s, config{})
			done := drain(t.Context(), &s, StatusServiceRestart, "")
			require.NoError(t, c.Close())
			expect(t, peer, closeFrame(StatusGoingAway, "", false))
			require.NoError(t, <-done)
		})
	})
}

func TestConnsShutdownTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		c, peer := member(t, &s, config{})
		busy, _ := member(t, &s, config{})
		session := run(t, c, ways[0], nil)
		synctest.Wait()
		first := drain(t.Context(), &s, StatusGoingAway, "first")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		second := drain(ctx, &s, StatusServiceRestart, "second")
		expect(t, peer, closeFrame(StatusGoingAway, "first", false))
		send(t, peer, closeFrame(StatusGoingAway, "", true))
		require.ErrorIs(t, <-session, net.ErrClosed)
		expectEOF(t, peer)
		synctest.Wait()
		require.Empty(t, first)
		require.Empty(t, second)
		require.Equal(t, []*Conn{busy}, slices.Collect(s.All()))

		start := time.Now()
		require.ErrorIs(t, <-second, context.DeadlineExceeded, "the first context that ends cuts")
		require.ErrorIs(t, <-first, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(start))
		require.ErrorIs(t, s.Shutdown(t.Context(), StatusGoingAway, ""), context.DeadlineExceeded, "that some were cut stays known")
	})
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, s.Shutdown(ended, StatusGoingAway, ""), "there was nobody to wait for")
		require.NoError(t, s.Shutdown(t.Context(), StatusGoingAway, ""))
		c, _ := serve(t, config{})
		require.False(t, s.join(c))
		require.Zero(t, s.Len())
		require.NoError(t, c.Close())
	})
}

func TestConnsShutdownArguments(t *testing.T) {
	var s Conns
	for _, code := range []StatusCode{0, 999, StatusNoStatusReceived, StatusAbnormalClosure, StatusTLSHandshake, 5000} {
		require.Error(t, s.Shutdown(t.Context(), code, ""))
	}
	require.Error(t, s.Shutdown(t.Context(), StatusGoingAway, strings.Repeat("x", 124)))
	require.Error(t, s.Shutdown(t.Context(), StatusGoingAway, "\xff"))
	c, _ := serve(t, config{})
	require.True(t, s.join(c), "nothing has happened")
}

// Whenever messages arrive, each is either answered or dropped, and none is answered after the
// Close frame.
func TestConnsShutdownUnderLoad(t *testing.T) {
	for range 50 {
		var s Conns
		nc, peer := newPipe()
		c := newConn(nc, nil, config{})
		require.True(t, s.join(c))
		received := 0
		session := run(t, c, ways[0], func(typ MessageType, msg []byte) {
			received++
			assert.NoError(t, c.Write(t.Context(), typ, msg))
		})
		begun, sent := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(sent)
			for i := 0; ; i++ {
				if i == 10 {
					close(begun)
				}
				if _, err := peer.Write(frame(true, OpText, "x", true)); err != nil {
					return
				}
			}
		}()
		answers := make(chan int, 1)
		go func() {
			br := bufio.NewReader(peer)
			for n := 0; ; n++ {
				var b [3]byte
				_, err := io.ReadFull(br, b[:])
				if err == nil && b[0] != 0x81 {
					_, err = peer.Write(closeFrame(StatusGoingAway, "", true))
				}
				if err != nil || b[0] != 0x81 {
					answers <- n
					return
				}
			}
		}()
		<-begun
		require.NoError(t, s.Shutdown(t.Context(), StatusGoingAway, ""))
		require.ErrorIs(t, <-session, net.ErrClosed)
		require.Equal(t, received, <-answers)
		_ = peer.Close()
		<-sent
	}
}

// The response to the handshake is the first that the client sees, whenever Shutdown comes.
func TestConnsShutdownBeforeTheResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		nc, peer := newPipeSize(10, pipeSize)
		session := make(chan error, 1)
		go func() {
			c, err := Accept(pipeWriter{httptest.NewRecorder(), nc}, handshakeRequest(), &AcceptOptions{Conns: &s})
			if assert.NoError(t, err) {
				session <- ways[0].read(t.Context(), c, nil)
			}
		}()
		synctest.Wait()
		require.Equal(t, 1, s.Len())
		done := drain(t.Context(), &s, StatusGoingAway, "")
		br := bufio.NewReader(peer)
		resp, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		got := make([]byte, 4)
		_, err = io.ReadFull(br, got)
		require.NoError(t, err)
		require.Equal(t, closeFrame(StatusGoingAway, "", false), got)
		send(t, peer, closeFrame(StatusGoingAway, "", true))
		require.NoError(t, <-done)
		require.ErrorIs(t, <-session, net.ErrClosed)
	})
	t.Run("cut", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var s Conns
			nc, peer := newPipeSize(0, pipeSize)
			accepted := make(chan error, 1)
			go func() {
				_, err := Accept(pipeWriter{httptest.NewRecorder(), nc}, handshakeRequest(), &AcceptOptions{Conns: &s})
				accepted <- err
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			synctest.Wait()
			require.ErrorIs(t, s.Shutdown(ctx, StatusGoingAway, ""), context.DeadlineExceeded)
			require.ErrorIs(t, <-accepted, net.ErrClosed)
			expectEOF(t, peer)
		})
	})
}

func TestAcceptAfterShutdown(t *testing.T) {
	var s Conns
	opts := &AcceptOptions{Conns: &s}
	shutdown := func() { require.NoError(t, s.Shutdown(t.Context(), StatusGoingAway, "")) }

	// While the connection is being taken over.
	w := &hijackable{ResponseRecorder: httptest.NewRecorder()}
	c, err := Accept(hijackingWriter{w, shutdown}, handshakeRequest(), opts)
	require.Nil(t, c)
	require.ErrorIs(t, err, http.ErrServerClosed)
	assertOnePrefix(t, err)
	require.True(t, w.conn.closed)
	require.Len(t, w.conn.writes, 1)
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(w.conn.writes[0])), nil)
	require.NoError(t, err)
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.EqualValues(t, len(raw), resp.ContentLength)
	require.True(t, resp.Close)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)

	// Later.
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, opts)
		assert.Nil(t, c)
		assert.ErrorIs(t, err, http.ErrServerClosed)
	}))
	_, resp, err = Dial(t.Context(), wsURL(srv), nil)
	require.Error(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.True(t, resp.Close, "a proxy in front finds another server")
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, string(raw), string(body))
	require.Equal(t, "the server is shutting down\n", string(body))
	resp, err = http.Get(srv.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, "not only for handshakes")
}

// hijackingWriter calls a function in the middle of Hijack.
type hijackingWriter struct {
	http.ResponseWriter
	during func()
}

func (w hijackingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.during()
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

// Handshakes that race with Shutdown are refused, or closed in good order.
func TestConnsShutdownRacesWithHandshakes(t *testing.T) {
	const clients = 8
	for range 20 {
		var s Conns
		var sessions sync.WaitGroup
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := Accept(w, r, &AcceptOptions{Conns: &s})
			if err != nil {
				assert.ErrorIs(t, err, http.ErrServerClosed)
				return
			}
			sessions.Go(func() {
				defer c.Close()
				assert.ErrorIs(t, ways[0].read(context.Background(), c, nil), net.ErrClosed)
			})
		}))
		var dialing sync.WaitGroup
		first := make(chan struct{})
		var once sync.Once
		for range clients {
			dialing.Go(func() {
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				for {
					c, resp, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: client})
					if err != nil {
						if assert.NotNil(t, resp, "%v", err) {
							assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
						}
						return
					}
					once.Do(func() { close(first) })
					_, _, err = c.Read(t.Context(), nil)
					assert.Equal(t, &CloseError{StatusGoingAway, "restarting"}, err)
					c.Close()
				}
			})
		}
		<-first
		require.NoError(t, s.Shutdown(t.Context(), StatusGoingAway, "restarting"))
		require.Zero(t, s.Len())
		dialing.Wait()
		sessions.Wait()
		srv.Close()
	}
}

// A server as a user has it: connections over TCP and TLS, of handlers that stay and of handlers
// that return.
func TestConnsOfServer(t *testing.T) {
	for name, test := range map[string]struct {
		start func(*testing.T, http.Handler) *httptest.Server
		stay  bool
	}{
		"TCP":                {newServer, false},
		"TCP, handlers stay": {newServer, true},
		"TLS":                {newTLSServer, false},
		"TLS, handlers stay": {newTLSServer, true},
	} {
		t.Run(name, func(t *testing.T) {
			var s Conns
			var running sync.WaitGroup
			srv := test.start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := Accept(w, r, &AcceptOptions{Conns: &s})
				if !assert.NoError(t, err) {
					return
				}
				session := func() {
					defer c.Close()
					for {
						typ, msg, err := c.Read(context.Background(), nil)
						if err != nil || c.Write(context.Background(), typ, msg) != nil {
							return
						}
					}
				}
				if test.stay {
					session()
				} else {
					running.Go(session)
				}
			}))
			var peers []*Conn
			for range 3 {
				c, _, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: srv.Client()})
				require.NoError(t, err)
				defer c.Close()
				assertEchoes(t, c)
				peers = append(peers, c)
			}
			require.Equal(t, 3, s.Len())
			early := make(chan error, 1)
			srv.Config.RegisterOnShutdown(func() { early <- s.Shutdown(t.Context(), StatusServiceRestart, "new version") })
			ended := make(chan error, 1)
			go func() {
				ended <- errors.Join(srv.Config.Shutdown(t.Context()), s.Shutdown(t.Context(), StatusServiceRestart, "new version"))
			}()
			for _, c := range peers {
				_, _, err := c.Read(t.Context(), nil)
				require.Equal(t, &CloseError{StatusServiceRestart, "new version"}, err)
			}
			require.NoError(t, <-early)
			require.NoError(t, <-ended)
			require.Zero(t, s.Len())
			running.Wait()
		})
	}
}

// What is left of a message that came too late is not taken for one.
func TestConnsShutdownDropsARest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipeSize(10, pipeSize)
		c := newConn(nc, nil, config{})
		t.Cleanup(func() { c.Close(); peer.Close() })
		var s Conns
		require.True(t, s.join(c))
		send(t, peer, frame(true, OpPing, strings.Repeat("p", 100), true)) // its Pong holds the wire
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := later(func() error { _, _, err := c.Read(ctx, nil); return err })
		synctest.Wait()
		_ = drain(t.Context(), &s, StatusGoingAway, "")
		late := frame(true, OpText, "HelloWorld", true)
		send(t, peer, late[:len(late)-5])
		require.ErrorIs(t, <-first, context.DeadlineExceeded)
		send(t, peer, late[len(late)-5:])
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, msg, err := c.Read(ctx, nil)
		require.ErrorIs(t, err, net.ErrClosed, "%q", msg)
	})
}

// Of a connection that the peer has closed already, that is what there is to know.
func TestConnsShutdownOfAConnectionThatThePeerCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		var s Conns
		require.True(t, s.join(c))
		c.beginWait()
		require.True(t, c.awaitSession(t.Context())) // as Shutdown does, before it looks further
		c.endWait()
		c.out.err.set(&CloseError{StatusNormalClosure, ""})
		send(t, peer, closeFrame(StatusNormalClosure, "", true))
		_, _, err := c.Read(t.Context(), nil)
		require.Equal(t, &CloseError{StatusNormalClosure, ""}, err)
	})
}
