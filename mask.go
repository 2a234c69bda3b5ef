package websocket

import (
	"encoding/binary"
	"math/bits"
)

// Mask masks b in place, or unmasks it, which is the same operation. It takes
// b for the part of a payload that begins at offset pos and returns the offset
// at which the payload goes on, so that a payload which comes in pieces is
// masked by
//
//	pos = Mask(piece, key, pos)
//
// for one piece after the other, beginning with pos 0. Offsets count modulo 4,
// the length of the key: the result is from 0 to 3, and any pos is valid.
//
// See RFC 6455 section 5.3.
func Mask(b []byte, key [4]byte, pos int) int {
	le := binary.LittleEndian
	next := (pos + len(b)) & 3
	k4 := bits.RotateLeft32(le.Uint32(key[:]), -8*(pos&3))
	k := uint64(k4)<<32 | uint64(k4)

	for len(b) >= 64 {
		p := (*[64]byte)(b)
		le.PutUint64(p[0:8], le.Uint64(p[0:8])^k)
		le.PutUint64(p[8:16], le.Uint64(p[8:16])^k)
		le.PutUint64(p[16:24], le.Uint64(p[16:24])^k)
		le.PutUint64(p[24:32], le.Uint64(p[24:32])^k)
		le.PutUint64(p[32:40], le.Uint64(p[32:40])^k)
		le.PutUint64(p[40:48], le.Uint64(p[40:48])^k)
		le.PutUint64(p[48:56], le.Uint64(p[48:56])^k)
		le.PutUint64(p[56:64], le.Uint64(p[56:64])^k)
		b = b[64:]
	}

	// What is left is taken as words from its front and words from its back.
	// They overlap, so all of them are loaded before one is stored. This makes
	// one jump of what would be a loop, which is what short payloads consist of.
	n := len(b)
	kb := bits.RotateLeft64(k, -8*(n&3)) // key at the back, a multiple of 4 before the end
	switch {
	case n > 32:
		f, g := (*[32]byte)(b), (*[32]byte)(b[n-32:])
		f0 := le.Uint64(f[0:8]) ^ k
		f1 := le.Uint64(f[8:16]) ^ k
		f2 := le.Uint64(f[16:24]) ^ k
		f3 := le.Uint64(f[24:32]) ^ k
		g0 := le.Uint64(g[0:8]) ^ kb
		g1 := le.Uint64(g[8:16]) ^ kb
		g2 := le.Uint64(g[16:24]) ^ kb
		g3 := le.Uint64(g[24:32]) ^ kb
		le.PutUint64(f[0:8], f0)
		le.PutUint64(f[8:16], f1)
		le.PutUint64(f[16:24], f2)
		le.PutUint64(f[24:32], f3)
		le.PutUint64(g[0:8], g0)
		le.PutUint64(g[8:16], g1)
		le.PutUint64(g[16:24], g2)
		le.PutUint64(g[24:32], g3)
	case n > 16:
		f, g := (*[16]byte)(b), (*[16]byte)(b[n-16:])
		f0 := le.Uint64(f[0:8]) ^ k
		f1 := le.Uint64(f[8:16]) ^ k
		g0 := le.Uint64(g[0:8]) ^ kb
		g1 := le.Uint64(g[8:16]) ^ kb
		le.PutUint64(f[0:8], f0)
		le.PutUint64(f[8:16], f1)
		le.PutUint64(g[0:8], g0)
		le.PutUint64(g[8:16], g1)
	case n >= 8:
		f, g := (*[8]byte)(b), (*[8]byte)(b[n-8:])
		f0 := le.Uint64(f[:]) ^ k
		g0 := le.Uint64(g[:]) ^ kb
		le.PutUint64(f[:], f0)
		le.PutUint64(g[:], g0)
	case n >= 4:
		f, g := (*[4]byte)(b), (*[4]byte)(b[n-4:])
		f0 := le.Uint32(f[:]) ^ uint32(k)
		g0 := le.Uint32(g[:]) ^ uint32(kb)
		le.PutUint32(f[:], f0)
		le.PutUint32(g[:], g0)
	default:
		for i := range b {
			b[i] ^= byte(k)
			k >>= 8
		}
	}
	return next
}

// alignedMaskSize is from how many bytes on maskFrom looks for words that are aligned.
const alignedMaskSize = 1 << 10

// maskFrom is Mask for b[start:]. As a rule b begins where its memory does, and words that do
// not lie across the lines of a cache take three quarters of the time.
func maskFrom(b []byte, start int, key [4]byte, pos int) int {
	if aligned := (start + 7) &^ 7; aligned > start && len(b) >= aligned+alignedMaskSize {
		pos = Mask(b[start:aligned], key, pos)
		start = aligned
	}
	return Mask(b[start:], key, pos)
}
