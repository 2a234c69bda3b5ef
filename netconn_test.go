package websocket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNetConn(t *testing.T) {
	t.Run("bytes through messages", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			nc := NetConn(c, Binary)
			send(t, peer, frame(false, OpBinary, "ab", true), frame(true, OpContinuation, "c", true),
				frame(true, OpBinary, "", true), frame(true, OpPing, "p", true), frame(true, OpBinary, "def", true))
			got := make([]byte, 6)
			_, err := io.ReadFull(nc, got)
			require.NoError(t, err)
			require.Equal(t, "abcdef", string(got))
			n, err := nc.Read(nil)
			require.NoError(t, err)
			require.Zero(t, n)
			n, err = io.WriteString(nc, "Hello")
			require.NoError(t, err)
			require.Equal(t, 5, n)
			expect(t, peer, frame(true, OpPong, "p", false), frame(true, OpBinary, "Hello", false))
			require.Equal(t, c.LocalAddr(), nc.LocalAddr())
			require.Equal(t, c.RemoteAddr(), nc.RemoteAddr())
		})
	})
	t.Run("ends", func(t *testing.T) {
		for code, clean := range map[StatusCode]bool{1000: true, 1001: true, 1005: true, 1011: false, 4000: false} {
			synctest.Test(t, func(t *testing.T) {
				c, peer := serve(t, config{})
				nc := NetConn(c, Binary)
				send(t, peer, closeFrame(code, "", true))
				_, err := nc.Read(make([]byte, 1))
				if clean {
					require.Equal(t, io.EOF, err)
				} else {
					var ce *CloseError
					require.ErrorAs(t, err, &ce)
				}
				_, err = nc.Write([]byte("x"))
				require.Error(t, err)
				require.NotErrorIs(t, err, io.EOF)
			})
		}
	})
	t.Run("Close", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			nc := NetConn(c, Binary)
			read := make(chan error, 1)
			go func() { _, err := nc.Read(make([]byte, 1)); read <- err }()
			synctest.Wait()
			require.NoError(t, nc.SetDeadline(time.Now().Add(time.Hour)))
			require.NoError(t, nc.Close())
			require.ErrorIs(t, <-read, net.ErrClosed)
			_, err := nc.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed)
			require.ErrorIs(t, nc.SetDeadline(time.Now()), net.ErrClosed)
			expect(t, peer, closeFrame(StatusNormalClosure, "", false))
			expectEOF(t, peer)
		})
	})
	t.Run("another type", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			send(t, peer, frame(true, OpText, "no", true))
			peer.CloseWrite()
			_, err := NetConn(c, Binary).Read(make([]byte, 1))
			var perr *ProtocolError
			require.ErrorAs(t, err, &perr)
			require.Equal(t, StatusUnsupportedData, perr.Code)
			expect(t, peer, closeFrame(1003, perr.Reason, false))
		})
	})
	t.Run("any type", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, peer := serve(t, config{})
			nc := NetConn(c, 0)
			b := make([]byte, 10)
			_, _ = nc.Write([]byte("0"))
			send(t, peer, frame(true, OpText, "x", true))
			_, err := nc.Read(b)
			require.NoError(t, err)
			_, _ = nc.Write([]byte("1"))
			send(t, peer, frame(true, OpBinary, "x", true))
			_, err = nc.Read(b)
			require.NoError(t, err)
			_, _ = nc.Write([]byte("2"))
			expect(t, peer, frame(true, OpBinary, "0", false), frame(true, OpText, "1", false), frame(true, OpBinary, "2", false))
		})
	})
}

func TestNetConnDeadlines(t *testing.T) {
	requireTimeout := func(t *testing.T, err error) {
		t.Helper()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		ne, ok := err.(net.Error)
		require.True(t, ok)
		require.True(t, ne.Timeout())
	}
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{keepAlive: -1})
		nc := NetConn(c, Binary)
		b := make([]byte, 10)
		start := time.Now()
		require.NoError(t, nc.SetReadDeadline(start.Add(time.Second)))
		_, err := nc.Read(b)
		requireTimeout(t, err)
		require.Equal(t, time.Second, time.Since(start))
		_, err = nc.Read(b)
		requireTimeout(t, err)

		// Nothing is lost in the middle of a message.
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(time.Second)))
		send(t, peer, frame(true, OpBinary, "abcdef", true)[:8])
		n, err := nc.Read(b)
		require.NoError(t, err)
		require.Equal(t, "ab", string(b[:n]))
		_, err = nc.Read(b)
		requireTimeout(t, err)
		require.NoError(t, nc.SetReadDeadline(time.Time{}))
		send(t, peer, frame(true, OpBinary, "abcdef", true)[8:])
		n, err = nc.Read(b)
		require.NoError(t, err)
		require.Equal(t, "cdef", string(b[:n]))

		// A deadline that is moved holds for a pending Read too.
		read := make(chan error, 1)
		go func() { _, err := nc.Read(b); read <- err }()
		synctest.Wait()
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(time.Hour)))
		synctest.Wait()
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(2*time.Hour)))
		elapse(90 * time.Minute)
		require.Empty(t, read)
		require.NoError(t, nc.SetReadDeadline(time.Now()))
		requireTimeout(t, <-read)
		require.NoError(t, nc.SetDeadline(time.Time{}))

		require.NoError(t, nc.SetWriteDeadline(time.Now().Add(-1)))
		_, err = nc.Write([]byte("no effect"))
		requireTimeout(t, err)
		require.NoError(t, nc.SetWriteDeadline(time.Now().Add(time.Hour)))
		_, err = nc.Write([]byte("x"))
		require.NoError(t, err)
		expect(t, peer, frame(true, OpBinary, "x", false))
		_, err = nc.Write(make([]byte, 1<<20))
		requireTimeout(t, err)
		_, err = nc.Write(nil)
		require.ErrorIs(t, err, net.ErrClosed, "the frame was cut")
	})
}

