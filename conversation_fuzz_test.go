package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzConversation lets a script use both ends of a connection from several goroutines each.
// Messages arrive once, in order and intact; those of which a Write said that its context ended
// do not arrive; the peer's Close frame comes behind all others; no end ever blames the other;
// and unless something was done that may end the connection, all of them arrive.
func FuzzConversation(f *testing.F) {
	f.Fuzz(func(t *testing.T, mode uint16, script []byte) {
		if len(script) > 80 {
			return
		}
		synctest.Test(t, func(t *testing.T) { converse(t, mode, script) })
	})
}

const lanes = 2 // goroutines that send, of each side

// side is one end of a conversation.
type side struct {
	name  string
	c     *Conn
	peer  *side
	style int  // of reading
	loops bool // what is read whole is read by Messages
	roomy bool // the network takes all that a script sends, at once

	lanes [lanes]chan func()
	next  [lanes]int  // message
	risky atomic.Bool // something is done that may end the connection

	mu      sync.Mutex
	sent    [lanes][]int // messages that were sent, according to Write
	unsure  [lanes][]int // the one that was being sent when the connection ended may have arrived
	got     [lanes][]int // messages of the peer
	dropped *[2]int      // lane and number of one whose end is still to be seen
	err     error        // that reading ended with
}

func converse(t *testing.T, mode uint16, script []byte) {
	take := func(n uint16) int {
		v := mode % n
		mode /= n
		return int(v)
	}
	var cfg config
	cfg.deflate = []*deflateParams{nil, agreed(false, 15), agreed(true, 9), agreed(true, 15)}[take(4)]
	cfg.keepAlive = []time.Duration{-1, time.Second}[take(2)]
	size := [][2]int{{pipeSize, pipeSize}, {300, 300}, {5000, 300}, {300, pipeSize}}[take(4)]
	chunk := []int{0, 7}[take(2)]
	c, s := &side{name: "client", style: take(8)}, &side{name: "server", style: take(8)}
	closer := []*side{c, s}[take(2)]
	c.loops, s.loops = take(2) == 1, take(2) == 1
	c.peer, s.peer = s, c

	a, b := newPipeSize(size[0], size[1])
	for _, x := range []struct {
		*side
		nc net.Conn
	}{{c, a}, {s, b}} {
		if chunk > 0 {
			x.nc = &chunkConn{x.nc, chunk}
			x.roomy = size[0] == pipeSize && size[1] == pipeSize
		}
		cfg.client = x.side == c
		x.c = newConn(x.nc, nil, cfg)
	}

	var reading, sending sync.WaitGroup
	for _, x := range []*side{c, s} {
		reading.Go(func() { x.readAll(t) })
		for i := range x.lanes {
			x.lanes[i] = make(chan func(), len(script))
			sending.Go(func() {
				for f := range x.lanes[i] {
					f()
				}
			})
		}
	}
	for ; len(script) > 1; script = script[2:] {
		x := []*side{c, s}[script[0]>>3&1]
		x.do(t, script[0], int(script[1]))
	}
	for _, x := range []*side{c, s} {
		for _, lane := range x.lanes {
			close(lane)
		}
	}
	sending.Wait()
	elapse(3 * time.Second) // all that was sent is read
	if !c.ending() {
		require.NoError(t, closer.c.Shutdown(t.Context(), 3999, "bye"))
		reading.Wait()
		require.ErrorIs(t, closer.err, net.ErrClosed)
		require.Equal(t, &CloseError{3999, "bye"}, closer.peer.err)
	}
	require.NoError(t, c.c.Close())
	require.NoError(t, s.c.Close())
	reading.Wait()
	for _, x := range []*side{c, s} {
		x.judge(t)
	}
}

// judge holds what x has received against what its peer has sent.
func (x *side) judge(t *testing.T) {
	var ce *CloseError
	for i := range lanes {
		sent, got := x.peer.sent[i], x.got[i]
		if u := x.peer.unsure[i]; len(u) > 0 && slices.Contains(got, u[0]) {
			sent = append(sent, u[0])
		}
		if d := x.dropped; d != nil && d[0] == i && len(sent) > len(got) && sent[len(got)] == d[1] {
			got = append(got, d[1])
		}
		require.LessOrEqual(t, len(got), len(sent), "the %s got a message that was not sent", x.name)
		require.True(t, slices.Equal(sent[:len(got)], got), "the %s got %v of %v", x.name, got, sent)
		if errors.As(x.err, &ce) || !x.ending() {
			require.Len(t, got, len(sent), "the %s did not get all", x.name)
		}
	}
	x.mayEnd(t, x.err)
	again := x.c.Write(t.Context(), Text, nil)
	require.Error(t, again)
	x.mayEnd(t, again)
	require.Empty(t, x.c.pinging().waiting)
}

