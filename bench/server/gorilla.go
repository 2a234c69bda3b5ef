package server

import (
	"bytes"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

func init() {
	register(
		Variant{Name: "gorilla", Flate: true, NetHTTP: true, Serve: serveGorilla(new(websocket.Upgrader), gorillaEcho)},
		Variant{Name: "gorilla-pool", Flate: true, NetHTTP: true, Serve: func(ln net.Listener, m Mode) error {
			up := &websocket.Upgrader{WriteBufferPool: new(sync.Pool), ReadBufferSize: 4096, WriteBufferSize: 4096}
			if m.Idle {
				up.ReadBufferSize = 256
			}
			return serveGorilla(up, gorillaPool)(ln, m)
		}},
	)
}

func serveGorilla(up *websocket.Upgrader, echo func(*websocket.Conn)) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
		up.EnableCompression = m.Deflate
		var all room[*websocket.Conn]
		return serveHTTP(ln, m, func(w http.ResponseWriter, r *http.Request) {
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			c.SetReadLimit(Limit)
			c.SetCompressionLevel(Level)
			go func() {
				defer c.Close()
				if m.Broadcast {
					gorillaBroadcast(c, &all)
					return
				}
				echo(c)
			}()
		})
	}
}

func gorillaEcho(c *websocket.Conn) {
	for {
		typ, msg, err := c.ReadMessage()
		if err != nil || c.WriteMessage(typ, msg) != nil {
			return
		}
	}
}

var gorillaBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// gorillaPool reads into pooled buffers.
func gorillaPool(c *websocket.Conn) {
	for {
		typ, r, err := c.NextReader()
		if err != nil {
			return
		}
		buf := gorillaBuffers.Get().(*bytes.Buffer)
		buf.Reset()
		if _, err = buf.ReadFrom(r); err == nil {
			err = c.WriteMessage(typ, buf.Bytes())
		}
		gorillaBuffers.Put(buf)
		if err != nil {
			return
		}
	}
}

func gorillaBroadcast(c *websocket.Conn, all *room[*websocket.Conn]) {
	all.join(c)
	defer all.leave(c)
	for {
		typ, msg, err := c.ReadMessage()
		if err != nil {
			return
		}
		prepared, err := websocket.NewPreparedMessage(typ, msg)
		if err != nil {
			return
		}
		all.each(func(c *websocket.Conn) { c.WritePreparedMessage(prepared) })
	}
}
