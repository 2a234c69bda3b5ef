package server

import (
	"net"
	"net/http"

	"github.com/lxzan/gws"
)

func init() {
	does := func(m Mode) bool { return !m.TLS }
	register(
		Variant{Name: "gws", NetHTTP: true, Does: does, Serve: serveGws(false)},
		Variant{Name: "gws-utf8", NetHTTP: true, Validates: true, Serve: serveGws(true),
			Does: func(m Mode) bool { return does(m) && m.Text }},
		Variant{Name: "gws-server", Serve: serveGwsServer,
			Does: func(m Mode) bool { return does(m) && !m.Deflate && !m.Text }},
	)
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	m   Mode
	all room[*gws.Conn]
}

func (h *gwsHandler) OnOpen(c *gws.Conn) {
	if h.m.Broadcast {
		h.all.join(c)
	}
}

func (h *gwsHandler) OnClose(c *gws.Conn, err error) {
	if h.m.Broadcast {
		h.all.leave(c)
	}
}

func (h *gwsHandler) OnMessage(c *gws.Conn, msg *gws.Message) {
	defer msg.Close()
	if !h.m.Broadcast {
		c.WriteMessage(msg.Opcode, msg.Bytes())
		return
	}
	b := gws.NewBroadcaster(msg.Opcode, msg.Bytes())
	defer b.Close()
	h.all.each(func(c *gws.Conn) { b.Broadcast(c) })
}

func gwsOptions(m Mode, utf8 bool) *gws.ServerOption {
	opts := &gws.ServerOption{
		ReadMaxPayloadSize:  Limit,
		WriteMaxPayloadSize: Limit,
		CheckUtf8Enabled:    utf8,
	}
	if m.Deflate {
		opts.PermessageDeflate = gws.PermessageDeflate{
			Enabled: true, Level: Level, ServerContextTakeover: m.Takeover, ClientContextTakeover: m.Takeover,
			ServerMaxWindowBits: 15, ClientMaxWindowBits: 15,
		}
	}
	if m.Idle {
		opts.ReadBufferSize = 256
	}
	return opts
}

func serveGws(utf8 bool) func(net.Listener, Mode) error {
	return func(ln net.Listener, m Mode) error {
		up := gws.NewUpgrader(&gwsHandler{m: m}, gwsOptions(m, utf8))
		return serveHTTP(ln, m, func(w http.ResponseWriter, r *http.Request) {
			if c, err := up.Upgrade(w, r); err == nil {
				go c.ReadLoop()
			}
		})
	}
}

// serveGwsServer is the server that the library brings along, which does without net/http's.
func serveGwsServer(ln net.Listener, m Mode) error {
	srv := gws.NewServer(&gwsHandler{m: m}, gwsOptions(m, false))
	srv.OnError = func(net.Conn, error) {}
	return srv.RunListener(ln)
}
