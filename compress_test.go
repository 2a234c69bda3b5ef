package websocket

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func sending(takeover bool, bits, level int) *deflater {
	return newDeflater(&deflateParams{send: deflateContext{takeover: takeover, bits: bits}, level: level})
}

func receiving(takeover bool, bits int) *inflater {
	return newInflater(&deflateParams{recv: deflateContext{takeover: takeover, bits: bits}})
}

// jsonMessage returns what an API or a feed might send, of about n bytes.
func jsonMessage(rnd *rand.Rand, n int) []byte {
	if n < 500 {
		return fmt.Appendf(nil, `{"type":"trade","symbol":"%s-USD","price":"%d.%02d","size":"%d.%08d","side":"%s",`+
			`"time":"2026-03-%02dT%02d:%02d:%02d.%06dZ","seq":%d,"maker":"%08x","taker":"%08x"}`,
			pick(rnd, "BTC", "ETH", "SOL", "ADA"), 20000+rnd.IntN(9000), rnd.IntN(100), rnd.IntN(3), rnd.IntN(1e8),
			pick(rnd, "buy", "sell"), 1+rnd.IntN(28), rnd.IntN(24), rnd.IntN(60), rnd.IntN(60), rnd.IntN(1e6),
			812000+rnd.IntN(1000), rnd.Uint32(), rnd.Uint32())
	}
	words := strings.Fields("the quick brown fox jumps over a lazy dog market order price update server client " +
		"connection message stream window deploy release status error warning metric latency throughput request " +
		"response user account payment invoice region cluster node healthy degraded restart queue")
	b := []byte(`{"items":[`)
	for id := 100000; len(b) < n-150; id++ {
		b = fmt.Appendf(b, `{"id":%d,"user":{"name":"%s","email":"%[2]s%[3]d@example.com","active":%v},"text":"`,
			id, pick(rnd, "alice", "bob", "carol", "dave", "erin", "frank", "grace"), rnd.IntN(1000), rnd.IntN(2) == 0)
		for range 4 + rnd.IntN(10) {
			b = append(append(b, pick(rnd, words...)...), ' ')
		}
		b = fmt.Appendf(b, `","score":%d.%d,"tags":["%s","%s"],"created":"2026-0%d-1%dT0%d:%02d:%02dZ"},`,
			rnd.IntN(100), rnd.IntN(1000), pick(rnd, words...), pick(rnd, words...), 1+rnd.IntN(9), rnd.IntN(9),
			rnd.IntN(9), rnd.IntN(60), rnd.IntN(60))
	}
	return append(bytes.TrimSuffix(b, []byte(",")), "]}"...)
}

func pick(rnd *rand.Rand, from ...string) string { return from[rnd.IntN(len(from))] }

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// testMessages is text of many kinds and sizes, some of it more than any window.
func testMessages() [][]byte {
	rnd := rand.New(rand.NewPCG(7692, 0))
	messages := [][]byte{
		nil, {}, []byte("a"), []byte("Hello"), []byte("Hello"), bytes.Repeat([]byte("Hello "), 100),
		make([]byte, 257), make([]byte, 258), make([]byte, 259), make([]byte, 300<<10), nil,
		randomBytes(rnd, 100), randomBytes(rnd, 70<<10), randomBytes(rnd, 3), nil,
	}
	for range 20 {
		messages = append(messages, jsonMessage(rnd, 170), jsonMessage(rnd, 1<<10))
	}
	messages = append(messages, jsonMessage(rnd, 36<<10), jsonMessage(rnd, 200<<10))
	// The same at distances about the sizes of windows.
	for bits := 8; bits <= 15; bits++ {
		for _, more := range []int{-300, -4, -1, 0, 1, 4} {
			same := randomBytes(rnd, 20)
			gap := make([]byte, max(1<<bits+more-len(same), 0))
			messages = append(messages, bytes.Join([][]byte{same, gap, same}, nil))
		}
	}
	// Huffman codes that would be longer than they may be: symbols with Fibonacci counts.
	var skewed []byte
	for s, a, b := byte(0), 1, 1; len(skewed) < 8000; s, a, b = s+1, b, a+b {
		for range a {
			skewed = append(skewed, s)
		}
	}
	rnd.Shuffle(len(skewed), func(i, j int) { skewed[i], skewed[j] = skewed[j], skewed[i] })
	return append(messages, skewed, skewed)
}

