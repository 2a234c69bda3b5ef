package server

import (
	"crypto/tls"
	"io"
	"net"
)

func init() {
	register(
		Variant{Name: "raw", Plain: true, Serve: serveRaw(16 << 10)},
		Variant{Name: "raw-large", Plain: true, Serve: serveRaw(256 << 10),
			Does: func(m Mode) bool { return m.Size > 16<<10 && !m.Idle && !m.TLS && !m.Deflate }},
	)
}

// serveRaw echoes bytes: what TCP and the Go runtime cost, without any WebSocket.
func serveRaw(bufSize int) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
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
