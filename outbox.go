package websocket

import (
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// joinedSize bounds what is copied to go out in one write, and the payload up to which a
	// frame takes part in that.
	joinedSize = 64 << 10
	// queueSize is how much Queue gathers.
	queueSize = 16 << 10
)

// An outbox holds frames between the calls that send them and the network, in the order in
// which they go. What gathers there while a write is in progress goes out with the next one.
//
// Any goroutine may add frames and take them back. Those methods that are said to be for the
// holder of the wire are for nobody else.
type outbox struct {
	mask bool // constant: RFC 6455 section 5.1: a client masks

	mu       sync.Mutex // guards what follows, but for the bytes in leaving
	gathered batch      // goes next
	leaving  batch      // is being written: its bytes are the wire holder's
	added    uint64     // number of the latest frame
	gone     uint64     // number of the latest frame that is out
	closed   bool       // nothing may be added any more
	streamed bool       // the latest data frame is not a message's last one
	given    *givenUp   // frames in leaving that their senders would like to take back

	queued atomic.Bool // there are frames in gathered that nobody waits for
}

// A batch is frames in wire format, behind each other.
type batch struct {
	buf   *buffer // nil if there are none
	start int     // of the first frame of buf.frames in buf.b; what is before it is out
	sent  int     // bytes of buf.b that are out
}

// A framed is a frame in a buffer.
type framed struct {
	number uint64
	size   int
}

// givenUp is a frame that its sender would like to take back while it is being written.
type givenUp struct {
	number uint64
	fate   fate
	done   chan struct{} // closed when fate is known
	next   *givenUp
}

// fate is what has become of a frame that was to be taken back.
type fate uint8

const (
	fateUnknown   fate = iota // it is being written
	fateAbsent                // it was dropped, with the connection
	fateTakenBack             // it is as if it had never been there
	fateBegun                 // some of it is out
	fateOut                   // all of it is
)

// add adds a frame with the payload p, whose length and mask h need not have. It returns its
// number, or 0 if the outbox is closed, or limit, at most joinedSize, has no room for it.
func (o *outbox) add(h Header, p []byte, limit int) uint64 {
	h.Length = uint64(len(p))
	h.Masked = o.mask
	if h.Masked {
		h.Key = newKey()
	}
	o.mu.Lock()
	number := uint64(0)
	if o.streamed && h.Opcode.startsMessage() {
		limit = -1 // RFC 6455 section 5.4: not between the frames of another message
	}
	if buf := o.room(len(p), limit); buf != nil {
		number = o.append(buf, h, p)
	}
	o.mu.Unlock()
	return number
}

// stream says whether the latest data frame, which does not go through the outbox or does not go,
// leaves a message to be gone on with.
func (o *outbox) stream(on bool) {
	o.mu.Lock()
	o.streamed = on
	o.mu.Unlock()
}

func (o *outbox) append(buf *buffer, h Header, p []byte) uint64 {
	size := len(buf.b)
	buf.b = AppendHeader(buf.b, h)
	start := len(buf.b)
	buf.b = append(buf.b, p...)
	if h.Masked {
		maskFrom(buf.b, start, h.Key, 0)
	}
	o.added++
	buf.frames = append(buf.frames, framed{o.added, len(buf.b) - size})
	switch {
	case h.Opcode == OpClose:
		o.closed = true // RFC 6455 section 5.5.1: nothing follows it
	case !h.Opcode.IsControl():
		o.streamed = !h.Fin
	}
	return o.added
}

// queue adds a frame that nobody waits for, and reports whether it did.
func (o *outbox) queue(h Header, p []byte) bool {
	if o.add(h, p, queueSize) == 0 {
		return false
	}
	o.queued.Store(true)
	return true
}

// addControl adds a control frame. There is room for it: who has the wire adds it, one at a
// time, and is about to send all that has gathered.
func (o *outbox) addControl(op Opcode, payload []byte) uint64 {
	return o.add(Header{Fin: true, Opcode: op}, payload, 2*joinedSize)
}

// room returns the buffer with room for a frame with a payload of n bytes, nil if there must
// not be any.
func (o *outbox) room(n, limit int) *buffer {
	if o.closed || n > limit {
		return nil
	}
	g := &o.gathered
	if g.buf == nil {
		g.buf = getBuffer(maxHeaderSize + n)
		return g.buf
	}
	if len(g.buf.b)+n > limit {
		return nil
	}
	g.buf = g.buf.reserve(maxHeaderSize + n)
	return g.buf
}

// pass gives a number to the frame of a message that does not go through the outbox, or 0 if it
// must not, because something is in it, another message is being streamed, or it is closed. It is
// for the holder of the wire.
func (o *outbox) pass() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.streamed || o.gathered.buf != nil || o.leaving.buf != nil {
		return 0
	}
	o.added++
	return o.added
}

