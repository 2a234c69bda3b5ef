package websocket

import "encoding/binary"

// minDynamic is how many tokens make it worthwhile to try Huffman codes of their own, whose
// description alone takes about 50 bytes.
const minDynamic = 48

// encoder writes DEFLATE blocks. It is what a message needs while it is compressed.
type encoder struct {
	effort effort
	own    *history // for messages without a history, nil until there is one

	// The block.
	tokens    []token
	literals  [288]uint16 // how often each symbol occurs
	distances [32]uint16

	// Output.
	out  []byte
	acc  uint64 // the bits that do not fill a byte, or four, yet
	nacc uint

	dyn  dynamicCodes
	keys [2][numLiterals]uint32 // of symbols: to be sorted, from one to the other
}

func newEncoder() *encoder {
	e := &encoder{tokens: make([]token, 0, maxTokens)}
	e.dyn.symbols = make([]uint16, 0, numLiterals+numDistances)
	return e
}

func (e *encoder) literal(b byte) {
	e.tokens = append(e.tokens, literalToken(b))
	e.literals[b]++
}

func (e *encoder) match(length, distance int) {
	e.tokens = append(e.tokens, matchToken(length, distance))
	e.literals[endOfBlock+1+int(lengthSymbol[uint8(length-3)])]++
	e.distances[distanceSymbol(uint32(distance))&31]++
}

func (e *encoder) writeBits(v uint64, n uint) {
	e.acc |= v << (e.nacc & 63)
	e.nacc += n
	if e.nacc >= 32 {
		e.out = binary.LittleEndian.AppendUint32(e.out, uint32(e.acc))
		e.acc >>= 32
		e.nacc -= 32
	}
}

func (e *encoder) writeCode(c code) { e.writeBits(c.bits(), c.len()) }

// align pads to a byte boundary.
func (e *encoder) align() {
	for ; e.nacc > 0; e.nacc -= min(e.nacc, 8) {
		e.out = append(e.out, byte(e.acc))
		e.acc >>= 8
	}
	e.acc = 0
}

// writeBlock writes the tokens as a block of the kind that is shortest. text is what they
// stand for, nil if that is not at hand.
func (e *encoder) writeBlock(text []byte) {
	e.literals[endOfBlock] = 1
	extra := 0
	for s, x := range lengthExtra {
		extra += int(e.literals[endOfBlock+1+s]) * int(x)
	}
	for s, x := range distanceExtra {
		extra += int(e.distances[s]) * int(x)
	}
	fixed := 3 + extra
	for s, n := range e.literals[:numLiterals] {
		fixed += int(n) * int(fixedLiterals[s].len())
	}
	for _, n := range e.distances[:numDistances] {
		fixed += int(n) * 5
	}
	dynamic := fixed
	if len(e.tokens) >= minDynamic {
		dynamic = 3 + extra + e.makeCodes()
	}
	stored := 8*len(text) + 40
	switch {
	case text != nil && stored <= min(fixed, dynamic):
		e.writeStored(text)
	case dynamic < fixed:
		e.writeBits(0b100, 3)
		e.writeCodes()
		e.writeTokens(&e.dyn.literals, &e.dyn.distances)
	default:
		e.writeBits(0b010, 3)
		e.writeTokens(&fixedLiterals, &fixedDistances)
	}
	e.clearBlock()
}

// discard drops the block, and the bits that do not fill a byte.
func (e *encoder) discard() {
	e.clearBlock()
	e.acc, e.nacc = 0, 0
}

func (e *encoder) clearBlock() {
	e.tokens = e.tokens[:0]
	clear(e.literals[:])
	clear(e.distances[:])
}

// writeStored writes text as it is (RFC 1951 section 3.2.4). There are not so many tokens in a
// block that it would be shortest to store 64 KiB.
func (e *encoder) writeStored(text []byte) {
	e.writeBits(0b000, 3)
	e.align()
	e.out = binary.LittleEndian.AppendUint16(e.out, uint16(len(text)))
	e.out = binary.LittleEndian.AppendUint16(e.out, ^uint16(len(text)))
	e.out = append(e.out, text...)
}

func (e *encoder) writeTokens(literals *[288]code, distances *[32]code) {
	out, acc, n := e.out, e.acc, e.nacc
	for _, t := range e.tokens {
		v, d := t.value(), t.distance()
		if d == 0 {
			c := literals[v]
			acc |= c.bits() << (n & 63)
			n += c.len()
		} else {
			s := lengthSymbol[v]
			c := literals[endOfBlock+1+int(s)]
			acc |= c.bits() << (n & 63)
			n += c.len()
			acc |= uint64(v-lengthBase[s]) << (n & 63)
			n += uint(lengthExtra[s])
			if n >= 32 {
				out = binary.LittleEndian.AppendUint32(out, uint32(acc))
				acc >>= 32
				n -= 32
			}
			s = distanceSymbol(d)
			c = distances[s&31]
			acc |= c.bits() << (n & 63)
			n += c.len()
			acc |= uint64(d-1-uint32(distanceBase[s])) << (n & 63)
			n += uint(distanceExtra[s])
		}
		if n >= 32 {
			out = binary.LittleEndian.AppendUint32(out, uint32(acc))
			acc >>= 32
			n -= 32
		}
	}
	e.out, e.acc, e.nacc = out, acc, n
	e.writeCode(literals[endOfBlock])
}
