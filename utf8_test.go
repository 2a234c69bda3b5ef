package websocket

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkUTF8 checks b as a whole text.
func checkUTF8(b []byte) bool {
	s, ok := utf8State{}.next(b)
	return ok && s.complete()
}

// checkUTF8Bytes checks b byte by byte. It returns the state behind the last
// byte it took and the index of the first byte that was refused, or len(b).
func checkUTF8Bytes(b []byte) (utf8State, int) {
	var s utf8State
	for i := range b {
		var ok bool
		if s, ok = s.next(b[i : i+1]); !ok {
			return s, i
		}
	}
	return s, len(b)
}

func TestUTF8FirstImpossibleByte(t *testing.T) {
	const none = -1
	for _, tt := range []struct {
		name     string
		text     string
		refused  int // index of the byte that is refused
		complete bool
	}{
		{"empty", "", none, true},
		{"ASCII", "Hello\x00\x7F", none, true},
		{"RFC 3629 section 7, 1", "A\xE2\x89\xA2\xCE\x91.", none, true},
		{"RFC 3629 section 7, 2", "\xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4", none, true},
		{"RFC 3629 section 7, 3", "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", none, true},
		{"RFC 3629 section 7, 4", "\xEF\xBB\xBF\xF0\xA3\x8E\xB4", none, true},
		{"cut after 1 of 2", "a\xC3", none, false},
		{"cut after 1 of 3", "a\xE2", none, false},
		{"cut after 2 of 3", "a\xE2\x89", none, false},
		{"cut after 1 of 4", "a\xF0", none, false},
		{"cut after 2 of 4", "a\xF0\xA3", none, false},
		{"cut after 3 of 4", "a\xF0\xA3\x8E", none, false},
		{"lone continuation", "\x80", 0, false},
		{"lone continuation after a character", "\xC3\xA9\xBF", 2, false},
		{"C0 is always overlong", "\xC0\x80", 0, false},
		{"C1 is always overlong", "\xC1\xBF", 0, false},
		{"overlong in 3 bytes", "\xE0\x9F\xBF", 1, false},
		{"least in 3 bytes, U+0800", "\xE0\xA0\x80", none, true},
		{"greatest before the surrogates, U+D7FF", "\xED\x9F\xBF", none, true},
		{"first surrogate, U+D800", "\xED\xA0\x80", 1, false},
		{"last surrogate, U+DFFF", "\xED\xBF\xBF", 1, false},
		{"least after the surrogates, U+E000", "\xEE\x80\x80", none, true},
		{"overlong in 4 bytes", "\xF0\x8F\xBF\xBF", 1, false},
		{"least in 4 bytes, U+10000", "\xF0\x90\x80\x80", none, true},
		{"greatest, U+10FFFF", "\xF4\x8F\xBF\xBF", none, true},
		{"U+110000", "\xF4\x90\x80\x80", 1, false},
		{"F5 is above U+10FFFF", "\xF5\x80\x80\x80", 0, false},
		{"FE", "\xFE", 0, false},
		{"FF", "\xFF", 0, false},
		{"ASCII inside a character", "\xE2\x89A", 2, false},
		{"character inside a character", "\xF0\xA3\xC3\xA9", 2, false},
		{"Autobahn 6.3.1", "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited", 12, false},
		{"Autobahn 6.4.1", "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80edited", 12, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := []byte(tt.text)
			want := tt.refused
			if want == none {
				want = len(b)
			}
			s, n := checkUTF8Bytes(b)
			assert.Equal(t, want, n)
			assert.Equal(t, tt.complete, s.complete())
			assert.Equal(t, tt.complete, checkUTF8(b))
			assert.Equal(t, utf8.Valid(b), tt.complete, "this table is wrong")
		})
	}
}

