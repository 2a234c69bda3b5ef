package websocket

import "encoding/binary"

// utf8State is the state of a check of UTF-8 text (RFC 3629) that arrives in
// pieces: how much of its last character is there. The zero value is the start
// of a text.
//
// The check fails at the first byte after which no continuation makes valid
// UTF-8, which may be sooner than the end of the character it belongs to.
type utf8State struct {
	offset uint8 // utf8Start to utf8Bad
}

// Each state is named by the bit offset at which the rows of utf8Table have its
// successor. Nine states of 6 bits fit in a row.
const (
	utf8Start = 6 * iota // between characters
	utf8One              // one more byte of a character to come: 80..BF
	utf8Two              // two more
	utf8Three            // three more
	utf8E0               // two more, the next not 80..9F: overlong
	utf8ED               // two more, the next not A0..BF: surrogates
	utf8F0               // three more, the next not 80..8F: overlong
	utf8F4               // three more, the next not 90..BF: above U+10FFFF
	utf8Bad              // no UTF-8, and never again

	utf8Mask = 1<<6 - 1
)

const utf8High = 0x8080808080808080

// utf8Table has a row for each byte: the successors of all the states, packed
// such that a step of the check is
//
//	s = utf8Table[b] >> (s & utf8Mask)
//
// Only the shift waits for the step before, the table is read ahead of it: a
// byte costs little more than one cycle, and no branch. What s has above its low
// 6 bits means nothing. The table is made at start, in about 5 microseconds.
var utf8Table = func() (table [256]uint64) {
	for b := range table {
		for from := utf8Start; from <= utf8Bad; from += 6 {
			table[b] |= utf8Bad << from
		}
	}
	// The grammar of RFC 3629 section 4.
	for _, t := range [...]struct {
		from   int
		lo, hi uint8
		to     uint64
	}{
		{utf8Start, 0x00, 0x7F, utf8Start},
		{utf8Start, 0xC2, 0xDF, utf8One},
		{utf8Start, 0xE0, 0xE0, utf8E0},
		{utf8Start, 0xE1, 0xEC, utf8Two},
		{utf8Start, 0xED, 0xED, utf8ED},
		{utf8Start, 0xEE, 0xEF, utf8Two},
		{utf8Start, 0xF0, 0xF0, utf8F0},
		{utf8Start, 0xF1, 0xF3, utf8Three},
		{utf8Start, 0xF4, 0xF4, utf8F4},
		{utf8E0, 0xA0, 0xBF, utf8One},
		{utf8ED, 0x80, 0x9F, utf8One},
		{utf8F0, 0x90, 0xBF, utf8Two},
		{utf8F4, 0x80, 0x8F, utf8Two},
		{utf8Three, 0x80, 0xBF, utf8Two},
		{utf8Two, 0x80, 0xBF, utf8One},
		{utf8One, 0x80, 0xBF, utf8Start},
	} {
		for b := int(t.lo); b <= int(t.hi); b++ {
			table[b] ^= (utf8Bad ^ t.to) << t.from
		}
	}
	return table
}()

// complete reports whether the text may end here, with no character cut.
func (s utf8State) complete() bool { return s.offset == utf8Start }

// next checks the next piece of the text. It reports false if b has a byte that
// cannot follow what came before; all further calls on the new state do so too.
//
// Blocks of 32 and 64 bytes of ASCII are skipped by words: all there is to check
// is that no character is open in front of them. Blocks with no characters of
// more than two bytes, as texts from Latin to Arabic are made of, are checked by
// words too. Other blocks go through the table as a whole, ASCII and all: to look
// for shorter stretches of ASCII costs more in mispredicted branches than it saves.
func (s utf8State) next(b []byte) (utf8State, bool) {
	le := binary.LittleEndian
	const high = utf8High
	u := uint64(s.offset)
	wide := 0 // for how many more blocks the words are not tried, since they failed

	for len(b) >= 64 {
		p := (*[64]byte)(b)
		b = b[64:]
		w0 := le.Uint64(p[0:8]) | le.Uint64(p[8:16]) | le.Uint64(p[16:24]) | le.Uint64(p[24:32])
		w1 := le.Uint64(p[32:40]) | le.Uint64(p[40:48]) | le.Uint64(p[48:56]) | le.Uint64(p[56:64])
		if (w0|w1)&high == 0 {
			if u&utf8Mask != utf8Start {
				return utf8State{utf8Bad}, false
			}
			continue
		}
		if wide == 0 {
			if v, ok := utf8Narrow(u, p, w0&high == 0, w1&high == 0); ok {
				u = v
				continue
			}
			wide = 16
		}
		wide--
		switch {
		case w0&high == 0:
			if u&utf8Mask != utf8Start {
				return utf8State{utf8Bad}, false
			}
			u = utf8Step32(u, (*[32]byte)(p[32:]))
		case w1&high == 0:
			u = utf8Step32(u, (*[32]byte)(p[:32]))
			if u&utf8Mask != utf8Start {
				return utf8State{utf8Bad}, false
			}
		default:
			u = utf8Step64(u, p)
		}
	}

	if len(b) >= 32 {
		p := (*[32]byte)(b)
		b = b[32:]
		w := le.Uint64(p[0:8]) | le.Uint64(p[8:16]) | le.Uint64(p[16:24]) | le.Uint64(p[24:32])
		if w&high|u&utf8Mask != 0 {
			u = utf8Step32(u, p)
		}
	}
	// The rest as words from its front and its back, which may overlap.
	w := uint64(high)
	switch n := len(b); {
	case n >= 16:
		w = le.Uint64(b) | le.Uint64(b[8:]) | le.Uint64(b[n-16:]) | le.Uint64(b[n-8:])
	case n >= 8:
		w = le.Uint64(b) | le.Uint64(b[n-8:])
	}
	if w&high|u&utf8Mask == 0 {
		return utf8State{}, true
	}
	for len(b) >= 8 {
		u = utf8Step4(u, (*[4]byte)(b[0:4]))
		u = utf8Step4(u, (*[4]byte)(b[4:8]))
		b = b[8:]
	}
	for _, c := range b {
		u = utf8Table[c] >> (u & utf8Mask)
	}
	u &= utf8Mask
	return utf8State{uint8(u)}, u != utf8Bad
}

