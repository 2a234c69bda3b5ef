package load

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// listen serves connections with serve until the test ends, and returns the address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// answers is a server that upgrades whatever comes and then answers each message of n bytes with what answer returns.
func answers(t *testing.T, n int, answer func() []byte) string {
	return listen(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		for {
			if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
				return
			}
			if _, err := c.Write(answer()); err != nil {
				return
			}
		}
	})
}

var question = AppendFrame(nil, Binary, [4]byte{1, 2, 3, 4}, []byte("abc"))

func ask(t *testing.T, addr string, change func(*Spec)) (Count, error) {
	t.Helper()
	spec := Spec{Addr: addr, Conns: 3, Turns: [][]byte{question}, Replies: 1, Size: 3}
	if change != nil {
		change(&spec)
	}
	g, err := Open(spec)
	require.NoError(t, err)
	defer g.Close()
	return g.Run(time.Minute, 0, 4)
}

func TestRun(t *testing.T) {
	addr := answers(t, len(question), func() []byte { return []byte("\x82\x03xyz") })
	count, err := ask(t, addr, nil)
	require.NoError(t, err)
	assert.Equal(t, 12, count.Messages)
	assert.Equal(t, int64(60), count.Bytes)
	assert.Positive(t, count.Elapsed)

	wrong := errors.New("not that")
	_, err = ask(t, addr, func(s *Spec) {
		s.Verify = func(conn, turn int, m Message) error {
			assert.Equal(t, Message{Binary, []byte("xyz")}, m)
			if turn == 2 {
				return wrong
			}
			return nil
		}
	})
	assert.ErrorIs(t, err, wrong)
}

func TestRunPipelined(t *testing.T) {
	addr := answers(t, 2*len(question), func() []byte { return []byte("\x82\x03xyz\x02\x02xy\x80\x01z") })
	count, err := ask(t, addr, func(s *Spec) { s.Turns, s.Replies = [][]byte{append(question, question...)}, 2 })
	require.NoError(t, err)
	assert.Equal(t, 24, count.Messages)
}

// More than the sockets hold goes out and comes back at the same time.
func TestRunLarge(t *testing.T) {
	const size = 16 << 20
	addr := listen(t, func(c net.Conn) { io.Copy(c, c) })
	message := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	count, err := ask(t, addr, func(s *Spec) {
		s.Plain, s.Size, s.Turns = true, size, [][]byte{message}
		s.Verify = func(conn, turn int, m Message) error {
			if !bytes.Equal(m.Payload, message) {
				return errors.New("not what was sent")
			}
			return nil
		}
	})
	require.NoError(t, err)
	assert.Equal(t, 12, count.Messages)
}

// The first connection writes; each gets it.
func TestRunFanout(t *testing.T) {
	all := make(chan net.Conn, 3)
	var joined sync.WaitGroup
	joined.Add(3)
	addr := listen(t, func(c net.Conn) {
		all <- c
		joined.Done()
		buf := make([]byte, 3)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			joined.Wait()
			for range 3 {
				to := <-all
				to.Write(buf)
				all <- to
			}
		}
	})
	count, err := ask(t, addr, func(s *Spec) { s.Plain, s.Fanout, s.Turns = true, true, [][]byte{[]byte("abc")} })
	require.NoError(t, err)
	assert.Equal(t, 12, count.Messages)
}

func TestRunEnds(t *testing.T) {
	addr := answers(t, len(question), func() []byte { return []byte("\x82\x03xyz") })
	g, err := Open(Spec{Addr: addr, Conns: 2, Turns: [][]byte{question}, Replies: 1, Size: 3})
	require.NoError(t, err)
	defer g.Close()

	count, err := g.Run(0, 0, 0)
	require.NoError(t, err)
	assert.Equal(t, 2, count.Messages, "one turn has begun")

	count, err = g.Run(time.Minute/5, 0, 7)
	require.NoError(t, err)
	assert.Equal(t, 14, count.Messages)

	count, err = g.Run(time.Millisecond, 1000, 0)
	require.NoError(t, err)
	assert.True(t, count.Messages >= 1000 || count.Elapsed >= 3*time.Millisecond, "%+v", count)
}

func TestRunErrors(t *testing.T) {
	for want, answer := range map[string]string{
		"an answer of 2 bytes and not 3": "\x82\x02xy",
		"an answer too many":             "\x82\x03xyz\x82\x03xyz",
		"Close":                          "\x88\x02\x03\xe8",
		"masked":                         "\x82\x83abcdxyz",
	} {
		_, err := ask(t, answers(t, len(question), func() []byte { return []byte(answer) }), func(s *Spec) { s.Conns = 1 })
		assert.ErrorContains(t, err, want)
	}
	gone := listen(t, func(c net.Conn) { io.CopyN(io.Discard, c, int64(len(question))) })
	_, err := ask(t, gone, func(s *Spec) { s.Plain = true })
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestHandshakes(t *testing.T) {
	addr := answers(t, 1, func() []byte { return nil })
	n, err := Handshakes(addr, "", 40, time.Minute)
	require.NoError(t, err)
	assert.Equal(t, 40, n)

	_, err = Handshakes(addr, "permessage-deflate", 1, time.Minute)
	assert.ErrorContains(t, err, "101 Switching Protocols", "the extension was not agreed on")

	refusing := listen(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	})
	_, err = Handshakes(refusing, "", 1, time.Minute)
	assert.ErrorContains(t, err, "400 Bad Request")
	_, err = Open(Spec{Addr: refusing, Conns: 1})
	assert.ErrorContains(t, err, "400 Bad Request")
}

func TestRequest(t *testing.T) {
	var b strings.Builder
	require.NoError(t, sendRequest(&b, "127.0.0.1:80", "permessage-deflate"))
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1:80", r.Host)
	assert.Equal(t, "permessage-deflate", r.Header.Get("Sec-WebSocket-Extensions"))
	assert.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", accept) // RFC 6455 section 1.3
}