func TestUTF8EveryCodePoint(t *testing.T) {
	var buf [utf8.UTFMax]byte
	for r := range rune(utf8.MaxRune + 1) {
		b := buf[:utf8.EncodeRune(buf[:], r)]
		if r >= 0xD800 && r <= 0xDFFF {
			b = append(buf[:0], 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
			if s, n := checkUTF8Bytes(b); n != 1 || s.complete() {
				require.Fail(t, "surrogate", "%U is refused at byte %d", r, n)
			}
			continue
		}
		if s, n := checkUTF8Bytes(b); n != len(b) || !s.complete() {
			require.Fail(t, "valid", "%U (% x) is refused at byte %d", r, b, n)
		}
		for i := 1; i < len(b); i++ {
			if s, ok := (utf8State{}).next(b[:i]); !ok || s.complete() {
				require.Fail(t, "cut", "% x of %U: ok %v", b[:i], r, ok)
			}
		}
	}
}

// Every sequence of up to three bytes.
func TestUTF8EverySequence(t *testing.T) {
	b := make([]byte, 3)
	check := func(b []byte, got bool) {
		if want := utf8.Valid(b); want != got {
			require.Fail(t, "disagrees with utf8.Valid", "% x: got %v, want %v", b, got, want)
		}
	}
	for i := range 0x100 {
		b[0] = byte(i)
		s0, ok := utf8State{}.next(b[0:1])
		check(b[:1], ok && s0.complete())
		for j := range 0x100 {
			b[1] = byte(j)
			s1, ok := s0.next(b[1:2])
			check(b[:2], ok && s1.complete())
			for k := range 0x100 {
				b[2] = byte(k)
				s2, ok := s1.next(b[2:3])
				check(b[:3], ok && s2.complete())
			}
		}
	}
}

// The ends of all ranges of RFC 3629 section 4, and what lies beyond them.
var (
	utf8Leads = []byte{
		0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC,
		0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
	}
	utf8Trails = []byte{0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE1, 0xFF}
)

func TestUTF8FourBytes(t *testing.T) {
	for lead := range 0x100 {
		for _, b1 := range utf8Trails {
			for _, b2 := range utf8Trails {
				for _, b3 := range utf8Trails {
					b := []byte{byte(lead), b1, b2, b3}
					if want, got := utf8.Valid(b), checkUTF8(b); want != got {
						require.Fail(t, "disagrees with utf8.Valid", "% x: got %v, want %v", b, got, want)
					}
				}
			}
		}
	}
}

// The same inside blocks of other characters, and across the end of one.
func TestUTF8FourBytesInBlocks(t *testing.T) {
	for _, at := range []int{30, 60, 61, 62, 63, 64} {
		before := strings.Repeat("世", at/3) + strings.Repeat("a", at%3)
		after := strings.Repeat("世", 50)
		for lead := range 0x100 {
			for _, b1 := range utf8Trails {
				for _, b2 := range []byte{'a', 0x80, 0xBF} {
					for _, b3 := range []byte{'a', 0x80, 0xBF} {
						b := []byte(before + string([]byte{byte(lead), b1, b2, b3}) + after)
						if want, got := utf8.Valid(b), checkUTF8(b); want != got {
							require.Fail(t, "disagrees with utf8.Valid", "% x at %d: got %v, want %v", b[at:at+4], at, got, want)
						}
					}
				}
			}
		}
	}
}

// A piece may end with a block, and the block in the middle of any character.
func TestUTF8CharacterCutByABlock(t *testing.T) {
	for _, r := range "\u00E9\u0800\uD7FF\uE000\U00010000\U0010FFFF" {
		c := []byte(string(r))
		for cut := 1; cut < len(c); cut++ {
			for _, blocks := range []int{1, 2, 17} {
				n := 64*blocks - cut
				b := []byte(strings.Repeat("世", n/3) + strings.Repeat("a", n%3))
				s, ok := utf8State{}.next(append(b, c[:cut]...))
				require.True(t, ok, "%U cut behind %d", r, cut)
				require.False(t, s.complete())
				for d := range 0x100 {
					rest := append([]byte{byte(d)}, c[cut+1:]...)
					want := utf8.Valid(append(bytes.Clone(c[:cut]), rest...))
					end, ok := s.next(rest)
					require.Equal(t, want, ok && end.complete(), "%U cut behind %d, % x", r, cut, rest)
				}
			}
		}
	}
}

// A prefix must be accepted if and only if something makes it a valid text, which
// is tried out: no more than three bytes can be missing.
func TestUTF8AcceptsWhatCanBeCompleted(t *testing.T) {
	completions := [][]byte{{}}
	for i := 0; len(completions[i]) < 3; i++ {
		for _, c := range []byte{0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF} {
			completions = append(completions, append(bytes.Clone(completions[i]), c))
		}
	}
	completable := func(prefix []byte) bool {
		var buf [8]byte
		n := copy(buf[:], prefix)
		for _, c := range completions {
			if utf8.Valid(buf[:n+copy(buf[n:], c)]) {
				return true
			}
		}
		return false
	}
	check := func(prefix ...byte) {
		_, got := utf8State{}.next(prefix)
		if want := completable(prefix); want != got {
			require.Fail(t, "accepts the wrong prefixes", "% x: got %v, want %v", prefix, got, want)
		}
	}
	for b0 := range 0x100 {
		check(byte(b0))
		for b1 := range 0x100 {
			check(byte(b0), byte(b1))
		}
	}
	for _, b0 := range utf8Leads {
		for _, b1 := range utf8Trails {
			for _, b2 := range utf8Trails {
				check(b0, b1, b2)
				for _, b3 := range utf8Trails {
					check(b0, b1, b2, b3)
				}
			}
		}
	}
}

// Whatever the state behind a piece, it must not depend on how the text is cut.
func TestUTF8ChunkIndependence(t *testing.T) {
	texts := []string{
		"", "plain ASCII", "Zoë", "日本語", "😀😃😄", "a é 世 😀 z",
		"\xED\xA0\x80", "ab\xF4\x90\x80\x80cd", "\xC0\xAF", "ok \xE2\x28\xA1", "cut \xF0\x9F\x98",
		strings.Repeat("ASCII only. ", 12),
		strings.Repeat("ASCII only. ", 6) + "😀" + strings.Repeat(" and more", 8),
		strings.Repeat("世界", 20) + strings.Repeat("x", 70) + "\xBF" + strings.Repeat("y", 70),
		strings.Repeat("naïve ", 25) + "\xED\xB0",
	}
	for _, text := range texts {
		b := []byte(text)
		last, refused := checkUTF8Bytes(b)
		step := 1
		if len(b) > 40 {
			step = 7
		}
		for i := 0; i <= len(b); i++ {
			for j := i; j <= len(b); j += step {
				var s utf8State
				end := 0
				for _, piece := range [][]byte{b[:i], b[i:j], b[j:]} {
					end += len(piece)
					var ok bool
					s, ok = s.next(piece)
					if want := end <= refused; want != ok {
						require.Fail(t, "depends on the cuts", "%q cut at %d and %d: got %v, want %v", text, i, j, ok, want)
					}
				}
				if s != last {
					require.Fail(t, "depends on the cuts", "%q cut at %d and %d: state %v, want %v", text, i, j, s, last)
				}
			}
		}
	}
}

// Something at every position of texts whose lengths cross, or end at, the
// borders of all the blocks that are looked at as a whole.
func TestUTF8EveryPosition(t *testing.T) {
	fills := []string{"a", "é", "世", "😀", strings.Repeat("0123456789abcdef", 4) + "é"}
	things := []string{
		"", "\x7F", "é", "世", "😀", "\x80", "\xBF", "\xC0", "\xC1\xBF", "\xC3", "\xC3a", "\xE2\x89", "\xE2\x89a",
		"\xED\xA0\x80", "\xF0\x9F\x98", "\xF0\x9F\x98z", "\xF4\x90\x80\x80", "\xFF",
	}
	for _, length := range []int{7, 8, 15, 16, 24, 31, 32, 40, 63, 64, 65, 96, 127, 128, 160, 192, 200, 250} {
		for _, fill := range fills {
			filling := []byte(strings.Repeat(fill, length/len(fill)+1))
			for at := range length {
				for _, thing := range things {
					b := append([]byte(nil), filling[:at]...)
					b = append(b, thing...)
					b = append(b, filling[at:]...)
					b = b[:length]
					want, n := checkUTF8Bytes(b)
					got, ok := utf8State{}.next(b)
					if ok != (n == len(b)) || got != want {
						require.Fail(t, "whole and byte by byte differ", "%d bytes, %q in %q at %d: got %v %v, want %v", length, thing, fill, at, got, ok, want)
					}
					if valid := ok && got.complete(); valid != utf8.Valid(b) {
						require.Fail(t, "disagrees with utf8.Valid", "%d bytes, %q in %q at %d", length, thing, fill, at)
					}
				}
			}
		}
	}
}

// Blocks of all kinds behind each other, with characters that are cut and things that nothing
// can follow at their ends.
func TestUTF8EndOfABlock(t *testing.T) {
	fills := []string{"a", "é", "世", "😀", strings.Repeat("世", 11) + strings.Repeat("a", 33)}
	ends := []string{
		"", "\xC3", "\xE4", "\xE4\xB8", "\xE4\xB8\x80", "\xE1\x80", "\xF0", "\xF0\x9F", "\xF0\x9F\x98", "\xF1\x80", "\xF1\x80\x80",
		"\xE0", "\xE0\x80", "\xE0\xA0", "\xED", "\xED\xA0", "\xED\x9F", "\xF0\x80", "\xF4", "\xF4\x8F", "\xF4\x90", "\xF0\x80\x80",
		"\xC0", "\xC1", "\xF5", "\xFF", "\xC0\x80", "\xF5\x80",
	}
	follow := []string{"", "\x80", "\x80\x80", "\xA0", "\x9F", "\xBF\xBF"}
	for _, before := range fills {
		for _, end := range ends {
			for _, size := range []int{64, 125, 128, 186, 4<<10 + 61} { // whole blocks, which overlap by 3 bytes, too
				n := size - len(end)
				head := []byte(strings.Repeat(before, n/len(before)) + strings.Repeat("a", n%len(before)) + end)
				for _, first := range follow {
					for _, after := range fills {
						for _, m := range []int{0, 1, 61, 64, 130} {
							b := append(bytes.Clone(head), first+strings.Repeat(after, m/len(after))...)
							want, refused := checkUTF8Bytes(b)
							got, ok := utf8State{}.next(b)
							if ok != (refused == len(b)) || got != want {
								require.Fail(t, "whole and byte by byte differ", "%q to %d, then %q and %d of %q: got %v %v, want %v",
									end, size, first, m, after, got, ok, want)
							}
						}
					}
				}
			}
		}
	}
}

// Texts of several kinds in turn, with something at random positions.
func TestUTF8LongTexts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	things := []string{"", "\x7F", "é", "世", "😀", "\x80", "\xBF", "\xC0\xA0", "\xC1\xBF", "\xC3a", "\xE2\x89", "\xED\xA0\x80", "\xFF"}
	for range 2000 {
		var b []byte
		for range 1 + rng.IntN(4) {
			text := utf8Texts[rng.IntN(len(utf8Texts))]
			b = append(b, utf8Text(text.words, text.sep, 20+rng.IntN(1500))...)
		}
		at := rng.IntN(len(b))
		b = slices.Insert(b, at, []byte(things[rng.IntN(len(things))])...)
		want, n := checkUTF8Bytes(b)
		got, ok := utf8State{}.next(b)
		require.Equal(t, n == len(b), ok, "%q", b)
		require.Equal(t, want, got, "%q", b)
		require.Equal(t, utf8.Valid(b), ok && got.complete(), "%q", b)
	}
}

