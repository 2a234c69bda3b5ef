package server

import (
	"context"
	"net"
	"net/http"

	"github.com/strictws/websocket"
)

func init() {
	does := func(Mode) bool { return true }
	register(
		Variant{Name: "strictws", NetHTTP: true, Validates: true, Does: does, Serve: serveStrictws(strictwsEcho)},
		Variant{Name: "strictws-messages", NetHTTP: true, Validates: true, Serve: serveStrictws(strictwsMessages),
			Does: func(m Mode) bool { return !m.Broadcast }},
	)
}

func serveStrictws(echo func(*websocket.Conn)) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
		opts := &websocket.AcceptOptions{MaxMessageSize: Limit}
		if m.Deflate {
			opts.Compression = &websocket.Compression{Level: Level, ContextTakeover: m.Takeover}
		}
		var all room[*websocket.Conn]
		return serveHTTP(ln, m, func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, opts)
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if m.Broadcast {
					strictwsBroadcast(c, &all)
					return
				}
				echo(c)
			}()
		})
	}
}

// strictwsAnswer is how an echo answers.
func strictwsAnswer(c *websocket.Conn, typ websocket.MessageType, msg []byte) error {
	return c.Queue(context.Background(), typ, msg)
}

func strictwsEcho(c *websocket.Conn) {
	var buf []byte
	for {
		typ, msg, err := c.Read(context.Background(), buf[:0])
		if err != nil || strictwsAnswer(c, typ, msg) != nil {
			return
		}
		buf = msg
	}
}

// strictwsMessages has messages on loan, so that connections that wait hold none.
func strictwsMessages(c *websocket.Conn) {
	for msg, err := range c.Messages(context.Background()) {
		if err != nil || strictwsAnswer(c, msg.Type, msg.Payload) != nil {
			return
		}
	}
}

func strictwsBroadcast(c *websocket.Conn, all *room[*websocket.Conn]) {
	all.join(c)
	defer all.leave(c)
	var buf []byte
	for {
		typ, msg, err := c.Read(context.Background(), buf[:0])
		if err != nil {
			return
		}
		prepared := websocket.Prepare(typ, msg)
		all.each(func(c *websocket.Conn) { c.TryWritePrepared(prepared) })
		buf = msg
	}
}
