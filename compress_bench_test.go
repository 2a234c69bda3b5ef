package websocket

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"testing"
)

var benchSizes = []struct {
	name string
	n    int
}{{"170B", 170}, {"1KB", 1 << 10}, {"36KB", 36 << 10}}

func benchMessages(n int) [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	messages := make([][]byte, 256)
	for i := range messages {
		messages[i] = jsonMessage(rnd, n)
	}
	return messages
}

// BenchmarkDeflate makes the table of what compression gives and takes: for each size of
// message, with and without context takeover and for several windows, the bytes that a
// message takes on the wire, and what a connection holds between messages.
//
//	go test -run - -bench 'Deflate|Inflate'
func BenchmarkDeflate(b *testing.B) {
	for _, size := range benchSizes {
		messages := benchMessages(size.n)
		for _, takeover := range []bool{false, true} {
			for _, bits := range []int{9, 12, 15} {
				for level := 1; level < len(efforts); level++ {
					if level != defaultLevel && bits != 15 {
						continue
					}
					b.Run(fmt.Sprintf("%s/takeover=%v/window=%d/level=%d", size.name, takeover, bits, level), func(b *testing.B) {
						d := sending(takeover, bits, level)
						var buf []byte
						in, out, i := 0, 0, 0
						b.ReportAllocs()
						for b.Loop() {
							m := messages[i%len(messages)]
							i++
							buf, _ = d.appendMessage(buf[:0], m)
							in += len(m)
							out += len(buf)
						}
						b.SetBytes(int64(in / i))
						b.ReportMetric(float64(out)/float64(i), "wire-B/msg")
						b.ReportMetric(float64(out)/float64(in), "ratio")
						if level == defaultLevel {
							send, recv := connMemory(takeover, bits)
							b.ReportMetric(float64(send+recv), "B/conn")
						}
					})
				}
			}
		}
	}
}

func BenchmarkInflate(b *testing.B) {
	for _, size := range benchSizes {
		messages := benchMessages(size.n)
		for _, takeover := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/takeover=%v", size.name, takeover), func(b *testing.B) {
				// The first message refers to nothing, so the rest can come again after it.
				d := sending(takeover, 15, defaultLevel)
				payloads := make([][]byte, len(messages))
				in := 0
				for i, m := range messages {
					payloads[i], _ = d.appendMessage(nil, m)
					in += len(m)
				}
				f := receiving(takeover, 15)
				var buf []byte
				i := 0
				b.SetBytes(int64(in / len(messages)))
				b.ReportAllocs()
				for b.Loop() {
					if i == len(payloads) {
						i = 0
						f = receiving(takeover, 15)
					}
					var err error
					if buf, err = f.appendMessage(buf[:0], payloads[i], 1<<20); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// BenchmarkCompressFlate is what the compressor of compress/flate needs for the same: for a
// context that was kept, it has to compress the last 4 KB before each message.
func BenchmarkCompressFlate(b *testing.B) {
	for _, size := range benchSizes {
		messages := benchMessages(size.n)
		for _, takeover := range []bool{false, true} {
			for _, level := range []int{1, 3, 6} {
				b.Run(fmt.Sprintf("%s/takeover=%v/level=%d", size.name, takeover, level), func(b *testing.B) {
					var n counter
					w, err := flate.NewWriter(&n, level)
					if err != nil {
						b.Fatal(err)
					}
					var text []byte
					in, out, i := 0, 0, 0
					for b.Loop() {
						m := messages[i%len(messages)]
						i++
						w.Reset(&n)
						if takeover {
							w.Write(text[max(len(text)-4<<10, 0):])
							w.Flush()
							text = append(text, m...)
							text = text[max(len(text)-4<<10, 0):]
						}
						n = 0
						w.Write(m)
						w.Flush()
						in += len(m)
						out += int(n) - len(removedTail)
					}
					b.SetBytes(int64(in / i))
					b.ReportMetric(float64(out)/float64(i), "wire-B/msg")
					b.ReportMetric(float64(out)/float64(in), "ratio")
				})
			}
		}
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// BenchmarkInflateWorst is what a peer can make of our CPU with a payload of 64 KB.
func BenchmarkInflateWorst(b *testing.B) {
	const n = 64 << 10
	repeat := func(unit ...byte) []byte {
		payload := make([]byte, 0, n)
		for len(payload)+len(unit) < n {
			payload = append(payload, unit...)
		}
		return append(payload, 0)
	}
	text := sending(false, 15, defaultLevel).appendStreamed(randomBytes(rand.New(rand.NewPCG(1, 2)), maxWindow))
	for _, test := range []struct {
		name    string
		payload []byte
	}{
		{"empty blocks", repeat(0, 0, 0, 0xff, 0xff)},
		{"final blocks", repeat(3, 0)},
		// A final block of nothing but the description of its codes.
		{"Huffman codes", repeat(0x05, 0xc0, 0x81, 0, 0, 0, 0, 0, 0x90, 0xff, 0x6a, 0x04)},
	} {
		for _, takeover := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/takeover %t", test.name, takeover), func(b *testing.B) {
				payload := append(append(bytes.Clone(text), removedTail...), test.payload...)
				f := receiving(takeover, 15)
				b.SetBytes(int64(len(test.payload)))
				for b.Loop() {
					if _, err := f.appendMessage(nil, payload, maxWindow); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