// mayEnd checks that err, which is no context's, is one that well-behaved ends can get.
func (x *side) mayEnd(t *testing.T, err error) {
	var perr *ProtocolError
	require.False(t, errors.As(err, &perr), "the %s blames its peer: %v", x.name, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, x.name)
	require.NotErrorIs(t, err, context.DeadlineExceeded, x.name)
	require.NotErrorIs(t, err, context.Canceled, x.name)
}

// fuzzedMessage is message number i of a lane, of about the size that belongs to arg. What it
// holds beside its heading is compressible by half.
func fuzzedMessage(lane, i, size int) []byte {
	b := fmt.Appendf(nil, "%d %d %d ", lane, i, size)
	rnd := rand.New(rand.NewPCG(uint64(lane), uint64(i)))
	for len(b) < size {
		if v := rnd.Uint32(); v%2 == 0 {
			b = append(b, "what comes again and again, "[:v>>1%28]...)
		} else {
			b = strconv.AppendUint(b, uint64(v), 36)
		}
	}
	return b
}

// received notes a message that came from the peer, be it only its beginning.
func (x *side) received(t *testing.T, msg []byte, whole bool) bool {
	var lane, i, size int
	_, err := fmt.Sscanf(string(msg[:min(len(msg), 30)]), "%d %d %d ", &lane, &i, &size)
	if !assert.NoError(t, err, "%.40q", msg) {
		return false
	}
	want := fuzzedMessage(lane, i, size)
	if !whole {
		want = want[:min(len(want), len(msg))]
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if d := x.dropped; d != nil {
		x.got[d[0]] = append(x.got[d[0]], d[1])
		x.dropped = nil
	}
	if whole {
		x.got[lane] = append(x.got[lane], i)
	} else {
		x.dropped = &[2]int{lane, i}
	}
	return assert.True(t, bytes.Equal(want, msg), "%s: message %d of %d bytes", x.name, i, size)
}

// readAll reads to the end, in the style of x.
func (x *side) readAll(t *testing.T) {
	var buf []byte
	for n := 0; ; n++ {
		style := x.style
		if style == 7 {
			style = n % 6
		}
		var msg []byte
		var err error
		looped := x.loops && (style < 2 || style > 4)
		if looped {
			err = x.readLoop(t, style, n)
		} else {
			msg, err = x.readOne(t, style, n, buf)
		}
		if errors.Is(err, context.DeadlineExceeded) || looped && err == nil {
			continue
		}
		if err != nil || !x.received(t, msg, style != 4) {
			x.mu.Lock()
			x.err = err
			x.mu.Unlock()
			return
		}
		buf = msg[:0]
	}
}

// readLoop reads by Messages, one message only if the style changes. The body takes its time,
// while others use the connection.
func (x *side) readLoop(t *testing.T, style, n int) error {
	ctx, cancel := t.Context(), func() {}
	switch {
	case style == 1:
		ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
	case style == 6 && n == 0:
		elapse(700 * time.Millisecond) // Ping has to read
	}
	defer cancel()
	for m, err := range x.c.Messages(ctx) {
		if err != nil {
			return err
		}
		if style == 5 {
			elapse(10 * time.Millisecond)
		}
		if !x.received(t, m.Payload, true) {
			return errMisread
		}
		spoil(m.Payload)
		if x.style == 7 {
			break
		}
	}
	return nil
}

var errMisread = errors.New("not what was sent")

func (x *side) readOne(t *testing.T, style, n int, buf []byte) (msg []byte, err error) {
	ctx, cancel := t.Context(), func() {}
	switch style {
	case 1:
		ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
	case 5:
		elapse(10 * time.Millisecond)
	case 6:
		if n == 0 {
			elapse(700 * time.Millisecond) // Ping has to read
		}
	case 2, 3, 4:
		_, r, err := x.c.NextReader(ctx)
		if err != nil {
			return nil, err
		}
		switch style {
		case 2:
			return io.ReadAll(r)
		case 3:
			var b bytes.Buffer
			_, err = r.(io.WriterTo).WriteTo(struct{ io.Writer }{&b})
			return b.Bytes(), err
		}
		msg = make([]byte, 30) // the rest is dropped
		m, err := io.ReadFull(r, msg)
		if err == io.ErrUnexpectedEOF {
			err = nil
		}
		return msg[:m], err
	}
	defer cancel()
	_, msg, err = x.c.Read(ctx, buf)
	return msg, err
}

// ending reports whether something is done that may end the connection.
func (x *side) ending() bool { return x.risky.Load() || x.peer.risky.Load() }

// do has x do a step of the script, most of them in a goroutine of its own.
func (x *side) do(t *testing.T, step byte, arg int) {
	lane := int(step >> 4 & 1)
	size := arg * []int{1, 5, 30, 300}[step>>5&3]
	if x.roomy {
		size = arg * int(1+step>>5&3)
	}
	ctx, cancel := t.Context(), func() {}
	if step&0x80 != 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Hour) // never comes, but is watched
	}
	do := func(f func()) {
		x.lanes[lane] <- func() {
			defer cancel()
			f()
		}
	}
	switch step & 7 {
	case 0:
		do(func() {
			x.send(t, lane, size, func(msg []byte) error {
				if arg%2 == 0 {
					return x.c.Write(ctx, Text, msg)
				}
				err := x.c.Queue(ctx, Text, msg)
				_ = x.c.Flush(ctx)
				return err
			})
		})
	case 1:
		do(func() {
			x.send(t, lane, size, func(msg []byte) error { return x.stream(ctx, msg, arg, time.Duration(arg)*100*time.Microsecond) })
		})
	case 2:
		do(func() {
			x.send(t, lane, size, func(msg []byte) error { return x.c.WritePrepared(ctx, Prepare(Binary, msg)) })
		})
	case 3:
		do(func() {
			if err := x.c.Ping(ctx); !x.ending() {
				assert.NoError(t, err)
			}
		})
	case 4: // A context that may end. If all of a frame can go out, none is cut.
		if !x.roomy || arg%3 == 2 {
			x.risky.Store(true)
		}
		do(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(arg%16)*time.Millisecond)
			defer cancel()
			switch arg % 3 {
			case 0:
				x.send(t, lane, size, func(msg []byte) error { return x.c.Write(ctx, Binary, msg) })
			case 1:
				if err := x.c.Ping(ctx); err != nil && !x.ending() {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				}
			case 2:
				x.send(t, lane, size, func(msg []byte) error { return x.stream(ctx, msg, arg, time.Millisecond) })
			}
		})
	case 5:
		cancel()
		elapse(time.Duration(arg) * time.Millisecond / 4)
	case 6:
		cancel()
		synctest.Wait()
	case 7:
		x.risky.Store(true)
		do(func() {
			if arg%4 == 0 {
				assert.NoError(t, x.c.Close())
				return
			}
			ctx, cancel := context.WithTimeout(ctx, time.Duration(arg)*time.Millisecond)
			defer cancel()
			_ = x.c.Shutdown(ctx, StatusCode(4000+arg), "over")
		})
	}
}

