package websocket

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// AcceptOptions configures [Accept]. The zero value is safe, and so is nil in
// its place. Accept does not keep or change it; many handshakes may share one.
type AcceptOptions struct {
	// Subprotocols lists the subprotocols that the server speaks, most
	// preferred first. The first of them that the client offers is agreed on;
	// when there is none, the connection has no subprotocol, which browsers that
	// have offered some do not accept. Each must be an HTTP token, and none may
	// come twice.
	Subprotocols []string

	// TrustedOrigins lists the origins, besides the server's own host, whose
	// pages may connect. An entry is
	//
	//   - "scheme://host[:port]", with the scheme's default port implied;
	//   - "scheme://*.host[:port]", which is every subdomain of host at any
	//     depth, but not host itself;
	//   - "*", which is every origin, "null" included.
	//
	// Host names are written as on the wire: international ones in Punycode.
	// An entry of any other form makes Accept fail with status 500.
	TrustedOrigins []string

	// Compression enables the compression of messages (RFC 7692) for clients
	// that offer it. Nil means off.
	Compression *Compression

	// MaxMessageSize limits a received message, in bytes after decompression.
	// A longer one closes the connection with [StatusMessageTooBig]. Zero
	// means 1 MiB, a negative value no limit.
	MaxMessageSize int64

	// KeepAlive is the silence after which a pending read pings the peer, and
	// the further silence after which it gives the connection up. Zero means
	// 30 seconds, a negative value never.
	KeepAlive time.Duration

	// Conns is the set that the connection belongs to until it is closed, for
	// closing all connections of a server. Nil means none.
	Conns *Conns
}

// Accept answers a client's opening handshake (RFC 6455 section 4.2) and
// returns the connection, taken over from the HTTP server. The caller must
// close it. A nil opts means the defaults.
//
// When Accept fails it has answered the request already: with 400 for a
// request that is not a valid handshake, 403 for a foreign origin, 426 for
// another version of the protocol, 500 for a mistake in opts or a connection
// that could not be taken over, 501 where the ResponseWriter has no way to do
// that, 503 after [Conns.Shutdown], and 505 for WebSockets over HTTP/2 (RFC
// 8441). The error says what was wrong, and matches [http.ErrServerClosed] with
// 503; the handler just returns.
//
// A browser tells the origin of the page that connects. Pages of the request's
// own host are trusted, whatever their scheme, those of other origins only if
// [AcceptOptions].TrustedOrigins names them. Behind a reverse proxy that
// rewrites the Host header no origin looks like the server's own: let the proxy
// keep Host, or trust the public origin. Clients other than browsers usually
// send no origin and pass.
//
// Headers that were set on w go out with the response, cookies for instance.
// Those that belong to the handshake or to the framing of HTTP (Upgrade,
// Connection, Sec-WebSocket-*, Content-Length, Transfer-Encoding, Trailer) do
// not. Nothing may have been written to w. Middleware that wraps the
// ResponseWriter must offer an Unwrap method, as [http.ResponseController] asks;
// [http.TimeoutHandler] cannot be around such a handler. A handshake with a body
// is refused, because what follows it must be frames. What the client sent after
// its handshake is read from the connection first.
//
// Neither the server's timeouts nor the end of the handler touch the
// connection. r.Context() ends when the handler returns, not when the client
// goes, so a handler that uses it must stay until it is done. One that returns, and serves the
// connection from a goroutine of its own with a context of its own, frees the
// request and the HTTP server's buffers, most of the memory of an idle
// connection. [http.Server.Shutdown] neither waits for such connections nor
// closes them; [Conns.Shutdown] does.
func Accept(w http.ResponseWriter, r *http.Request, opts *AcceptOptions) (*Conn, error) {
	if opts == nil {
		opts = &AcceptOptions{}
	}
	if opts.Conns != nil && opts.Conns.isClosed() {
		shuttingDown.respond(w)
		return nil, shuttingDown
	}
	req, ref := checkRequest(r)
	if ref == nil {
		ref = checkOrigin(r, opts.TrustedOrigins)
	}
	if ref == nil {
		if err := checkSubprotocols(opts.Subprotocols); err != nil {
			ref = &refusal{status: http.StatusInternalServerError, reason: "AcceptOptions.Subprotocols: " + err.Error()}
		}
	}
	if ref == nil {
		if err := opts.Compression.validate(); err != nil {
			ref = &refusal{status: http.StatusInternalServerError, reason: "AcceptOptions." + err.Error()}
		}
	}
	if ref != nil {
		ref.respond(w)
		return nil, ref
	}

	cfg := config{
		subprotocol:    selectSubprotocol(opts.Subprotocols, req.subprotocols),
		maxMessageSize: opts.MaxMessageSize,
		keepAlive:      opts.KeepAlive,
	}
	var extensions string
	extensions, cfg.deflate = acceptDeflate(req.extensions, opts.Compression)
	buf := getBuffer(0)
	defer putBuffer(buf)
	response := appendResponse(buf.b, req.key, cfg.subprotocol, extensions, w.Header())

	nc, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		ref := &refusal{status: http.StatusInternalServerError, reason: "taking over the connection", err: err}
		if errors.Is(err, http.ErrNotSupported) {
			ref.status = http.StatusNotImplemented
			ref.reason = fmt.Sprintf("%T is not an http.Hijacker and has no Unwrap method that leads to one", w)
		}
		ref.respond(w)
		return nil, ref
	}

	nc.SetDeadline(time.Time{}) // one may be left (see http.Hijacker)
	var buffered []byte
	if brw != nil && brw.Reader != nil {
		buffered, _ = brw.Reader.Peek(brw.Reader.Buffered())
	}
	c := newConn(nc, buffered, cfg)
	c.out.wire.try() // nothing goes out before the response
	if opts.Conns != nil && !opts.Conns.join(c) {
		_ = c.writeResponse([]byte(shuttingDownResponse))
		nc.Close()
		return nil, shuttingDown
	}
	if err := c.writeResponse(response); err != nil {
		err = fmt.Errorf("websocket: answering the handshake: %w", err)
		c.drop(err)
		return nil, err
	}
	c.releaseWire()
	return c, nil
}

