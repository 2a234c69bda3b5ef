package websocket

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// deflateVectors reads a file of testdata/deflate: in each line a name, whether there is
// context takeover, and pairs payload=message, payloads in hex.
func deflateVectors(t *testing.T, file string) (lines [][]string) {
	t.Helper()
	data, err := os.ReadFile("testdata/deflate/" + file)
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.Fields(line))
		}
	}
	require.NotEmpty(t, lines)
	return lines
}

// RFC 7692 section 7.2.3.
func TestInflateExamples(t *testing.T) {
	for _, line := range deflateVectors(t, "rfc7692.txt") {
		takeover := line[1] == "takeover"
		whole, streamed := receiving(takeover, 15), receiving(takeover, 15)
		r := &referee{takeover: takeover}
		for _, pair := range line[2:] {
			frames, message, _ := strings.Cut(pair, "=")
			payload := unhex(t, strings.ReplaceAll(frames, "+", ""))
			got, err := whole.appendMessage(nil, payload, 100)
			require.NoError(t, err, line)
			assert.Equal(t, message, string(got), line)

			var sources []io.Reader
			for frame := range strings.SplitSeq(frames, "+") {
				sources = append(sources, bytes.NewReader(unhex(t, frame)))
			}
			got, err = io.ReadAll(streamed.reader(io.MultiReader(sources...), 100))
			require.NoError(t, err, line)
			assert.Equal(t, message, string(got), line)

			got, err = r.message(payload, removedTail)
			require.NoError(t, err, line)
			assert.Equal(t, message, string(got), line)
		}
	}
}

// What zlib writes, with every window that it knows.
func TestInflateZlib(t *testing.T) {
	for _, line := range deflateVectors(t, "zlib.txt") {
		bits, err := strconv.Atoi(line[0])
		require.NoError(t, err)
		takeover := line[1] == "takeover"
		f := receiving(takeover, bits)
		for _, pair := range line[2:] {
			payload, message, _ := strings.Cut(pair, "=")
			got, err := f.appendMessage(nil, unhex(t, payload), 1000)
			require.NoError(t, err, line)
			assert.Equal(t, message, hex.EncodeToString(got), line)
		}
	}
}

// finish returns text as a DEFLATE stream of one block or more, the last with BFINAL set, in
// which matches may refer to dict.
func finish(t testing.TB, text, dict string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriterDict(&b, 6, []byte(dict))
	require.NoError(t, err)
	_, err = io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// RFC 7692 section 7.2.1: a message may have blocks with BFINAL set anywhere, which end at a
// byte boundary. The window outlives them.
func TestInflateFinalBlocks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7692, 10))
	hello := finish(t, "Hello", "")
	again := finish(t, "Hello, Hello", "Hello")
	noise := string(randomBytes(rnd, 40<<10)) // more than the window
	known := noise[20<<10 : 20<<10+1000]
	world := unhex(t, "f248cdc9c90700") // "Hello" without BFINAL

	for _, test := range []struct {
		name    string
		payload [][]byte
		want    string
	}{
		{"section 7.2.3.4", [][]byte{hello, {0}}, "Hello"},
		{"without the last byte", [][]byte{hello}, "Hello"},
		{"a final block without compression is last", [][]byte{{0x01}}, ""},
		{"compress/flate's end, with its tail removed", [][]byte{bytes.TrimSuffix(finish(t, "Hello", ""), []byte(removedTail))}, "Hello"},
		{"two", [][]byte{hello, hello, {0}}, "HelloHello"},
		{"then another block", [][]byte{hello, world}, "HelloHello"},
		{"a block, then a final one", [][]byte{world, []byte(removedTail), hello, {0}}, "HelloHello"},
		{"that is referred to", [][]byte{hello, again, {0}}, "HelloHello, Hello"},
		{"without compression", [][]byte{unhex(t, "010300fcff616263"), unhex(t, "010300fcff646566"), {0}}, "abcdef"},
		{"empty ones", [][]byte{unhex(t, "0300"), unhex(t, "010000ffff"), world, []byte(removedTail), unhex(t, "0300"), {0}}, "Hello"},
		{"many", [][]byte{bytes.Repeat(hello, 1000), {0}}, strings.Repeat("Hello", 1000)},
		{"more than the window", [][]byte{finish(t, noise, ""), finish(t, known, noise), {0}}, noise + known},
	} {
		t.Run(test.name, func(t *testing.T) {
			payload := bytes.Join(test.payload, nil)
			for _, takeover := range []bool{false, true} {
				whole, streamed := receiving(takeover, 15), receiving(takeover, 15)
				for range 2 {
					got, err := whole.appendMessage(nil, payload, 1<<20)
					require.NoError(t, err)
					require.Equal(t, test.want, string(got))
					for _, src := range payloadSources(payload) {
						got, err = io.ReadAll(streamed.reader(src, int64(len(test.want))))
						require.NoError(t, err)
						require.Equal(t, test.want, string(got))
					}
				}
			}
		})
	}
}

