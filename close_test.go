package websocket

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStatusCodes(t *testing.T) {
	sendable := func(from, to StatusCode) {
		for code := from; code <= to; code++ {
			ce, perr := parseClose(appendClose(nil, code, "why"))
			require.Nil(t, perr, code)
			require.Equal(t, &CloseError{code, "why"}, ce)
		}
	}
	refused := func(from, to StatusCode) {
		for code := from; ; code++ {
			_, perr := parseClose([]byte{byte(code >> 8), byte(code)})
			require.NotNil(t, perr, code)
			require.Equal(t, StatusProtocolError, perr.Code)
			if code == to {
				return
			}
		}
	}
	// RFC 6455 section 7.4.2 and the codes registered since.
	refused(0, 999)
	sendable(1000, 1003)
	refused(1004, 1006)
	sendable(1007, 1014)
	refused(1015, 2999)
	sendable(3000, 4999)
	refused(5000, 65535)

	assert.Equal(t, "1001 (going away)", StatusGoingAway.String())
	assert.Equal(t, "4000", StatusCode(4000).String())
	assert.Equal(t, `websocket: closed by the peer: 1000 (normal closure): "bye"`, (&CloseError{1000, "bye"}).Error())
	assert.Equal(t, "websocket: closed by the peer: 1005 (no status received)", (&CloseError{Code: 1005}).Error())
	assert.Equal(t, "websocket: 1002 (protocol error): reserved opcode (RFC 6455 section 5.2)", errReservedOpcode.Error())
	assert.Empty(t, appendClose(nil, StatusNoStatusReceived, "x"))
}

// RFC 6455 sections 5.5.1 and 7.1.5: the peer's Close is answered with its code and reason.
func TestPeerCloses(t *testing.T) {
	for _, payload := range []string{"", "\x03\xe8", "\x0f\xa0bye", "\x03\xe9" + strings.Repeat("x", 123)} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpClose, payload, true))
			start := time.Now()
			_, _, err := c.Read(t.Context(), nil)
			var ce *CloseError
			require.ErrorAs(t, err, &ce)
			require.Zero(t, time.Since(start), "a server drops TCP at once")
			if payload == "" {
				require.Equal(t, &CloseError{Code: StatusNoStatusReceived}, ce)
			} else {
				require.Equal(t, payload, string(appendClose(nil, ce.Code, ce.Reason)))
			}
			expect(t, peer, frame(true, OpClose, payload, false))
			expectEOF(t, peer)

			_, _, again := c.Read(t.Context(), nil)
			require.Equal(t, err, again)
			require.Equal(t, err, c.Write(t.Context(), Text, nil))
			require.Equal(t, err, c.Ping(t.Context()))
			require.NoError(t, c.Shutdown(t.Context(), StatusNormalClosure, ""), "it is closed as it should be")
			require.NoError(t, c.Close())
			require.NoError(t, c.Close())
		})
	}
}

// RFC 6455 section 7.1.1: a client leaves it to the server to drop TCP, for a while.
func TestClientWaitsForServerToDrop(t *testing.T) {
	for _, wait := range []time.Duration{0, lingerTimeout / 2, 2 * lingerTimeout} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{client: true})
			done := make(chan struct{})
			go func() {
				defer close(done)
				send(t, peer, closeFrame(1000, "", false))
				elapse(wait)
				_ = peer.CloseWrite()
			}()
			start := time.Now()
			_, _, err := c.Read(t.Context(), nil)
			var ce *CloseError
			require.ErrorAs(t, err, &ce)
			require.Equal(t, min(wait, lingerTimeout), time.Since(start))
			<-done
		})
	}
}

