package websocket

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// DialOptions configures [Dial]. The zero value is safe, and so is nil in its place. Dial does
// not keep or change it.
type DialOptions struct {
	// HTTPClient sends the handshake: proxies, TLS, cookies and redirects are configured
	// there. Its Timeout bounds the handshake and not the connection. Nil means
	// [http.DefaultClient].
	HTTPClient *http.Client

	// Header goes out with the handshake: Origin, Cookie or Authorization for instance. Host
	// overrides the URL's. Those that belong to the handshake or to the framing of HTTP
	// (Upgrade, Connection, Sec-WebSocket-*, Content-Length, Transfer-Encoding, Trailer) may
	// not be set.
	Header http.Header

	// Subprotocols lists the subprotocols to offer, most preferred first; the server chooses
	// one or none. Each must be an HTTP token, and none may come twice.
	Subprotocols []string

	// Compression offers the compression of messages (RFC 7692). Nil means off.
	Compression *Compression

	// MaxMessageSize limits a received message, in bytes after decompression. A longer one
	// closes the connection with [StatusMessageTooBig]. Zero means 1 MiB, a negative value no
	// limit.
	MaxMessageSize int64

	// KeepAlive is the silence after which a pending read pings the peer, and the further
	// silence after which it gives the connection up. Zero means 30 seconds, a negative value
	// never.
	KeepAlive time.Duration
}

const (
	// refusalSize is how much of the body of a server's refusal is kept.
	refusalSize = 1 << 10
	// refusalTimeout bounds the wait for it, beside the context.
	refusalTimeout = 5 * time.Second
)

// Dial connects to the server at rawURL, with the scheme ws or wss (http and https mean the
// same), and performs the opening handshake (RFC 6455 section 4.1). The caller must close the
// connection. ctx bounds only the handshake: the connection outlives it. A nil opts means the
// defaults.
//
// The response is the server's, nil if there was none. Its body need not be closed. After an
// error it holds at most the first kilobyte of what the server said, to be shown to a person.
// The error names what was wrong. One that ctx caused matches ctx.Err() and context.Cause(ctx).
//
// The handshake goes through the http.Client of opts, as a GET of the http or https URL, so
// that credentials in the URL, cookies, proxies and an [httptrace.ClientTrace] in ctx work as
// for any request. Through an HTTP proxy, net/http uses CONNECT for wss but forwards ws, which
// not every proxy supports. Redirects are followed, to ws and wss URLs too, each with a new
// Sec-WebSocket-Key, unless they lead from TLS to none or CheckRedirect says no.
//
// A RoundTripper other than an [http.Transport] must give the response a body that is an
// [io.ReadWriteCloser]. To cancel calls, a connection needs the deadlines of the [net.Conn]
// that is reported to GotConn of [httptrace.ClientTrace]; with a RoundTripper that reports
// none, a call whose context ends while it is pending closes the connection.
func Dial(ctx context.Context, rawURL string, opts *DialOptions) (*Conn, *http.Response, error) {
	if opts == nil {
		opts = &DialOptions{}
	}
	req, err := newRequest(rawURL, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("websocket: dial: %w", err)
	}
	a := &attempt{opts: opts, client: opts.HTTPClient, url: req.URL}
	if a.client == nil {
		a.client = http.DefaultClient
	}
	c, resp, err := a.run(ctx, req)
	if err != nil {
		err = fmt.Errorf("websocket: %w", &url.Error{Op: "dial", URL: webSocketURL(a.url), Err: err})
	}
	return c, resp, err
}

