package websocket

import (
	"encoding/binary"
	"strconv"
)

// Opcode says what a frame carries (RFC 6455 section 5.2).
type Opcode uint8

const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xA
)

// startsMessage reports whether op is that of the first frame of a message.
func (op Opcode) startsMessage() bool { return op == OpText || op == OpBinary }

// IsControl reports whether op is that of a control frame, the reserved ones included
// (RFC 6455 section 5.5).
func (op Opcode) IsControl() bool { return op&0x8 != 0 }

func (op Opcode) String() string {
	switch op {
	case OpContinuation:
		return "continuation"
	case OpText:
		return "text"
	case OpBinary:
		return "binary"
	case OpClose:
		return "close"
	case OpPing:
		return "ping"
	case OpPong:
		return "pong"
	}
	return "opcode " + strconv.Itoa(int(op))
}

const (
	maxHeaderSize         = 14  // 2 bytes, 8 of extended length, 4 of masking key
	maxControlPayloadSize = 125 // RFC 6455 section 5.5
)

// Header is the header of a frame (RFC 6455 section 5.2):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-------+-+-------------+-------------------------------+
//	|F|R|R|R| opcode|M| Payload len |    Extended payload length    |
//	|I|S|S|S|  (4)  |A|     (7)     |            (16/64)            |
//	|N|V|V|V|       |S|             |                               |
//	| |1|2|3|       |K|             |                               |
//	+-+-+-+-+-------+-+-------------+-------------------------------+
//	|               Masking key (32), if Masked                     |
//	+---------------------------------------------------------------+
//
// Any header can be built and parsed, one that breaks the protocol too: a [Conn] judges the
// headers it receives on its own.
type Header struct {
	Fin              bool
	RSV1, RSV2, RSV3 bool
	Opcode           Opcode // the lower four bits count
	Masked           bool
	Key              [4]byte // the masking key, if Masked
	Length           uint64  // of the payload, in bytes; below 1<<63
}

// ParseHeader reads the header at the start of b and returns it with the number of bytes it
// takes, 2 to 14. With n == 0 and no error, b is too short to hold it. The error is a
// [*ProtocolError]: a length that is not in its shortest form or that has its top bit set
// cannot be represented by a Header (RFC 6455 section 5.2).
func ParseHeader(b []byte) (h Header, n int, err error) {
	if len(b) < 2 {
		return Header{}, 0, nil
	}
	h.Fin = b[0]&0x80 != 0
	h.RSV1 = b[0]&0x40 != 0
	h.RSV2 = b[0]&0x20 != 0
	h.RSV3 = b[0]&0x10 != 0
	h.Opcode = Opcode(b[0] & 0x0F)
	h.Masked = b[1]&0x80 != 0

	n = 2
	switch l := b[1] & 0x7F; l {
	case 126:
		if len(b) < n+2 {
			return Header{}, 0, nil
		}
		h.Length = uint64(binary.BigEndian.Uint16(b[n:]))
		n += 2
		if h.Length < 126 {
			return Header{}, 0, errLengthNotMinimal
		}
	case 127:
		if len(b) < n+8 {
			return Header{}, 0, nil
		}
		h.Length = binary.BigEndian.Uint64(b[n:])
		n += 8
		if h.Length > 1<<63-1 {
			return Header{}, 0, errLengthTopBit
		}
		if h.Length < 1<<16 {
			return Header{}, 0, errLengthNotMinimal
		}
	default:
		h.Length = uint64(l)
	}
	if h.Masked {
		if len(b) < n+4 {
			return Header{}, 0, nil
		}
		h.Key = [4]byte(b[n:])
		n += 4
	}
	return h, n, nil
}

// AppendHeader appends h to b in wire format, with the length in its shortest form.
func AppendHeader(b []byte, h Header) []byte {
	b0 := byte(h.Opcode & 0x0F)
	if h.Fin {
		b0 |= 0x80
	}
	if h.RSV1 {
		b0 |= 0x40
	}
	if h.RSV2 {
		b0 |= 0x20
	}
	if h.RSV3 {
		b0 |= 0x10
	}
	var mask byte
	if h.Masked {
		mask = 0x80
	}
	switch {
	case h.Length < 126:
		b = append(b, b0, mask|byte(h.Length))
	case h.Length < 1<<16:
		b = append(b, b0, mask|126, byte(h.Length>>8), byte(h.Length))
	default:
		b = append(b, b0, mask|127)
		b = binary.BigEndian.AppendUint64(b, h.Length)
	}
	if h.Masked {
		b = append(b, h.Key[:]...)
	}
	return b
}

// inboundState is what the judgement of a received header depends on.
type inboundState struct {
	client     bool // we are the client
	compressed bool // permessage-deflate was agreed: RSV1 has a meaning
	fragmented bool // a fragmented message has begun and not ended
}

// judge returns the rule that the received header h breaks, nil if it breaks none.
func judge(h Header, s inboundState) *ProtocolError {
	switch {
	// RFC 6455 section 5.2: RSV1 to RSV3 must be 0 unless an extension was negotiated that
	// defines them.
	case h.RSV2 || h.RSV3:
		return errReservedBits
	case h.RSV1 && !s.compressed:
		return errReservedBits
	// RFC 7692 section 6.1: RSV1 belongs to the first frame of a data message.
	case h.RSV1 && (h.Opcode.IsControl() || h.Opcode == OpContinuation):
		return errCompressedBit
	}
	switch h.Opcode {
	case OpContinuation, OpText, OpBinary:
		// RFC 6455 section 5.4: the fragments of one message follow each other.
		if s.fragmented != (h.Opcode == OpContinuation) {
			if s.fragmented {
				return errMessageInterrupted
			}
			return errNothingToContinue
		}
	case OpClose, OpPing, OpPong:
		// RFC 6455 section 5.5: control frames have at most 125 bytes and are not fragmented.
		if !h.Fin {
			return errControlFragmented
		}
		if h.Length > maxControlPayloadSize {
			return errControlTooLong
		}
	default:
		return errReservedOpcode
	}
	// RFC 6455 section 5.1: a client masks all frames, a server none.
	switch {
	case s.client && h.Masked:
		return errMasked
	case !s.client && !h.Masked:
		return errNotMasked
	}
	return nil
}

var (
	errLengthNotMinimal   = protocolError("RFC 6455 section 5.2", "payload length is not in its shortest form")
	errLengthTopBit       = protocolError("RFC 6455 section 5.2", "payload length has its top bit set")
	errReservedBits       = protocolError("RFC 6455 section 5.2", "reserved bit set without an extension that defines it")
	errReservedOpcode     = protocolError("RFC 6455 section 5.2", "reserved opcode")
	errMasked             = protocolError("RFC 6455 section 5.1", "masked frame from a server")
	errNotMasked          = protocolError("RFC 6455 section 5.1", "unmasked frame from a client")
	errMessageInterrupted = protocolError("RFC 6455 section 5.4", "new message inside a fragmented message")
	errNothingToContinue  = protocolError("RFC 6455 section 5.4", "continuation without a message to continue")
	errControlFragmented  = protocolError("RFC 6455 section 5.5", "fragmented control frame")
	errControlTooLong     = protocolError("RFC 6455 section 5.5", "control frame with more than 125 bytes")
	errCompressedBit      = protocolError("RFC 7692 section 6.1", "RSV1 set on a control or continuation frame")
)

func protocolError(section, reason string) *ProtocolError {
	return &ProtocolError{Code: StatusProtocolError, Section: section, Reason: reason}
}