// What the compressor writes is DEFLATE data, for compress/flate as for the referee, which
// also sees to it that the window is kept.
func TestDeflate(t *testing.T) {
	messages := testMessages()
	for _, takeover := range []bool{false, true} {
		for bits := 8; bits <= 15; bits++ {
			for level := 1; level < len(efforts); level++ {
				if level != defaultLevel && (bits+level)%3 != 0 {
					continue
				}
				t.Run(fmt.Sprintf("takeover=%v/bits=%d/level=%d", takeover, bits, level), func(t *testing.T) {
					t.Parallel()
					d := sending(takeover, bits, level)
					f := receiving(takeover, bits)
					r := &referee{takeover: takeover, window: 1 << bits}
					var stream, text []byte // all of it, as one DEFLATE stream
					var sent int
					for i, m := range messages {
						prefix := []byte("prefix")
						out, ok := d.appendMessage(prefix, m)
						require.Equal(t, "prefix", string(out[:6]))
						if !ok {
							require.Len(t, out, 6)
							require.False(t, takeover && len(m) <= investUpTo)
							continue
						}
						out = out[6:]
						if len(m) > investUpTo || !takeover {
							require.Less(t, len(out), len(m))
						}
						sent++
						got, err := f.appendMessage([]byte("prefix"), out, int64(len(m)))
						require.NoError(t, err)
						require.Equal(t, "prefix"+string(m), string(got), "message %d", i)
						if level != defaultLevel && level != 9 {
							continue // the referee takes its time
						}
						got, err = r.message(out, removedTail)
						require.NoError(t, err)
						require.Equal(t, string(m), string(got), "message %d", i)
						stream = append(append(stream, out...), removedTail...)
						text = append(text, m...)
					}
					require.Greater(t, sent, len(messages)/2)
					if stream != nil {
						stream = append(stream, finalBlock...)
						got, err := io.ReadAll(flate.NewReader(bytes.NewReader(stream)))
						require.NoError(t, err)
						require.Equal(t, string(text), string(got))
						// The window is not only kept but used.
						assert.Greater(t, r.farthest, 1<<bits*3/4)
					}
				})
			}
		}
	}
}

// RFC 7692 section 7.2.3.1: there are few ways to say Hello.
func TestDeflateExample(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		d := sending(takeover, 15, 4)
		assert.Equal(t, unhex(t, "f248cdc9c90700"), d.appendEnd(d.appendPiece(nil, []byte("Hello"))))
		again := d.appendEnd(d.appendPiece(nil, []byte("Hello")))
		if takeover {
			assert.LessOrEqual(t, len(again), 5) // as in section 7.2.3.2
		} else {
			assert.Equal(t, unhex(t, "f248cdc9c90700"), again)
		}
	}
}

// RFC 7692 section 7.2.3.6.
func TestDeflateEmptyMessage(t *testing.T) {
	d := sending(true, 15, 4)
	for range 2 {
		out, ok := d.appendMessage(nil, nil)
		assert.True(t, ok)
		assert.Equal(t, []byte{0}, out)
		assert.Equal(t, []byte{0}, d.appendEnd(nil))
		assert.Equal(t, []byte{0}, d.appendEnd(d.appendPiece(nil, nil)))
	}
}

// The pieces of a streamed message make the same message however it is cut.
func TestDeflateStream(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 1))
	for _, takeover := range []bool{false, true} {
		for _, bits := range []int{8, 9, 12, 15} {
			d := sending(takeover, bits, 4)
			f := receiving(takeover, bits)
			r := &referee{takeover: takeover, window: 1 << bits}
			for i, m := range testMessages() {
				var out []byte
				for rest := m; len(rest) > 0; {
					n := min(1+rnd.IntN(1<<rnd.IntN(18)), len(rest))
					before := len(out)
					out = d.appendPiece(out, rest[:n])
					require.GreaterOrEqual(t, len(out), before)
					rest = rest[n:]
				}
				out = d.appendEnd(out)
				require.Nil(t, d.stream)
				// What does not get smaller gets hardly larger.
				require.LessOrEqual(t, len(out), len(m)+len(m)/64+6)
				got, err := r.message(out, removedTail)
				require.NoError(t, err)
				require.Equal(t, string(m), string(got), "message %d", i)
				got, err = f.appendMessage(nil, out, int64(len(m)))
				require.NoError(t, err)
				require.Equal(t, string(m), string(got), "message %d", i)
			}
		}
	}
}

