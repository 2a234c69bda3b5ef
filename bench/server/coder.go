package server

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

func init() {
	does := func(m Mode) bool { return !m.TLS }
	register(
		Variant{Name: "coder", Flate: true, NetHTTP: true, Does: does, Serve: serveCoder(coderEcho)},
		Variant{Name: "coder-pool", Flate: true, NetHTTP: true, Serve: serveCoder(coderPool),
			Does: func(m Mode) bool { return !m.TLS && !m.Broadcast }},
	)
}

func serveCoder(echo func(*websocket.Conn)) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
		opts := &websocket.AcceptOptions{}
		switch {
		case m.Takeover:
			opts.CompressionMode = websocket.CompressionContextTakeover
		case m.Deflate:
			opts.CompressionMode = websocket.CompressionNoContextTakeover // level 1 it is
		}
		var all room[*websocket.Conn]
		return serveHTTP(ln, m, func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, opts)
			if err != nil {
				return
			}
			c.SetReadLimit(Limit)
			go func() {
				defer c.CloseNow()
				if m.Broadcast {
					coderBroadcast(c, &all)
					return
				}
				echo(c)
			}()
		})
	}
}

func coderEcho(c *websocket.Conn) {
	for {
		typ, msg, err := c.Read(context.Background())
		if err != nil || c.Write(context.Background(), typ, msg) != nil {
			return
		}
	}
}

var coderBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// coderPool reads into pooled buffers.
func coderPool(c *websocket.Conn) {
	for {
		typ, r, err := c.Reader(context.Background())
		if err != nil {
			return
		}
		buf := coderBuffers.Get().(*bytes.Buffer)
		buf.Reset()
		if _, err = buf.ReadFrom(r); err == nil {
			err = c.Write(context.Background(), typ, buf.Bytes())
		}
		coderBuffers.Put(buf)
		if err != nil {
			return
		}
	}
}

// coderBroadcast writes to one after the other: there are no prepared messages.
func coderBroadcast(c *websocket.Conn, all *room[*websocket.Conn]) {
	all.join(c)
	defer all.leave(c)
	for {
		typ, msg, err := c.Read(context.Background())
		if err != nil {
			return
		}
		all.each(func(c *websocket.Conn) { c.Write(context.Background(), typ, msg) })
	}
}
