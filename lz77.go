package websocket

import (
	"encoding/binary"
	"math/bits"
)

// This file and huffman.go are a DEFLATE compressor (RFC 1951) that is made for messages.
// The one of compress/flate has no window size, holds 0.8 to 1.2 MB, clears most of that for
// each message, and cannot go on from a window that was kept; with context takeover that
// costs thirty times the CPU of this one. What ours writes is tested against the
// decompressors of compress/flate and zlib.

const (
	maxWindow = 1 << 15 // RFC 1951 section 3.2.5: the longest distance
	minMatch  = 4       // three bytes at a distance seldom cost less than three literals
	maxMatch  = 258
	farMatch  = 4 << 10 // from here on a match of minMatch costs more than its literals

	maxSkip = 16

	// lookahead is what is left for later while more text may come, so that no match is cut.
	lookahead = maxMatch + minMatch
)

// effort is how hard to look for matches.
type effort struct {
	chain int // candidates to compare
	nice  int // a match this long is not improved on
	lazy  int // a match shorter than this waits for a better one at the next byte
	known int // bytes inside a match, its last ones, that later matches may begin at
}

var efforts = [...]effort{
	1: {chain: 1, nice: 16, known: 2},
	2: {chain: 2, nice: 24, known: 8},
	3: {chain: 4, nice: 32, lazy: 8, known: maxMatch},
	4: {chain: 6, nice: 48, lazy: 12, known: maxMatch},
	5: {chain: 10, nice: 64, lazy: 16, known: maxMatch},
	6: {chain: 16, nice: 96, lazy: 24, known: maxMatch},
	7: {chain: 32, nice: 128, lazy: 32, known: maxMatch},
	8: {chain: 96, nice: 258, lazy: 96, known: maxMatch},
	9: {chain: 512, nice: 258, lazy: 258, known: maxMatch},
}

// history is text to compress, behind the text that matches may refer to.
//
// Positions count all text modulo 2^16. Nothing that the index says is believed: a candidate
// is a match only if it lies in the window and its bytes are the same. So text may be
// dropped at either end without a look at the index.
type history struct {
	window int      // no match is farther away
	size   int      // of buf at most
	head   []uint16 // the last position of each hash
	prev   []uint16 // the position before it with the same hash, by position modulo len(prev)

	buf   []byte
	next  int    // buf[next:] is to be compressed
	block int    // start of the text of the current block, negative if some of it is gone
	base  uint16 // position of buf[0]
	shift uint8  // makes a hash an index of the part of head that is in use
}

// newHistory returns a history in a buffer of size bytes, with powers of two for the numbers
// of hashes and of positions that are known.
func newHistory(window, size, hashes, positions int) *history {
	return &history{
		window: window,
		size:   size,
		head:   make([]uint16, hashes),
		prev:   make([]uint16, positions),
		shift:  hashShift(hashes),
	}
}

// reset forgets all text. About n bytes are to come; the fewer, the cheaper.
func (h *history) reset(window, n int) {
	h.window = window
	hashes := len(h.head)
	for hashes > 64 && hashes >= 2*n {
		hashes /= 2
	}
	h.shift = hashShift(hashes)
	clear(h.head[:hashes])
	h.base = 0
	h.truncate(0)
}

// truncate takes back what was added behind the first n bytes.
func (h *history) truncate(n int) {
	h.buf = h.buf[:n]
	h.next, h.block = n, n
}

// fill takes in text as far as there is room, and returns the rest of p.
func (h *history) fill(p []byte) (rest []byte) {
	if drop := h.next - h.window; drop > 0 && len(h.buf)+len(p) > h.size {
		h.buf = h.buf[:copy(h.buf, h.buf[drop:])]
		h.next -= drop
		h.block -= drop
		h.base += uint16(drop)
	}
	n := min(len(p), h.size-len(h.buf))
	h.buf = appendUpTo(h.buf, p[:n], h.size)
	return p[n:]
}

// appendUpTo is append for a slice that does not grow beyond limit.
func appendUpTo(b, p []byte, limit int) []byte {
	if need := len(b) + len(p); need > cap(b) {
		b = append(make([]byte, 0, min(max(need, 2*cap(b), 512), limit)), b...)
	}
	return append(b, p...)
}

func hashShift(hashes int) uint8 { return uint8(33 - bits.Len(uint(hashes))) }

func hash4(v uint32, shift uint8) uint32 { return v * 0x9e3779b1 >> (shift & 31) }

