package server

import (
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
)

func init() {
	register(
		Variant{Name: "raw", Plain: true, Serve: serveRaw(16 << 10)},
		Variant{Name: "raw-large", Plain: true, Serve: serveRaw(256 << 10),
			Does: func(m Mode) bool { return m.Size > 16<<10 && !m.Idle && !m.Handshake && !m.TLS && !m.Deflate }},
	)
}

// serveRaw echoes bytes: what TCP and the Go runtime cost, without any WebSocket.
func serveRaw(bufSize int) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
		if m.Handshake {
			return serveHTTP(ln, m, rawHandshake)
		}
		if m.TLS {
			config, err := tlsConfig()
			if err != nil {
				return err
			}
			ln = tls.NewListener(ln, config)
		}
		if m.Idle {
			bufSize = 128
		}
		var all room[net.Conn]
		return acceptLoop(ln, func(c net.Conn) {
			defer c.Close()
			if m.Broadcast {
				rawBroadcast(c, m, &all)
				return
			}
			buf := make([]byte, bufSize)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		})
	}
}

// rawHandshake answers a handshake without a look at it, and waits for the end: what net/http costs.
func rawHandshake(w http.ResponseWriter, r *http.Request) {
	c, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	brw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
	brw.WriteString(base64.StdEncoding.EncodeToString(sum[:]))
	brw.WriteString("\r\n\r\n")
	if brw.Flush() != nil {
		c.Close()
		return
	}
	go func() {
		defer c.Close()
		c.Read(make([]byte, 16))
	}()
}

func rawBroadcast(c net.Conn, m Mode, all *room[net.Conn]) {
	all.join(c)
	defer all.leave(c)
	buf := make([]byte, m.Size)
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		all.each(func(c net.Conn) { c.Write(buf) })
	}
}