// newRequest builds the client's handshake without its key (RFC 6455 section 4.1).
func newRequest(rawURL string, opts *DialOptions) (*http.Request, error) {
	// RFC 6455 section 3: fragment identifiers must not be used.
	if strings.Contains(rawURL, "#") {
		return nil, errors.New("the URL has a fragment; \"#\" in a path or query is written as %23")
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, which may have a password
		}
		return nil, fmt.Errorf("parsing the URL: %w", err)
	}
	if err := setHTTPScheme(u); err != nil {
		return nil, err
	}
	if err := checkSubprotocols(opts.Subprotocols); err != nil {
		return nil, fmt.Errorf("DialOptions.Subprotocols: %w", err)
	}
	if err := opts.Compression.validate(); err != nil {
		return nil, fmt.Errorf("DialOptions.%w", err)
	}
	req, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range opts.Header {
		switch canonical := http.CanonicalHeaderKey(name); {
		case isHandshakeHeader(canonical):
			return nil, fmt.Errorf("DialOptions.Header: %s belongs to the handshake", canonical)
		case canonical != "Host":
			req.Header[name] = slices.Clone(values)
		case len(values) != 1:
			return nil, fmt.Errorf("DialOptions.Header: %d values of Host", len(values))
		default:
			req.Host = values[0]
		}
	}
	// The names are spelled as in the RFC, for servers that look for them as they stand there.
	req.Header["Upgrade"] = []string{"websocket"}
	req.Header["Connection"] = []string{"Upgrade"}
	req.Header["Sec-WebSocket-Version"] = []string{"13"}
	if len(opts.Subprotocols) > 0 {
		req.Header["Sec-WebSocket-Protocol"] = []string{strings.Join(opts.Subprotocols, ", ")}
	}
	if opts.Compression != nil {
		req.Header["Sec-WebSocket-Extensions"] = []string{opts.Compression.offer()}
	}
	return req, nil
}

// setHTTPScheme turns a WebSocket URL into the one that net/http requests.
func setHTTPScheme(u *url.URL) error {
	switch u.Scheme {
	case "http", "https":
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	default:
		return fmt.Errorf("the URL's scheme is %s instead of ws or wss", clip(u.Scheme))
	}
	if u.Hostname() == "" {
		return errors.New("the URL has no host")
	}
	return nil
}

// webSocketURL is the inverse, for people: without the password.
func webSocketURL(u *url.URL) string {
	c := *u
	c.Scheme = strings.Replace(c.Scheme, "http", "ws", 1)
	return c.Redacted()
}

// An attempt is one call of Dial.
type attempt struct {
	opts   *DialOptions
	client *http.Client // as the user configured it

	// Of the latest request; there is one more for each redirect.
	url  *url.URL
	key  string
	conn atomic.Pointer[net.Conn] // as reported to GotConn, by any goroutine
}

func (a *attempt) run(ctx context.Context, req *http.Request) (*Conn, *http.Response, error) {
	// Both the Timeout of a Client and the context of a request may reach into the body of the
	// response, which is our connection. So they bound ctx, and ctx cancels the request only
	// until the handshake is over.
	if a.client.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.client.Timeout)
		defer cancel()
	}
	reqCtx, abort := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, abort)
	defer stop()
	req = req.WithContext(httptrace.WithClientTrace(reqCtx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { a.conn.Store(&info.Conn) },
	}))
	a.setKey(req)
	client := *a.client
	client.Timeout = 0
	client.CheckRedirect = a.redirect

	resp, err := client.Do(req)
	if err != nil {
		abort()
		if resp != nil { // CheckRedirect said no, and Do closed the body
			resp.Body = http.NoBody
		}
		var ue *url.Error
		switch {
		case ctx.Err() != nil:
			err = endOf(ctx)
		case errors.As(err, &ue):
			err = ue.Err // our caller adds method and URL
		}
		return nil, resp, err
	}
	cfg, err := checkResponse(resp, a.key, a.opts)
	if err != nil {
		keepRefusal(reqCtx, resp, abort)
		abort()
		return nil, resp, err
	}
	body := resp.Body
	resp.Body = http.NoBody
	nc, buffered, err := a.takeOver(body, abort)
	if !stop() {
		err = endOf(ctx) // be it that takeOver found the connection closed, for that reason
	}
	if err != nil {
		body.Close()
		abort()
		return nil, resp, err
	}
	return newConn(nc, buffered, cfg), resp, nil
}

