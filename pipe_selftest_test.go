package websocket

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pipeResult is what a Read or Write returned, and when.
type pipeResult struct {
	n   int
	err error
	at  time.Duration // since the call
}

// pipeLater runs f in a goroutine and returns a channel of its result.
func pipeLater(f func([]byte) (int, error), p []byte) <-chan pipeResult {
	done := make(chan pipeResult, 1)
	start := time.Now()
	go func() {
		n, err := f(p)
		done <- pipeResult{n, err, time.Since(start)}
	}()
	return done
}

// pipeWaits fails the test unless the call that done is of is still pending.
func pipeWaits(t *testing.T, done <-chan pipeResult) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-done:
		require.Fail(t, "the call has returned", "%d, %v", r.n, r.err)
	default:
	}
}

// pipeInBubble runs f with a pipe that holds 4 bytes in each direction.
func pipeInBubble(t *testing.T, name string, f func(t *testing.T, a, b *pipeConn)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipeSize(4, 4)
			f(t, a, b)
			_ = a.Close()
			_ = b.Close()
		})
	})
}

func pipeWrite(t *testing.T, c net.Conn, s string) {
	t.Helper()
	n, err := c.Write([]byte(s))
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

func pipeRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	p := make([]byte, 100)
	n, err := c.Read(p)
	require.NoError(t, err)
	require.Equal(t, want, string(p[:n]))
}

func pipeReadError(t *testing.T, c net.Conn, target error) {
	t.Helper()
	n, err := c.Read(make([]byte, 100))
	require.ErrorIs(t, err, target)
	require.Zero(t, n)
}

func pipeWriteError(t *testing.T, c net.Conn, target error) {
	t.Helper()
	n, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, target)
	require.Zero(t, n)
}

func TestPipeData(t *testing.T) {
	pipeInBubble(t, "both directions", func(t *testing.T, a, b *pipeConn) {
		pipeWrite(t, a, "1")
		pipeWrite(t, b, "2")
		pipeWrite(t, a, "34")
		assert.Equal(t, 3, b.unread())
		pipeRead(t, b, "134")
		pipeRead(t, a, "2")
	})
	pipeInBubble(t, "Read waits for data", func(t *testing.T, a, b *pipeConn) {
		r := pipeLater(b.Read, make([]byte, 10))
		pipeWaits(t, r)
		pipeWrite(t, a, "x")
		assert.Equal(t, pipeResult{n: 1}, <-r)
	})
	pipeInBubble(t, "Write waits for room", func(t *testing.T, a, b *pipeConn) {
		w := pipeLater(a.Write, []byte("0123456789"))
		pipeWaits(t, w)
		pipeRead(t, b, "0123")
		pipeWaits(t, w)
		pipeRead(t, b, "4567")
		assert.Equal(t, pipeResult{n: 10}, <-w)
		pipeRead(t, b, "89")
	})
	pipeInBubble(t, "both sides write", func(t *testing.T, a, b *pipeConn) {
		u, v := pipeLater(a.Write, []byte("from")), pipeLater(b.Write, []byte("to"))
		assert.Equal(t, pipeResult{n: 4}, <-u)
		assert.Equal(t, pipeResult{n: 2}, <-v)
	})
	pipeInBubble(t, "Write keeps nothing", func(t *testing.T, a, b *pipeConn) {
		p := []byte("abc")
		pipeWrite(t, a, string(p))
		clear(p)
		pipeRead(t, b, "abc")
	})
	pipeInBubble(t, "empty", func(t *testing.T, a, b *pipeConn) {
		for _, f := range []func([]byte) (int, error){a.Read, a.Write} {
			n, err := f(nil)
			require.NoError(t, err)
			require.Zero(t, n)
		}
	})
	pipeInBubble(t, "Writes do not mix", func(t *testing.T, a, b *pipeConn) {
		var wg sync.WaitGroup
		for _, c := range []byte("xyz") {
			wg.Go(func() {
				n, err := a.Write(bytes.Repeat([]byte{c}, 1000))
				assert.NoError(t, err)
				assert.Equal(t, 1000, n)
			})
		}
		go func() { wg.Wait(); _ = a.CloseWrite() }()
		all, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Len(t, all, 3000)
		for i := range all {
			require.Equal(t, all[i/1000*1000], all[i])
		}
	})
	pipeInBubble(t, "addresses", func(t *testing.T, a, b *pipeConn) {
		assert.Equal(t, a.LocalAddr(), b.RemoteAddr())
		assert.Equal(t, b.LocalAddr(), a.RemoteAddr())
		assert.NotEqual(t, a.LocalAddr(), b.LocalAddr())
	})
	t.Run("default size", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipe()
			w := pipeLater(a.Write, make([]byte, pipeSize+1))
			pipeWaits(t, w)
			n, err := io.ReadFull(b, make([]byte, pipeSize+1))
			require.NoError(t, err)
			require.Equal(t, pipeSize+1, n)
			require.Equal(t, pipeResult{n: pipeSize + 1}, <-w)
		})
	})
	t.Run("no window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipeSize(0, 1)
			pipeWrite(t, b, "x")
			w := pipeLater(a.Write, []byte("x"))
			pipeWaits(t, w)
			_ = a.Close()
			require.ErrorIs(t, (<-w).err, net.ErrClosed)
		})
	})
}

