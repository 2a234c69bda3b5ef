package websocket

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// later runs f in a goroutine and returns its result.
func later(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// A Write that finds no room sends what has gathered first. Others may take the room
// meanwhile.
func TestRoomIsTakenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipeSize(10, pipeSize)
		c := newConn(nc, nil, config{})
		defer c.Close()
		queued, written := strings.Repeat("q", 10_000), strings.Repeat("w", 60_000)
		require.NoError(t, c.Queue(t.Context(), Binary, []byte(queued)))
		write := later(func() error { return c.Write(t.Context(), Binary, []byte(written)) })
		synctest.Wait()
		require.NoError(t, c.Queue(t.Context(), Binary, []byte(queued)))
		expect(t, peer, frame(true, OpBinary, queued, false))
		window(peer, pipeSize)
		expect(t, peer, frame(true, OpBinary, queued, false), frame(true, OpBinary, written, false))
		require.NoError(t, <-write)
	})
}

// A large message does not begin inside another one's frame, whoever gave up what meanwhile.
func TestLargeMessageBeginsBetweenFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, peer := newPipeSize(0, pipeSize)
		c := newConn(nc, nil, config{})
		defer c.Close()
		write := func(ctx context.Context, p string) <-chan error {
			done := later(func() error { return c.Write(ctx, Text, []byte(p)) })
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := write(t.Context(), "first")
		require.NoError(t, c.Queue(t.Context(), Text, []byte("queued")))
		gone := write(ctx, "gone")
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		big := strings.Repeat("x", joinedSize+1)
		large := write(t.Context(), big)

		// The large message's writer has the wire, and sends what is queued.
		window(peer, 2+5)
		require.NoError(t, <-first)
		synctest.Wait()
		one, two := write(t.Context(), "one"), write(t.Context(), "two")
		ctx, cancel = context.WithCancel(t.Context())
		three := write(ctx, "three")
		window(peer, 2+5+2+6+2+3+3) // up to the middle of the second
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-three, context.Canceled)
		synctest.Wait()
		window(peer, pipeSize)
		for _, p := range []string{"first", "queued", "one", "two"} {
			expect(t, peer, frame(true, OpText, p, false))
		}
		expect(t, peer, frame(true, OpText, big, false))
		for _, done := range []<-chan error{one, two, large} {
			require.NoError(t, <-done)
		}
	})
}