// acceptTimeout bounds the write of the server's handshake.
const acceptTimeout = 10 * time.Second

// writeResponse writes the server's handshake, or what is there in its place. A socket takes it
// at once, and without a deadline, unless the client does not read what it pipelined before:
// that must not hold it for ever.
func (c *Conn) writeResponse(response []byte) error {
	if c.socket.usable() {
		n, err := c.socket.write(response, false, &c.out.sent)
		if err != nil || n == len(response) {
			return err
		}
		response = response[n:]
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(acceptTimeout))
	if _, err := c.nc.Write(response); err != nil {
		return err
	}
	_ = c.nc.SetWriteDeadline(time.Time{}) // what fails here shows at the next write
	return nil
}

// shuttingDown is the answer to requests that come after Conns.Shutdown, and
// shuttingDownResponse that to one which was taken over when it came.
var shuttingDown = &refusal{status: http.StatusServiceUnavailable, reason: "the server is shutting down",
	header: "Connection", value: "close", err: http.ErrServerClosed}

const shuttingDownResponse = "HTTP/1.1 503 Service Unavailable\r\n" +
	"Connection: close\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Content-Length: 28\r\n" +
	"\r\n" +
	"the server is shutting down\n"

// A refusal is the answer to a request that is not accepted, and the error.
type refusal struct {
	status        int
	reason        string
	header, value string // one more header of the answer
	err           error  // what caused it, if anything did
}

func (ref *refusal) Error() string {
	if ref.err != nil {
		return "websocket: " + ref.reason + ": " + ref.err.Error()
	}
	return "websocket: " + ref.reason
}

func (ref *refusal) Unwrap() error { return ref.err }

