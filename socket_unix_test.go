//go:build unix

package websocket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// socketPair returns a socket and the other end of its connection.
func socketPair(t *testing.T) (*socket, net.Conn, net.Conn) { return socketOf(t, tcpPair) }

func socketOf(t *testing.T, pair func(testing.TB) (net.Conn, net.Conn)) (*socket, net.Conn, net.Conn) {
	nc, peer := pair(t)
	s := new(socket)
	s.open(nc)
	require.True(t, s.usable())
	return s, nc, peer
}

func TestSocketOfOthers(t *testing.T) {
	a, _ := newPipe()
	nc, _ := tcpPair(t)
	for _, nc := range []net.Conn{a, struct{ net.Conn }{nc}} {
		var s socket
		s.open(nc)
		require.False(t, s.usable(), "what is above a socket is not gone past")
	}
}

// A write that waits shows how far it is while the peer takes it piece by piece.
func TestSocketWriteShowsProgress(t *testing.T) {
	s, nc, peer := socketPair(t)
	p := bytes.Repeat([]byte("0123456789"), 2<<20)
	var progress atomic.Uint64
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := s.write(p, true, &progress)
		done <- result{n, err}
	}()
	deadline := time.Now().Add(10 * time.Second)
	steps := 0
	var got []byte
	for chunk := make([]byte, 4<<20); len(got) < len(p); {
		before := progress.Load()
		n, err := io.ReadFull(peer, chunk[:min(len(chunk), len(p)-len(got))])
		require.NoError(t, err)
		got = append(got, chunk[:n]...)
		for len(done) == 0 && progress.Load() == before {
			require.True(t, time.Now().Before(deadline))
			runtime.Gosched()
		}
		steps++
	}
	require.True(t, bytes.Equal(p, got))
	require.Equal(t, result{len(p), nil}, <-done)
	require.GreaterOrEqual(t, progress.Load(), uint64(steps-1))

	// A deadline interrupts it, and says how much is out.
	require.NoError(t, nc.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
	progress.Store(0)
	n, err := s.write(p, true, &progress)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Less(t, n, len(p))
	require.NoError(t, nc.SetWriteDeadline(time.Time{}))
	m, err := s.write(nil, true, &progress)
	require.NoError(t, err)
	require.Zero(t, m)
	require.NoError(t, nc.Close())
	rest, err := io.ReadAll(peer)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p[:n], rest), "what is said to be out is what arrives")
}

// A write that does not wait returns what the socket has taken.
func TestSocketWriteWithoutWaiting(t *testing.T) {
	s, nc, peer := socketOf(t, unixPair)
	var progress atomic.Uint64
	n, err := s.write([]byte("Hello"), false, &progress)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.EqualValues(t, 1, progress.Load())
	expect(t, peer, []byte("Hello"))

	p := make([]byte, 32<<20)
	n, err = s.write(p, false, &progress)
	require.NoError(t, err)
	require.NotZero(t, n)
	require.Less(t, n, len(p))
	fill(t, nc)
	before := progress.Load()
	n, err = s.write([]byte("Hello"), false, &progress)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, before, progress.Load())
}

func TestSocketOfAPeerThatHasReset(t *testing.T) {
	for _, waits := range []bool{false, true} {
		s, nc, peer := socketPair(t)
		require.NoError(t, peer.(*net.TCPConn).SetLinger(0))
		require.NoError(t, peer.Close())
		var progress atomic.Uint64
		n, err := s.write([]byte("Hello"), waits, &progress)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Zero(t, n)
		require.Zero(t, progress.Load())
		se, ok := errors.AsType[*os.SyscallError](err)
		require.True(t, ok)
		require.Equal(t, "write", se.Syscall)
		_, err = s.write([]byte("Hello"), waits, &progress)
		require.ErrorIs(t, err, syscall.EPIPE, "what is in the pool does not keep an error")
		_, err = s.read(readBufferSize)
		require.ErrorIs(t, err, io.EOF)
		require.Nil(t, s.take())
		require.NoError(t, nc.Close())
		_, err = s.write([]byte("Hello"), waits, &progress)
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = s.read(readBufferSize)
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

// A first try that the socket takes in part is gone on with.
func TestWriteOfMoreThanTheSocketTakes(t *testing.T) {
	peer, nc := tcpPair(t)
	require.NoError(t, nc.(*net.TCPConn).SetWriteBuffer(16<<10)) // less than a message
	c := newConn(nc, nil, config{})
	defer c.Close()
	p := string(bytes.Repeat([]byte("0123456789"), 6<<10))
	const messages = 300 // more than the network holds
	written := later(func() error {
		for range messages {
			if err := c.Write(t.Context(), Text, []byte(p)); err != nil {
				return err
			}
		}
		return nil
	})
	for range messages {
		expect(t, peer, frame(true, OpText, p, false))
	}
	require.NoError(t, <-written)
	require.Greater(t, c.out.sent.Load(), uint64(messages), "some were taken in pieces")
}