func TestPipeDeadline(t *testing.T) {
	sets := map[string]func(c *pipeConn, t time.Time) error{
		"SetDeadline": (*pipeConn).SetDeadline,
		"Set one":     nil,
	}
	for name, set := range sets {
		setRead, setWrite := set, set
		if set == nil {
			setRead, setWrite = (*pipeConn).SetReadDeadline, (*pipeConn).SetWriteDeadline
		}
		pipeInBubble(t, name+", reading", func(t *testing.T, a, b *pipeConn) {
			require.NoError(t, setRead(a, time.Now().Add(time.Second)))
			r := <-pipeLater(a.Read, make([]byte, 1))
			require.ErrorIs(t, r.err, os.ErrDeadlineExceeded)
			assert.Equal(t, time.Second, r.at)
			var ne net.Error
			require.ErrorAs(t, r.err, &ne)
			assert.True(t, ne.Timeout())

			pipeWrite(t, b, "kept")
			pipeReadError(t, a, os.ErrDeadlineExceeded)
			require.NoError(t, setRead(a, time.Time{}))
			pipeRead(t, a, "kept")
		})
		pipeInBubble(t, name+", writing", func(t *testing.T, a, b *pipeConn) {
			require.NoError(t, setWrite(a, time.Now().Add(time.Second)))
			r := <-pipeLater(a.Write, []byte("012345"))
			require.ErrorIs(t, r.err, os.ErrDeadlineExceeded)
			assert.Equal(t, time.Second, r.at)
			assert.Equal(t, 4, r.n)

			pipeRead(t, b, "0123")
			pipeWriteError(t, a, os.ErrDeadlineExceeded)
			require.NoError(t, setWrite(a, time.Time{}))
			pipeWrite(t, a, "45")
		})
		pipeInBubble(t, name+", changed under a pending call", func(t *testing.T, a, b *pipeConn) {
			pipeWrite(t, a, "full")
			for _, tt := range []struct {
				call func([]byte) (int, error)
				set  func(*pipeConn, time.Time) error
			}{{a.Read, setRead}, {a.Write, setWrite}} {
				start := time.Now()
				r := pipeLater(tt.call, []byte("x"))
				pipeWaits(t, r)
				require.NoError(t, tt.set(a, start.Add(time.Minute)))
				pipeWaits(t, r)
				require.NoError(t, tt.set(a, start.Add(time.Hour))) // later
				<-time.After(2 * time.Minute)
				pipeWaits(t, r)
				require.NoError(t, tt.set(a, time.Time{})) // none
				<-time.After(2 * time.Hour)
				pipeWaits(t, r)
				require.NoError(t, tt.set(a, time.Now().Add(time.Minute)))
				require.NoError(t, tt.set(a, time.Now().Add(time.Second))) // sooner
				got := <-r
				require.ErrorIs(t, got.err, os.ErrDeadlineExceeded)
				require.Equal(t, 2*time.Minute+2*time.Hour+time.Second, got.at)

				require.NoError(t, tt.set(a, time.Time{}))
				r = pipeLater(tt.call, []byte("x"))
				pipeWaits(t, r)
				require.NoError(t, tt.set(a, time.Unix(1, 0))) // past
				require.Equal(t, time.Duration(0), (<-r).at)
				require.NoError(t, tt.set(a, time.Time{}))
			}
			pipeRead(t, b, "full")
		})
	}
	pipeInBubble(t, "the two are independent", func(t *testing.T, a, b *pipeConn) {
		require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
		pipeWrite(t, a, "x")
		pipeReadError(t, a, os.ErrDeadlineExceeded)
		require.NoError(t, b.SetWriteDeadline(time.Unix(1, 0)))
		pipeRead(t, b, "x")
		pipeWriteError(t, b, os.ErrDeadlineExceeded)
	})
	pipeInBubble(t, "all pending calls end", func(t *testing.T, a, b *pipeConn) {
		r := []<-chan pipeResult{pipeLater(a.Read, make([]byte, 1)), pipeLater(a.Read, make([]byte, 1)), pipeLater(a.Read, make([]byte, 1))}
		pipeWaits(t, r[0])
		require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Second)))
		for i := range r {
			require.ErrorIs(t, (<-r[i]).err, os.ErrDeadlineExceeded)
		}
	})
	pipeInBubble(t, "wall clock only", func(t *testing.T, a, b *pipeConn) {
		require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Second).Round(0)))
		pipeReadError(t, a, os.ErrDeadlineExceeded)
	})
}