// rest adds a frame, in front of all others, that pass has let by and of which only n bytes are
// out. It is for the holder of the wire.
func (o *outbox) rest(number uint64, frame []byte, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	buf := getBuffer(len(frame))
	buf.b = append(buf.b, frame...)
	buf.frames = append(buf.frames, framed{number, len(frame)})
	o.leaving = batch{buf: buf, sent: n}
}

// latest returns the number of the latest frame, 0 if nothing is left to be sent.
func (o *outbox) latest() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gathered.buf == nil && o.leaving.buf == nil {
		return 0
	}
	return o.added
}

// load returns what is to be written next, nil if there is nothing. It is for the holder of
// the wire.
func (o *outbox) load() []byte {
	if o.leaving.buf == nil {
		o.mu.Lock()
		o.leaving, o.gathered = o.gathered, batch{}
		o.queued.Store(false)
		o.mu.Unlock()
		if o.leaving.buf == nil {
			return nil
		}
	}
	return o.leaving.buf.b[o.leaving.sent:]
}

// advance says that n more bytes of what load returned are out. It reports whether frames have
// gathered meanwhile. It is for the holder of the wire.
func (o *outbox) advance(n int) (more bool) {
	o.mu.Lock()
	if l := &o.leaving; l.buf != nil { // else it was discarded
		l.sent += n
		frames := l.buf.frames
		for len(frames) > 0 && l.start+frames[0].size <= l.sent {
			o.gone = frames[0].number
			l.start += frames[0].size
			frames = frames[1:]
		}
		l.buf.frames = append(l.buf.frames[:0], frames...)
		o.settle(false)
		if len(frames) == 0 {
			l.drop()
		}
		more = o.gathered.buf != nil
	}
	o.mu.Unlock()
	return more
}

// unfinished reports whether what load returned is not all out. It is for the holder of the
// wire.
func (o *outbox) unfinished() bool { return o.leaving.buf != nil }

// isOut reports whether the frame with the number is out. It is for the holder of the wire.
func (o *outbox) isOut(number uint64) bool { return o.gone >= number }

// takeBack removes the frame with the number if nothing of it is out. While it is being
// written its fate is unknown; the second result will tell.
func (o *outbox) takeBack(number uint64) (fate, *givenUp) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone < number && o.leaving.index(number) >= 0 {
		g := &givenUp{number: number, done: make(chan struct{}), next: o.given}
		o.given = g
		return fateUnknown, g
	}
	return o.remove(number), nil
}

// takeBackNow is takeBack for the holder of the wire, who is not writing.
func (o *outbox) takeBackNow(number uint64) fate {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.remove(number)
}

func (o *outbox) remove(number uint64) fate {
	if o.gone >= number {
		return fateOut
	}
	f := o.leaving.remove(number)
	if f == fateAbsent {
		f = o.gathered.remove(number)
	}
	return f
}

// interrupted says that nobody is writing: it removes the frames that were given up if
// nothing of them is out. It is for the holder of the wire.
func (o *outbox) interrupted() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settle(true)
}

// settle tells the fate of the frames that were given up, of all if nobody is writing.
func (o *outbox) settle(all bool) {
	for p := &o.given; *p != nil; {
		g := *p
		if !all && o.gone < g.number {
			p = &g.next
			continue
		}
		*p = g.next
		g.fate = o.remove(g.number)
		close(g.done)
	}
}

// discard closes the outbox and drops what is in it, since nothing can be sent any more. It
// is for the holder of the wire.
func (o *outbox) discard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.queued.Store(false)
	o.leaving.drop()
	o.gathered.drop()
	o.settle(true)
}

// index returns the place of the frame with the number, -1 if it is not there.
func (b *batch) index(number uint64) int {
	if b.buf != nil {
		for i, f := range b.buf.frames {
			if f.number == number {
				return i
			}
		}
	}
	return -1
}

// remove takes a frame out if nothing of it is out.
func (b *batch) remove(number uint64) fate {
	i := b.index(number)
	if i < 0 {
		return fateAbsent
	}
	buf, start := b.buf, b.start
	for _, f := range buf.frames[:i] {
		start += f.size
	}
	if b.sent > start {
		return fateBegun
	}
	buf.b = slices.Delete(buf.b, start, start+buf.frames[i].size)
	buf.frames = slices.Delete(buf.frames, i, i+1)
	if len(buf.frames) == 0 {
		b.drop()
	}
	return fateTakenBack
}

func (b *batch) drop() {
	putBuffer(b.buf)
	*b = batch{}
}