// index makes buf[from:to] known without compressing it.
func (h *history) index(from, to int) {
	buf, head, prev := h.buf, h.head, h.prev
	base, shift, mask := h.base, h.shift, uint(len(prev)-1)
	for to = min(to, len(buf)-minMatch+1); from < to; from++ {
		hash := hash4(binary.LittleEndian.Uint32(buf[from:]), shift)
		pos := base + uint16(from)
		prev[uint(pos)&mask] = head[hash]
		head[hash] = pos
	}
}

// longest returns the length of the longest match for buf[i:] that is longer than shortest,
// and its distance, or 0, 0. cand is the first candidate's position.
func (h *history) longest(i int, cand uint16, shortest int, eff *effort) (length, dist int) {
	want := h.buf[i:min(i+maxMatch, len(h.buf))]
	if shortest >= len(want) {
		return 0, 0
	}
	buf, prev := h.buf[:i+len(want)], h.prev
	cur := h.base + uint16(i)
	maxDist, mask := min(i, h.window), uint(len(prev)-1)
	length = shortest
	first, last := binary.LittleEndian.Uint32(want), want[length]
	for n, passed := eff.chain, 0; n > 0; n-- {
		d := int(cur - cand)
		if d <= passed || d > maxDist {
			break
		}
		passed = d
		have := buf[i-d:]
		if have[length] == last && binary.LittleEndian.Uint32(have) == first {
			if l := matchLen(have, want); l > length && (l > minMatch || d < farMatch) {
				length, dist = l, d
				if l >= eff.nice || l == len(want) {
					break
				}
				last = want[l]
			}
		}
		// What has been overwritten is a later position, which ends the search.
		cand = prev[uint(cand)&mask]
	}
	if dist == 0 {
		return 0, 0
	}
	return length, dist
}

// matchLen returns how many bytes of b are those of a, which is not shorter.
func matchLen(a, b []byte) int {
	a = a[:len(b)]
	n := 0
	for ; n+8 <= len(b); n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// compress makes literals and matches of the text that is to be compressed, and blocks of
// those. Unless the text is final, some of either is left for the next time.
func (e *encoder) compress(h *history, final bool) {
	buf, eff := h.buf, &e.effort
	stop, indexed := len(buf), len(buf)-minMatch+1
	if !final {
		stop -= lookahead
	}
	i, misses := h.next, 0
	// The byte before i waits, as a literal or with the match that begins there, to see
	// whether a longer match begins at i.
	waits, length, dist := false, 0, 0
	for i < stop {
		l, d := 0, 0
		if i < indexed {
			hash := hash4(binary.LittleEndian.Uint32(buf[i:]), h.shift)
			pos := h.base + uint16(i)
			candidate := h.head[hash]
			h.prev[uint(pos)&uint(len(h.prev)-1)] = candidate
			h.head[hash] = pos
			if length == 0 || length < eff.lazy {
				l, d = h.longest(i, candidate, max(length, minMatch-1), eff)
			}
		}
		if l == 0 && length > 0 {
			e.match(length, dist)
			end := i - 1 + length
			h.index(max(i+1, end-eff.known), end)
			i, misses = end, 0
			waits, length = false, 0
		} else {
			if waits {
				e.literal(buf[i-1])
			}
			waits, length, dist = true, l, d
			i++
			if l >= max(eff.lazy, minMatch) {
				e.match(l, d)
				h.index(max(i, i-1+l-eff.known), i-1+l)
				i, misses = i-1+l, 0
				waits, length = false, 0
			} else if l == 0 {
				// Where no match has been found for long, look less often.
				misses++
				for end := min(i+misses>>7, i+maxSkip, stop); i < end; i++ {
					e.literal(buf[i-1])
				}
			}
		}
		if len(e.tokens) >= maxTokens-maxSkip-2 {
			end := i
			if waits {
				end--
			}
			e.flush(h, end)
		}
	}
	if length > 0 {
		e.match(length, dist)
		h.index(max(i, i-1+length-eff.known), i-1+length)
		i += length - 1
	} else if waits {
		e.literal(buf[i-1])
	}
	h.next = i
	if final {
		e.flush(h, i)
	}
}

// flush writes the block that ends with buf[:end].
func (e *encoder) flush(h *history, end int) {
	if len(e.tokens) == 0 {
		return
	}
	var text []byte
	if h.block >= 0 {
		text = h.buf[h.block:end]
	}
	e.writeBlock(text)
	h.block = end
}
