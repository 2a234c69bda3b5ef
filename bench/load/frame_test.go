package load

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// The examples of RFC 6455 section 5.7, and the borders between the forms of a length.
func TestAppendFrame(t *testing.T) {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	assert.Equal(t, unhex(t, "81 85 37fa213d 7f9f4d5158"), AppendFrame(nil, Text, key, []byte("Hello")))
	assert.Equal(t, unhex(t, "ff c1 82 85 37fa213d 7f9f4d5158"), AppendFrame([]byte{0xff, 0xc1}, Binary, key, []byte("Hello")))

	for n, head := range map[int]string{
		0:       "82 80 00000000",
		125:     "82 fd 00000000",
		126:     "82 fe 007e 00000000",
		65535:   "82 fe ffff 00000000",
		65536:   "82 ff 0000000000010000 00000000",
		4 << 20: "82 ff 0000000000400000 00000000",
	} {
		payload := bytes.Repeat([]byte{'x'}, n)
		want := append(unhex(t, head), payload...)
		assert.True(t, bytes.Equal(want, AppendFrame(nil, Binary, [4]byte{}, payload)), "%d bytes", n)
	}
}

// parse gives b to a parser, in pieces of so many bytes.
func parse(p *parser, b []byte, piece int) (messages []Message, err error) {
	for len(b) > 0 {
		chunk := b[:min(piece, len(b))]
		b = b[len(chunk):]
		for len(chunk) > 0 {
			n, whole, err := p.next(chunk)
			if err != nil {
				return messages, err
			}
			if whole {
				messages = append(messages, Message{p.first, bytes.Clone(p.payload)})
			}
			chunk = chunk[n:]
		}
	}
	return messages, nil
}

func TestParse(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 7000)
	stream := unhex(t, "81 05 48656c6c6f"+ // section 5.7: a text message
		"01 03 48656c 80 02 6c6f"+ // and the same in two frames
		"89 05 48656c6c6f"+ // a Ping
		"02 01 41 8a 00 00 00 80 01 42"+ // fragments, an empty one among them, and a Pong in the middle
		"c1 07 f248cdc9c90700"+ // RFC 7692 section 7.2.3.1
		"82 00")
	stream = append(stream, unhex(t, "82 7e 0100")...)
	stream = append(stream, long[:256]...)
	stream = append(stream, unhex(t, "82 7f 0000000000011170")...)
	stream = append(stream, long...)
	want := []Message{
		{0x81, []byte("Hello")},
		{0x01, []byte("Hello")},
		{0x02, []byte("AB")},
		{0xc1, unhex(t, "f248cdc9c90700")},
		{0x82, []byte{}},
		{0x82, long[:256]},
		{0x82, long},
	}
	for _, piece := range []int{1, 2, 3, 7, 100, 4096, len(stream)} {
		got, err := parse(&parser{keep: true}, stream, piece)
		require.NoError(t, err)
		require.Len(t, got, len(want), "in pieces of %d", piece)
		for i := range want {
			assert.Equal(t, want[i].First, got[i].First, "message %d in pieces of %d", i, piece)
			assert.True(t, bytes.Equal(want[i].Payload, got[i].Payload), "message %d in pieces of %d", i, piece)
		}
	}
}

// Where payloads are not kept, their lengths are.
func TestParseCountsOnly(t *testing.T) {
	p := new(parser)
	stream := unhex(t, "02 03 414243 89 01 41 80 02 4445")
	n, whole, err := p.next(stream)
	require.NoError(t, err)
	assert.True(t, whole)
	assert.Equal(t, len(stream), n)
	assert.Equal(t, 5, p.size)
	assert.Equal(t, 2, p.frames)
	assert.Empty(t, p.payload)
}

func TestParsePlain(t *testing.T) {
	for _, piece := range []int{1, 2, 5, 9} {
		got, err := parse(&parser{keep: true, plain: 3}, []byte("abcdefghi"), piece)
		require.NoError(t, err)
		assert.Equal(t, []Message{{Binary, []byte("abc")}, {Binary, []byte("def")}, {Binary, []byte("ghi")}}, got)
	}
}

func TestParseErrors(t *testing.T) {
	for stream, want := range map[string]string{
		"81 85 37fa213d":   "masked",
		"88 02 03e8":       "Close",
		"80 01 41":         "opcode 0",
		"01 01 41 81 0142": "opcode 1",
	} {
		_, err := parse(new(parser), unhex(t, stream), 1)
		assert.ErrorContains(t, err, want, stream)
	}
}
