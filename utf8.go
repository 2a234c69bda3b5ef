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
// Blocks of 64 bytes are checked by words: those of ASCII at the beginning here, the
// rest by utf8Long. What is in front of the first character that begins, and less than
// a block, goes through the table, unless it is ASCII.
func (s utf8State) next(b []byte) (utf8State, bool) {
	le := binary.LittleEndian
	const high = utf8High
	u := uint64(s.offset)
	for len(b) >= 64 && u&utf8Mask != utf8Start {
		if u = utf8Table[b[0]] >> (u & utf8Mask); u&utf8Mask == utf8Bad {
			return utf8State{utf8Bad}, false
		}
		b = b[1:]
	}
	for len(b) >= 64 {
		p := (*[64]byte)(b)
		w := le.Uint64(p[0:8]) | le.Uint64(p[8:16]) | le.Uint64(p[16:24]) | le.Uint64(p[24:32]) |
			le.Uint64(p[32:40]) | le.Uint64(p[40:48]) | le.Uint64(p[48:56]) | le.Uint64(p[56:64])
		if w&high == 0 {
			b = b[64:]
			continue
		}
		return utf8Long(b)
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

// utf8Long checks a text of at least one block, from a character's beginning on. Its last
// character may be cut.
//
// ASCII is skipped. Blocks with no characters of more than two bytes, as texts from
// Latin to Arabic are made of, go through utf8Narrow, others through utf8Planes. Where
// utf8Narrow has failed, it is not tried again before 4 KiB have gone through utf8Planes.
func utf8Long(b []byte) (utf8State, bool) {
	le := binary.LittleEndian
	n := 0            // what is in front of b[n] is checked
	open := uint64(0) // 1<<7 if b[n] continues a character
	planes := false   // b[n] is not the last byte of the character that it continues
	for n < len(b) {
		at := min(n, len(b)-64)
		p := (*[64]byte)(b[at:])
		w0 := le.Uint64(p[0:8]) | le.Uint64(p[8:16]) | le.Uint64(p[16:24]) | le.Uint64(p[24:32])
		w1 := le.Uint64(p[32:40]) | le.Uint64(p[40:48]) | le.Uint64(p[48:56]) | le.Uint64(p[56:64])
		ascii0, ascii1 := w0&utf8High == 0, w1&utf8High == 0
		if ascii0 && ascii1 && !planes {
			if open != 0 {
				return utf8State{utf8Bad}, false
			}
			n = at + 64
			continue
		}
		if at == n && !planes {
			if next, ok := utf8Narrow(p, open, ascii0, ascii1); ok {
				open = next & (1 << 7)
				n += 64
				continue
			}
		}
		var ok bool
		if n, ok = utf8Planes(b, n); !ok {
			return utf8State{utf8Bad}, false
		}
		open, planes = 0, false
		if n < len(b) && b[n-1] >= 0x80 {
			switch utf8Behind(b[:n]) {
			case utf8Start:
			case utf8One:
				open = 1 << 7
			default: // or it is bad, as utf8Planes will find
				planes = true
			}
		}
	}
	u := utf8Behind(b)
	return utf8State{uint8(u)}, u != utf8Bad
}

// utf8Planes checks blocks of b from b[n] on, up to 4 KiB or one of which a half is ASCII,
// and returns where they end. The 64 bytes of a block are turned into eight planes: x7 has
// the first bits of all bytes, x0 the last ones. In few steps on planes, characters of all
// lengths are checked at once, where the table needs a step for each byte.
//
// A block begins with three bytes of the one before, so that it can be judged by itself.
// What the first of a character's bytes asks of the second is not looked at for the last
// two of a block: that is left to the next one, or to utf8Behind.
func utf8Planes(b []byte, n int) (end int, ok bool) {
	const (
		first3 = 1<<0 | 1<<8 | 1<<16
		last2  = 1<<55 | 1<<63
	)
	le := binary.LittleEndian
	at, judged := 0, ^uint64(0)
	if n > 0 {
		at, judged = min(n-3, len(b)-64), ^uint64(first3)
	}
	for b := b[at:min(at+4<<10, len(b))]; ; {
		p := (*[64]byte)(b)
		x0, x1, x2, x3 := le.Uint64(p[0:8]), le.Uint64(p[8:16]), le.Uint64(p[16:24]), le.Uint64(p[24:32])
		x4, x5, x6, x7 := le.Uint64(p[32:40]), le.Uint64(p[40:48]), le.Uint64(p[48:56]), le.Uint64(p[56:64])

		// Squares of eight by eight bits are transposed, by quarters, sixteenths and bits.
		// Bit 8*i+j of each plane is then that of byte i of word j.
		x0, x4 = utf8Swap(x0, x4, 4, 0x0F0F0F0F0F0F0F0F)
		x1, x5 = utf8Swap(x1, x5, 4, 0x0F0F0F0F0F0F0F0F)
		x2, x6 = utf8Swap(x2, x6, 4, 0x0F0F0F0F0F0F0F0F)
		x3, x7 = utf8Swap(x3, x7, 4, 0x0F0F0F0F0F0F0F0F)
		x0, x2 = utf8Swap(x0, x2, 2, 0x3333333333333333)
		x1, x3 = utf8Swap(x1, x3, 2, 0x3333333333333333)
		x4, x6 = utf8Swap(x4, x6, 2, 0x3333333333333333)
		x5, x7 = utf8Swap(x5, x7, 2, 0x3333333333333333)
		x0, x1 = utf8Swap(x0, x1, 1, 0x5555555555555555)
		x2, x3 = utf8Swap(x2, x3, 1, 0x5555555555555555)
		x4, x5 = utf8Swap(x4, x5, 1, 0x5555555555555555)
		x6, x7 = utf8Swap(x6, x7, 1, 0x5555555555555555)

		lead := x7 & x6    // 11xxxxxx
		lead3 := lead & x5 // 111xxxxx
		lead4 := lead3 & x4
		low32, low10 := x3|x2, x1|x0
		next5, next4 := utf8Before(x5), utf8Before(x4)
		bad := lead &^ (x5 | x4 | low32 | x1)              // C0, C1: overlong
		bad |= lead3 &^ (low32 | low10 | next5 | x4&next4) // E0 before 80 to 9F, F0 before 80 to 8F: overlong
		bad |= lead3 & next5 & x3 & x2 & x0 &^ x1          // ED before A0 to BF: surrogates
		bad |= lead4 & (x3 | x2&(low10|next5|next4))       // F4 before 90 to BF, F5 to FF: above U+10FFFF
		bad &^= last2

		two := lead3 | utf8After(lead4)
		one := lead | utf8After(two)
		bad |= (utf8After(one) ^ x7 ^ lead) & judged // 10xxxxxx, and nothing else
		if bad != 0 {
			return at, false
		}
		wide := x7&0x0F0F0F0F0F0F0F0F != 0 && x7&0xF0F0F0F0F0F0F0F0 != 0
		if !wide || len(b) < 64+61 {
			return at + 64, true
		}
		b, at, judged = b[61:], at+61, ^uint64(first3)
	}
}

// utf8Swap swaps the upper bits of a with the lower ones of b, for each k bits
// that are set in m.
func utf8Swap(a, b uint64, k uint, m uint64) (uint64, uint64) {
	t := (a>>k ^ b) & m
	b ^= t // before a: t is not needed any more then
	a ^= t << k
	return a, b
}

// utf8After returns the plane of the bytes behind those of x, without the first one.
func utf8After(x uint64) uint64 { return x<<8 | x>>55&0xFE }

// utf8Before returns the plane of the bytes in front of those of x, but for the last two.
func utf8Before(x uint64) uint64 { return x>>8 | x<<55 }

// utf8Behind returns the state behind a text of three bytes at least, which may begin and
// end in the middle of a character, and is valid but for its last two bytes.
func utf8Behind(b []byte) uint64 {
	b = b[len(b)-3:]
	for len(b) > 0 && b[0] < 0xC0 {
		b = b[1:]
	}
	u := uint64(utf8Start)
	for _, c := range b {
		u = utf8Table[c] >> (u & utf8Mask)
	}
	return u & utf8Mask
}

// utf8Narrow checks a block of which it is known whether its halves are ASCII. It
// reports false if there is anything in it but ASCII and whole characters of two
// bytes, of which the first and the last may be cut by the ends of the block.
//
// The high bit of the low byte of open, and of the result, says that the next byte
// continues a character.
func utf8Narrow(p *[64]byte, open uint64, ascii0, ascii1 bool) (uint64, bool) {
	le := binary.LittleEndian
	var bad uint64 // has the high bits of bytes that may not be there
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
	return open, bad&utf8High == 0
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