// With takeover a message may refer to one before it that ended with BFINAL set.
func TestInflateTakeoverAcrossFinalBlock(t *testing.T) {
	f := receiving(true, 15)
	got, err := f.appendMessage(nil, finish(t, "Hello", ""), 100)
	require.NoError(t, err)
	assert.Equal(t, "Hello", string(got))
	got, err = f.appendMessage(nil, unhex(t, "f200110000"), 100) // section 7.2.3.2
	require.NoError(t, err)
	assert.Equal(t, "Hello", string(got))
}

// payloadSources returns readers that yield payload in several ways.
func payloadSources(payload []byte) []io.Reader {
	return []io.Reader{
		bytes.NewReader(payload),
		iotest.OneByteReader(bytes.NewReader(payload)),
		iotest.HalfReader(bytes.NewReader(payload)),
		iotest.DataErrReader(bytes.NewReader(payload)),
		iotest.DataErrReader(iotest.OneByteReader(bytes.NewReader(payload))),
	}
}

// A streamed message is the whole one, however it comes and is asked for.
func TestInflateStream(t *testing.T) {
	d := sending(true, 12, 4)
	var fs []*inflater
	for _, m := range testMessages() {
		payload, ok := d.appendMessage(nil, m)
		if !ok {
			continue
		}
		var readers []io.Reader
		for i, src := range payloadSources(payload) {
			if i == len(fs) {
				fs = append(fs, receiving(true, 12))
			}
			readers = append(readers, fs[i].reader(src, int64(len(m))))
		}
		readers[0] = iotest.OneByteReader(readers[0])
		readers[1] = iotest.HalfReader(readers[1])
		for i, r := range readers {
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(m, got))
			n, err := r.Read(make([]byte, 1))
			assert.Equal(t, 0, n)
			assert.Equal(t, io.EOF, err, "reader %d", i)
		}
	}
}

// What the peer has flushed can be read before the message is complete.
func TestInflateStreamFlushed(t *testing.T) {
	pr, pw := io.Pipe()
	r := receiving(false, 15).reader(pr, 100)
	done := make(chan error)
	go func() {
		_, err := pw.Write(unhex(t, "f248cdc9c907000000ffff"))
		done <- err
	}()
	b := make([]byte, 100)
	n, err := io.ReadAtLeast(r, b, 5)
	require.NoError(t, err)
	assert.Equal(t, "Hello", string(b[:n]))
	require.NoError(t, <-done)
	go func() { done <- pw.CloseWithError(errors.New("gone")) }()
	_, err = r.Read(b)
	assert.EqualError(t, err, "gone")
	require.NoError(t, <-done)
}

func TestInflateEmpty(t *testing.T) {
	// No payload at all is not what section 7.2.3.6 says, but cannot mean anything else.
	for _, takeover := range []bool{false, true} {
		for _, payload := range [][]byte{nil, {0}} {
			f := receiving(takeover, 15)
			for range 2 {
				got, err := f.appendMessage([]byte("x"), payload, 0)
				require.NoError(t, err)
				assert.Equal(t, "x", string(got))
				got, err = io.ReadAll(f.reader(bytes.NewReader(payload), 0))
				require.NoError(t, err)
				assert.Empty(t, got)
			}
		}
	}
}

