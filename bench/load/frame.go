package load

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The first byte of a frame that is a whole message (RFC 6455 section 5.2).
const (
	Text       = 0x81
	Binary     = 0x82
	Compressed = 0x40 // to be added: RFC 7692 section 6
)

// AppendFrame appends a client's frame, masked with key, whose first byte is first.
func AppendFrame(b []byte, first byte, key [4]byte, payload []byte) []byte {
	const masked = 0x80
	switch n := len(payload); {
	case n < 126:
		b = append(b, first, masked|byte(n))
	case n < 1<<16:
		b = append(b, first, masked|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, first, masked|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

// A parser finds the messages in what a server sends. It looks at no byte of a payload, unless it is to keep them.
type parser struct {
	plain int // not frames, but messages of so many bytes each; 0: frames
	keep  bool

	head    [10]byte
	have    int    // bytes of head that are there
	left    uint64 // bytes of the frame's payload that are not
	within  bool   // a frame's payload
	control bool   // the frame is a control frame
	last    bool   // the frame ends its message
	begun   bool   // a message has begun

	first   byte   // the first byte of the message's first frame
	size    int    // bytes of its payload so far
	payload []byte // if keep
	frames  int    // how many frames the message is made of
}

var (
	errClosed = errors.New("the server sent a Close frame")
	errAnswer = errors.New("the answer is not the message")
)

// next reads on in b, to the end of a message at the most, and returns how much of b that was. The message is in
// p until next is called again.
func (p *parser) next(b []byte) (n int, whole bool, err error) {
	if p.plain > 0 {
		return p.nextPlain(b)
	}
	for {
		if !p.within {
			ok, used, err := p.header(b[n:])
			n += used
			if !ok || err != nil {
				return n, false, err
			}
		}
		k := int(min(p.left, uint64(len(b)-n)))
		if p.keep && !p.control {
			p.payload = append(p.payload, b[n:n+k]...)
		}
		if !p.control {
			p.size += k
		}
		n += k
		p.left -= uint64(k)
		if p.left > 0 {
			return n, false, nil
		}
		p.within = false
		if !p.control && p.last {
			p.begun = false
			return n, true, nil
		}
	}
}

func (p *parser) nextPlain(b []byte) (n int, whole bool, err error) {
	if !p.begun {
		p.begin(Binary)
	}
	n = min(len(b), p.plain-p.size)
	if p.keep {
		p.payload = append(p.payload, b[:n]...)
	}
	p.size += n
	if p.size < p.plain {
		return n, false, nil
	}
	p.begun = false
	return n, true, nil
}

func (p *parser) begin(first byte) {
	p.begun, p.first, p.size, p.payload, p.frames = true, first, 0, p.payload[:0], 0
}

// header reads on in the header of a frame.
func (p *parser) header(b []byte) (ok bool, n int, err error) {
	need := 2
	for {
		if p.have >= 2 {
			switch p.head[1] {
			case 126:
				need = 4
			case 127:
				need = 10
			}
		}
		if p.have == need {
			break
		}
		k := copy(p.head[p.have:need], b[n:])
		if k == 0 {
			return false, n, nil
		}
		p.have += k
		n += k
	}
	p.have = 0
	if p.head[1]&0x80 != 0 {
		return false, n, errors.New("the server masked a frame")
	}
	switch need {
	case 2:
		p.left = uint64(p.head[1])
	case 4:
		p.left = uint64(binary.BigEndian.Uint16(p.head[2:]))
	case 10:
		p.left = binary.BigEndian.Uint64(p.head[2:])
	}
	first := p.head[0]
	p.last = first&0x80 != 0
	p.within = true
	switch opcode := first & 0x0F; {
	case opcode == 8:
		return false, n, errClosed
	case opcode > 8: // a Ping or a Pong: the generator is never silent for long
		p.control = true
		return true, n, nil
	case (opcode != 0) == p.begun:
		return false, n, fmt.Errorf("a frame with opcode %d, and message begun: %v", opcode, p.begun)
	case opcode != 0:
		p.begin(first)
	}
	p.control = false
	p.frames++
	return true, n, nil
}