// The two bytes of a character with ASCII between them, which may be skipped,
// but never past the character that it cuts.
func TestUTF8CharacterAroundASCII(t *testing.T) {
	for before := range 130 {
		for gap := 1; gap <= 130; gap++ {
			b := []byte(strings.Repeat("a", before) + "\xC3" + strings.Repeat("a", gap) + "\xA9")
			_, ok := utf8State{}.next(b)
			require.False(t, ok, "%d bytes before, %d between", before, gap)
			_, ok = utf8State{}.next(append(b, strings.Repeat("a", 64)...))
			require.False(t, ok, "%d bytes before, %d between, 64 after", before, gap)
			cut := b[:len(b)-1]
			_, ok = utf8State{}.next(append(cut, strings.Repeat("é", 64)...))
			require.False(t, ok, "%d bytes before, %d between, characters after", before, gap)
		}
	}
}

func TestUTF8StaysRefused(t *testing.T) {
	bad, ok := utf8State{}.next([]byte{0xFF})
	require.False(t, ok)
	for _, n := range []int{0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 65, 128, 200} {
		for _, fill := range []string{"a", "\x80"} {
			s, ok := bad.next([]byte(strings.Repeat(fill, n)))
			assert.False(t, ok, "%d bytes of %q", n, fill)
			assert.False(t, s.complete(), "%d bytes of %q", n, fill)
		}
	}
}