// A streamed message comes out piece by piece, so that it is never in memory whole.
func TestDeflateStreamIsBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 2))
	for _, takeover := range []bool{false, true} {
		d := sending(takeover, 15, 4)
		in, out := 0, 0
		for range 100 {
			p := randomBytes(rnd, 10<<10)
			in += len(p)
			out += len(d.appendPiece(nil, p))
			assert.Less(t, in-out, 80<<10)
		}
		d.appendEnd(nil)
	}
}

func TestDeflateMinSize(t *testing.T) {
	d := newDeflater(&deflateParams{send: deflateContext{bits: 15}, level: 4, minSize: 100})
	_, ok := d.appendMessage(nil, make([]byte, 99))
	assert.False(t, ok)
	assert.False(t, d.wants(99))
	_, ok = d.appendMessage(nil, make([]byte, 100))
	assert.True(t, ok)
	assert.True(t, d.wants(100))
}

// A message that is sent as it is, since it does not get smaller, is not in the peer's window
// (RFC 7692 section 7.2.3.2 shares the window among compressed messages). It must not be in
// ours.
func TestDeflateIncompressible(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 3))
	for _, bits := range []int{8, 10, 15} {
		for _, n := range []int{investUpTo + 1, 5 << 10, 30 << 10, 33 << 10, 200 << 10} {
			d, f := sending(true, bits, 4), receiving(true, bits)
			r := &referee{takeover: true, window: 1 << bits}
			compressed := func(m []byte) int {
				out, ok := d.appendMessage(nil, m)
				require.True(t, ok)
				got, err := r.message(out, removedTail)
				require.NoError(t, err)
				require.Equal(t, string(m), string(got))
				got, err = f.appendMessage(nil, out, 1<<20)
				require.NoError(t, err)
				require.Equal(t, string(m), string(got))
				return len(out)
			}
			known := randomBytes(rnd, 100)
			compressed(known)
			if n == 200<<10 {
				compressed(jsonMessage(rnd, 40<<10)) // a full history, of which some is lost
				compressed(known)
			}
			noise := randomBytes(rnd, n)
			out, ok := d.appendMessage([]byte("x"), noise)
			require.False(t, ok)
			require.Equal(t, "x", string(out))
			size := compressed(known)
			if n <= 5<<10 && bits == 15 {
				assert.Less(t, size, 20, "what was known still is")
			}
			// If noise were in the history, this would refer to it.
			out = d.appendStreamed(noise)
			got, err := r.message(out, removedTail)
			require.NoError(t, err)
			require.True(t, bytes.Equal(noise, got))
		}
	}
}

// Small messages that do not get smaller one by one do so in company.
func TestDeflateInvests(t *testing.T) {
	d := sending(true, 15, 4)
	m := []byte(`{"op":"ping","id":48151623}`)
	first, ok := d.appendMessage(nil, m)
	assert.True(t, ok)
	assert.LessOrEqual(t, len(first), len(m)+6)
	second, ok := d.appendMessage(nil, m)
	assert.True(t, ok)
	assert.Less(t, len(second), 8)
	// What is in vain costs 6 bytes.
	noise, ok := d.appendMessage(nil, randomBytes(rand.New(rand.NewPCG(7692, 9)), investUpTo))
	assert.True(t, ok)
	assert.Len(t, noise, investUpTo+6)
}

func TestCodeLengths(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 13))
	fibonacci := []uint16{1, 1}
	for len(fibonacci) < 22 {
		fibonacci = append(fibonacci, fibonacci[len(fibonacci)-1]+fibonacci[len(fibonacci)-2])
	}
	tests := [][]uint16{
		{0, 0, 0}, {5, 0, 0}, {0, 5, 0}, {0, 0, 5}, {1, 0, 9}, {1, 1, 1, 1}, fibonacci, make([]uint16, numLiterals),
	}
	for range 200 {
		count := make([]uint16, 19+rnd.IntN(numLiterals-19+1))
		for i := range count {
			count[i] = uint16(rnd.IntN(1<<rnd.IntN(14)) * rnd.IntN(2))
		}
		tests = append(tests, count)
	}
	e := newEncoder()
	for _, count := range tests {
		for _, limit := range []int{7, 15} {
			used := 0
			for _, n := range count {
				used += b2i(n > 0)
			}
			if used > 1<<limit {
				continue
			}
			lens := make([]uint8, len(count))
			e.codeLengths(lens, count, limit)
			kraft, codes := 0, 0
			for s, n := range lens {
				require.LessOrEqual(t, int(n), limit)
				require.False(t, n == 0 && count[s] > 0, "symbol %d of %v has no code", s, count)
				if n > 0 {
					kraft += 1 << (limit - int(n))
					codes++
				}
				// The more often, the shorter.
				for s2 := range s {
					if n > 0 && lens[s2] > n && count[s2] > count[s] {
						t.Fatalf("%v of %v", lens, count)
					}
				}
			}
			require.Equal(t, 1<<limit, kraft, "no complete code: %v of %v", lens, count)
			require.Equal(t, max(used, 2), codes)
		}
	}
	lens := make([]uint8, 5)
	e.codeLengths(lens, []uint16{1, 1, 2, 4, 8}, 15)
	require.Equal(t, []uint8{4, 4, 3, 2, 1}, lens)
}

