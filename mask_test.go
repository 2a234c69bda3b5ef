package websocket

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// maskBytes is RFC 6455 section 5.3 to the letter:
// transformed-octet-i = original-octet-i XOR masking-key-octet-(i MOD 4).
func maskBytes(b []byte, key [4]byte, pos int) {
	for i := range b {
		b[i] ^= key[(pos+i)%4]
	}
}

// patterned returns n bytes of which no two neighbours are equal.
func patterned(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// The masked "Hello" of RFC 6455 section 5.7.
func TestMaskSection5_7(t *testing.T) {
	b := []byte("Hello")
	next := Mask(b, [4]byte{0x37, 0xfa, 0x21, 0x3d}, 0)
	assert.Equal(t, []byte{0x7f, 0x9f, 0x4d, 0x51, 0x58}, b)
	assert.Equal(t, 1, next)
}

func TestMaskSection5_3(t *testing.T) {
	key := [4]byte{0x11, 0x22, 0x44, 0x88}
	const maxLen, maxOffset, margin = 300, 8, 16
	original := patterned(maxOffset + maxLen + margin)
	for pos := range 4 {
		for n := range maxLen + 1 {
			for offset := range maxOffset + 1 {
				// All of the buffer is compared: nothing around b may change.
				got := bytes.Clone(original)
				next := Mask(got[offset:offset+n], key, pos)
				want := bytes.Clone(original)
				maskBytes(want[offset:offset+n], key, pos)
				if !bytes.Equal(want, got) {
					require.Equal(t, want, got, "pos %d, length %d, slice offset %d", pos, n, offset)
				}
				require.Equal(t, (pos+n)%4, next, "pos %d, length %d", pos, n)
			}
		}
	}
}

func TestMaskFrom(t *testing.T) {
	key := [4]byte{0x11, 0x22, 0x44, 0x88}
	original := patterned(2*alignedMaskSize + 16)
	for pos := range 4 {
		for start := range 20 {
			for _, n := range []int{0, 1, 7, 100, alignedMaskSize - 1, alignedMaskSize, alignedMaskSize + 7, alignedMaskSize + 8, 2*alignedMaskSize - 20} {
				got := bytes.Clone(original)
				next := maskFrom(got[:start+n], start, key, pos)
				want := bytes.Clone(original)
				maskBytes(want[start:start+n], key, pos)
				require.True(t, bytes.Equal(want, got), "pos %d, %d bytes from %d", pos, n, start)
				require.Equal(t, (pos+n)%4, next)
			}
		}
	}
}

func TestMaskInPieces(t *testing.T) {
	key := [4]byte{0xde, 0xad, 0xbe, 0xef}
	want := patterned(200)
	maskBytes(want, key, 0)
	for size := 1; size <= len(want); size++ {
		got := patterned(200)
		pos := 0
		for rest := got; len(rest) > 0; {
			n := min(size, len(rest))
			pos = Mask(rest[:n], key, pos)
			rest = rest[n:]
		}
		require.Equal(t, want, got, "pieces of %d bytes", size)
	}
}

func TestMaskTwiceIsIdentity(t *testing.T) {
	b := patterned(1000)
	Mask(b, [4]byte{1, 2, 3, 4}, 3)
	require.NotEqual(t, patterned(1000), b)
	Mask(b, [4]byte{1, 2, 3, 4}, 3)
	require.Equal(t, patterned(1000), b)
}

func TestMaskAnyPos(t *testing.T) {
	for _, tt := range []struct{ pos, mod4 int }{
		{4, 0}, {7, 3}, {-1, 3}, {-2, 2}, {-3, 1}, {-4, 0}, {-5, 3},
		{math.MaxInt, 3}, {math.MinInt, 0}, {math.MinInt + 1, 1},
	} {
		for _, n := range []int{0, 1, 2, 3, 6, 13, 125, 500} {
			key := [4]byte{0x11, 0x22, 0x44, 0x88}
			want, got := patterned(n), patterned(n)
			maskBytes(want, key, tt.mod4)
			next := Mask(got, key, tt.pos)
			require.Equal(t, want, got, "pos %d, length %d", tt.pos, n)
			require.Equal(t, (tt.mod4+n)%4, next, "pos %d, length %d", tt.pos, n)
		}
	}
}

func TestMaskAllocs(t *testing.T) {
	b := make([]byte, 125)
	assert.Zero(t, testing.AllocsPerRun(100, func() { Mask(b, [4]byte{1, 2, 3, 4}, 0) }))
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("Hello"), uint32(0x37fa213d), 0, 2)
	f.Fuzz(func(t *testing.T, b []byte, k uint32, pos, split int) {
		key := [4]byte{byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}
		want := bytes.Clone(b)
		maskBytes(want, key, pos&3)

		whole := bytes.Clone(b)
		next := Mask(whole, key, pos)
		require.Equal(t, want, whole)
		require.Equal(t, (pos&3+len(b))%4, next)

		parts := bytes.Clone(b)
		i := int(uint(split) % uint(len(b)+1))
		next = Mask(parts[i:], key, Mask(parts[:i], key, pos))
		require.Equal(t, want, parts, "split at %d", i)
		require.Equal(t, (pos&3+len(b))%4, next)
	})
}

func BenchmarkMask(b *testing.B) {
	for _, n := range []int{1, 8, 16, 32, 125, 1024, 4096, 65536} {
		for _, offset := range []int{0, 3} { // of the slice in memory; headers leave any
			b.Run(fmt.Sprintf("%d/offset=%d", n, offset), func(b *testing.B) {
				p := make([]byte, offset+n)[offset:]
				b.SetBytes(int64(n))
				pos := 0
				for b.Loop() {
					pos = Mask(p, [4]byte{0x37, 0xfa, 0x21, 0x3d}, pos)
				}
			})
		}
	}
}
