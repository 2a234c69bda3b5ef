package interop

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/strictws/websocket"
)

// A wire is a relay between a client and a server that takes notes of the frames. What the
// two say of a conversation does not tell whether a message came in fragments or was compressed:
// the frames do. It is no wrapper of a net.Conn, so that both ends have real sockets.
type wire struct {
	server  string // host:port
	relayed sync.WaitGroup

	mu    sync.Mutex
	links []*link
}

// A link is one connection over a wire.
type link struct {
	extensions             string // as in the response
	fromClient, fromServer side
}

// A side is what one end sent.
type side struct {
	messages   []message
	pings      []string
	pongs      []string
	closes     []string // code and reason
	unexpected error
}

// A message is what its frames say, in the order in which they began.
type message struct {
	text       bool
	frames     int
	compressed bool // RSV1
	bytes      int  // of payload on the wire
}

// tap puts a wire in front of the server at url, which must be a ws URL, and returns the URL
// to use instead.
func tap(t *testing.T, url string) (string, *wire) {
	t.Helper()
	host, ok := strings.CutPrefix(url, "ws://")
	require.True(t, ok, url)
	host, path, _ := strings.Cut(host, "/")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{server: host}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			w.relayed.Go(func() { w.relay(client.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { ln.Close(); accepting.Wait() })
	return fmt.Sprintf("ws://%s/%s", ln.Addr(), path), w
}

func (w *wire) relay(client *net.TCPConn) {
	defer client.Close()
	conn, err := net.DialTimeout("tcp", w.server, 5*time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	server := conn.(*net.TCPConn)
	deadline := time.Now().Add(time.Minute)
	_ = client.SetDeadline(deadline)
	_ = server.SetDeadline(deadline)

	l := new(link)
	upgraded := make(chan bool, 1) // whether the request asks for a WebSocket
	request, requestNotes := io.Pipe()
	response, responseNotes := io.Pipe()
	var notes, copies sync.WaitGroup
	notes.Go(func() {
		r := bufio.NewReader(request)
		req, err := http.ReadRequest(r)
		ws := err == nil && strings.EqualFold(req.Header.Get("Upgrade"), "websocket")
		if ws {
			// In the order of the handshakes; before the server can answer.
			w.mu.Lock()
			w.links = append(w.links, l)
			w.mu.Unlock()
			upgraded <- true
			l.fromClient.observe(r, true)
		} else {
			upgraded <- false
		}
		_, _ = io.Copy(io.Discard, r)
	})
	notes.Go(func() {
		r := bufio.NewReader(response)
		if resp, err := http.ReadResponse(r, nil); err == nil && resp.StatusCode == http.StatusSwitchingProtocols && <-upgraded {
			l.extensions = resp.Header.Get("Sec-WebSocket-Extensions")
			l.fromServer.observe(r, false)
		}
		_, _ = io.Copy(io.Discard, r)
	})
	// A note is taken before the bytes go on, so that what an end has received has been noted.
	forward := func(to, from *net.TCPConn, notes *io.PipeWriter) {
		_, _ = io.Copy(to, io.TeeReader(from, notes))
		_ = to.CloseWrite()
		notes.Close()
	}
	copies.Go(func() { forward(server, client, requestNotes) })
	copies.Go(func() { forward(client, server, responseNotes) })
	copies.Wait()
	notes.Wait()
}

// observe reads frames until the connection ends. Whatever they are, it must not panic, which
// would end all tests.
func (s *side) observe(r *bufio.Reader, masked bool) {
	open := false // a message has begun
	for {
		b, err := r.Peek(2)
		if err != nil {
			return
		}
		h, n, err := websocket.ParseHeader(b)
		for size := 3; n == 0 && err == nil; size++ {
			if b, err = r.Peek(size); err == nil {
				h, n, err = websocket.ParseHeader(b)
			}
		}
		if err == nil && h.Masked != masked {
			err = fmt.Errorf("a frame with mask: %t", h.Masked)
		}
		if err == nil && !h.Opcode.IsControl() {
			if open != (h.Opcode == websocket.OpContinuation) {
				err = fmt.Errorf("a %v frame, within a message: %t", h.Opcode, open)
			}
			open = !h.Fin
		}
		if err == nil && h.Length > 8<<20 {
			err = fmt.Errorf("a frame of %d bytes", h.Length)
		}
		if err != nil {
			s.unexpected = err
			return
		}
		_, _ = r.Discard(n)
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(r, payload); err != nil {
			s.unexpected = err
			return
		}
		if h.Masked {
			websocket.Mask(payload, h.Key, 0)
		}
		switch h.Opcode {
		case websocket.OpText, websocket.OpBinary:
			s.messages = append(s.messages, message{text: h.Opcode == websocket.OpText, frames: 1, compressed: h.RSV1, bytes: len(payload)})
		case websocket.OpContinuation:
			m := &s.messages[len(s.messages)-1]
			m.frames++
			m.bytes += len(payload)
		case websocket.OpPing:
			s.pings = append(s.pings, string(payload))
		case websocket.OpPong:
			s.pongs = append(s.pongs, string(payload))
		case websocket.OpClose:
			text := "none"
			if len(payload) >= 2 {
				text = fmt.Sprintf("%d %s", binary.BigEndian.Uint16(payload), payload[2:])
			}
			s.closes = append(s.closes, text)
		}
	}
}

func TestObserve(t *testing.T) {
	for _, tt := range []struct{ frames, err string }{
		{"\x01\x01a\x89\x00\x80\x01b\x82\x00", ""},
		{"\x80\x00", "a continuation frame, within a message: false"},
		{"\x81\x00\x80\x00", "a continuation frame, within a message: false"},
		{"\x01\x00\x82\x00", "a binary frame, within a message: true"},
		{"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "a frame of 9223372036854775807 bytes"},
		{"\x82\x80abcd", "a frame with mask: true"},
		{"\x82\x02a", "unexpected EOF"},
	} {
		var s side
		s.observe(bufio.NewReader(strings.NewReader(tt.frames)), false)
		if tt.err == "" {
			assert.NoError(t, s.unexpected, "%x", tt.frames)
			assert.Equal(t, []message{{text: true, frames: 2, bytes: 2}, {frames: 1}}, s.messages)
		} else {
			assert.EqualError(t, s.unexpected, tt.err, "%x", tt.frames)
		}
	}
}

// notes returns the links once all of them have ended.
func (w *wire) notes(t *testing.T) []*link {
	t.Helper()
	ended := make(chan struct{})
	go func() { w.relayed.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		require.FailNow(t, "a connection has not ended")
	}
	return w.links
}

// An expectation is what the frames of a conversation must show.
type expectation struct {
	extensions string // the server's response
	// What the client cannot do: the WebSocket of a browser sends neither fragments nor Pings.
	noClientFragments, noClientPings bool
	// A client may agree on compression and yet send nothing compressed (RFC 7692 section 6).
	noClientCompression bool
	// Where the other side is known to close in its own way; see the README.
	serverClose, clientClose string
}

// check compares a conversation's frames with what they must be.
func (w *wire) check(t *testing.T, want expectation) {
	t.Helper()
	links := w.notes(t)
	require.GreaterOrEqual(t, len(links), 2)
	for _, l := range links {
		require.NoError(t, l.fromClient.unexpected)
		require.NoError(t, l.fromServer.unexpected)
	}
	talk, farewell := links[0], links[1]
	assert.Equal(t, want.extensions, talk.extensions, "Sec-WebSocket-Extensions")

	for who, s := range map[string]*side{"client": &talk.fromClient, "server": &talk.fromServer} {
		compress := strings.Contains(want.extensions, "permessage-deflate") && (who == "server" || !want.noClientCompression)
		fragmented, compressed := 0, 0
		var alike []int // sizes
		for _, m := range s.messages {
			if m.frames > 1 {
				fragmented++
			}
			if m.compressed {
				compressed++
			}
		}
		assert.Equal(t, compress, compressed > 0, "%s: compressed messages", who)
		if who == "server" || !want.noClientFragments {
			assert.Positive(t, fragmented, "%s: fragmented messages", who)
		}
		// Every conversation begins with the same texts; the last of them are alike.
		require.GreaterOrEqual(t, len(s.messages), alikeFrom+alikeCount, "%s: messages", who)
		for _, m := range s.messages[alikeFrom : alikeFrom+alikeCount] {
			require.True(t, m.text)
			alike = append(alike, m.bytes)
		}
		takeover := compress && !strings.Contains(want.extensions, who+"_no_context_takeover")
		for _, size := range alike[1:] {
			if takeover {
				assert.Less(t, 2*size, alike[0], "%s: a message that refers to the one before: %d", who, alike)
			} else {
				assert.Equal(t, alike[0], size, "%s: messages on their own: %d", who, alike)
			}
		}
	}

	// RFC 6455 section 5.5.3: a Pong has the payload of its Ping.
	assert.NotEmpty(t, talk.fromServer.pings, "Pings of the server")
	assert.Subset(t, talk.fromClient.pongs, talk.fromServer.pings)
	if !want.noClientPings {
		assert.NotEmpty(t, talk.fromClient.pings, "Pings of the client")
		assert.Subset(t, talk.fromServer.pongs, talk.fromClient.pings)
	}

	// Each end closes once, and the answer is what was received.
	clientClose, serverClose := "4001 bye", "4002 see you"
	if want.clientClose != "" {
		clientClose = want.clientClose
	}
	if want.serverClose != "" {
		serverClose = want.serverClose
	}
	assert.Equal(t, []string{"4001 bye"}, talk.fromServer.closes)
	assert.Equal(t, []string{clientClose}, talk.fromClient.closes)
	assert.Equal(t, []string{"4002 see you"}, farewell.fromClient.closes)
	assert.Equal(t, []string{serverClose}, farewell.fromServer.closes)
}

// The texts from alikeFrom on are alike. Below 128 bytes compress/flate does not look for repetitions
// at its fastest level; zlib's window of 9 bits reaches 250 bytes back.
const (
	alikeFrom  = 3
	alikeCount = 3
	alikeSize  = 200
)

// noise returns n letters that cannot be compressed by more than a quarter or so, the same each time.
func noise(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for range n {
		b.WriteByte(letters[r.IntN(len(letters))])
	}
	return b.String()
}

// pieces cuts s into three.
func pieces(s string) []string {
	n := len(s) / 3
	return []string{s[:n], s[n : 2*n], s[2*n:]}
}