func (ref *refusal) respond(w http.ResponseWriter) {
	text := ref.reason
	switch {
	case text == notWebSocket:
		text = "This is a WebSocket endpoint, not a web page: there is nothing to see when its address is opened in a browser.\n" +
			"Connect with a WebSocket client: in a page's script, for example, with new WebSocket(url).\n"
	case ref.status == http.StatusUpgradeRequired:
		// RFC 9110 section 15.5.22: a 426 names the protocol it wants.
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
	case ref.status == http.StatusInternalServerError, ref.status == http.StatusNotImplemented:
		text = http.StatusText(ref.status) // the server's own affairs
	}
	if ref.header != "" {
		w.Header().Set(ref.header, ref.value)
	}
	http.Error(w, text, ref.status)
}

const notWebSocket = `not a WebSocket handshake: no "websocket" in the Upgrade header`

// request is what Accept needs to know of a valid opening handshake.
type request struct {
	key          string
	subprotocols []string
	extensions   []extension
}

// The names of header fields as net/http spells them, who has to turn any other spelling
// into that, which takes memory.
const (
	headerKey        = "Sec-Websocket-Key"
	headerVersion    = "Sec-Websocket-Version"
	headerProtocol   = "Sec-Websocket-Protocol"
	headerExtensions = "Sec-Websocket-Extensions"
)

// checkRequest holds r against RFC 6455 section 4.2.1.
func checkRequest(r *http.Request) (req request, ref *refusal) {
	bad := func(format string, args ...any) *refusal {
		return &refusal{status: http.StatusBadRequest, reason: fmt.Sprintf(format, args...)}
	}
	if r.ProtoMajor >= 2 && r.Method == http.MethodConnect {
		return req, &refusal{status: http.StatusHTTPVersionNotSupported,
			reason: "WebSockets over " + r.Proto + " (RFC 8441) are not supported: connect over HTTP/1.1"}
	}
	if !hasToken(r.Header["Upgrade"], "websocket") {
		return req, bad(notWebSocket)
	}
	if r.Method != http.MethodGet {
		ref := bad("the handshake's method is %s instead of GET", clip(r.Method))
		ref.header, ref.value = "Allow", http.MethodGet
		return req, ref
	}
	if !r.ProtoAtLeast(1, 1) {
		return req, bad("the handshake is %s: it needs HTTP/1.1", clip(r.Proto))
	}
	if r.Host == "" {
		return req, bad("the handshake has no Host header")
	}
	if !hasToken(r.Header["Connection"], "Upgrade") {
		return req, bad(`no "Upgrade" in the handshake's Connection header`)
	}
	// RFC 6455 section 11.3.5: the version may not appear more than once.
	switch version := r.Header[headerVersion]; {
	case len(version) == 0:
		ref := bad("the handshake has no Sec-WebSocket-Version header")
		ref.header, ref.value = "Sec-WebSocket-Version", "13"
		return req, ref
	case len(version) > 1:
		return req, bad("the handshake has %d Sec-WebSocket-Version headers", len(version))
	case version[0] != "13":
		// RFC 6455 section 4.4: say which version we do understand.
		return req, &refusal{status: http.StatusUpgradeRequired,
			reason: fmt.Sprintf("the handshake's Sec-WebSocket-Version is %s instead of 13", clip(version[0])),
			header: "Sec-WebSocket-Version", value: "13"}
	}
	// RFC 6455 section 11.3.1: nor may the key.
	key := r.Header[headerKey]
	if len(key) != 1 {
		return req, bad("the handshake has %d Sec-WebSocket-Key headers instead of one", len(key))
	}
	if !validKey(key[0]) {
		return req, bad("the handshake's Sec-WebSocket-Key %s is not 16 bytes in base64", clip(key[0]))
	}
	// The bytes of a body would be taken for frames.
	if r.ContentLength != 0 || len(r.TransferEncoding) != 0 {
		return req, bad("the handshake has a body")
	}
	// RFC 6455 section 4.1, item 10 of the requirements for the request.
	var subprotocols []string
	for name := range listElements(r.Header[headerProtocol]) {
		if len(subprotocols) == maxListed {
			return req, bad("the handshake's Sec-WebSocket-Protocol: %v", errListTooLong)
		}
		subprotocols = append(subprotocols, name)
	}
	if err := checkSubprotocols(subprotocols); err != nil {
		return req, bad("the handshake's Sec-WebSocket-Protocol: %v", err)
	}
	// RFC 6455 section 9.1: what is no list of extensions fails the handshake, whether we
	// support any or not.
	var extensions []extension
	if lines := r.Header[headerExtensions]; len(lines) > 0 {
		var err error
		if extensions, err = parseExtensions(lines); err != nil {
			return req, bad("the handshake's Sec-WebSocket-Extensions: %v", err)
		}
	}
	return request{key[0], subprotocols, extensions}, nil
}