func TestShutdown(t *testing.T) {
	t.Run("nobody reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(false, OpText, "dis", true), frame(true, OpPing, "x", true), frame(true, OpContinuation, "carded", true))
			done := make(chan error, 1)
			go func() { done <- c.Shutdown(t.Context(), 4000, "over") }()
			expect(t, peer, closeFrame(4000, "over", false))
			elapse(time.Second)
			require.Empty(t, done)
			send(t, peer, frame(true, OpBinary, strings.Repeat("x", 40_000), true), closeFrame(4000, "over", true))
			require.NoError(t, <-done)
			expectEOF(t, peer)
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, net.ErrClosed)
			require.ErrorIs(t, c.Write(t.Context(), Text, nil), net.ErrClosed)
			require.ErrorIs(t, c.Ping(t.Context()), net.ErrClosed)
			require.ErrorIs(t, c.Shutdown(t.Context(), 1000, ""), net.ErrClosed)
			_, err = c.NextWriter(t.Context(), Text)
			require.ErrorIs(t, err, net.ErrClosed)
		})
	})
	t.Run("another goroutine reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			type result struct {
				msg string
				err error
			}
			read := make(chan result, 2)
			go func() {
				for range 2 {
					_, msg, err := c.Read(t.Context(), nil)
					read <- result{string(msg), err}
				}
			}()
			synctest.Wait()
			done := make(chan error, 1)
			go func() { done <- c.Shutdown(t.Context(), 1000, "") }()
			expect(t, peer, closeFrame(1000, "", false))
			send(t, peer, frame(true, OpText, "on its way", true), frame(true, OpText, "discarded", true))
			synctest.Wait()
			require.Equal(t, result{msg: "on its way"}, <-read)
			require.ErrorIs(t, (<-read).err, net.ErrClosed)
			require.Empty(t, done)
			send(t, peer, closeFrame(1000, "", true))
			require.NoError(t, <-done)
		})
	})
	t.Run("the pending Read sees the answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			read := make(chan error, 1)
			go func() { _, _, err := c.Read(t.Context(), nil); read <- err }()
			synctest.Wait()
			done := make(chan error, 1)
			go func() { done <- c.Shutdown(t.Context(), 1000, "") }()
			expect(t, peer, closeFrame(1000, "", false))
			send(t, peer, closeFrame(1000, "", true))
			require.NoError(t, <-done)
			require.ErrorIs(t, <-read, net.ErrClosed)
		})
	})
	t.Run("inside a streamed read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(false, OpText, "begin", true))
			_, r, err := c.NextReader(t.Context())
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() { done <- c.Shutdown(t.Context(), 1000, "") }()
			expect(t, peer, closeFrame(1000, "", false))
			_, err = io.ReadAll(r)
			require.ErrorIs(t, err, net.ErrClosed)
			send(t, peer, frame(true, OpContinuation, "end", true), closeFrame(1000, "", true))
			require.NoError(t, <-done)
		})
	})
	t.Run("while the connection fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			read := make(chan error, 1)
			go func() { _, _, err := c.Read(t.Context(), nil); read <- err }()
			send(t, peer, frame(true, OpText, "unmasked", false))
			synctest.Wait()
			start := time.Now()
			require.Equal(t, error(errNotMasked), c.Shutdown(t.Context(), 1000, ""))
			require.Equal(t, lingerTimeout, time.Since(start), "the peer has time to read why")
			require.Equal(t, error(errNotMasked), <-read)
			expect(t, peer, closeFrame(StatusProtocolError, errNotMasked.Reason, false))
			expectEOF(t, peer)
		})
	})
	t.Run("both at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := connect(t, config{}, config{})
			done := make(chan error, 2)
			go func() { done <- c.Shutdown(t.Context(), 4001, "client") }()
			go func() { done <- s.Shutdown(t.Context(), 4002, "server") }()
			require.NoError(t, <-done)
			require.NoError(t, <-done)
		})
	})
	t.Run("both at once, while both read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := connect(t, config{}, config{})
			read, done := make(chan error, 2), make(chan error, 2)
			for _, x := range []*Conn{c, s} {
				go func() { _, _, err := x.Read(t.Context(), nil); read <- err }()
				go func() { done <- x.Shutdown(t.Context(), StatusNormalClosure, "") }()
			}
			require.NoError(t, <-done)
			require.NoError(t, <-done)
			for range 2 {
				err := <-read
				var ce *CloseError
				require.True(t, errors.Is(err, net.ErrClosed) || errors.As(err, &ce), err)
			}
		})
	})
	t.Run("several at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			done := make(chan error, 2)
			go func() { done <- c.Shutdown(t.Context(), 1000, "") }()
			expect(t, peer, closeFrame(1000, "", false))
			require.ErrorIs(t, c.Shutdown(t.Context(), 1000, ""), net.ErrClosed)
			synctest.Wait()
			require.Empty(t, done, "the second does not cut the first")
			send(t, peer, closeFrame(1000, "", true))
			require.NoError(t, <-done)
		})
	})
	t.Run("the peer never answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: -1})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			start := time.Now()
			require.ErrorIs(t, c.Shutdown(ctx, 1000, ""), context.DeadlineExceeded)
			require.Equal(t, time.Hour, time.Since(start))
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, net.ErrClosed)
			expect(t, peer, closeFrame(1000, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("the peer goes on sending", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			stop := make(chan struct{})
			go func() {
				defer close(stop)
				for {
					elapse(time.Millisecond)
					if _, err := peer.Write(frame(true, OpText, "more", true)); err != nil {
						return
					}
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.ErrorIs(t, c.Shutdown(ctx, 1000, ""), context.DeadlineExceeded)
			<-stop
		})
	})
	t.Run("cut by Close", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			go func() { elapse(time.Second); c.Close() }()
			require.ErrorIs(t, c.Shutdown(t.Context(), 1000, ""), net.ErrClosed, "the handshake was not completed")
			expect(t, peer, closeFrame(1000, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("the peer drops TCP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			go func() { elapse(time.Second); peer.Close() }()
			require.ErrorIs(t, c.Shutdown(t.Context(), 1000, ""), io.ErrUnexpectedEOF)
		})
	})
	t.Run("the peer errs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "not masked", false))
			var perr *ProtocolError
			require.ErrorAs(t, c.Shutdown(t.Context(), 1000, ""), &perr)
			expect(t, peer, closeFrame(1000, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("a Write is stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := serve(t, config{})
			written := make(chan error, 1)
			go func() { written <- c.Write(t.Context(), Binary, make([]byte, 1<<20)) }()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, c.Shutdown(ctx, 1000, ""), context.DeadlineExceeded)
			require.ErrorIs(t, <-written, net.ErrClosed)
		})
	})
	t.Run("the Close frame cannot be sent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			peer.Close()
			require.ErrorIs(t, c.Shutdown(t.Context(), 1000, ""), syscall.EPIPE)
			select {
			case <-c.over():
			default:
				require.Fail(t, "TCP was not dropped")
			}
		})
	})
	t.Run("what may not be sent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			for _, code := range []StatusCode{0, 999, 1004, 1005, 1006, 1015, 2999, 5000} {
				require.ErrorContains(t, c.Shutdown(t.Context(), code, ""), "may not be sent")
			}
			require.ErrorContains(t, c.Shutdown(t.Context(), 1000, strings.Repeat("x", 124)), "123")
			require.ErrorContains(t, c.Shutdown(t.Context(), 1000, "\xff"), "UTF-8")
			require.NoError(t, c.Write(t.Context(), Text, []byte("nothing happened")))
			expect(t, peer, frame(true, OpText, "nothing happened", false))
		})
	})
}

