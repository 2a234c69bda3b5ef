package websocket

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// vectors reads the lines of a file in testdata that are neither empty nor comments, split
// at " = ".
func vectors(t testing.TB, name string) [][2]string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	var all [][2]string
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		left, right, ok := strings.Cut(line, " = ")
		require.True(t, ok, line)
		all = append(all, [2]string{strings.TrimSpace(left), strings.TrimSpace(right)})
	}
	require.NotEmpty(t, all)
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

var opcodes = map[string]Opcode{
	"continuation": OpContinuation, "text": OpText, "binary": OpBinary,
	"close": OpClose, "ping": OpPing, "pong": OpPong,
}

func headerOfWords(t testing.TB, words string) (h Header) {
	t.Helper()
	for _, w := range strings.Fields(words) {
		name, value, _ := strings.Cut(w, "=")
		op, isOpcode := opcodes[name]
		switch {
		case isOpcode:
			h.Opcode = op
		case name == "fin":
			h.Fin = true
		case name == "rsv1":
			h.RSV1 = true
		case name == "rsv2":
			h.RSV2 = true
		case name == "rsv3":
			h.RSV3 = true
		case name == "key":
			h.Masked = true
			h.Key = [4]byte(unhex(t, value))
		case name == "length":
			n, err := strconv.ParseUint(value, 10, 64)
			require.NoError(t, err)
			h.Length = n
		default:
			n, err := strconv.ParseUint(name, 10, 4)
			require.NoError(t, err)
			h.Opcode = Opcode(n)
		}
	}
	return h
}

func TestHeaderVectors(t *testing.T) {
	for _, v := range vectors(t, "testdata/frames/headers.txt") {
		t.Run(v[0], func(t *testing.T) {
			want := headerOfWords(t, v[0])
			wireHex, plainHex, _ := strings.Cut(v[1], "|")
			wire, plain := unhex(t, wireHex), unhex(t, plainHex)
			header, payload := wire[:len(wire)-len(plain)], wire[len(wire)-len(plain):]

			for short := range header {
				_, n, err := ParseHeader(header[:short])
				require.NoError(t, err)
				require.Zero(t, n, "%d bytes of %d", short, len(header))
			}
			got, n, err := ParseHeader(wire)
			require.NoError(t, err)
			assert.Equal(t, want, got)
			assert.Equal(t, len(header), n)
			assert.Equal(t, header, AppendHeader(nil, want))
			assert.Equal(t, append([]byte("x"), header...), AppendHeader([]byte("x"), want))

			if want.Masked {
				Mask(payload, want.Key, 0)
			}
			assert.Equal(t, plain, slices.Clip(payload))
		})
	}
}

func TestMalformedHeaders(t *testing.T) {
	for _, v := range vectors(t, "testdata/frames/malformed.txt") {
		t.Run(v[0], func(t *testing.T) {
			_, n, err := ParseHeader(unhex(t, v[0]))
			assert.Zero(t, n)
			var perr *ProtocolError
			require.ErrorAs(t, err, &perr)
			assert.Equal(t, StatusProtocolError, perr.Code)
			assert.Equal(t, "RFC 6455 section 5.2", perr.Section)
			assert.Contains(t, err.Error(), v[1])
		})
	}
}