func TestUTF8Allocs(t *testing.T) {
	b := []byte("naïve café")
	assert.Zero(t, testing.AllocsPerRun(100, func() { checkUTF8(b) }))
}

func FuzzUTF8(f *testing.F) {
	f.Add([]byte("a é 世 😀 z"), uint16(3), uint16(5))
	f.Fuzz(func(t *testing.T, b []byte, i, j uint16) {
		valid := utf8.Valid(b)
		require.Equal(t, valid, checkUTF8(b))

		last, refused := checkUTF8Bytes(b)
		require.Equal(t, valid, refused == len(b) && last.complete())

		x := int(i) % (len(b) + 1)
		y := x + int(j)%(len(b)-x+1)
		var s utf8State
		end := 0
		for _, piece := range [][]byte{b[:x], b[x:y], b[y:]} {
			end += len(piece)
			var ok bool
			s, ok = s.next(piece)
			require.Equal(t, end <= refused, ok, "piece that ends at %d, refused at %d", end, refused)
		}
		require.Equal(t, last, s)
	})
}

// utf8Texts are made of words in random order, because a branch predictor
// learns a text that repeats itself by heart.
var utf8Texts = []struct {
	name, sep, words string
}{
	{"ascii", " ", "it is a truth universally acknowledged that a single man in possession of a good fortune must be in want of a wife"},
	{"french", " ", "dès l'aube à l'heure où blanchit la campagne je partirai vois-tu je sais que tu m'attends j'irai par la forêt je ne puis demeurer loin de toi plus longtemps les yeux fixés sur mes pensées"},
	{"french, typeset", " ", "dès l’aube à l’heure où blanchit la campagne je partirai vois-tu je sais que tu m’attends j’irai par la forêt « je ne puis » demeurer — loin de toi plus longtemps les yeux fixés sur mes pensées…"},
	{"german", " ", "alle Menschen sind frei und gleich an Würde und Rechten geboren sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen"},
	{"greek", " ", "όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα"},
	{"russian", " ", "все счастливые семьи похожи друг на друга каждая несчастливая семья несчастлива по-своему"},
	{"chinese", "", "道 可 道 , 非 常 道 。 名 可 名 , 非 常 名 。 無 名 天 地 之 始 ; 有 名 萬 物 之 母 。"},
	{"korean", " ", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다"},
	{"emoji", "", "😀 😃 😄 😁 😆 😅 🤣 😂 🙂 🙃 😉 😊 😇 🥰 😍"},
	{"mixed", "", "a b c d e ä ö ü é è ß 世 界 。 😀"},
	{"json", ",", `"id":48151623 "user":"søren" "user":"carol" "user":"walter" "created_at":"2024-05-01T10:00:00Z" "lang":"en" "text":"Hello_there,_a_message_with_😀" "text":"and_one_in_plain_ASCII" "tags":["news","sports","weather"] "retweets":12 "favorites":155 "url":"https://example.com/a/b/c?d=e&f=g"`},
}

func utf8Text(words, sep string, n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	list := strings.Fields(words)
	var b []byte
	for len(b) < n {
		b = append(b, list[rng.IntN(len(list))]...)
		b = append(b, sep...)
	}
	for b = b[:n]; !utf8.Valid(b); {
		b = b[:len(b)-1]
	}
	return b
}

func BenchmarkUTF8(b *testing.B) {
	for _, text := range utf8Texts {
		for _, n := range []int{16, 125, 1024, 65536} {
			p := utf8Text(text.words, text.sep, n)
			for _, f := range []struct {
				name  string
				valid func([]byte) bool
			}{
				{"next", checkUTF8},
				{"utf8.Valid", utf8.Valid},
			} {
				b.Run(fmt.Sprintf("%s/%d/%s", text.name, n, f.name), func(b *testing.B) {
					b.SetBytes(int64(len(p)))
					for b.Loop() {
						if !f.valid(p) {
							b.Fatal("text is refused")
						}
					}
				})
			}
		}
	}
}