func TestClose(t *testing.T) {
	t.Run("ends what is pending", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			ended := make(chan error, 4)
			go func() { _, _, err := c.Read(t.Context(), nil); ended <- err }()
			go func() { _, _, err := c.Read(t.Context(), nil); ended <- err }()
			go func() { ended <- c.Ping(t.Context()) }()
			w, err := c.NextWriter(t.Context(), Text)
			require.NoError(t, err)
			go func() { ended <- c.Write(t.Context(), Text, nil) }()
			synctest.Wait()
			start := time.Now()
			require.NoError(t, c.Close())
			require.Zero(t, time.Since(start))
			for range 4 {
				require.ErrorIs(t, <-ended, net.ErrClosed)
			}
			require.ErrorIs(t, w.Close(), net.ErrClosed)
			require.NoError(t, c.Close())
			expect(t, peer, frame(true, OpPing, "\x00\x00\x00\x00\x00\x00\x00\x01", false), closeFrame(StatusGoingAway, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("leaves the error of a closing that is under way", func(t *testing.T) {
		for want, sent := range map[error][]byte{
			&CloseError{4000, "away"}: closeFrame(4000, "away", false),
			errReservedOpcode:         frame(true, 3, "", false),
		} {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{client: true})
				read := make(chan error, 1)
				go func() { _, _, err := c.Read(t.Context(), nil); read <- err }()
				send(t, peer, sent)
				synctest.Wait()
				require.Empty(t, read, "it waits for the peer to drop TCP")
				start := time.Now()
				require.NoError(t, c.Close())
				require.Equal(t, want, <-read)
				require.Zero(t, time.Since(start))
				_, _, err := c.Read(t.Context(), nil)
				require.Equal(t, want, err)
				require.Equal(t, want, c.Write(t.Context(), Text, nil))
			})
		}
	})
	t.Run("does not wait for a stuck Write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := serve(t, config{})
			written := make(chan error, 1)
			go func() { written <- c.Write(t.Context(), Binary, make([]byte, 1<<20)) }()
			synctest.Wait()
			start := time.Now()
			require.NoError(t, c.Close())
			require.LessOrEqual(t, time.Since(start), promptTimeout)
			require.ErrorIs(t, <-written, net.ErrClosed)
		})
	})
	t.Run("does not wait for a stuck TLS peer", func(t *testing.T) {
		srv := httptest.NewTLSServer(nil)
		srv.Close()
		certificates := srv.TLS.Certificates
		synctest.Test(t, func(t *testing.T) {
			tlsConfig := &tls.Config{Certificates: certificates, InsecureSkipVerify: true}
			a, b := newPipe()
			server, client := tls.Server(a, tlsConfig), tls.Client(b, tlsConfig)
			done := make(chan error, 1)
			go func() { done <- client.Handshake() }()
			require.NoError(t, server.Handshake())
			require.NoError(t, <-done)
			c := newConn(server, nil, config{})
			filler := make([]byte, 20_000)
			start := time.Now()
			for err := error(nil); err == nil; {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				err = c.Write(ctx, Binary, filler)
				cancel()
			}
			require.Equal(t, time.Second, time.Since(start), "the Write that was cut dropped TCP")
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, net.ErrClosed)
			client.Close()
		})
	})
	t.Run("lets go of contexts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := serve(t, config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, _ = c.Read(ctx, nil)
			cancel()
			ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			require.NoError(t, c.Write(ctx, Text, nil))
			require.NotNil(t, c.out.watch.armed)
			c.Close()
			require.Nil(t, c.in.watch.armed)
			require.Nil(t, c.out.watch.armed)
		})
	})
}