// send sends the next message of a lane.
func (x *side) send(t *testing.T, lane, size int, write func([]byte) error) {
	i := x.next[lane]
	x.next[lane]++
	err := write(fuzzedMessage(lane, i, size))
	if err == nil {
		x.mu.Lock()
		x.sent[lane] = append(x.sent[lane], i)
		x.mu.Unlock()
	} else if !errors.Is(err, context.DeadlineExceeded) {
		assert.True(t, x.ending(), "the %s's Write failed: %v", x.name, err)
		x.mu.Lock()
		x.unsure[lane] = append(x.unsure[lane], i)
		x.mu.Unlock()
	} else if errors.Is(err, net.ErrClosed) {
		assert.True(t, x.c.isOver(), "the %s's Write was not cut: %v", x.name, err)
	}
}

// stream sends a message in pieces, and takes its time.
func (x *side) stream(ctx context.Context, msg []byte, pieces int, pause time.Duration) error {
	w, err := x.c.NextWriter(ctx, Binary)
	if err != nil {
		return err
	}
	for n := 2 + pieces%3; n > 0 && err == nil; n-- {
		piece := msg[:len(msg)/n]
		msg = msg[len(piece):]
		if n == 2 {
			_, err = w.(io.ReaderFrom).ReadFrom(bytes.NewReader(piece))
		} else {
			_, err = w.Write(piece)
		}
		elapse(pause)
	}
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}
