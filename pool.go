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
// size: a message of 16 KiB is one read, and one of 64 KiB one write.
var bufferSizes = [...]int{
	1<<10 + headroom + maxHeaderSize,
	4<<10 + headroom + maxHeaderSize,
	16<<10 + headroom + maxHeaderSize,
	64<<10 + headroom + maxHeaderSize,
}

var bufferPools [len(bufferSizes)]sync.Pool

// getBuffer returns a buffer with a capacity of at least n bytes, or the largest there is.
func getBuffer(n int) *buffer {
	class := 0
	for class < len(bufferSizes)-1 && bufferSizes[class] < n {
		class++
	}
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, bufferSizes[class]), class: class}
}

// putBuffer gives b back, which may be nil.
func putBuffer(b *buffer) {
	if b == nil {
		return
	}
	b.b, b.frames = b.b[:0], b.frames[:0]
	bufferPools[b.class].Put(b)
}