// RFC 6455 section 7.1.7: one Close frame with the code, then TCP is dropped, in a way that
// lets the peer read the frame.
func TestFail(t *testing.T) {
	t.Run("the peer reads its Close frame and closes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, 3, "", true), bytes.Repeat([]byte("more "), 1000))
			done := make(chan error, 1)
			go func() { _, _, err := c.Read(t.Context(), nil); done <- err }()
			expect(t, peer, closeFrame(1002, "reserved opcode", false))
			expectEOF(t, peer)
			require.Empty(t, done, "it waits for the peer to close")
			peer.Close()
			require.ErrorIs(t, <-done, error(errReservedOpcode))
		})
	})
	t.Run("a peer that does not close", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, 3, "", true))
			start := time.Now()
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, error(errReservedOpcode))
			require.Equal(t, lingerTimeout, time.Since(start))
			require.Equal(t, err, c.Write(t.Context(), Text, nil))
			require.Equal(t, err, c.Shutdown(t.Context(), 1000, ""))
			require.NoError(t, c.Close())
			expect(t, peer, closeFrame(1002, "reserved opcode", false))
			expectEOF(t, peer)
		})
	})
	t.Run("a peer that does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			written := make(chan error, 1)
			go func() { written <- c.Write(t.Context(), Binary, make([]byte, 1<<20)) }()
			synctest.Wait()
			send(t, peer, frame(true, 3, "", true))
			start := time.Now()
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorIs(t, err, error(errReservedOpcode))
			require.LessOrEqual(t, time.Since(start), closeTimeout+lingerTimeout)
			require.Error(t, <-written)
		})
	})
	t.Run("the context bounds it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, 3, "", true))
			ctx, cancel := context.WithTimeout(t.Context(), lingerTimeout/4)
			defer cancel()
			start := time.Now()
			_, _, err := c.Read(ctx, nil)
			require.ErrorIs(t, err, error(errReservedOpcode))
			require.Equal(t, lingerTimeout/4, time.Since(start))
		})
	})
}

func TestBrokenConnection(t *testing.T) {
	t.Run("reset", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			peer.reset()
			_, _, err := c.Read(t.Context(), nil)
			require.ErrorContains(t, err, "websocket: read: ")
			require.ErrorContains(t, err, "reset")
			require.Equal(t, err, c.Write(t.Context(), Text, nil))
		})
	})
	t.Run("what arrived before a failed write is read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "last words", true), closeFrame(1011, "sorry", true))
			peer.Close()
			require.Error(t, c.Write(t.Context(), Text, []byte("x")))
			_, got, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, "last words", string(got))
			_, _, err = c.Read(t.Context(), nil)
			var ce *CloseError
			require.ErrorAs(t, err, &ce)
			require.Equal(t, "sorry", ce.Reason)
		})
	})
}

