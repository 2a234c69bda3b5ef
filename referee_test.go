package websocket

import (
	"errors"
	"math/bits"
)

// referee is a second implementation of RFC 1951 and of RFC 7692 section 7.2.2, to judge the
// compressor and the decompressor. It is slow, and strict about the window.
type referee struct {
	window   int  // 0: any distance
	takeover bool // of what messages said before
	text     []byte
	farthest int

	in  []byte
	pos uint // in bits
}

var (
	errRefereeCut     = errors.New("referee: cut off")
	errRefereeCorrupt = errors.New("referee: corrupt")
	errRefereeWindow  = errors.New("referee: distance beyond the window")
)

// message decodes the payload of a message, followed by behind, whose end must be that of a
// block, and at a byte boundary.
func (r *referee) message(payload []byte, behind string) (out []byte, err error) {
	if !r.takeover {
		r.text = nil
	}
	start := len(r.text)
	r.in, r.pos = append(append([]byte(nil), payload...), behind...), 0
	for int(r.pos) < 8*len(r.in) {
		final, err := r.block()
		if err != nil {
			return nil, err
		}
		if final {
			r.pos = (r.pos + 7) &^ 7
			if int(r.pos) == 8*len(payload) {
				break // what the sender removed was not in use
			}
		}
	}
	return append([]byte{}, r.text[start:]...), nil
}

func (r *referee) bits(n uint) int {
	v := 0
	for i := range n {
		if int(r.pos) >= 8*len(r.in) {
			panic(errRefereeCut)
		}
		v |= int(r.in[r.pos/8]>>(r.pos%8)&1) << i
		r.pos++
	}
	return v
}

func (r *referee) block() (final bool, err error) {
	defer func() {
		if e := recover(); e != nil {
			err = e.(error)
		}
	}()
	final = r.bits(1) == 1
	switch r.bits(2) {
	case 0:
		r.pos = (r.pos + 7) &^ 7
		n, inverse := r.bits(16), r.bits(16)
		if n != inverse^0xffff {
			panic(errRefereeCorrupt)
		}
		for range n {
			r.text = append(r.text, byte(r.bits(8)))
		}
	case 1:
		literals, distances := make([]int, 288), make([]int, 32)
		for s := range literals {
			literals[s] = 8 + b2i(s >= 144 && s < 256) - b2i(s >= 256 && s < 280)
		}
		for s := range distances {
			distances[s] = 5
		}
		r.symbols(newRefereeCode(literals), newRefereeCode(distances))
	case 2:
		nlit, ndist, nlen := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
		if nlit > 286 || ndist > 30 {
			panic(errRefereeCorrupt)
		}
		lens := make([]int, 19)
		for _, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:nlen] {
			lens[s] = r.bits(3)
		}
		code := newRefereeCode(lens)
		lens = nil
		for len(lens) < nlit+ndist {
			s, repeat, v := r.symbol(code), 1, 0
			switch s {
			case 16:
				if len(lens) == 0 {
					panic(errRefereeCorrupt)
				}
				v, repeat = lens[len(lens)-1], 3+r.bits(2)
			case 17:
				repeat = 3 + r.bits(3)
			case 18:
				repeat = 11 + r.bits(7)
			default:
				v = s
			}
			for range repeat {
				lens = append(lens, v)
			}
		}
		if len(lens) > nlit+ndist {
			panic(errRefereeCorrupt)
		}
		r.symbols(newRefereeCode(lens[:nlit]), newRefereeCode(lens[nlit:]))
	default:
		panic(errRefereeCorrupt)
	}
	return final, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// refereeCode maps a code, with a leading 1, to its symbol.
type refereeCode map[int]int

func newRefereeCode(lens []int) refereeCode {
	c := make(refereeCode)
	next, used := 0, 0
	for n := 1; n < 16; n++ {
		next <<= 1
		for s, l := range lens {
			if l == n {
				c[1<<n|next] = s
				next++
				used += 1 << (15 - n)
			}
		}
	}
	// Complete, empty, or one code of one bit.
	if _, one := c[0b10]; used != 1<<15 && used != 0 && (len(c) != 1 || !one) {
		panic(errRefereeCorrupt)
	}
	return c
}

func (r *referee) symbol(c refereeCode) int {
	if len(c) == 0 {
		panic(errRefereeCorrupt)
	}
	for v := 1; bits.Len(uint(v)) < 16; {
		v = v<<1 | r.bits(1)
		if s, ok := c[v]; ok {
			return s
		}
	}
	panic(errRefereeCorrupt)
}

func (r *referee) symbols(literals, distances refereeCode) {
	for {
		s := r.symbol(literals)
		if s == 256 {
			return
		}
		if s < 256 {
			r.text = append(r.text, byte(s))
			continue
		}
		// RFC 1951 section 3.2.5, by its table.
		length := 0
		switch {
		case s <= 264:
			length = s - 254
		case s <= 284:
			extra := uint(s-261) / 4
			length = 3 + 4<<extra + (s-265)%4<<extra + r.bits(extra)
		case s == 285:
			length = 258
		default:
			panic(errRefereeCorrupt)
		}
		d := r.symbol(distances)
		distance := d + 1
		switch {
		case d >= 30:
			panic(errRefereeCorrupt)
		case d >= 4:
			extra := uint(d-2) / 2
			distance = 1 + (2+d%2)<<extra + r.bits(extra)
		}
		if distance > len(r.text) {
			panic(errRefereeCorrupt)
		}
		if r.window > 0 && distance > r.window {
			panic(errRefereeWindow)
		}
		r.farthest = max(r.farthest, distance)
		for range length {
			r.text = append(r.text, r.text[len(r.text)-distance])
		}
	}
}