func TestJudge(t *testing.T) {
	const none = ""
	for _, test := range []struct {
		header  string
		state   inboundState
		section string
	}{
		// RFC 6455 section 5.1: masking
		{"fin text key=01020304", inboundState{}, none},
		{"fin text", inboundState{}, "RFC 6455 section 5.1"},
		{"fin ping", inboundState{}, "RFC 6455 section 5.1"},
		{"fin text", inboundState{client: true}, none},
		{"fin text key=01020304", inboundState{client: true}, "RFC 6455 section 5.1"},
		{"fin close key=01020304", inboundState{client: true}, "RFC 6455 section 5.1"},

		// RFC 6455 section 5.2: reserved bits and opcodes
		{"fin rsv1 text", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin rsv2 text", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin rsv3 text", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin rsv2 text", inboundState{client: true, compressed: true}, "RFC 6455 section 5.2"},
		{"fin rsv3 ping", inboundState{client: true, compressed: true}, "RFC 6455 section 5.2"},
		{"fin 3", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 4", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 5", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 6", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 7", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 11", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 12", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 13", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 14", inboundState{client: true}, "RFC 6455 section 5.2"},
		{"fin 15", inboundState{client: true}, "RFC 6455 section 5.2"},

		// RFC 6455 section 5.4: fragmentation
		{"text", inboundState{client: true}, none},
		{"binary", inboundState{client: true}, none},
		{"continuation", inboundState{client: true}, "RFC 6455 section 5.4"},
		{"fin continuation", inboundState{client: true}, "RFC 6455 section 5.4"},
		{"continuation", inboundState{client: true, fragmented: true}, none},
		{"fin continuation", inboundState{client: true, fragmented: true}, none},
		{"fin text", inboundState{client: true, fragmented: true}, "RFC 6455 section 5.4"},
		{"binary", inboundState{client: true, fragmented: true}, "RFC 6455 section 5.4"},
		{"fin ping", inboundState{client: true, fragmented: true}, none},

		// RFC 6455 section 5.5: control frames
		{"fin ping length=125", inboundState{client: true}, none},
		{"fin pong length=125", inboundState{client: true}, none},
		{"fin close length=125", inboundState{client: true}, none},
		{"fin ping length=126", inboundState{client: true}, "RFC 6455 section 5.5"},
		{"fin pong length=126", inboundState{client: true}, "RFC 6455 section 5.5"},
		{"fin close length=9223372036854775807", inboundState{client: true}, "RFC 6455 section 5.5"},
		{"ping", inboundState{client: true}, "RFC 6455 section 5.5"},
		{"pong", inboundState{client: true}, "RFC 6455 section 5.5"},
		{"close", inboundState{client: true}, "RFC 6455 section 5.5"},

		// RFC 7692 section 6.1: the compressed bit
		{"fin rsv1 text", inboundState{client: true, compressed: true}, none},
		{"rsv1 binary", inboundState{client: true, compressed: true}, none},
		{"rsv1 continuation", inboundState{client: true, compressed: true, fragmented: true}, "RFC 7692 section 6.1"},
		{"fin rsv1 ping", inboundState{client: true, compressed: true}, "RFC 7692 section 6.1"},
		{"fin rsv1 close", inboundState{client: true, compressed: true}, "RFC 7692 section 6.1"},
	} {
		perr := judge(headerOfWords(t, test.header), test.state)
		if test.section == none {
			assert.Nil(t, perr, "%s in %+v", test.header, test.state)
		} else if assert.NotNil(t, perr, "%s in %+v", test.header, test.state) {
			assert.Equal(t, test.section, perr.Section, "%s in %+v", test.header, test.state)
			assert.Equal(t, StatusProtocolError, perr.Code)
		}
	}
}

func TestOpcodeNames(t *testing.T) {
	for name, op := range opcodes {
		assert.Equal(t, name, op.String())
		assert.Equal(t, op >= 8, op.IsControl())
	}
	assert.Equal(t, "opcode 11", Opcode(11).String())
	assert.True(t, Opcode(11).IsControl())
	assert.Equal(t, "text", Text.String())
	assert.Equal(t, "binary", Binary.String())
}

func FuzzHeader(f *testing.F) {
	for _, v := range vectors(f, "testdata/frames/headers.txt") {
		wire, _, _ := strings.Cut(v[1], "|")
		f.Add(unhex(f, wire))
	}
	for _, v := range vectors(f, "testdata/frames/malformed.txt") {
		f.Add(unhex(f, v[0]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		if err != nil || n == 0 {
			require.Zero(t, n)
			if err == nil {
				require.Less(t, len(b), maxHeaderSize)
			}
			return
		}
		require.Less(t, h.Length, uint64(1)<<63)
		require.Equal(t, b[:n], AppendHeader(nil, h), "%+v", h)
	})
}

var headers = []struct {
	name string
	h    Header
}{
	{"small", Header{Fin: true, Opcode: OpText, Length: 125}},
	{"small masked", Header{Fin: true, Opcode: OpText, Masked: true, Key: [4]byte{1, 2, 3, 4}, Length: 125}},
	{"medium masked", Header{Fin: true, Opcode: OpText, Masked: true, Key: [4]byte{1, 2, 3, 4}, Length: 1 << 10}},
	{"large masked", Header{Fin: true, Opcode: OpText, Masked: true, Key: [4]byte{1, 2, 3, 4}, Length: 1 << 20}},
}

func TestHeaderAllocs(t *testing.T) {
	for _, test := range headers {
		buf := make([]byte, 0, maxHeaderSize)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			h, _, _ := ParseHeader(AppendHeader(buf, test.h))
			if judge(h, inboundState{client: !h.Masked}) != nil {
				t.Fatal("judged wrong")
			}
		}), test.name)
	}
}

func BenchmarkHeader(b *testing.B) {
	for _, test := range headers {
		wire := AppendHeader(nil, test.h)
		b.Run("parse/"+test.name, func(b *testing.B) {
			for b.Loop() {
				if _, n, _ := ParseHeader(wire); n != len(wire) {
					b.Fatal("parsed wrong")
				}
			}
		})
		b.Run("append/"+test.name, func(b *testing.B) {
			buf := make([]byte, 0, maxHeaderSize)
			for b.Loop() {
				if len(AppendHeader(buf, test.h)) != len(wire) {
					b.Fatal("appended wrong")
				}
			}
		})
		b.Run("judge/"+test.name, func(b *testing.B) {
			s := inboundState{client: !test.h.Masked}
			for b.Loop() {
				if judge(test.h, s) != nil {
					b.Fatal("judged wrong")
				}
			}
		})
	}
}