var canonicalBase64 = base64.StdEncoding.Strict()

// validKey reports whether key is 16 bytes in canonical base64. The length
// counts because the decoder skips line ends.
func validKey(key string) bool {
	if len(key) != 24 {
		return false
	}
	var nonce [18]byte // room for what 24 digits without padding would be
	n, err := canonicalBase64.Decode(nonce[:], []byte(key))
	return err == nil && n == 16
}

// acceptKey answers a client's key (RFC 6455 section 4.2.2, item 5.4).
func acceptKey(key string) string {
	var buf [60]byte // a valid key is 24 bytes long
	b := append(buf[:0], key...)
	b = append(b, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)
	var sum [sha1.Size]byte
	// The hash only shows that the server understood; no security rests on it.
	fips140.WithoutEnforcement(func() { sum = sha1.Sum(b) })
	return base64.StdEncoding.EncodeToString(sum[:])
}

// appendResponse appends the server's handshake (RFC 6455 section 4.2.2) to b.
func appendResponse(b []byte, key, subprotocol, extensions string, extra http.Header) []byte {
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\n"+
		"Upgrade: websocket\r\n"+
		"Connection: Upgrade\r\n"...)
	b = appendHeader(b, "Sec-WebSocket-Accept", acceptKey(key))
	if subprotocol != "" {
		b = appendHeader(b, "Sec-WebSocket-Protocol", subprotocol)
	}
	if extensions != "" {
		b = appendHeader(b, "Sec-WebSocket-Extensions", extensions)
	}
	if len(extra) > 0 {
		b = appendExtra(b, extra)
	}
	return append(b, "\r\n"...)
}

func appendHeader(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// appendExtra appends the headers that do not belong to the handshake.
func appendExtra(b []byte, h http.Header) []byte {
	exclude := make(map[string]bool)
	for name := range h {
		if isHandshakeHeader(name) {
			exclude[name] = true
		}
	}
	// This does not fail, as no write to a bytes.Buffer does. It leaves out
	// invalid names and turns line ends in values into spaces.
	w := bytes.NewBuffer(b)
	h.WriteSubset(w, exclude)
	return w.Bytes()
}

// isHandshakeHeader reports whether a header belongs to the handshake itself,
// so that callers of this package may not set it.
func isHandshakeHeader(name string) bool {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return strings.HasPrefix(name, "Sec-Websocket-")
}

// checkSubprotocols reports an error unless names are unique tokens
// (RFC 6455 section 4.1).
func checkSubprotocols(names []string) error {
	seen := make(map[string]bool)
	for _, name := range names {
		if !isToken(name) {
			return fmt.Errorf("%s is not a token", clip(name))
		}
		if seen[name] {
			return fmt.Errorf("%s comes twice", clip(name))
		}
		seen[name] = true
	}
	return nil
}

func selectSubprotocol(supported, offered []string) string {
	for _, name := range supported {
		if slices.Contains(offered, name) {
			return name
		}
	}
	return ""
}

// checkOrigin refuses requests from pages that are not trusted.
func checkOrigin(r *http.Request, trusted []string) *refusal {
	lines := r.Header["Origin"]
	switch ok, err := trustsOrigin(lines, r.Host, trusted); {
	case err != nil:
		return &refusal{status: http.StatusInternalServerError, reason: "AcceptOptions.TrustedOrigins: " + err.Error()}
	case !ok:
		return &refusal{status: http.StatusForbidden, reason: fmt.Sprintf("the Origin %s is not trusted by the host %s",
			clipList(lines), clip(r.Host))}
	}
	return nil
}