// setKey gives req a nonce of its own (RFC 6455 section 4.1, item 7). When net/http itself
// repeats a request, because a connection that it kept turns out to be dead, the key is the same.
func (a *attempt) setKey(req *http.Request) {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails
	a.key = base64.StdEncoding.EncodeToString(nonce[:])
	req.Header["Sec-WebSocket-Key"] = []string{a.key}
}

// redirect is the CheckRedirect of the Client.
func (a *attempt) redirect(req *http.Request, via []*http.Request) error {
	a.url = req.URL
	if err := setHTTPScheme(req.URL); err != nil {
		return err
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirected from TLS to none")
	}
	a.conn.Store(nil)
	a.setKey(req)
	if a.client.CheckRedirect != nil {
		return a.client.CheckRedirect(req, via)
	}
	if len(via) >= 10 { // as net/http has it
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// endOf is the error of a context that has ended.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == cause {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// checkResponse holds the server's handshake against RFC 6455 section 4.1, which numbers the
// rules as here.
func checkResponse(resp *http.Response, key string, opts *DialOptions) (config, error) {
	cfg := config{client: true, maxMessageSize: opts.MaxMessageSize, keepAlive: opts.KeepAlive}
	// 1.
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return cfg, fmt.Errorf("the server answered %s instead of 101", clip(resp.Status))
	}
	// 2.
	if upgrade := resp.Header.Values("Upgrade"); len(upgrade) != 1 || !equalFold(upgrade[0], "websocket") {
		return cfg, fmt.Errorf(`the response's Upgrade header is %s instead of "websocket"`, clipList(upgrade))
	}
	// 3.
	if connection := resp.Header.Values("Connection"); !hasToken(connection, "Upgrade") {
		return cfg, fmt.Errorf(`the response's Connection header is %s, without "Upgrade"`, clipList(connection))
	}
	// 4.
	if accept := resp.Header.Values("Sec-WebSocket-Accept"); len(accept) != 1 || accept[0] != acceptKey(key) {
		return cfg, fmt.Errorf("the response's Sec-WebSocket-Accept header is %s instead of %q", clipList(accept), acceptKey(key))
	}
	// 5.
	extensions := resp.Header.Values("Sec-WebSocket-Extensions")
	if len(extensions) > 0 && opts.Compression == nil {
		return cfg, fmt.Errorf("the response's Sec-WebSocket-Extensions header is %s, though none were offered", clipList(extensions))
	}
	var err error
	if cfg.deflate, err = checkDeflateResponse(extensions, opts.Compression); err != nil {
		return cfg, err
	}
	// 6.
	if protocol := resp.Header.Values("Sec-WebSocket-Protocol"); len(protocol) > 0 {
		if len(protocol) > 1 || !slices.Contains(opts.Subprotocols, protocol[0]) {
			return cfg, fmt.Errorf("the response's Sec-WebSocket-Protocol header is %s, none of those offered: %s",
				clipList(protocol), clipList(opts.Subprotocols))
		}
		cfg.subprotocol = protocol[0]
	}
	return cfg, nil
}

// keepRefusal replaces the body of a response by its beginning, in memory.
func keepRefusal(ctx context.Context, resp *http.Response, abort func()) {
	body := resp.Body
	defer body.Close()
	resp.Body = http.NoBody
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return // it has no body, and what follows is no text
	}
	timer := time.AfterFunc(refusalTimeout, abort)
	defer timer.Stop()
	// Not every RoundTripper's body obeys the request's context.
	defer context.AfterFunc(ctx, func() { body.Close() })()
	text, _ := io.ReadAll(io.LimitReader(body, refusalSize)) // what there is before an error will do
	resp.Body = io.NopCloser(bytes.NewReader(text))
}