// A Read that begins while Shutdown does gets a message from its first byte on, or none.
func TestReadBesideShutdown(t *testing.T) {
	message := frame(true, OpText, strings.Repeat("0123456789", 20), true)
	for range 5000 {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, message[:100])
			read, shutdown := make(chan error, 1), make(chan error, 1)
			go func() { shutdown <- c.Shutdown(t.Context(), StatusNormalClosure, "") }()
			go func() {
				_, msg, err := c.Read(t.Context(), nil)
				if err == nil && len(msg) != 200 {
					err = fmt.Errorf("%d bytes of 200", len(msg))
				}
				read <- err
			}()
			synctest.Wait()
			send(t, peer, message[100:], closeFrame(1000, "", true))
			require.NoError(t, <-shutdown)
			if err := <-read; err != nil {
				require.ErrorIs(t, err, net.ErrClosed)
			}
		})
	}
}

// arrivalConn calls arrived when bytes have arrived, before anybody sees them.
type arrivalConn struct {
	*pipeConn
	arrived func()
}

func (c *arrivalConn) Read(p []byte) (n int, err error) {
	if n, err = c.pipeConn.Read(p); n > 0 {
		c.arrived()
	}
	return n, err
}

// Close ends a Shutdown whose Close frame is stuck.
func TestCloseEndsShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		window(peer, 0)
		shutdown := later(func() error { return c.Shutdown(t.Context(), 1000, "") })
		synctest.Wait()
		require.Empty(t, shutdown)
		require.NoError(t, c.Close())
		require.Equal(t, errClosed, <-shutdown)
	})
}

// A Read whose turn comes only after our Close leaves what arrives to Shutdown.
func TestReadBehindShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		read := func() <-chan error {
			done := later(func() error { _, _, err := c.Read(t.Context(), nil); return err })
			synctest.Wait()
			return done
		}
		first, second := read(), read()
		shutdown := later(func() error { return c.Shutdown(t.Context(), 1000, "") })
		expect(t, peer, closeFrame(1000, "", false))
		send(t, peer, frame(true, OpText, "a", true), frame(true, OpText, "b", true))
		require.NoError(t, <-first)
		require.ErrorIs(t, <-second, net.ErrClosed)
		send(t, peer, closeFrame(1000, "", true))
		require.NoError(t, <-shutdown)
	})
}

// A Close frame that arrives when the context of the Read ends is answered all the same, and so
// is what breaks a rule, but not for longer than that takes no waiting.
func TestCloseIsAnsweredAfterTheContext(t *testing.T) {
	for _, full := range []bool{false, true} {
		for _, sent := range [][]byte{closeFrame(3000, "bye", true), frame(true, OpText, "\xff", true)} {
			synctest.Test(t, func(t *testing.T) {
				size := pipeSize
				if full {
					size = 0
				}
				nc, peer := newPipeSize(size, pipeSize)
				ctx, cancel := context.WithCancel(t.Context())
				c := newConn(&arrivalConn{nc, cancel}, nil, config{})
				defer c.Close()
				send(t, peer, sent)
				require.NoError(t, peer.CloseWrite())
				start := time.Now()
				_, _, err := c.Read(ctx, nil)
				var ce *CloseError
				var perr *ProtocolError
				switch {
				case errors.As(err, &ce):
					require.Equal(t, &CloseError{3000, "bye"}, ce)
				default:
					require.ErrorAs(t, err, &perr)
				}
				if full {
					require.LessOrEqual(t, time.Since(start), promptTimeout)
				} else if ce != nil {
					expect(t, peer, closeFrame(3000, "bye", false))
				} else {
					expect(t, peer, closeFrame(perr.Code, perr.Reason, false))
				}
				expectEOF(t, peer)
			})
		}
	}
}

