package server

import (
	"net"
	"net/http"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

func init() {
	logging.SetLevel(logging.LevelNone)
	does := func(m Mode) bool { return !m.TLS && !m.Takeover }
	register(
		Variant{Name: "nbio", Flate: true, EventLoop: true, Validates: true, Does: does,
			Serve: serveNbio(nbhttp.IOModNonBlocking)},
		Variant{Name: "nbio-blocking", Flate: true, Validates: true, Does: does, Serve: serveNbio(nbhttp.IOModBlocking)},
		Variant{Name: "nbio-std", Flate: true, NetHTTP: true, Validates: true, Does: does, Serve: serveNbioStd},
	)
}

func nbioUpgrader(m Mode) *websocket.Upgrader {
	up := websocket.NewUpgrader()
	up.MessageLengthLimit = Limit
	up.BlockingModAsyncWrite = false // the default starts a goroutine for each answer
	if m.Deflate {
		up.EnableCompression(true)
		up.SetCompressionLevel(Level)
		up.OnOpen(func(c *websocket.Conn) { c.EnableWriteCompression(true) }) // a reader may run when Upgrade returns
	}
	if m.Idle {
		up.BlockingModReadBufferSize = 256
	}
	if !m.Broadcast {
		up.OnMessage(func(c *websocket.Conn, typ websocket.MessageType, msg []byte) { c.WriteMessage(typ, msg) })
		return up
	}
	// There are no prepared messages.
	all := new(room[*websocket.Conn])
	up.OnOpen(all.join)
	up.OnClose(func(c *websocket.Conn, err error) { all.leave(c) })
	up.OnMessage(func(_ *websocket.Conn, typ websocket.MessageType, msg []byte) {
		all.each(func(c *websocket.Conn) { c.WriteMessage(typ, msg) })
	})
	return up
}

func nbioHandler(up *websocket.Upgrader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { up.Upgrade(w, r, nil) }
}

// serveNbio is the library's own HTTP server, with its event loop or a goroutine for each connection.
func serveNbio(mod int) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
		up := nbioUpgrader(m)
		engine := nbhttp.NewEngine(nbhttp.Config{
			Network:                      "tcp",
			Addrs:                        []string{ln.Addr().String()},
			Listen:                       func(string, string) (net.Listener, error) { return ln, nil },
			IOMod:                        mod,
			ReleaseWebsocketPayload:      true,
			MaxWebsocketFramePayloadSize: Limit, // one frame a message, like everybody
			Handler:                      nbioHandler(up),
		})
		up.Engine = engine
		if err := engine.Start(); err != nil {
			return err
		}
		select {}
	}
}

// serveNbioStd is net/http's server.
func serveNbioStd(ln net.Listener, m Mode) error {
	websocket.DefaultEngine.MaxWebsocketFramePayloadSize = Limit
	return serveHTTP(ln, m, nbioHandler(nbioUpgrader(m)))
}
