package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"github.com/strictws/websocket/bench/load"
	"github.com/strictws/websocket/bench/server"
)

// A kind is a group of cells: those of a table.
type kind string

const (
	echo      kind = "echo"
	text      kind = "text"
	pipelined kind = "pipelined"
	broadcast kind = "broadcast"
	handshake kind = "handshake"
	deflate   kind = "deflate"
	takeover  kind = "takeover"
	idle      kind = "idle"
	idleTLS   kind = "idle-tls"
)

// A cell is one thing that is measured, with every server.
type cell struct {
	name  string // as in "echo/125B/64"
	kind  kind
	mode  server.Mode
	conns int
	full  bool // part of the full run only

	first    byte     // of the frames that are sent
	messages [][]byte // which a connection sends one after the other
	frames   int      // messages in one write
}

// matches tells whether a pattern, of package path, is the cell's name or the beginning of it.
func (c cell) matches(pattern string) (bool, error) {
	elements := strings.Split(c.name, "/")
	for i := range elements {
		if ok, err := path.Match(pattern, strings.Join(elements[:i+1], "/")); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func cells() []cell {
	var all []cell
	add := func(c cell, short bool) {
		c.full = !short
		c.mode.Size = len(c.messages[0])
		if c.frames == 0 {
			c.frames = 1
		}
		all = append(all, c)
	}

	// Large messages have few connections, for the sake of memory: a server may hold a message for each.
	for _, e := range []struct {
		size  int
		conns []int
		short []int
	}{
		{16, []int{1, 64, 1000}, []int{64}},
		{125, []int{1, 64, 1000}, []int{1, 64, 1000}},
		{1 << 10, []int{1, 64, 1000}, []int{64}},
		{16 << 10, []int{1, 64, 1000}, []int{64}},
		{64 << 10, []int{1, 64, 256}, []int{64}},
		{256 << 10, []int{1, 16, 64}, []int{16}},
		{1 << 20, []int{1, 16}, []int{1}},
		{4 << 20, []int{1, 4}, []int{1}},
	} {
		for _, n := range e.conns {
			add(cell{name: fmt.Sprintf("echo/%s/%d", sizeName(e.size), n), kind: echo, conns: n,
				first: load.Binary, messages: [][]byte{noise(e.size)}}, slices.Contains(e.short, n))
		}
	}
	for _, n := range []int{1, 64} {
		add(cell{name: fmt.Sprintf("text/utf8/%d", n), kind: text, conns: n, mode: server.Mode{Text: true},
			first: load.Text, messages: [][]byte{mixedText(16 << 10)}}, n == 64)
		add(cell{name: fmt.Sprintf("text/ascii/%d", n), kind: text, conns: n, mode: server.Mode{Text: true},
			first: load.Text, messages: [][]byte{asciiText(16 << 10)}}, n == 64)
	}
	for _, n := range []int{1, 64} {
		add(cell{name: fmt.Sprintf("pipelined/%d", n), kind: pipelined, conns: n,
			first: load.Binary, messages: [][]byte{noise(16)}, frames: 64}, n == 64)
	}
	add(cell{name: "broadcast/1000", kind: broadcast, conns: 1000, mode: server.Mode{Broadcast: true},
		first: load.Binary, messages: [][]byte{noise(1 << 10)}}, true)
	add(cell{name: "handshake", kind: handshake, mode: server.Mode{Handshake: true}, first: load.Binary, messages: [][]byte{noise(16)}}, true)
	for _, size := range []int{1 << 10, 16 << 10} {
		add(cell{name: "deflate/" + sizeName(size), kind: deflate, conns: 64, mode: server.Mode{Deflate: true},
			first: load.Text | load.Compressed, messages: records(size, 128)}, true)
	}
	for _, size := range []int{1 << 10, 16 << 10} {
		add(cell{name: "takeover/" + sizeName(size), kind: takeover, conns: 64,
			mode:  server.Mode{Deflate: true, Takeover: true},
			first: load.Text | load.Compressed, messages: records(size, 128)}, true)
	}
	add(cell{name: "idle/125B", kind: idle, conns: 10000, mode: server.Mode{Idle: true},
		first: load.Binary, messages: [][]byte{noise(125)}}, true)
	add(cell{name: "idle/64KiB", kind: idle, conns: 10000, mode: server.Mode{Idle: true},
		first: load.Binary, messages: [][]byte{noise(64 << 10)}}, true)
	add(cell{name: "idle-tls/125B", kind: idleTLS, conns: 1000, mode: server.Mode{Idle: true, TLS: true},
		first: load.Binary, messages: [][]byte{noise(125)}}, true)
	return all
}

func sizeName(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%dMiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%dKiB", n>>10)
	default:
		return fmt.Sprintf("%dB", n)
	}
}

// Messages are the same in every run.

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func asciiText(n int) []byte {
	return bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. "), n/45+1)[:n]
}

// mixedText is made of sequences of two to four bytes only.
func mixedText(n int) []byte {
	b := bytes.Repeat([]byte("é漢😀"), n/9)
	for len(b) < n {
		b = append(b, "éé"[:min(n-len(b), 4)]...)
	}
	return b
}

// records are count messages of JSON, of size bytes each, that resemble each other as those of an application do. They
// are to be more than the window of a compressor, 32 KiB, so that none finds itself in it.
func records(size, count int) [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november")
	all := make([][]byte, count)
	for i := range all {
		b := []byte(`{"type":"update","entries":[`)
		for {
			entry := fmt.Sprintf(`{"id":%d,"name":"%s %s","price":%.2f,"active":%t,"tags":["%s","%s"]},`,
				rnd.IntN(1e6), words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], rnd.Float64()*1000,
				rnd.IntN(2) == 0, words[rnd.IntN(len(words))], words[rnd.IntN(len(words))])
			if len(b)+len(entry) > size-20 {
				break
			}
			b = append(b, entry...)
		}
		b[len(b)-1] = ']'
		b = append(b, `,"pad":"`...)
		for len(b) < size-2 {
			b = append(b, byte('a'+rnd.IntN(26)))
		}
		all[i] = append(b, `"}`...)
	}
	return all
}