func TestInflateInvalid(t *testing.T) {
	long, ok := sending(false, 15, 4).appendMessage(nil, jsonMessage(rand.New(rand.NewPCG(7692, 11)), 40<<10))
	require.True(t, ok)
	corrupt := bytes.Clone(long)
	corrupt[8] ^= 0xff // in the description of the Huffman codes
	for _, test := range []struct {
		name    string
		payload []byte
		err     error
	}{
		{"cut in a block", long[:len(long)/2], errInflateTruncated},
		{"cut before the end of the block", long[:len(long)-2], nil},
		{"without its last byte", unhex(t, "f248cdc9c907"), nil},
		{"cut in a stored block", unhex(t, "000500faff4865"), nil},
		{"a final stored block that would reach over the end", unhex(t, "010900f6ff"), errInflateTruncated},
		// As long as the decompressor's window and a little, so that it asks for the rest in two pieces.
		{"a final stored block that would reach over the end by a window", append(unhex(t, "010480fb7f"), make([]byte, 32763)...), errInflateTruncated},
		{"cut in a stored block's length", unhex(t, "000500"), nil},
		{"cut in the Huffman codes", long[:10], nil},
		{"a byte behind", append(bytes.Clone(long), 'v'), nil},
		{"zeros behind", append(bytes.Clone(long), 0, 0), nil},
		{"the tail not removed", append(bytes.Clone(long), removedTail...), nil},
		{"a byte behind a final block", append(finish(t, "Hello", ""), 'v'), nil},
		{"a final block that ends in the tail", []byte{0x03}, errInflateCorrupt},
		{"reserved block type", []byte{0x07}, errInflateCorrupt},
		{"length of a stored block", unhex(t, "000500faf048656c6c6f00"), errInflateCorrupt},
		{"before the beginning", unhex(t, "f200110000"), errInflateCorrupt},
		{"noise", []byte("this is no DEFLATE data"), nil},
		{"corrupt", corrupt, nil},
	} {
		for _, takeover := range []bool{false, true} {
			got, err := receiving(takeover, 15).appendMessage([]byte("prefix"), test.payload, 1<<20)
			require.Equal(t, len("prefix"), len(got), test.name)
			if test.err != nil {
				assert.Equal(t, test.err, err, test.name)
			} else {
				assert.Contains(t, []error{errInflateTruncated, errInflateCorrupt}, err, test.name)
			}
			for _, src := range payloadSources(test.payload) {
				r := receiving(takeover, 15).reader(src, 1<<20)
				_, err2 := io.Copy(io.Discard, r)
				assert.Equal(t, err, err2, test.name)
				_, err2 = r.Read(make([]byte, 1))
				assert.Equal(t, err, err2, test.name)
				assert.Nil(t, r.in)
			}
		}
		_, err := (&referee{}).message(test.payload, removedTail)
		assert.Error(t, err, test.name)
	}
}

// With a window that was agreed on, what lies beyond is not there.
func TestInflateWindow(t *testing.T) {
	noise := string(randomBytes(rand.New(rand.NewPCG(7692, 12)), 2000))
	for _, test := range []struct {
		bits, ago int
		ok        bool
	}{
		{10, 1024, true}, {10, 1025, false},
		{9, 512, true}, {9, 513, false},
		{8, 256, true}, {8, 512, true}, {8, 513, false}, // 512: see newInflater
	} {
		f := receiving(true, test.bits)
		_, err := f.appendMessage(nil, finish(t, noise, ""), 1<<20)
		require.NoError(t, err)
		from := len(noise) - test.ago
		_, err = f.appendMessage(nil, finish(t, noise[from:from+50], noise), 1<<20)
		if test.ok {
			assert.NoError(t, err, "%+v", test)
		} else {
			assert.Equal(t, errInflateCorrupt, err, "%+v", test)
		}
	}
}

func TestInflateLimit(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 513, 4095, 4096, 40000, 100000} {
		m := bytes.Repeat([]byte("x"), n)
		payload := sending(false, 15, 4).appendEnd(nil)
		if n > 0 {
			d := sending(false, 15, 4)
			payload = d.appendEnd(d.appendPiece(nil, m))
		}
		for _, limit := range []int64{0, 1, 511, 512, 513, 4095, 4096, 39999, 40000, 100000, math.MaxInt64} {
			got, err := receiving(true, 15).appendMessage([]byte("x"), payload, limit)
			gotStreamed, errStreamed := io.ReadAll(receiving(true, 15).reader(bytes.NewReader(payload), limit))
			if limit < int64(n) {
				require.Equal(t, errInflateLimit, err)
				require.Equal(t, "x", string(got))
				require.Equal(t, errInflateLimit, errStreamed)
				require.Len(t, gotStreamed, int(limit), "all that may be delivered is")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, "x"+string(m), string(got))
			require.LessOrEqual(t, int64(cap(got)), max(limit, limit+2), "limit %d", limit)
			require.NoError(t, errStreamed)
			require.Equal(t, string(m), string(gotStreamed))
		}
	}
}

// allocated returns how many bytes were allocated while f ran.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// 200 KB that would be 200 MB.
func TestInflateBomb(t *testing.T) {
	d := sending(false, 15, 9)
	mib := append(d.appendEnd(d.appendPiece(nil, make([]byte, 1<<20))), removedTail...)
	bomb := bytes.TrimSuffix(bytes.Repeat(mib, 200), []byte(removedTail))
	require.Less(t, len(bomb), 220<<10)

	const limit = 1 << 20
	for _, takeover := range []bool{false, true} {
		// The limit, the buffer before, and what the pool may have lacked.
		requireBelow(t, limit+200<<10, func() int {
			return allocated(func() {
				_, err := receiving(takeover, 15).appendMessage(nil, bomb, limit)
				assert.Equal(t, errInflateLimit, err)
			})
		})
		requireBelow(t, 200<<10, func() int {
			return allocated(func() {
				n, err := io.Copy(io.Discard, receiving(takeover, 15).reader(bytes.NewReader(bomb), limit))
				assert.Equal(t, errInflateLimit, err)
				assert.EqualValues(t, limit, n)
			})
		})
	}
	n, err := io.Copy(io.Discard, receiving(true, 15).reader(bytes.NewReader(bomb), math.MaxInt64))
	assert.NoError(t, err)
	assert.EqualValues(t, 200<<20, n)
}