// takeOver makes a net.Conn of the body of the server's handshake. buffered is what the server
// sent after it and net/http has read already.
//
// The body of an [http.Transport] gives the bytes that the Transport has in its buffer, and
// from then on reads from the connection that it reported, to which its writes go too. So
// once the buffer is empty, that connection alone is as good, and has all the methods of its type.
// Whether it is empty is told by a deadline in the past: it fails a Read of TCP or of TLS over
// it, before that takes anything from the network, but not one of the buffer.
//
// Of other RoundTrippers, which may count or change what passes, the body is used throughout.
func (a *attempt) takeOver(body io.ReadCloser, release func()) (nc net.Conn, buffered []byte, err error) {
	rw, ok := body.(io.ReadWriteCloser)
	if !ok {
		return nil, nil, fmt.Errorf("the RoundTripper %T gave a response body that cannot be written to", a.transport())
	}
	bc := &bodyConn{ReadWriteCloser: rw, release: release, remote: a.url.Host}
	if reported := a.conn.Load(); reported != nil {
		bc.conn = *reported
	}
	if _, ok := a.transport().(*http.Transport); !ok || !isTCP(bc.conn) {
		return bc, nil, nil
	}
	if err := bc.conn.SetReadDeadline(longAgo); err != nil {
		return nil, nil, err
	}
	for err == nil {
		var n int
		buffered = slices.Grow(buffered, bytes.MinRead)
		n, err = rw.Read(buffered[len(buffered):cap(buffered)])
		buffered = buffered[:len(buffered)+n]
	}
	// An error other than of the deadline is one of TLS, which will return it again.
	return bc.conn, buffered, bc.conn.SetReadDeadline(time.Time{})
}

func (a *attempt) transport() http.RoundTripper {
	if a.client.Transport != nil {
		return a.client.Transport
	}
	return http.DefaultTransport
}

// isTCP reports whether nc is a TCP or Unix connection of package net, or TLS over one.
func isTCP(nc net.Conn) bool {
	switch nc := nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	case *tls.Conn:
		return isTCP(nc.NetConn())
	}
	return false
}

// bodyConn is a connection that is read and written through the body of a response.
type bodyConn struct {
	io.ReadWriteCloser          // the body
	conn               net.Conn // the one that was reported, or nil
	release            func()   // ends the request
	remote             string   // the server's address if conn is nil
}

func (c *bodyConn) Close() error {
	defer c.release()
	return c.ReadWriteCloser.Close()
}

// CloseWrite closes the sending direction of connections that can.
func (c *bodyConn) CloseWrite() error {
	if w, ok := c.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection below, as that of a [tls.Conn] does, or nil.
func (c *bodyConn) NetConn() net.Conn { return c.conn }

func (c *bodyConn) SetDeadline(t time.Time) error {
	if c.conn == nil {
		return os.ErrNoDeadline
	}
	return c.conn.SetDeadline(t)
}

func (c *bodyConn) SetReadDeadline(t time.Time) error {
	if c.conn == nil {
		return os.ErrNoDeadline
	}
	return c.conn.SetReadDeadline(t)
}

func (c *bodyConn) SetWriteDeadline(t time.Time) error {
	if c.conn == nil {
		return os.ErrNoDeadline
	}
	return c.conn.SetWriteDeadline(t)
}

func (c *bodyConn) LocalAddr() net.Addr {
	if c.conn == nil {
		return hostAddr("unknown")
	}
	return c.conn.LocalAddr()
}

func (c *bodyConn) RemoteAddr() net.Addr {
	if c.conn == nil {
		return hostAddr(c.remote)
	}
	return c.conn.RemoteAddr()
}

// hostAddr is an address of which only a name is known.
type hostAddr string

func (hostAddr) Network() string  { return "tcp" }
func (a hostAddr) String() string { return string(a) }