// FuzzClosePayload has Close frames of any payload received, and sent as far as they may be, in
// both roles.
func FuzzClosePayload(f *testing.F) {
	f.Fuzz(func(t *testing.T, payload []byte, client bool) {
		if len(payload) > maxControlPayloadSize {
			return
		}
		cfg := config{keepAlive: -1, client: client}
		nc := &replayConn{in: frame(true, OpClose, string(payload), !client)}
		c := newConn(nc, nil, cfg)
		_, _, err := c.Read(t.Context(), nil)
		assert.Equal(t, 1, strings.Count(err.Error(), "websocket: "))
		var ce *CloseError
		var perr *ProtocolError
		var code StatusCode
		if len(payload) > 1 {
			code = StatusCode(binary.BigEndian.Uint16(payload))
		}
		valid := false
		switch {
		case len(payload) == 0:
			require.ErrorAs(t, err, &ce)
			assert.Equal(t, &CloseError{Code: StatusNoStatusReceived}, ce)
		case len(payload) == 1 || !mayTravel(payload):
			require.ErrorAs(t, err, &perr)
			assert.Equal(t, StatusProtocolError, perr.Code)
		case endOfText(payload[2:]) < len(payload)-2:
			require.ErrorAs(t, err, &perr)
			assert.Equal(t, StatusInvalidFramePayloadData, perr.Code)
		default:
			valid = true
			require.ErrorAs(t, err, &ce)
			assert.Equal(t, &CloseError{code, string(payload[2:])}, ce)
			assert.Contains(t, err.Error(), strconv.Itoa(int(code)))
		}
		if perr != nil {
			assert.Equal(t, closeFrame(perr.Code, perr.Reason, false), unmasked(nc.out))
		} else {
			assert.Equal(t, frame(true, OpClose, string(payload), false), unmasked(nc.out), "the same comes back")
		}
		assert.Error(t, c.Write(t.Context(), Text, nil))

		// What may be received may be sent, and nothing else but that it must have a code.
		if len(payload) < 2 {
			return
		}
		nc = &replayConn{in: frame(true, OpClose, string(payload), !client)}
		c = newConn(nc, nil, cfg)
		err = c.Shutdown(t.Context(), code, string(payload[2:]))
		if valid {
			require.NoError(t, err)
			assert.Equal(t, frame(true, OpClose, string(payload), false), unmasked(nc.out))
			return
		}
		require.Error(t, err)
		assert.Empty(t, nc.out)
		require.NoError(t, c.Write(t.Context(), Text, nil), "nothing has happened")
	})
}

// While our Close frame waits, what arrives is dropped: else two that wait for each other to read
// would never close.
func TestShutdownReadsWhileItsCloseWaits(t *testing.T) {
	t.Run("a peer that answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := connect(t, config{}, config{})
			echoed := make(chan error, 1)
			go func() {
				for {
					typ, msg, err := s.Read(context.Background(), nil)
					if err == nil {
						err = s.Write(context.Background(), typ, msg)
					}
					if err != nil {
						echoed <- err
						return
					}
				}
			}()
			go func() {
				for c.Write(context.Background(), Binary, make([]byte, 1000)) == nil {
				}
			}()
			synctest.Wait() // both are stuck
			start := time.Now()
			require.NoError(t, c.Shutdown(t.Context(), StatusNormalClosure, "bye"))
			require.LessOrEqual(t, time.Since(start), promptTimeout)
			require.Equal(t, &CloseError{StatusNormalClosure, "bye"}, <-echoed)
		})
	})
	t.Run("a peer that is dead", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{keepAlive: time.Second})
			window(peer, 0)
			start := time.Now()
			require.ErrorIs(t, c.Shutdown(t.Context(), StatusNormalClosure, ""), os.ErrDeadlineExceeded)
			require.LessOrEqual(t, time.Since(start), 2*time.Second)
		})
	})
}

// A Shutdown whose context ends drops TCP, although a Read is about to.
func TestShutdownCutsTheAnswerOfARead(t *testing.T) {
	for _, sent := range [][]byte{closeFrame(4000, "x", true), frame(true, 3, "", true)} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			written := later(func() error { return c.Write(context.Background(), Binary, make([]byte, 1<<20)) })
			read := later(func() error { _, _, err := c.Read(context.Background(), nil); return err })
			synctest.Wait()
			send(t, peer, sent)
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			require.ErrorIs(t, c.Shutdown(ctx, StatusNormalClosure, ""), context.DeadlineExceeded)
			require.Equal(t, time.Second, time.Since(start))
			require.True(t, c.isOver())
			require.Error(t, <-read)
			require.Error(t, <-written)
			require.Equal(t, time.Second, time.Since(start))
		})
	}
}