// A copy from one NetConn to another keeps messages.
func TestNetConnRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		nc := NetConn(c, 0)
		done := make(chan error, 1)
		go func() { _, err := io.Copy(nc, nc); done <- err }()
		send(t, peer, frame(true, OpText, "", true), frame(false, OpText, "a", true), frame(true, OpContinuation, "b", true),
			frame(true, OpBinary, "c", true))
		expect(t, peer, frame(true, OpText, "", false), frame(true, OpText, "ab", false), frame(true, OpBinary, "c", false))
		send(t, peer, closeFrame(1000, "", true))
		require.NoError(t, <-done)
	})
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		var b strings.Builder
		send(t, peer, frame(true, OpBinary, "ab", true), frame(true, OpBinary, "c", true), closeFrame(1000, "", true))
		n, err := NetConn(c, Binary).(io.WriterTo).WriteTo(&b)
		require.NoError(t, err)
		require.EqualValues(t, 3, n)
		require.Equal(t, "abc", b.String())
	})
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		to, _ := serve(t, config{})
		send(t, peer, frame(true, OpText, "ab", true))
		peer.CloseWrite()
		_, err := io.Copy(NetConn(to, Binary), NetConn(c, Binary))
		require.ErrorIs(t, err, error(errWrongType))
	})
}

// An error of either side ends a copy.
func TestNetConnRelayFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, peer := serve(t, config{})
		to, _ := serve(t, config{})
		require.NoError(t, to.Close())
		send(t, peer, frame(true, OpBinary, "ab", true))
		n, err := io.Copy(NetConn(to, Binary), NetConn(from, Binary))
		require.ErrorIs(t, err, net.ErrClosed)
		require.Zero(t, n)
	})
	synctest.Test(t, func(t *testing.T) {
		from, peer := serve(t, config{})
		to, other := serve(t, config{})
		copied := later(func() error { _, err := io.Copy(NetConn(to, 0), NetConn(from, 0)); return err })
		send(t, peer, frame(true, OpBinary, "ab", true)[:7])
		synctest.Wait()
		require.NoError(t, peer.Close())
		require.ErrorIs(t, <-copied, io.ErrUnexpectedEOF)
		_, err := NetConn(to, Text).Write([]byte("next"))
		require.NoError(t, err, "nothing of the message is out")
		expect(t, other, frame(true, OpText, "next", false))
	})
	synctest.Test(t, func(t *testing.T) {
		from, peer := serve(t, config{})
		to, other := serve(t, config{})
		copied := later(func() error { _, err := io.Copy(NetConn(to, 0), NetConn(from, 0)); return err })
		half := strings.Repeat("x", streamBufferSize+10)
		send(t, peer, frame(false, OpBinary, half, true))
		synctest.Wait()
		require.NoError(t, peer.Close())
		require.ErrorIs(t, <-copied, io.ErrUnexpectedEOF)
		require.ErrorIs(t, to.Write(t.Context(), Text, nil), net.ErrClosed, "it cannot be completed")
		expect(t, other, frame(false, OpBinary, half[:streamBufferSize], false), closeFrame(StatusGoingAway, "", false))
		expectEOF(t, other)
	})
}

func TestNetConnLargeTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := connect(t, config{}, config{})
		x, y := NetConn(c, Binary), NetConn(s, Binary)
		data := bytes.Repeat([]byte("0123456789"), 300_000)
		go func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1<<10+len(rest)/7)
				_, err := x.Write(rest[:n])
				assert.NoError(t, err)
				rest = rest[n:]
			}
			assert.NoError(t, x.Close())
		}()
		got, err := io.ReadAll(y)
		if err != nil {
			require.NoError(t, errors.Join(err))
		}
		require.True(t, bytes.Equal(data, got))
	})
}

// A message without payload is not the end of what a Read waits for.
func TestNetConnReadsPastEmptyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{})
		send(t, peer, frame(true, OpBinary, "", true), frame(true, OpBinary, "x", true))
		n, err := NetConn(c, Binary).Read(make([]byte, 10))
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

// The type of a NetConn that has one is that of all its messages, wherever they come from.
func TestNetConnRelaysToItsType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, peer := serve(t, config{})
		to, other := serve(t, config{})
		send(t, peer, frame(true, OpText, "x", true), closeFrame(1000, "", true))
		_, err := io.Copy(NetConn(to, Binary), NetConn(from, 0))
		require.NoError(t, err)
		expect(t, other, frame(true, OpBinary, "x", false))
	})
}