func TestPipeClose(t *testing.T) {
	pipeInBubble(t, "the peer reads what was sent", func(t *testing.T, a, b *pipeConn) {
		pipeWrite(t, a, "last")
		require.NoError(t, a.Close())
		pipeRead(t, b, "last")
		pipeReadError(t, b, io.EOF)
		pipeReadError(t, b, io.EOF)
		pipeWriteError(t, b, syscall.EPIPE)
	})
	pipeInBubble(t, "EOF is bare", func(t *testing.T, a, b *pipeConn) {
		require.NoError(t, a.Close())
		_, err := b.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
	pipeInBubble(t, "local calls", func(t *testing.T, a, b *pipeConn) {
		pipeWrite(t, b, "lost")
		require.NoError(t, a.Close())
		pipeReadError(t, a, net.ErrClosed)
		pipeWriteError(t, a, net.ErrClosed)
		for _, err := range []error{
			a.Close(), a.CloseWrite(), a.SetDeadline(time.Now()),
			a.SetReadDeadline(time.Now()), a.SetWriteDeadline(time.Now()),
		} {
			require.ErrorIs(t, err, net.ErrClosed)
		}
	})
	pipeInBubble(t, "pending calls", func(t *testing.T, a, b *pipeConn) {
		pipeWrite(t, a, "full")
		pipeWrite(t, b, "f")
		rb := pipeLater(b.Read, nil) // returns at once
		require.Equal(t, pipeResult{}, <-rb)
		wa, wb := pipeLater(a.Write, []byte("more")), pipeLater(b.Write, []byte("0123456"))
		pipeWaits(t, wa)
		pipeWaits(t, wb)
		require.NoError(t, a.Close())
		r := <-wa
		require.ErrorIs(t, r.err, net.ErrClosed)
		require.Zero(t, r.n)
		r = <-wb
		require.ErrorIs(t, r.err, syscall.EPIPE)
		require.Equal(t, 3, r.n)
	})
	pipeInBubble(t, "pending Reads", func(t *testing.T, a, b *pipeConn) {
		ra, ra2, rb := pipeLater(a.Read, make([]byte, 1)), pipeLater(a.Read, make([]byte, 1)), pipeLater(b.Read, make([]byte, 1))
		pipeWaits(t, ra)
		pipeWaits(t, rb)
		require.NoError(t, a.Close())
		require.ErrorIs(t, (<-ra).err, net.ErrClosed)
		require.ErrorIs(t, (<-ra2).err, net.ErrClosed)
		require.Equal(t, io.EOF, (<-rb).err)
	})
	pipeInBubble(t, "with deadlines set", func(t *testing.T, a, b *pipeConn) {
		require.NoError(t, a.SetDeadline(time.Now().Add(time.Hour)))
		require.NoError(t, b.SetDeadline(time.Now().Add(time.Hour)))
		require.NoError(t, a.Close())
		pipeReadError(t, b, io.EOF)
	})
}

func TestPipeCloseWrite(t *testing.T) {
	pipeInBubble(t, "half closed", func(t *testing.T, a, b *pipeConn) {
		pipeWrite(t, a, "end")
		require.NoError(t, a.CloseWrite())
		require.NoError(t, a.CloseWrite())
		pipeWriteError(t, a, syscall.EPIPE)
		pipeRead(t, b, "end")
		pipeReadError(t, b, io.EOF)
		pipeWrite(t, b, "go")
		pipeRead(t, a, "go")
		require.NoError(t, b.CloseWrite())
		pipeReadError(t, a, io.EOF)
	})
	pipeInBubble(t, "pending calls", func(t *testing.T, a, b *pipeConn) {
		r, w := pipeLater(a.Read, make([]byte, 1)), pipeLater(b.Read, make([]byte, 1))
		pipeWaits(t, r)
		pipeWaits(t, w)
		require.NoError(t, a.CloseWrite())
		require.Equal(t, io.EOF, (<-w).err)
		pipeWaits(t, r)

		w = pipeLater(b.Write, []byte("012345"))
		require.Equal(t, 1, (<-r).n)
		pipeWaits(t, w)
		require.NoError(t, b.CloseWrite())
		got := <-w
		require.ErrorIs(t, got.err, syscall.EPIPE)
		require.Equal(t, 5, got.n)
		pipeRead(t, a, "1234")
		pipeReadError(t, a, io.EOF)
	})
}

func TestPipeReset(t *testing.T) {
	pipeInBubble(t, "reset", func(t *testing.T, a, b *pipeConn) {
		pipeWrite(t, a, "lost")
		w := pipeLater(a.Write, []byte("x"))
		pipeWaits(t, w)
		a.reset()
		require.ErrorIs(t, (<-w).err, net.ErrClosed)
		pipeReadError(t, a, net.ErrClosed)
		require.Zero(t, b.unread())
		pipeReadError(t, b, syscall.ECONNRESET)
		pipeWriteError(t, b, syscall.ECONNRESET)
		require.NoError(t, b.Close())
		pipeReadError(t, b, net.ErrClosed)
	})
	pipeInBubble(t, "pending calls", func(t *testing.T, a, b *pipeConn) {
		r, w := pipeLater(b.Read, make([]byte, 1)), pipeLater(b.Write, []byte("01234"))
		pipeWaits(t, r)
		pipeWaits(t, w)
		a.reset()
		require.ErrorIs(t, (<-r).err, syscall.ECONNRESET)
		got := <-w
		require.ErrorIs(t, got.err, syscall.ECONNRESET)
		require.Equal(t, 4, got.n)
	})
	pipeInBubble(t, "Close with input unread", func(t *testing.T, a, b *pipeConn) {
		a.resets = true
		pipeWrite(t, a, "lost")
		pipeWrite(t, b, "x")
		require.NoError(t, a.Close())
		pipeReadError(t, b, syscall.ECONNRESET)
	})
	pipeInBubble(t, "Close with all input read", func(t *testing.T, a, b *pipeConn) {
		a.resets = true
		pipeWrite(t, a, "last")
		require.NoError(t, a.Close())
		pipeRead(t, b, "last")
		pipeReadError(t, b, io.EOF)
	})
	pipeInBubble(t, "Write after the peer's Close", func(t *testing.T, a, b *pipeConn) {
		a.resets = true
		pipeWrite(t, a, "lost")
		require.NoError(t, a.Close())
		pipeWriteError(t, b, syscall.EPIPE)
		pipeReadError(t, b, syscall.ECONNRESET)
	})
}

// The point of it all: with every goroutine waiting in a pipe, time goes on.
func TestPipeLetsTimePass(t *testing.T) {
	pipeInBubble(t, "", func(t *testing.T, a, b *pipeConn) {
		pipeWrite(t, a, "full")
		calls := []<-chan pipeResult{
			pipeLater(a.Read, make([]byte, 1)), pipeLater(a.Read, make([]byte, 1)),
			pipeLater(a.Write, []byte("x")), pipeLater(a.Write, []byte("y")),
		}
		start := time.Now()
		<-time.After(24 * time.Hour)
		assert.Equal(t, 24*time.Hour, time.Since(start))
		_ = a.Close()
		for _, c := range calls {
			require.ErrorIs(t, (<-c).err, net.ErrClosed)
		}
	})
}

// Tests that count allocations must be able to go through a pipe.
func TestPipeAllocs(t *testing.T) {
	a, b := newPipe()
	p := make([]byte, 100)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		_ = a.SetReadDeadline(time.Now().Add(time.Hour))
		_, _ = b.Write(p)
		_, _ = a.Read(p)
	}))
	_ = a.Close()
}

func TestPipeStress(t *testing.T) {
	a, b := newPipeSize(37, 37)
	const total = 200_000
	var wg sync.WaitGroup
	for _, c := range []*pipeConn{a, b} {
		wg.Go(func() {
			p := patterned(total)
			for i := 0; i < total; {
				n, err := c.Write(p[i:min(i+101, total)])
				if !assert.NoError(t, err) {
					return
				}
				i += n
			}
			assert.NoError(t, c.CloseWrite())
		})
		wg.Go(func() {
			got, err := io.ReadAll(c)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(patterned(total), got))
		})
		wg.Go(func() {
			for range 1000 {
				assert.NoError(t, c.SetDeadline(time.Now().Add(time.Hour)))
			}
		})
	}
	wg.Wait()
}

func TestChunkConn(t *testing.T) {
	a, b := newPipe()
	c := &chunkConn{Conn: a, max: 3}
	pipeWrite(t, b, "12345")
	pipeRead(t, c, "123")
	pipeRead(t, c, "45")
	require.NoError(t, c.CloseWrite())
	pipeReadError(t, b, io.EOF)
	n, err := c.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n)
}