// Data that does not get smaller is not worked on to its end.
func TestDeflateGivesUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 4))
	for _, takeover := range []bool{false, true} {
		d := sending(takeover, 15, 4)
		buf := make([]byte, 0, 200<<10)
		m := append(randomBytes(rnd, 100<<10), make([]byte, 8<<20)...)
		_, ok := d.appendMessage(buf, m)
		assert.False(t, ok, "the zeros were looked at")
		assert.Equal(t, []byte{0}, d.appendEnd(nil), "something is left of it")
	}
}

// A message that was compressed once for many connections becomes part of each history.
func TestDeflateAdopt(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 5))
	for _, bits := range []int{8, 12, 15} {
		d, f := sending(true, bits, 4), receiving(true, bits)
		r := &referee{takeover: true, window: 1 << bits}
		receive := func(out, m []byte) {
			got, err := r.message(out, removedTail)
			require.NoError(t, err)
			require.Equal(t, string(m), string(got))
			got, err = f.appendMessage(nil, out, 1<<20)
			require.NoError(t, err)
			require.Equal(t, string(m), string(got))
		}
		for _, n := range []int{170, 1 << 10, 3 << 10, 36 << 10, 170, 300 << 10, 170} {
			m := jsonMessage(rnd, n)
			out, ok := d.appendMessage(nil, m)
			require.True(t, ok)
			receive(out, m)

			prepared := jsonMessage(rnd, n)
			out, ok = d.variant.appendMessage(nil, prepared)
			require.True(t, ok)
			receive(out, prepared)
			d.adopt(prepared)

			end := prepared[len(prepared)-150:]
			out, ok = d.appendMessage(nil, end)
			require.True(t, ok)
			receive(out, end)
			assert.Less(t, len(out), 10, "the adopted message is not referred to")
		}
	}
	sending(false, 15, 4).adopt([]byte("no history, nothing to do"))
}

// The output depends on the messages only, not on what other connections have sent.
func TestDeflateIsDeterministic(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 6))
	m := jsonMessage(rnd, 2<<10)
	first, _ := sending(false, 15, 4).appendMessage(nil, m)
	for range 10 {
		sending(false, 9, 9).appendMessage(nil, jsonMessage(rnd, 40<<10))
		again, _ := sending(false, 15, 4).appendMessage(nil, m)
		require.Equal(t, first, again)
	}
}

// Any number of connections at a time; the race detector watches the pools.
func TestDeflateParallel(t *testing.T) {
	for g := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(7692, uint64(g)))
			d, f := sending(g%2 == 0, 12, 3), receiving(g%2 == 0, 12)
			for i := range 100 {
				m := jsonMessage(rnd, 170+i*10)
				out, ok := d.appendMessage(nil, m)
				require.True(t, ok)
				got, err := f.appendMessage(nil, out, 1<<20)
				require.NoError(t, err)
				require.Equal(t, string(m), string(got))
			}
		})
	}
}

// heap returns the bytes in use after a collection that has emptied the pools too.
func heap() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// connMemory returns what compression costs one connection that has sent and received a lot.
func connMemory(takeover bool, bits int) (send, recv int64) {
	const conns = 16
	m := jsonMessage(rand.New(rand.NewPCG(7692, 7)), 40<<10)
	payload, _ := sending(takeover, bits, 4).appendMessage(nil, m)
	deflaters, inflaters := make([]*deflater, conns), make([]*inflater, conns)
	buf := make([]byte, 0, 2*len(m))

	before := heap()
	for i := range deflaters {
		deflaters[i] = sending(takeover, bits, 4)
		deflaters[i].appendMessage(buf, m)
	}
	between := heap()
	for i := range inflaters {
		inflaters[i] = receiving(takeover, bits)
		for _, p := range [][]byte{payload, {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}} {
			if _, err := inflaters[i].appendMessage(buf, p, 1<<20); err != nil {
				panic(err)
			}
		}
	}
	after := heap()
	for _, v := range []any{deflaters, inflaters, m, payload, buf} {
		runtime.KeepAlive(v)
	}
	return (between - before) / conns, (after - between) / conns
}