// spec is what the load generator does for a cell.
func (c cell) spec(addr string, plain, verify bool) (load.Spec, error) {
	s := load.Spec{
		Addr:    addr,
		Conns:   c.conns,
		Plain:   plain,
		Fanout:  c.mode.Broadcast,
		Replies: c.frames,
		Size:    len(c.messages[0]),
	}
	if c.mode.Deflate {
		s.Size = -1
		s.Offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
		if c.mode.Takeover {
			s.Offer = "permessage-deflate"
		}
	}
	for i, message := range c.messages {
		payload := message
		if c.first&load.Compressed != 0 {
			var err error
			if payload, err = compress(message); err != nil {
				return s, err
			}
		}
		var turn []byte
		for range c.frames {
			if plain {
				turn = append(turn, payload...)
			} else {
				turn = load.AppendFrame(turn, c.first, [4]byte{0x37, 0xfa, 0x21, byte(i)}, payload)
			}
		}
		s.Turns = append(s.Turns, turn)
	}
	if verify {
		s.Verify = c.verify(plain)
	}
	return s, nil
}

// compress makes a message that refers to none before it.
func compress(p []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, server.Level)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(p); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff}), nil
}

// verify returns what compares the answers with what was sent.
func (c cell) verify(plain bool) func(conn, turn int, m load.Message) error {
	const window = 32 << 10
	before := make(map[int][]byte) // what a connection's answers were, with takeover
	return func(conn, turn int, m load.Message) error {
		want := c.messages[turn%len(c.messages)]
		if !plain && m.First&0x0f != c.first&0x0f {
			return fmt.Errorf("the first byte of the answer is %#x", m.First)
		}
		got := m.Payload
		if m.First&load.Compressed != 0 {
			var b bytes.Buffer
			tail := "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
			r := flate.NewReaderDict(bytes.NewReader(append(bytes.Clone(got), tail...)), before[conn])
			if _, err := b.ReadFrom(r); err != nil {
				return fmt.Errorf("inflating the answer: %w", err)
			}
			got = b.Bytes()
		} else if c.mode.Deflate {
			return fmt.Errorf("the answer is not compressed")
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("the answer, %d bytes, is not the message", len(got))
		}
		if c.mode.Takeover {
			past := append(before[conn], got...)
			before[conn] = past[max(0, len(past)-window):]
		}
		return nil
	}
}

// least is how many messages a measurement has at least, if it can have them: a busy machine gives it little time.
func (c cell) least() int { return min(2000, 256<<20/c.mode.Size) }