// utf8Narrow checks a block of which it is known whether its halves are ASCII. It
// reports false if there is anything in it but ASCII and whole characters of two
// bytes, of which the first and the last may be cut by the ends of the block.
func utf8Narrow(u uint64, p *[64]byte, ascii0, ascii1 bool) (uint64, bool) {
	le := binary.LittleEndian
	// The high bit of the low byte of open says that the next byte continues a
	// character. The high bits of bad are those of bytes that may not be there.
	var open, bad uint64
	switch u & utf8Mask {
	case utf8Start:
	case utf8One:
		open = 0x80
	default:
		return u, false
	}
	if ascii0 {
		bad, open = open, 0
	} else {
		open, bad = utf8Narrow8(le.Uint64(p[0:8]), open, bad)
		open, bad = utf8Narrow8(le.Uint64(p[8:16]), open, bad)
		open, bad = utf8Narrow8(le.Uint64(p[16:24]), open, bad)
		open, bad = utf8Narrow8(le.Uint64(p[24:32]), open, bad)
	}
	if ascii1 {
		bad, open = bad|open, 0
	} else {
		open, bad = utf8Narrow8(le.Uint64(p[32:40]), open, bad)
		open, bad = utf8Narrow8(le.Uint64(p[40:48]), open, bad)
		open, bad = utf8Narrow8(le.Uint64(p[48:56]), open, bad)
		open, bad = utf8Narrow8(le.Uint64(p[56:64]), open, bad)
	}
	switch {
	case bad&utf8High != 0:
		return u, false
	case open&0x80 != 0:
		return utf8One, true
	}
	return utf8Start, true
}

// utf8Narrow8 looks at the high bits of the bytes of x only, to which others are
// shifted.
func utf8Narrow8(x, open, bad uint64) (uint64, uint64) {
	lead := x & (x << 1) // 11xxxxxx
	tail := x ^ lead     // 10xxxxxx
	bad |= (lead<<8 | open) ^ tail
	// No lead may be 111xxxxx, the first of more than two bytes, nor 1100000x,
	// which is overlong: only of 80 minus 0 is the high bit set.
	bad |= lead & (x<<2 | (utf8High - x&0x1E1E1E1E1E1E1E1E))
	return lead >> 56, bad
}

// The steps are written out because a loop of single ones takes twice as long.

func utf8Step4(u uint64, p *[4]byte) uint64 {
	u = utf8Table[p[0]] >> (u & utf8Mask)
	u = utf8Table[p[1]] >> (u & utf8Mask)
	u = utf8Table[p[2]] >> (u & utf8Mask)
	return utf8Table[p[3]] >> (u & utf8Mask)
}

func utf8Step32(u uint64, p *[32]byte) uint64 {
	for i := 0; i < len(p); i += 8 {
		q := (*[8]byte)(p[i : i+8])
		u = utf8Step4(u, (*[4]byte)(q[0:4]))
		u = utf8Step4(u, (*[4]byte)(q[4:8]))
	}
	return u
}

func utf8Step64(u uint64, p *[64]byte) uint64 {
	for i := 0; i < len(p); i += 8 {
		q := (*[8]byte)(p[i : i+8])
		u = utf8Step4(u, (*[4]byte)(q[0:4]))
		u = utf8Step4(u, (*[4]byte)(q[4:8]))
	}
	return u
}
