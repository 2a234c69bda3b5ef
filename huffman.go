package websocket

import "math/bits"

const (
	maxTokens = 1 << 13 // of a block

	// RFC 1951 sections 3.2.5 to 3.2.7.
	numLiterals  = 286 // symbols for literals, the end of the block and lengths
	numDistances = 30
	numLengths   = 19 // symbols for code lengths
	endOfBlock   = 256
	maxCodeLen   = 15
)

// A token is a literal, or a match of at least 3 bytes at a distance of at least 1.
type token uint32

func literalToken(b byte) token             { return token(b) << 16 }
func matchToken(length, distance int) token { return token(length-3)<<16 | token(distance) }

func (t token) distance() uint32 { return uint32(t & 0xffff) } // 0: a literal
func (t token) value() uint8     { return uint8(t >> 16) }     // literal, or length - 3

// A code is a Huffman code's bits, in the order of the wire, with their number in the high half.
type code uint32

func (c code) bits() uint64 { return uint64(c & 0xffff) }
func (c code) len() uint    { return uint(c >> 16) }

var (
	lengthSymbol   [256]uint8 // of length - 3
	lengthBase     [29]uint8
	lengthExtra    [29]uint8
	nearSymbol     [256]uint8 // of distance - 1; beyond, every 128th distance
	distanceBase   [numDistances]uint16
	distanceExtra  [numDistances]uint8
	fixedLiterals  [288]code
	fixedDistances [32]code

	// RFC 1951 section 3.2.7
	lengthOrder = [numLengths]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

func init() {
	// RFC 1951 section 3.2.5: four symbols for each number of extra bits, but eight for none
	// with lengths, and length 258 on its own.
	for s, base := 0, 0; s < 28; s++ {
		extra := max(s/4-1, 0)
		lengthBase[s], lengthExtra[s] = uint8(base), uint8(extra)
		for range 1 << extra {
			lengthSymbol[base] = uint8(s)
			base++
		}
	}
	lengthBase[28], lengthSymbol[255] = 255, 28
	for s, base := 0, 0; s < numDistances; s++ {
		extra := max(s/2-1, 0)
		distanceBase[s], distanceExtra[s] = uint16(base), uint8(extra)
		for d := base; d < min(base+1<<extra, 256); d++ {
			nearSymbol[d] = uint8(s)
		}
		base += 1 << extra
	}
	// RFC 1951 section 3.2.6
	var lens [288]uint8
	for s := range lens {
		switch {
		case s < 144:
			lens[s] = 8
		case s < 256:
			lens[s] = 9
		case s < 280:
			lens[s] = 7
		default:
			lens[s] = 8
		}
	}
	assignCodes(fixedLiterals[:], lens[:])
	for s := range fixedDistances {
		lens[s] = 5
	}
	assignCodes(fixedDistances[:], lens[:32])
}

func distanceSymbol(distance uint32) uint8 {
	d := distance - 1
	if d < 256 {
		return nearSymbol[d]
	}
	return nearSymbol[d>>7&0xff] + 14
}

// dynamicCodes are the Huffman codes of a block and their description.
type dynamicCodes struct {
	lens      [numLiterals + numDistances]uint8
	litLens   [288]uint8
	distLens  [32]uint8
	lenLens   [numLengths]uint8
	lenCount  [numLengths]uint16
	literals  [288]code
	distances [32]code
	lengths   [32]code
	nlit      int
	ndist     int
	nlen      int
	symbols   []uint16 // code length symbols, extra bits in the high byte
}

// makeCodes makes the block's own Huffman codes and returns how many bits they and the
// symbols take.
func (e *encoder) makeCodes() (size int) {
	c := &e.dyn
	e.codeLengths(c.litLens[:numLiterals], e.literals[:numLiterals], maxCodeLen)
	e.codeLengths(c.distLens[:numDistances], e.distances[:numDistances], maxCodeLen)
	c.nlit, c.ndist, c.nlen = numLiterals, numDistances, numLengths
	for c.litLens[c.nlit-1] == 0 {
		c.nlit--
	}
	for c.distLens[c.ndist-1] == 0 {
		c.ndist--
	}
	for s, n := range e.literals[:c.nlit] {
		size += int(n) * int(c.litLens[s])
	}
	for s, n := range e.distances[:c.ndist] {
		size += int(n) * int(c.distLens[s])
	}
	lens := append(append(c.lens[:0], c.litLens[:c.nlit]...), c.distLens[:c.ndist]...)
	size += c.describe(lens)
	e.codeLengths(c.lenLens[:], c.lenCount[:], 7)
	for c.lenLens[lengthOrder[c.nlen-1]] == 0 {
		c.nlen--
	}
	for s, n := range c.lenCount {
		size += int(n) * int(c.lenLens[s])
	}
	return size + 14 + 3*c.nlen
}

// describe run-length encodes code lengths (RFC 1951 section 3.2.7) and returns how many
// extra bits that takes.
func (c *dynamicCodes) describe(lens []uint8) (extra int) {
	clear(c.lenCount[:])
	c.symbols = c.symbols[:0]
	add := func(symbol uint16, repeat int) {
		c.symbols = append(c.symbols, symbol|uint16(repeat)<<8)
		c.lenCount[symbol]++
	}
	for i := 0; i < len(lens); {
		v := lens[i]
		run := 1
		for i+run < len(lens) && lens[i+run] == v {
			run++
		}
		i += run
		if v == 0 {
			for ; run >= 11; run -= min(run, 138) {
				add(18, min(run, 138)-11)
				extra += 7
			}
			if run >= 3 {
				add(17, run-3)
				extra += 3
				run = 0
			}
		} else {
			add(uint16(v), 0)
			for run--; run >= 3; run -= min(run, 6) {
				add(16, min(run, 6)-3)
				extra += 2
			}
		}
		for range run {
			add(uint16(v), 0)
		}
	}
	return extra
}

// writeCodes writes the description of the codes (RFC 1951 section 3.2.7).
func (e *encoder) writeCodes() {
	c := &e.dyn
	assignCodes(c.literals[:], c.litLens[:])
	assignCodes(c.distances[:], c.distLens[:])
	assignCodes(c.lengths[:], c.lenLens[:])
	e.writeBits(uint64(c.nlit-257), 5)
	e.writeBits(uint64(c.ndist-1), 5)
	e.writeBits(uint64(c.nlen-4), 4)
	for _, s := range lengthOrder[:c.nlen] {
		e.writeBits(uint64(c.lenLens[s]), 3)
	}
	for _, s := range c.symbols {
		e.writeCode(c.lengths[s&31])
		switch s & 31 {
		case 16:
			e.writeBits(uint64(s>>8), 2)
		case 17:
			e.writeBits(uint64(s>>8), 3)
		case 18:
			e.writeBits(uint64(s>>8), 7)
		}
	}
}

// assignCodes gives each symbol its code (RFC 1951 section 3.2.2).
func assignCodes(codes []code, lens []uint8) {
	var count, next [maxCodeLen + 1]uint16
	for _, n := range lens {
		count[n&15]++
	}
	count[0] = 0
	for n := 1; n <= maxCodeLen; n++ {
		next[n] = (next[n-1] + count[n-1]) << 1
	}
	for s, n := range lens {
		if n > 0 {
			codes[s] = code(bits.Reverse16(next[n&15])>>(16-n)) | code(n)<<16
			next[n&15]++
		}
	}
}

// codeLengths sets the lengths of a Huffman code for symbols that occur count times each.
// The code is always complete, which not every decoder needs: symbols that do not occur are
// added if there are less than two.
func (e *encoder) codeLengths(lens []uint8, count []uint16, limit int) {
	clear(lens)
	keys := e.keys[0][:0]
	for s, n := range count {
		if n > 0 {
			keys = append(keys, uint32(n)<<9|uint32(s))
		}
	}
	if len(keys) < 2 {
		lens[0], lens[1] = 1, 1
		if len(keys) == 1 && keys[0]&511 > 1 {
			lens[1], lens[keys[0]&511] = 0, 1
		}
		return
	}
	keys = e.sorted(keys)
	// Huffman's algorithm: leaves in the first half of the nodes, their parents, which come
	// about in order of weight as well, in the second.
	n := len(keys)
	var weight [2 * numLiterals]uint32
	var parent [2 * numLiterals]uint16
	for i, k := range keys {
		weight[i] = k >> 9
	}
	leaf, inner := 0, n
	for node := n; node < 2*n-1; node++ {
		for range 2 {
			child := &inner
			if leaf < n && (inner == node || weight[leaf] <= weight[inner]) {
				child = &leaf
			}
			weight[node] += weight[*child]
			parent[*child] = uint16(node)
			*child++
		}
	}
	// The depth of a leaf is its code's length, up to the limit.
	var ofLength [maxCodeLen + 1]int
	var depth [2 * numLiterals]uint8
	for node := 2*n - 3; node >= 0; node-- {
		depth[node] = depth[parent[node]] + 1
		if node < n {
			ofLength[min(int(depth[node]), limit)]++
		}
	}
	// Codes that were cut take more room than there is. Make room at the limit, one by one:
	// a code becomes one bit longer, and its sibling is one that was at the limit.
	room := 1 << limit
	for l := 1; l <= limit; l++ {
		room -= ofLength[l] << (limit - l)
	}
	for ; room < 0; room++ {
		l := limit - 1
		for ofLength[l] == 0 {
			l--
		}
		ofLength[l]--
		ofLength[l+1] += 2
		ofLength[limit]--
	}
	// The rarest symbols get the longest codes.
	i := 0
	for l := limit; l > 0; l-- {
		for range ofLength[l] {
			lens[keys[i]&511] = uint8(l)
			i++
		}
	}
}

// sorted sorts keys by count, a byte of it at a time. It is several times as fast as package
// slices is with a full alphabet.
func (e *encoder) sorted(keys []uint32) []uint32 {
	other := e.keys[1][:len(keys)]
	for shift := 9; ; shift += 8 {
		var start [257]uint16
		larger := false
		for _, k := range keys {
			start[k>>shift&0xff+1]++
			larger = larger || k>>shift > 0xff
		}
		for i := range 256 {
			start[i+1] += start[i]
		}
		for _, k := range keys {
			at := &start[k>>shift&0xff]
			other[*at] = k
			*at++
		}
		keys, other = other, keys
		if !larger {
			return keys
		}
	}
}