// The figures in the documentation of Compression.
func TestCompressionMemory(t *testing.T) {
	for _, test := range []struct {
		takeover   bool
		bits       int
		send, recv int64 // KiB
	}{
		{false, 15, 0, 0},
		{false, 9, 0, 0},
		{true, 15, 56, 40},
		{true, 12, 11, 5},
		{true, 9, 4, 1},
	} {
		var got [5]string // what another test has left may go while it is measured
		ok := false
		for i := 0; i < len(got) && !ok; i++ {
			send, recv := connMemory(test.takeover, test.bits)
			got[i] = fmt.Sprintf("%d and %d bytes", send, recv)
			ok = max(send-test.send<<10, test.send<<10-send, recv-test.recv<<10, test.recv<<10-recv) <= 512
		}
		assert.True(t, ok, "takeover=%v bits=%d: %q", test.takeover, test.bits, got)
	}
	// Little has been sent: little is held.
	d := sending(true, 15, 4)
	d.appendMessage(nil, make([]byte, 100))
	assert.LessOrEqual(t, cap(d.text.buf), 512)
}

func TestDeflateAllocations(t *testing.T) {
	m := jsonMessage(rand.New(rand.NewPCG(7692, 8)), 1<<10)
	for _, takeover := range []bool{false, true} {
		d, f := sending(takeover, 15, 4), receiving(takeover, 15)
		buf, text := make([]byte, 0, 2<<10), make([]byte, 0, 2<<10)
		// Not 0: the race detector makes a pool forget things.
		assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
			out, ok := d.appendMessage(buf, m)
			if !ok {
				t.Error("not compressed")
			}
			if _, err := f.appendMessage(text, out, 1<<20); err != nil {
				t.Error(err)
			}
		}), 8.0)
	}
}

// FuzzDeflate: what the compressor writes, compress/flate, the referee and we ourselves
// decode to the same, whatever the parameters, the sizes of messages and the way each is
// sent.
func FuzzDeflate(f *testing.F) {
	f.Add([]byte("Hello, Hello, Hello"), []byte{3, 200, 9}, true, 9, 4)
	f.Add([]byte(`{"a":1}{"a":2}{"b":3}`), []byte{7, 7, 7}, true, 15, 1)
	f.Add(bytes.Repeat([]byte("0123456789abcdef"), 300), []byte{255, 255, 0, 17, 5}, false, 8, 9)
	f.Fuzz(func(t *testing.T, text, cuts []byte, takeover bool, bits, level int) {
		bits = 8 + int(uint(bits)%8)
		level = 1 + int(uint(level)%uint(len(efforts)-1))
		d, inf := sending(takeover, bits, level), receiving(takeover, bits)
		r := &referee{takeover: takeover, window: 1 << bits}
		var stream, all []byte
		for i := 0; i < len(cuts); i++ {
			// A cut says how long the next message is, how often it says it, and how it is sent.
			m := text[:min(int(cuts[i])*16, len(text))]
			text = text[len(m):]
			if cuts[i]%8 == 7 {
				m = bytes.Repeat(m, 40)
			}
			var out []byte
			ok := true
			switch cuts[i] % 4 {
			case 0:
				for _, piece := range [][]byte{m[:len(m)/3], m[len(m)/3:]} {
					out = d.appendPiece(out, piece)
				}
				out = d.appendEnd(out)
			case 1:
				if out, ok = d.variant.appendMessage(nil, m); ok {
					d.adopt(m)
				}
			default:
				out, ok = d.appendMessage(nil, m)
			}
			if !ok {
				continue
			}
			got, err := r.message(out, removedTail)
			require.NoError(t, err)
			require.Equal(t, string(m), string(got))
			got, err = inf.appendMessage(nil, out, int64(len(m)))
			require.NoError(t, err)
			require.Equal(t, string(m), string(got))
			stream = append(append(stream, out...), removedTail...)
			all = append(all, m...)
		}
		got, err := io.ReadAll(flate.NewReader(strings.NewReader(string(stream) + finalBlock)))
		require.NoError(t, err)
		require.Equal(t, string(all), string(got))
	})
}
