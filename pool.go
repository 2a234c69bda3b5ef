package websocket

import "sync"

// pageOffset is where offPage begins a slice.
const pageOffset = 1 << 10

// offPage makes an empty slice for n bytes that, if it is a large one, does not begin at a
// page. From there to a place that is a frame's header behind the beginning of another page
// some processors copy at a fraction of their speed, which took the kernel most of the time to
// write a message of 1 MiB.
func offPage(n int) []byte {
	if n < 32<<10 {
		return make([]byte, 0, n)
	}
	return make([]byte, pageOffset, pageOffset+n)[pageOffset:]
}

// A buffer is on loan from the pools, which all connections share.
type buffer struct {
	b      []byte   // length 0 when it is handed out
	frames []framed // in b, for an outbox
	class  int
}

// Room for a header and for what is kept in front of it comes on top of a round payload
// size: a message of 16 KiB is one read, and one of 64 KiB one write. A byte more shows that
// the read has taken all there was.
const bufferExtra = headroom + maxHeaderSize + 1

var bufferSizes = [...]int{
	1<<10 + bufferExtra,
	4<<10 + bufferExtra,
	16<<10 + bufferExtra,
	64<<10 + bufferExtra,
	128<<10 + bufferExtra,
	256<<10 + bufferExtra,
	512<<10 + bufferExtra,
	1<<20 + bufferExtra,
	2<<20 + bufferExtra,
	4<<20 + bufferExtra,
}

// readBufferClass is that of the buffers for a read. One of them may have grown, but not to the
// next class.
var readBufferClass = bufferClass(readBufferSize)

var bufferPools [len(bufferSizes)]sync.Pool

// bufferClass returns the class of buffers for n bytes, or that of the largest there are.
func bufferClass(n int) int {
	class := 0
	for class < len(bufferSizes)-1 && bufferSizes[class] < n {
		class++
	}
	return class
}

// getBuffer returns a buffer with a capacity of at least n bytes, or the largest there is.
func getBuffer(n int) *buffer {
	class := bufferClass(n)
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: offPage(bufferSizes[class]), class: class}
}

// getRoom is getBuffer for any n: beyond the largest buffer there is, it makes one.
func getRoom(n int) *buffer {
	b := getBuffer(n)
	if cap(b.b) < n {
		putBuffer(b)
		b = &buffer{b: offPage(n), class: len(bufferSizes) - 1}
	}
	return b
}

// reserve returns a buffer with what b has and room for n bytes more, and puts b back if that
// is another one. Beyond the largest class it grows by a quarter at least, so that what comes in
// many pieces is not copied for each of them.
func (b *buffer) reserve(n int) *buffer {
	need := len(b.b) + n
	if need <= cap(b.b) {
		return b
	}
	if need > bufferSizes[len(bufferSizes)-1] {
		need = max(need, cap(b.b)+cap(b.b)/4)
	}
	larger := getRoom(need)
	larger.b = append(larger.b, b.b...)
	larger.frames = append(larger.frames, b.frames...)
	putBuffer(b)
	return larger
}

// putBuffer gives b back, which may be nil. The slice in it may have been replaced by a larger
// one.
func putBuffer(b *buffer) {
	if b == nil {
		return
	}
	largest := len(bufferSizes) - 1
	if cap(b.b) > 2*bufferSizes[largest] {
		return
	}
	for b.class < largest && bufferSizes[b.class+1] <= cap(b.b) {
		b.class++
	}
	b.b, b.frames = b.b[:0], b.frames[:0]
	bufferPools[b.class].Put(b)
}
