package server

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

func init() {
	does := func(m Mode) bool { return !m.TLS && !m.Deflate }
	buffers := func(m Mode) bool { return does(m) && !m.Idle }
	register(
		Variant{Name: "gobwas", NetHTTP: true, Validates: true, Does: does, Serve: serveGobwas},
		Variant{Name: "gobwas-low", Does: does, Serve: serveGobwasLow(gobwasUnbuffered)},
		Variant{Name: "gobwas-buffered", Does: buffers, Serve: serveGobwasLow(gobwasBuffered)},
		Variant{Name: "gobwas-batched", Gathers: true, Does: buffers, Serve: serveGobwasLow(gobwasBatched)},
	)
}

// serveGobwas is the high-level way: net/http and package wsutil.
func serveGobwas(ln net.Listener, m Mode) error {
	wsutil.SetMaxMessageSize(Limit)
	var all room[net.Conn]
	return serveHTTP(ln, m, func(w http.ResponseWriter, r *http.Request) {
		c, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if m.Broadcast {
				all.join(c)
				defer all.leave(c)
			}
			for {
				msg, op, err := wsutil.ReadClientData(c)
				if err != nil {
					return
				}
				if m.Broadcast {
					gobwasBroadcast(&all, op, msg)
				} else if wsutil.WriteServerMessage(c, op, msg) != nil {
					return
				}
			}
		}()
	})
}

func gobwasBroadcast(all *room[net.Conn], op ws.OpCode, msg []byte) {
	frame, err := ws.CompileFrame(ws.NewFrame(op, true, msg))
	if err != nil {
		return
	}
	all.each(func(c net.Conn) { c.Write(frame) })
}

// serveGobwasLow is the low-level way: the upgrade without net/http, pooled buffers, an answer in one write. What is
// between it and the connection is up to serve.
func serveGobwasLow(serve func(net.Conn, Mode, *room[net.Conn])) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
		var all room[net.Conn]
		return acceptLoop(ln, func(c net.Conn) {
			defer c.Close()
			if _, err := ws.Upgrade(c); err != nil {
				return
			}
			if m.Broadcast {
				all.join(c)
				defer all.leave(c)
			}
			serve(c, m, &all)
		})
	}
}

func gobwasUnbuffered(c net.Conn, m Mode, all *room[net.Conn]) { gobwasLow(c, c, m, all) }

func gobwasBuffered(c net.Conn, m Mode, all *room[net.Conn]) {
	gobwasLow(bufio.NewReader(c), c, m, all)
}

// gobwasBatched gathers answers for as long as there are messages to take from its buffer.
func gobwasBatched(c net.Conn, m Mode, all *room[net.Conn]) {
	w := bufio.NewWriter(c)
	defer w.Flush() // what ends the connection may be right behind messages
	gobwasLow(bufio.NewReader(flushing{c, w}), w, m, all)
}

// flushing sends what has gathered before each read, which may wait: the next message may be there in part only.
type flushing struct {
	r io.Reader
	w *bufio.Writer
}

func (f flushing) Read(p []byte) (int, error) {
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	return f.r.Read(p)
}

var gobwasBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func gobwasLow(r io.Reader, w io.Writer, m Mode, all *room[net.Conn]) {
	scratch := make([]byte, ws.MaxHeaderSize)
	for {
		h, err := ws.ReadHeaderBuffer(r, scratch)
		if err != nil || ws.CheckHeader(h, ws.StateServerSide) != nil || h.OpCode == ws.OpClose || h.Length > Limit {
			return
		}
		if err := gobwasFrame(r, w, h, scratch, m, all); err != nil {
			return
		}
	}
}

func gobwasFrame(r io.Reader, w io.Writer, h ws.Header, scratch []byte, m Mode, all *room[net.Conn]) error {
	buf := gobwasBuffers.Get().(*bytes.Buffer)
	defer gobwasBuffers.Put(buf)
	buf.Reset()
	answer := ws.Header{Fin: h.Fin, OpCode: h.OpCode, Length: h.Length}
	if err := ws.WriteHeaderBuffer(buf, answer, scratch); err != nil {
		return err
	}
	buf.Grow(int(h.Length))
	frame := buf.Bytes()
	head := len(frame)
	frame = frame[:head+int(h.Length)]
	payload := frame[head:]

	if _, err := io.ReadFull(r, payload); err != nil {
		return err
	}
	ws.Cipher(payload, h.Mask, 0)
	if m.Broadcast {
		gobwasBroadcast(all, h.OpCode, payload)
		return nil
	}
	_, err := w.Write(frame)
	return err
}