func TestInflateSourceFails(t *testing.T) {
	payload := unhex(t, "f248cdc9c90700")
	gone := errors.New("gone")
	for n := range payload {
		r := receiving(true, 15).reader(io.MultiReader(bytes.NewReader(payload[:n]), iotest.ErrReader(gone)), 100)
		_, err := io.ReadAll(r)
		assert.Equal(t, gone, err)
		assert.Nil(t, r.in)
	}
	// A connection that breaks is not a message that is cut off.
	r := receiving(true, 15).reader(io.MultiReader(bytes.NewReader(payload[:3]), iotest.ErrReader(io.ErrUnexpectedEOF)), 100)
	_, err := io.ReadAll(r)
	assert.Equal(t, io.ErrUnexpectedEOF, err)
	// A source that never says anything.
	r = receiving(true, 15).reader(stuckReader{}, 100)
	_, err = io.ReadAll(r)
	assert.Equal(t, io.ErrNoProgress, err)
}

type stuckReader struct{}

func (stuckReader) Read([]byte) (int, error) { return 0, nil }

func TestInflateReaderClose(t *testing.T) {
	r := receiving(false, 15).reader(bytes.NewReader(unhex(t, "f248cdc9c90700")), 100)
	_, err := r.Read(make([]byte, 2))
	require.NoError(t, err)
	require.NotNil(t, r.in)
	r.close()
	assert.Nil(t, r.in)
	_, err = r.Read(make([]byte, 2))
	assert.Equal(t, io.ErrClosedPipe, err)
	r.close()
}

// FuzzInflate: the decompressor and the referee are of one mind about any payload, whole or
// in pieces, after any other message.
func FuzzInflate(f *testing.F) {
	for _, pair := range [][2]string{
		{"f248cdc9c90700", "f200110000"},
		{"f348cdc9c9070000", "f248050000" + "00ffffcac9c90700"},
		{"000500faff48656c6c6f00", "010300fcff61626300"},
		{"00", ""},
		{"010900f6ff", "03000300" + "f248cdc9c90700"},
		{"f348cdc9c90700f248cdc9c90700", "f348cdc9c90700f20011000000"},
	} {
		first, err := hex.DecodeString(pair[0])
		require.NoError(f, err)
		second, err := hex.DecodeString(pair[1])
		require.NoError(f, err)
		f.Add(first, second, true)
		f.Add(second, first, false)
	}
	f.Fuzz(func(t *testing.T, first, second []byte, takeover bool) {
		const limit = 100 << 10
		whole, streamed := receiving(takeover, 15), receiving(takeover, 15)
		r := &referee{takeover: takeover, window: maxWindow}
		for _, payload := range [][]byte{first, second} {
			got, err := whole.appendMessage(nil, payload, limit)
			gotStreamed, errStreamed := io.ReadAll(streamed.reader(iotest.OneByteReader(bytes.NewReader(payload)), limit))
			require.Equal(t, err, errStreamed)
			if err == nil {
				require.True(t, bytes.Equal(got, gotStreamed))
			}
			if err == errInflateLimit {
				return
			}
			if len(payload) == 0 {
				require.NoError(t, err)
				require.Empty(t, got)
				continue
			}
			history := len(r.text)
			want, refereeErr := r.message(payload, removedTail)
			if refereeErr != nil && err == nil {
				// The blocks go on behind the payload, and happen to make sense there.
				r.text = r.text[:history]
				want, refereeErr = r.message(payload, behindPayload)
			}
			require.Equal(t, refereeErr == nil, err == nil, "%v, %v", err, refereeErr)
			if err != nil {
				return
			}
			require.True(t, bytes.Equal(want, got), "%x, %x", want, got)
		}
	})
}

func TestInflateErrorsSayWhat(t *testing.T) {
	for _, err := range []error{errInflateLimit, errInflateTruncated, errInflateCorrupt} {
		assert.NotContains(t, fmt.Sprint(err), "websocket:", "the prefix comes with the caller's error")
	}
}
