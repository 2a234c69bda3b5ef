package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/strictws/websocket"
)

// All that is sent is a record: what it is, a number, the size of its body, and the body. It is
// one message, or, where a NetConn reads, a part of the stream. The header is ASCII, so that a
// record with a text body is text.
const (
	headerSize = 1 + 16 + 8
	// maxRecordSize is the library's default limit on messages.
	maxRecordSize = 1 << 20
)

// The kinds of records.
const (
	kindHello     = 'H' // number: the last message that arrived in earlier sessions
	kindMessage   = 'M' // number: its own, counted from 1 over all sessions
	kindAck       = 'A' // number: all messages up to this one have arrived
	kindBroadcast = 'B' // number: its own; neither acknowledged nor sent again
	kindFinal     = 'F' // number: messages, all acknowledged; body: their bytes, and broadcasts over this connection
)

// A record is a parsed one.
type record struct {
	kind   byte
	number uint64
	body   []byte
}

func appendHeader(b []byte, kind byte, number uint64, size int) []byte {
	return fmt.Appendf(b, "%c%016x%08x", kind, number, size)
}

// parseHeader returns the record without its body, and the size of that.
func parseHeader(b []byte) (rec record, size int, err error) {
	number, err := strconv.ParseUint(string(b[1:17]), 16, 64)
	if err == nil {
		var n uint64
		n, err = strconv.ParseUint(string(b[17:headerSize]), 16, 32)
		size = int(n)
	}
	if err != nil || size > maxRecordSize-headerSize {
		return rec, 0, fmt.Errorf("%q is no header of a record", b[:headerSize])
	}
	return record{kind: b[0], number: number}, size, nil
}

func parseRecord(b []byte) (record, error) {
	if len(b) < headerSize {
		return record{}, fmt.Errorf("a message of %d bytes is no record", len(b))
	}
	rec, size, err := parseHeader(b)
	if err == nil && size != len(b)-headerSize {
		err = fmt.Errorf("a body of %d bytes came with %d", size, len(b)-headerSize)
	}
	rec.body = b[headerSize:]
	return rec, err
}

// A lane is all the messages in one direction between a client and the server, over all their
// connections. What its messages are follows from their numbers, so that the receiver knows every byte.
type lane struct{ seed, id, direction uint64 }

// The directions of a client's two lanes, and the lane of what the server sends to all.
const (
	toServer = iota
	toClient
	toAll
)

// draw returns the random numbers that belong to the given ones.
func draw(numbers ...uint64) *rand.Rand {
	hi, lo := uint64(len(numbers)), uint64(0)
	for _, n := range numbers { // the finalizer of SplitMix64, chained
		hi += n + 0x9e3779b97f4a7c15
		hi = (hi ^ hi>>30) * 0xbf58476d1ce4e5b9
		hi = (hi ^ hi>>27) * 0x94d049bb133111eb
		hi ^= hi >> 31
		lo = lo<<7 ^ lo>>57 ^ hi
	}
	return rand.New(rand.NewPCG(hi, lo))
}

// plan returns the type of message n and the size of its record, and the random numbers that its body is made of.
func (l lane) plan(n uint64) (websocket.MessageType, int, *rand.Rand) {
	r := draw(l.seed, l.id, l.direction, n)
	typ := websocket.Text
	if r.IntN(2) == 0 {
		typ = websocket.Binary
	}
	return typ, headerSize + bodySize(r), r
}

// size is the size of the record of message n.
func (l lane) size(n uint64) int {
	_, size, _ := l.plan(n)
	return size
}

// bodySize is mostly small, sometimes up to 256 KiB, and rarely just what the limit allows.
func bodySize(r *rand.Rand) int {
	switch p := r.IntN(10000); {
	case p < 4:
		return maxRecordSize - headerSize
	case p < 300:
		return between(r, 16<<10, 256<<10)
	case p < 2000:
		return between(r, 512, 16<<10)
	case p < 2100:
		return 0
	default:
		return r.IntN(512)
	}
}

// between draws a size all of whose orders of magnitude are equally likely.
func between(r *rand.Rand, low, high float64) int {
	return int(low * math.Pow(high/low, r.Float64()))
}

// append appends the record of message n, made for the type typ, 0 for its own.
func (l lane) append(b []byte, kind byte, n uint64, typ websocket.MessageType) (websocket.MessageType, []byte) {
	own, size, r := l.plan(n)
	if typ == 0 {
		typ = own
	}
	b = appendHeader(b, kind, n, size-headerSize)
	if typ == websocket.Text {
		return typ, appendText(b, r, size-headerSize)
	}
	return typ, appendBinary(b, r, size-headerSize)
}

// words of one to four bytes a rune, for text that compression is good for.
var words = [32]string{
	"the ", "of ", "and ", `{"id":`, `"name":"`, `"},`, "connection ", "message ",
	"0123456789", "true,", "null,", "\r\n", "\x00", " ", "WebSocket ", "Sec-",
	"naïve ", "Straße ", "ñandú ", "привет ", "мир ", "γειά ", "שלום ", "سلام ",
	"世界", "你好 ", "こんにちは", "한국어 ", "नमस्ते ", "€", "🙂", "👩‍🚀 ",
}

const longestWord = 20

// appendText appends size bytes of UTF-8.
func appendText(b []byte, r *rand.Rand, size int) []byte {
	end := len(b) + size
	for len(b)+longestWord <= end {
		for v, i := r.Uint64(), 0; i < 12 && len(b)+longestWord <= end; i++ {
			b = append(b, words[v%32]...)
			v >>= 5
		}
	}
	for len(b) < end {
		b = append(b, 'a'+byte(r.IntN(26)))
	}
	return b
}

// appendBinary appends size bytes: noise, runs, or numbers that count.
func appendBinary(b []byte, r *rand.Rand, size int) []byte {
	end := len(b) + size
	switch r.IntN(3) {
	case 0:
		for len(b)+8 <= end {
			b = binary.LittleEndian.AppendUint64(b, r.Uint64())
		}
	case 1:
		for len(b) < end {
			run := min(1+r.IntN(64), end-len(b))
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, run)...)
		}
	default:
		for n := r.Uint64(); len(b)+8 <= end; n++ {
			b = binary.BigEndian.AppendUint64(b, n)
		}
	}
	for len(b) < end {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// scratch lends memory for one record.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// verify holds a record that arrived in a message of the type typ against what it must be. With want, its body was
// made for that type; with typ 0 nobody knows the type it came with.
func (l lane) verify(kind byte, n uint64, typ, want websocket.MessageType, body []byte) error {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	want, expected := l.append((*buf)[:0], kind, n, want)
	*buf = expected
	if typ != 0 && typ != want {
		return fmt.Errorf("message %d came as %s instead of %s", n, typ, want)
	}
	if expected = expected[headerSize:]; bytes.Equal(body, expected) {
		return nil
	}
	if len(body) != len(expected) {
		return fmt.Errorf("message %d has %d bytes instead of %d", n, len(body), len(expected))
	}
	i := 0
	for body[i] == expected[i] {
		i++
	}
	return fmt.Errorf("message %d is corrupt: byte %d of %d is %#02x instead of %#02x", n, i, len(body), body[i], expected[i])
}
