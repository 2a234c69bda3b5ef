package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The subprotocols that the files in testdata/handshake/responses are answers to.
var vectorSubprotocols = []string{"chat", "superchat"}

// fillIn puts what belongs to key into a vector or an expectation.
func fillIn(s, key string) string {
	return strings.NewReplacer("{{key}}", key, "{{accept}}", acceptKey(key),
		"{{accept-in-lower-case}}", strings.ToLower(acceptKey(key))).Replace(s)
}

func TestCheckResponseVectors(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	handshakeVectors(t, "responses", func(t *testing.T, vector, want string) {
		br := bufio.NewReader(strings.NewReader(fillIn(vector, key)))
		resp, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		if resp.StatusCode == http.StatusEarlyHints { // net/http skips it for Dial
			resp, err = http.ReadResponse(br, nil)
			require.NoError(t, err)
		}
		cfg, err := checkResponse(resp, key, &DialOptions{Subprotocols: vectorSubprotocols})
		if strings.HasPrefix(filepath.Base(t.Name()), "good-") {
			require.NoError(t, err)
			assert.Equal(t, want, "subprotocol: "+cfg.subprotocol+"\r\n")
			assert.True(t, cfg.client)
			return
		}
		require.Error(t, err)
		assert.Equal(t, fillIn(want, key), err.Error()+"\r\n")
	})
}

func TestDialVectors(t *testing.T) {
	handshakeVectors(t, "responses", func(t *testing.T, vector, want string) {
		keys, closed := make(chan string, 1), make(chan error, 1)
		addr := rawServer(t, func(nc net.Conn, r *http.Request) {
			key := r.Header.Get("Sec-WebSocket-Key")
			keys <- key
			_, _ = io.WriteString(nc, fillIn(vector, key))
			_, err := nc.Read(make([]byte, 1))
			closed <- err
		})
		c, resp, err := Dial(t.Context(), "ws://"+addr, &DialOptions{Subprotocols: vectorSubprotocols, HTTPClient: freshClient(t)})
		if strings.HasPrefix(filepath.Base(t.Name()), "good-") {
			require.NoError(t, err)
			defer c.Close()
			assert.Equal(t, want, "subprotocol: "+c.Subprotocol()+"\r\n")
			assert.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
			assert.Equal(t, http.NoBody, resp.Body)
			return
		}
		assert.Nil(t, c)
		require.Error(t, err)
		assert.Equal(t, `websocket: dial "ws://`+addr+`": `+fillIn(want, <-keys), err.Error()+"\r\n")
		require.NotNil(t, resp)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_, body, _ := strings.Cut(vector, "\r\n\r\n")
		assert.Equal(t, body, string(text))
		if resp.StatusCode == http.StatusSwitchingProtocols {
			assert.Error(t, <-closed, "the connection is closed")
		}
	})
}

// rawServer plays serve to each connection, after it has read a request.
func rawServer(t *testing.T, serve func(nc net.Conn, r *http.Request)) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { ln.Close() })
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				r, err := http.ReadRequest(bufio.NewReader(nc))
				if err == nil {
					serve(nc, r)
				}
			})
		}
	})
	return ln.Addr().String()
}

// freshClient is one that shares no connection with other tests.
func freshClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// echo sends back what it receives until the peer closes.
func echo(t *testing.T, opts *AcceptOptions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, opts)
		if !assert.NoError(t, err) {
			return
		}
		defer c.Close()
		for {
			typ, msg, err := c.Read(context.Background(), nil)
			if err != nil || c.Write(context.Background(), typ, msg) != nil {
				return
			}
		}
	})
}

func assertEchoes(t *testing.T, c *Conn) {
	t.Helper()
	for _, msg := range []string{"Hello", strings.Repeat("x", 100_000), ""} {
		require.NoError(t, c.Write(context.Background(), Text, []byte(msg)))
		typ, got, err := c.Read(context.Background(), nil)
		require.NoError(t, err)
		assert.Equal(t, Text, typ)
		assert.Equal(t, msg, string(got))
	}
}

func newServer(t *testing.T, h http.Handler) *httptest.Server {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// newTLSServer speaks HTTP/2 as well.
func newTLSServer(t *testing.T, h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of refused certificates
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func wsURL(srv *httptest.Server) string { return "ws" + strings.TrimPrefix(srv.URL, "http") }

func TestDialSchemes(t *testing.T) {
	plain, secure := newServer(t, echo(t, nil)), newTLSServer(t, echo(t, nil))
	for _, srv := range []*httptest.Server{plain, secure} {
		for _, u := range []string{srv.URL, wsURL(srv), strings.ToUpper(srv.URL[:3]) + srv.URL[3:]} {
			// Without KeepAlive no read sets a deadline: one that Dial left would show.
			c, resp, err := Dial(t.Context(), u, &DialOptions{HTTPClient: srv.Client(), KeepAlive: -1})
			require.NoError(t, err)
			assert.Equal(t, "HTTP/1.1", resp.Proto)
			assertEchoes(t, c)
			assert.Equal(t, srv.Listener.Addr().String(), c.RemoteAddr().String())
			assert.NotNil(t, c.LocalAddr())
			require.NoError(t, c.Shutdown(t.Context(), StatusNormalClosure, ""))
		}
	}
}

// The Client may have an HTTP/2 connection to the same host: an upgrade needs HTTP/1.1.
func TestDialBesideHTTP2(t *testing.T) {
	srv := newTLSServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page" {
			fmt.Fprint(w, r.Proto)
			return
		}
		echo(t, nil).ServeHTTP(w, r)
	}))
	for range 2 {
		resp, err := srv.Client().Get(srv.URL + "/page")
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, "HTTP/2.0", string(text))
		c, _, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: srv.Client()})
		require.NoError(t, err)
		assertEchoes(t, c)
		c.Close()
	}
}

func TestDialSelfSignedCertificate(t *testing.T) {
	srv := newTLSServer(t, echo(t, nil))
	c, resp, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: freshClient(t)})
	assert.Nil(t, c)
	assert.Nil(t, resp)
	assertOnePrefix(t, err)
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)

	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	c, resp, err = Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: client})
	require.NoError(t, err)
	assert.NotNil(t, resp.TLS)
	assertEchoes(t, c)
	c.Close()
}

// wss goes through an HTTP proxy by CONNECT, ws by forwarding: that is net/http's way.
func TestDialProxy(t *testing.T) {
	var mu sync.Mutex
	var methods []string
	forward := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}
	proxy := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		methods = append(methods, r.Method+" "+r.Header.Get("Proxy-Authorization"))
		mu.Unlock()
		if r.Method != http.MethodConnect {
			forward.ServeHTTP(w, r)
			return
		}
		out, err := net.Dial("tcp", r.Host)
		if !assert.NoError(t, err) {
			return
		}
		defer out.Close()
		w.WriteHeader(http.StatusOK)
		in, brw, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer in.Close()
		go func() {
			_, _ = io.Copy(out, brw)
			out.Close()
		}()
		_, _ = io.Copy(in, out)
	}))
	proxyURL, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	proxyURL.User = url.UserPassword("me", "secret")
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret"))

	for _, test := range []struct {
		srv  *httptest.Server
		want string
	}{
		{newTLSServer(t, echo(t, nil)), "CONNECT " + auth},
		{newServer(t, echo(t, nil)), "GET " + auth},
	} {
		tr := test.srv.Client().Transport.(*http.Transport).Clone()
		tr.Proxy = http.ProxyURL(proxyURL)
		c, _, err := Dial(t.Context(), wsURL(test.srv), &DialOptions{HTTPClient: &http.Client{Transport: tr}})
		require.NoError(t, err)
		assertEchoes(t, c)
		assert.Equal(t, proxy.Listener.Addr().String(), c.RemoteAddr().String())
		_, ok := c.nc.(*bodyConn)
		assert.False(t, ok, "the connection itself")
		c.Close()
		mu.Lock()
		assert.Equal(t, []string{test.want}, methods)
		methods = nil
		mu.Unlock()
	}
}

func TestDialRedirect(t *testing.T) {
	var mu sync.Mutex
	var keys []string // sent since the last call of takeKeys
	takeKeys := func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { keys = nil }()
		return keys
	}
	seen := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			keys = append(keys, r.Header.Get("Sec-WebSocket-Key"))
			mu.Unlock()
			assert.Equal(t, "chat", r.Header.Get("Sec-WebSocket-Protocol"))
			next.ServeHTTP(w, r)
		})
	}
	target := newServer(t, seen(echo(t, &AcceptOptions{Subprotocols: []string{"chat"}})))
	secure := newTLSServer(t, seen(echo(t, &AcceptOptions{Subprotocols: []string{"chat"}})))
	redirects := func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/relative": "/ws", "/http": target.URL, "/ws": wsURL(target), "/wss": wsURL(secure), "/https": secure.URL,
			"/loop": "/loop", "/ftp": "ftp://localhost/", "/nohost": "ws:///", "/none": "", "/fragment": wsURL(target) + "#here",
		}[r.URL.Path]
		if to != "" {
			w.Header().Set("Location", to)
		}
		w.WriteHeader(http.StatusTemporaryRedirect)
		fmt.Fprint(w, "moved")
	}
	plain, front := newServer(t, seen(http.HandlerFunc(redirects))), newTLSServer(t, seen(http.HandlerFunc(redirects)))
	dial := func(u string, check func(*http.Request, []*http.Request) error) (*Conn, *http.Response, error) {
		client := *front.Client() // the certificate of both
		client.CheckRedirect = check
		takeKeys()
		return Dial(t.Context(), u, &DialOptions{HTTPClient: &client, Subprotocols: []string{"chat"}})
	}
	for path, hops := range map[string]int{"/relative": 3, "/http": 2, "/ws": 2, "/wss": 2, "/https": 2, "/fragment": 2} {
		t.Run("to"+path, func(t *testing.T) {
			c, resp, err := dial(wsURL(plain)+path, nil)
			require.NoError(t, err)
			defer c.Close()
			assert.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
			assert.Equal(t, "chat", c.Subprotocol())
			assertEchoes(t, c)
			keys := takeKeys()
			assert.Len(t, keys, hops)
			slices.Sort(keys)
			assert.Len(t, slices.Compact(keys), hops, "each request has its own key")
			_, ok := c.nc.(*bodyConn)
			assert.False(t, ok)
		})
	}
	t.Run("from TLS to TLS", func(t *testing.T) {
		c, _, err := dial(wsURL(front)+"/wss", nil)
		require.NoError(t, err)
		assertEchoes(t, c)
		c.Close()
	})
	for name, test := range map[string]struct {
		url, err string
		hops     int
		status   int
	}{
		"from TLS to ws":   {wsURL(front) + "/ws", `websocket: dial "` + wsURL(target) + `": redirected from TLS to none`, 1, 307},
		"from TLS to http": {wsURL(front) + "/http", `websocket: dial "` + wsURL(target) + `": redirected from TLS to none`, 1, 307},
		"in a loop":        {wsURL(plain) + "/loop", `websocket: dial "` + wsURL(plain) + `/loop": stopped after 10 redirects`, 10, 307},
		"other scheme":     {wsURL(plain) + "/ftp", `websocket: dial "ftp://localhost/": the URL's scheme is "ftp" instead of ws or wss`, 1, 307},
		"no host":          {wsURL(plain) + "/nohost", `websocket: dial "ws:///": the URL has no host`, 1, 307},
		"no location":      {wsURL(plain) + "/none", `websocket: dial "` + wsURL(plain) + `/none": the server answered "307 Temporary Redirect" instead of 101`, 1, 307},
	} {
		t.Run(name, func(t *testing.T) {
			c, resp, err := dial(test.url, nil)
			assert.Nil(t, c)
			require.EqualError(t, err, test.err)
			require.NotNil(t, resp)
			assert.Equal(t, test.status, resp.StatusCode)
			_, err = io.ReadAll(resp.Body)
			assert.NoError(t, err)
			assert.Len(t, takeKeys(), test.hops)
		})
	}
	t.Run("CheckRedirect", func(t *testing.T) {
		no := errors.New("no")
		var to, from string
		_, resp, err := dial(wsURL(plain)+"/ws", func(r *http.Request, via []*http.Request) error {
			to, from = r.URL.String(), via[0].URL.String()
			return no
		})
		require.ErrorIs(t, err, no)
		assertOnePrefix(t, err)
		assert.Equal(t, 307, resp.StatusCode)
		assert.Equal(t, target.URL, to)
		assert.Equal(t, plain.URL+"/ws", from)

		_, resp, err = dial(wsURL(plain)+"/ws", func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse })
		require.ErrorContains(t, err, `the server answered "307 Temporary Redirect" instead of 101`)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "moved", string(text))
	})
}

// A connection that was reported for a request which was redirected is not ours.
func TestDialRedirectForgetsConnection(t *testing.T) {
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/ws", http.StatusFound)
			return
		}
		echo(t, nil).ServeHTTP(w, r)
	}))
	rt := roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/ws" {
			r = r.WithContext(context.Background()) // hides the connection
		}
		return srv.Client().Transport.RoundTrip(r)
	})
	c, _, err := Dial(t.Context(), wsURL(srv)+"/", &DialOptions{HTTPClient: &http.Client{Transport: rt}})
	require.NoError(t, err)
	defer c.Close()
	assert.Nil(t, c.nc.(*bodyConn).conn)
	assertEchoes(t, c)
}

func TestDialCompression(t *testing.T) {
	offered := make(chan []string, 1)
	compressing := echo(t, &AcceptOptions{Compression: &Compression{}})
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offered <- r.Header.Values("Sec-WebSocket-Extensions")
		if r.URL.Path == "/off" {
			echo(t, nil).ServeHTTP(w, r)
			return
		}
		compressing.ServeHTTP(w, r)
	}))
	for _, test := range []struct {
		path        string
		compression *Compression
		agreed      bool
	}{
		{"/on", nil, false},
		{"/off", &Compression{}, false},
		{"/on", &Compression{}, true},
		{"/on", &Compression{ContextTakeover: true, WindowBits: 12}, true},
	} {
		c, resp, err := Dial(t.Context(), wsURL(srv)+test.path, &DialOptions{Compression: test.compression})
		require.NoError(t, err)
		if test.compression == nil {
			assert.Empty(t, <-offered)
		} else {
			assert.Equal(t, []string{test.compression.offer()}, <-offered)
		}
		response := resp.Header.Get("Sec-WebSocket-Extensions")
		assert.Equal(t, test.agreed, strings.HasPrefix(response, "permessage-deflate"), response)
		assertEchoes(t, c)
		c.Close()
	}
}

// Section 9.1: the server may not invent, repeat or garble an extension.
func TestDialCompressionRefused(t *testing.T) {
	for extensions, want := range map[string]string{
		"x-other":                                `the server uses extension "x-other", which was not asked for`,
		"permessage-deflate; x-other":            `unknown parameter "x-other"`,
		"permessage-deflate, permessage-deflate": "the server accepted extension permessage-deflate twice",
		"permessage-deflate;":                    `syntax error before ""`,
		"":                                       "no extension in it",
	} {
		t.Run(extensions, func(t *testing.T) {
			addr := rawServer(t, func(nc net.Conn, r *http.Request) {
				extra := http.Header{"Sec-Websocket-Extensions": {extensions}}
				response := appendResponse(nil, r.Header.Get("Sec-WebSocket-Key"), "", "", nil)
				var b bytes.Buffer
				b.Write(bytes.TrimSuffix(response, []byte("\r\n")))
				_ = extra.Write(&b)
				b.WriteString("\r\n")
				_, _ = nc.Write(b.Bytes())
				_, _ = nc.Read(make([]byte, 1))
			})
			c, resp, err := Dial(t.Context(), "ws://"+addr, &DialOptions{HTTPClient: freshClient(t), Compression: &Compression{}})
			assert.Nil(t, c)
			assert.NotNil(t, resp)
			assertOnePrefix(t, err)
			assert.ErrorContains(t, err, want)
		})
	}
}

func TestDialCookies(t *testing.T) {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	got := make(chan string, 1)
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Cookie")
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"}) // in the 101
		echo(t, nil).ServeHTTP(w, r)
	}))
	for _, want := range []string{"", "session=1"} {
		c, resp, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: &http.Client{Jar: jar}})
		require.NoError(t, err)
		assert.Equal(t, want, <-got)
		assert.Equal(t, "session=1", resp.Header.Get("Set-Cookie"))
		c.Close()
	}
}

func TestDialCredentialsInURL(t *testing.T) {
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "se cret" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		echo(t, nil).ServeHTTP(w, r)
	}))
	host := srv.Listener.Addr().String()
	c, _, err := Dial(t.Context(), "ws://me:se%20cret@"+host, nil)
	require.NoError(t, err)
	assertEchoes(t, c)
	c.Close()

	_, resp, err := Dial(t.Context(), "ws://me:wrong@"+host, nil)
	require.EqualError(t, err, `websocket: dial "ws://me:xxxxx@`+host+`": the server answered "401 Unauthorized" instead of 101`)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "who?\n", string(text))
}

// What Dial sends, byte for byte.
func TestDialRequest(t *testing.T) {
	for name, test := range map[string]struct {
		path string
		opts DialOptions
	}{
		"minimal": {"", DialOptions{}},
		"path":    {"/a%20b/c?room=1&x=%23", DialOptions{}},
		"options": {"/chat", DialOptions{
			Subprotocols: []string{"chat", "superchat"},
			Header:       http.Header{"Origin": {"https://example.com"}, "Cookie": {"a=b; c=d"}, "User-Agent": {"test"}, "x-lower": {"1", "2"}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			header := test.opts.Header.Clone()
			if test.opts.Header == nil {
				test.opts.Header = http.Header{}
			}
			test.opts.Header["host"] = []string{"server.example.com"}
			sent := make(chan string, 1)
			var recorded bytes.Buffer
			test.opts.HTTPClient = &http.Client{Transport: &http.Transport{
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go func() {
						defer theirs.Close()
						_, _ = http.ReadRequest(bufio.NewReader(io.TeeReader(theirs, &recorded)))
						sent <- recorded.String()
					}()
					return ours, nil
				},
			}}
			_, _, err := Dial(t.Context(), "ws://localhost"+test.path, &test.opts)
			require.Error(t, err)
			got := <-sent
			key := regexp.MustCompile(`(?m)^Sec-WebSocket-Key: (.*)\r$`).FindStringSubmatch(got)
			require.Len(t, key, 2, got)
			assert.True(t, validKey(key[1]))
			want, err := os.ReadFile("testdata/handshake/dial/" + name + ".http")
			require.NoError(t, err)
			assert.Equal(t, fillIn(string(want), key[1]), got)

			// Both sides agree.
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(got)))
			require.NoError(t, err)
			offered, ref := checkRequest(r)
			require.Nil(t, ref)
			assert.Equal(t, key[1], offered.key)
			assert.Equal(t, test.opts.Subprotocols, offered.subprotocols)

			delete(test.opts.Header, "host")
			if header != nil {
				assert.Equal(t, header, test.opts.Header, "the options are left alone")
			}
		})
	}
}

func TestDialKeysDiffer(t *testing.T) {
	sent := make(chan string, 1)
	addr := rawServer(t, func(nc net.Conn, r *http.Request) {
		sent <- r.Header.Get("Sec-WebSocket-Key")
	})
	var keys []string
	for range 3 {
		_, _, err := Dial(t.Context(), "ws://"+addr, &DialOptions{HTTPClient: freshClient(t)})
		require.Error(t, err)
		keys = append(keys, <-sent)
	}
	slices.Sort(keys)
	assert.Len(t, slices.Compact(keys), 3)
}

func TestDialOptionsMistakes(t *testing.T) {
	header := func(name, value string) *DialOptions { return &DialOptions{Header: http.Header{name: {value}}} }
	for name, test := range map[string]struct {
		url  string
		opts *DialOptions
		err  string
	}{
		"scheme":                {"ftp://localhost", nil, `the URL's scheme is "ftp" instead of ws or wss`},
		"no scheme":             {"localhost/chat", nil, `the URL's scheme is "" instead of ws or wss`},
		"host as scheme":        {"localhost:8080", nil, `the URL's scheme is "localhost" instead of ws or wss`},
		"no host":               {"ws:///chat", nil, "the URL has no host"},
		"no host but a port":    {"ws://me@:8080/", nil, "the URL has no host"},
		"opaque":                {"ws:localhost", nil, "the URL has no host"},
		"section 3 fragment":    {"ws://localhost/#a", nil, `the URL has a fragment; "#" in a path or query is written as %23`},
		"section 3 no fragment": {"ws://localhost/#", nil, `the URL has a fragment; "#" in a path or query is written as %23`},
		"escape":                {"ws://localhost/%zz", nil, `parsing the URL: invalid URL escape "%zz"`},
		"subprotocol twice":     {"ws://localhost", &DialOptions{Subprotocols: []string{"a", "a"}}, `DialOptions.Subprotocols: "a" comes twice`},
		"subprotocol list":      {"ws://localhost", &DialOptions{Subprotocols: []string{"a, b"}}, `DialOptions.Subprotocols: "a, b" is not a token`},
		"subprotocol empty":     {"ws://localhost", &DialOptions{Subprotocols: []string{""}}, `DialOptions.Subprotocols: "" is not a token`},
		"window":                {"ws://localhost", &DialOptions{Compression: &Compression{WindowBits: 7}}, "DialOptions.Compression.WindowBits is 7, not between 8 and 15"},
		"level":                 {"ws://localhost", &DialOptions{Compression: &Compression{Level: -1}}, "DialOptions.Compression.Level is -1, not between 0 and 9"},
		"upgrade":               {"ws://localhost", header("Upgrade", "h2c"), "DialOptions.Header: Upgrade belongs to the handshake"},
		"connection":            {"ws://localhost", header("connection", "close"), "DialOptions.Header: Connection belongs to the handshake"},
		"key":                   {"ws://localhost", header("Sec-WebSocket-Key", "x"), "DialOptions.Header: Sec-Websocket-Key belongs to the handshake"},
		"version":               {"ws://localhost", header("sec-websocket-version", "8"), "DialOptions.Header: Sec-Websocket-Version belongs to the handshake"},
		"extensions":            {"ws://localhost", header("Sec-Websocket-Extensions", "x"), "DialOptions.Header: Sec-Websocket-Extensions belongs to the handshake"},
		"protocol":              {"ws://localhost", header("Sec-WebSocket-Protocol", "x"), "DialOptions.Header: Sec-Websocket-Protocol belongs to the handshake"},
		"length":                {"ws://localhost", header("Content-Length", "1"), "DialOptions.Header: Content-Length belongs to the handshake"},
		"two hosts":             {"ws://localhost", &DialOptions{Header: http.Header{"Host": {"a", "b"}}}, "DialOptions.Header: 2 values of Host"},
	} {
		t.Run(name, func(t *testing.T) {
			c, resp, err := Dial(t.Context(), test.url, test.opts)
			assert.Nil(t, c)
			assert.Nil(t, resp)
			assert.EqualError(t, err, "websocket: dial: "+test.err)
		})
	}
	// net/http judges the rest.
	_, _, err := Dial(t.Context(), "ws://localhost", header("X-Bad", "a\r\nb"))
	assert.EqualError(t, err, `websocket: dial "ws://localhost": net/http: invalid header field value for "X-Bad"`)
}

// A URL that cannot be parsed may have a password all the same.
func TestDialURLIsNotShown(t *testing.T) {
	for _, u := range []string{"ws://me:secret@localhost/%zz", "ws://me:secret@localhost:port/", "ws://me:secret@local host/",
		"ws://me:secret%zz@localhost", "ws://me:secret@[::1/"} {
		_, _, err := Dial(t.Context(), u, nil)
		assertOnePrefix(t, err)
		assert.NotContains(t, err.Error(), "secret")
	}
}

func TestDialConnectionRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u := "ws://me:secret@" + ln.Addr().String() + "/chat"
	ln.Close()
	c, resp, err := Dial(t.Context(), u, nil)
	assert.Nil(t, c)
	assert.Nil(t, resp)
	assertOnePrefix(t, err)
	assert.NotContains(t, err.Error(), "secret")
	var op *net.OpError
	assert.ErrorAs(t, err, &op)
}

func TestDialRefusalBody(t *testing.T) {
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, strings.Repeat("no ", 10_000))
	}))
	c, resp, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: freshClient(t)})
	assert.Nil(t, c)
	assertOnePrefix(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, strings.Repeat("no ", 10_000)[:1024], string(text))
}

// A refusal whose body does not end is waited for a while, for as long as the context allows.
func TestDialRefusalBodyHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := pipeClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "no")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		for _, timeout := range []time.Duration{time.Hour, time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			start := time.Now()
			_, resp, err := Dial(ctx, "ws://localhost", &DialOptions{HTTPClient: client})
			require.ErrorContains(t, err, `the server answered "403 Forbidden" instead of 101`)
			assert.Equal(t, min(timeout, refusalTimeout), time.Since(start))
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "no", string(text))
			cancel()
		}
	})
}

// pipeClient is a Client of a server on a network in memory.
func pipeClient(t *testing.T, h http.Handler) *http.Client {
	ln := newPipeListener()
	srv := &http.Server{Handler: h}
	go srv.Serve(ln)
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ln.dial() }}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		srv.Close()
	})
	return &http.Client{Transport: tr}
}

func TestDialTimeout(t *testing.T) {
	cause := errors.New("no time left")
	for name, test := range map[string]struct {
		timeout time.Duration
		context func(context.Context) (context.Context, context.CancelFunc)
		is      []error
	}{
		"context": {0, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Minute, cause)
		}, []error{context.DeadlineExceeded, cause}},
		"cancel": {0, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			timer := time.AfterFunc(time.Minute, func() { cancel(cause) })
			return ctx, func() { timer.Stop() }
		}, []error{context.Canceled, cause}},
		"Client": {time.Minute, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return ctx, func() {}
		}, []error{context.DeadlineExceeded}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gone := make(chan struct{})
				client := pipeClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
					close(gone)
				}))
				client.Timeout = test.timeout
				ctx, cancel := test.context(t.Context())
				defer cancel()
				start := time.Now()
				c, resp, err := Dial(ctx, "ws://localhost", &DialOptions{HTTPClient: client})
				assert.Nil(t, c)
				assert.Nil(t, resp)
				assertOnePrefix(t, err)
				for _, is := range test.is {
					assert.ErrorIs(t, err, is)
				}
				assert.Equal(t, time.Minute, time.Since(start))
				<-gone // the connection is closed
				assert.Equal(t, test.timeout, client.Timeout)
				assert.Nil(t, client.CheckRedirect, "the Client is left alone")
			})
		})
	}
	t.Run("over before it begins", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, _, err := Dial(ctx, "ws://localhost", &DialOptions{HTTPClient: &http.Client{Transport: roundTripper(
			func(*http.Request) (*http.Response, error) { return nil, errors.New("something else") })}})
		require.ErrorIs(t, err, context.Canceled)
		assert.ErrorIs(t, err, cause)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The connection outlives the context of Dial and the Timeout of the Client, even if the
// RoundTripper ties it to the context of the request.
func TestDialOutlivesContextAndTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := pipeClient(t, echo(t, &AcceptOptions{KeepAlive: -1}))
		inner := client.Transport
		var reqCtx context.Context
		for _, rt := range []http.RoundTripper{inner, roundTripper(func(r *http.Request) (*http.Response, error) {
			resp, err := inner.RoundTrip(r)
			if err == nil {
				body := resp.Body
				context.AfterFunc(r.Context(), func() { body.Close() })
				reqCtx = r.Context()
			}
			return resp, err
		})} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			c, _, err := Dial(ctx, "ws://localhost", &DialOptions{
				HTTPClient: &http.Client{Transport: rt, Timeout: time.Second}, KeepAlive: -1})
			require.NoError(t, err)
			elapse(time.Second)
			synctest.Wait()
			cancel()
			synctest.Wait()
			require.NoError(t, c.Write(t.Context(), Text, []byte("Hello")))
			_, msg, err := c.Read(t.Context(), nil)
			require.NoError(t, err)
			assert.Equal(t, "Hello", string(msg))
			c.Close()
		}
		assert.Error(t, reqCtx.Err(), "Close lets go of the request")
	})
}

// The keepalive is that of connections that Dial makes.
func TestDialKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		defer close(over)
		client := pipeClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := Accept(w, r, nil)
			if assert.NoError(t, err) {
				<-over // nobody reads
				c.Close()
			}
		}))
		c, _, err := Dial(t.Context(), "ws://localhost", &DialOptions{HTTPClient: client})
		require.NoError(t, err)
		defer c.Close()
		start := time.Now()
		_, _, err = c.Read(t.Context(), nil)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Greater(t, time.Since(start), 30*time.Second)
		require.LessOrEqual(t, time.Since(start), time.Minute)
	})
}

// A context that ends when the response is there already still ends Dial.
func TestDialContextEndsLate(t *testing.T) {
	srv := newServer(t, echo(t, nil))
	ctx, cancel := context.WithCancel(t.Context())
	var body io.Closer
	rt := roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err == nil {
			body = resp.Body
		}
		cancel()
		return resp, err
	})
	c, resp, err := Dial(ctx, wsURL(srv), &DialOptions{HTTPClient: &http.Client{Transport: rt}})
	assert.Nil(t, c)
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, http.NoBody, resp.Body)
	assert.ErrorIs(t, body.Close(), net.ErrClosed)
}

// When the context ends net/http may close the connection, and yet return the response that
// came from it.
func TestDialContextEndsLateAndTheConnectionIsGone(t *testing.T) {
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
		echo(t, nil).ServeHTTP(w, r)
	}))
	ctx, cancel := context.WithCancelCause(t.Context())
	var nc net.Conn
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(info httptrace.GotConnInfo) { nc = info.Conn },
		GotFirstResponseByte: func() { nc.Close() },
	})
	cause := errors.New("no time left")
	client := freshClient(t)
	client.Jar = cookiesCome(func() { cancel(cause) })
	c, _, err := Dial(traced, wsURL(srv), &DialOptions{HTTPClient: client})
	assert.Nil(t, c)
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, cause)
}

// cookiesCome is a jar that calls a function when a response has cookies.
type cookiesCome func()

func (f cookiesCome) SetCookies(*url.URL, []*http.Cookie) { f() }
func (cookiesCome) Cookies(*url.URL) []*http.Cookie       { return nil }

// The body of a refusal that never ends is waited for as long as the context says, or a few
// seconds, whatever the RoundTripper makes of the request's context.
func TestDialRefusalThatDoesNotEnd(t *testing.T) {
	for _, limit := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			rt := roundTripper(func(r *http.Request) (*http.Response, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					_, _ = http.ReadRequest(bufio.NewReader(theirs))
					_, _ = io.WriteString(theirs, "HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nno")
					_, _ = theirs.Read(make([]byte, 1)) // until the client closes
				}()
				if err := r.Write(ours); err != nil {
					return nil, err
				}
				resp, err := http.ReadResponse(bufio.NewReader(ours), r)
				if err == nil {
					resp.Body = struct {
						io.Reader
						io.Closer
					}{resp.Body, ours}
				}
				return resp, err
			})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			_, resp, err := Dial(ctx, "ws://localhost", &DialOptions{HTTPClient: &http.Client{Transport: rt}})
			require.ErrorContains(t, err, "403")
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "no", string(text))
			assert.Equal(t, min(limit, refusalTimeout), time.Since(start))
		})
	}
}

// Bytes that came with the 101 are read first, whichever way the connection is read, and
// those that come after it next.
func TestDialBuffered(t *testing.T) {
	server := func(w http.ResponseWriter, r *http.Request) {
		req, _ := checkRequest(r)
		nc, _, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer nc.Close()
		const together, later = 1000, 10 // more than the buffer of a Transport holds, and part of a frame
		all := string(appendResponse(nil, req.key, "", "", nil)) + strings.Repeat(helloFrame, together) + helloFrame[:3]
		_, _ = io.WriteString(nc, all)
		_, _ = io.ReadFull(nc, make([]byte, len(maskedHello))) // until the client has read them
		_, _ = io.WriteString(nc, helloFrame[3:]+strings.Repeat(helloFrame, later))
	}
	plain, secure := newServer(t, http.HandlerFunc(server)), newTLSServer(t, http.HandlerFunc(server))
	untraced := func(r *http.Request) (*http.Response, error) { // hides the connection
		return plain.Client().Transport.RoundTrip(r.WithContext(context.Background()))
	}
	custom := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := net.Dial(network, addr)
		return struct{ net.Conn }{nc}, err
	}}
	for name, test := range map[string]struct {
		url    string
		rt     http.RoundTripper
		direct bool
	}{
		"TCP":                    {wsURL(plain), plain.Client().Transport, true},
		"TLS":                    {wsURL(secure), secure.Client().Transport, true},
		"small buffer":           {wsURL(plain), &http.Transport{ReadBufferSize: 256}, true},
		"large buffer":           {wsURL(plain), &http.Transport{ReadBufferSize: 1 << 16}, true},
		"connection of a user's": {wsURL(plain), custom, false},
		"other RoundTripper":     {wsURL(plain), roundTripper(plain.Client().Transport.RoundTrip), false},
		"no connection":          {wsURL(plain), roundTripper(untraced), false},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := Dial(t.Context(), test.url, &DialOptions{HTTPClient: &http.Client{Transport: test.rt}})
			require.NoError(t, err)
			defer c.Close()
			bc, ok := c.nc.(*bodyConn)
			assert.Equal(t, test.direct, !ok)
			for i := range 1000 {
				_, msg, err := c.Read(t.Context(), nil)
				require.NoError(t, err, i)
				require.Equal(t, "Hello", string(msg))
			}
			require.NoError(t, c.Write(t.Context(), Text, []byte("Hello")))
			for i := range 11 {
				_, msg, err := c.Read(t.Context(), nil)
				require.NoError(t, err, i)
				require.Equal(t, "Hello", string(msg))
			}
			_, _, err = c.Read(t.Context(), nil)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			if ok && bc.conn == nil {
				assert.Equal(t, plain.Listener.Addr().String(), c.RemoteAddr().String())
				assert.NotNil(t, c.LocalAddr())
			} else {
				assert.IsType(t, &net.TCPAddr{}, c.RemoteAddr())
				assert.IsType(t, &net.TCPAddr{}, c.LocalAddr())
			}
		})
	}
}

// A read that is cancelled loses nothing.
func TestDialCancelledRead(t *testing.T) {
	srv := newServer(t, echo(t, nil))
	tr := srv.Client().Transport
	for name, rt := range map[string]http.RoundTripper{"Transport": tr, "other RoundTripper": roundTripper(tr.RoundTrip)} {
		t.Run(name, func(t *testing.T) {
			c, _, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: &http.Client{Transport: rt}})
			require.NoError(t, err)
			defer c.Close()
			assertEchoes(t, c)
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			_, _, err = c.Read(ctx, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assertEchoes(t, c)
		})
	}
}

// Where no deadlines are known, it closes the connection.
func TestDialCancelledReadWithoutDeadlines(t *testing.T) {
	srv := newServer(t, echo(t, nil))
	reading := make(chan struct{}, 1)
	rt := roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := srv.Client().Transport.RoundTrip(r.WithContext(context.Background()))
		if err == nil {
			resp.Body = noticedBody{resp.Body.(io.ReadWriteCloser), reading}
		}
		return resp, err
	})
	c, _, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: &http.Client{Transport: rt}})
	require.NoError(t, err)
	defer c.Close()
	assertEchoes(t, c)
	for len(reading) > 0 {
		<-reading
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reading
		cancel()
	}()
	_, _, err = c.Read(ctx, nil)
	require.Error(t, err)
	_, _, err = c.Read(t.Context(), nil)
	assert.ErrorIs(t, err, net.ErrClosed)
}

// noticedBody tells when it is read.
type noticedBody struct {
	io.ReadWriteCloser
	reading chan struct{}
}

func (b noticedBody) Read(p []byte) (int, error) {
	select {
	case b.reading <- struct{}{}:
	default:
	}
	return b.ReadWriteCloser.Read(p)
}

func TestDialRoundTripperWithoutWriter(t *testing.T) {
	name := "Sec-WebSocket-Key" // spelled as in the RFC
	rt := roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(
			appendResponse(nil, r.Header[name][0], "", "", nil))), r)
		resp.Body = io.NopCloser(strings.NewReader(""))
		return resp, err
	})
	c, resp, err := Dial(t.Context(), "ws://localhost/", &DialOptions{HTTPClient: &http.Client{Transport: rt}})
	assert.Nil(t, c)
	assert.NotNil(t, resp)
	assert.EqualError(t, err, `websocket: dial "ws://localhost/": the RoundTripper websocket.roundTripper gave a response body that cannot be written to`)
}

func TestDialTrace(t *testing.T) {
	srv := newServer(t, echo(t, nil))
	var got net.Conn
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { got = info.Conn },
	})
	c, _, err := Dial(ctx, wsURL(srv), &DialOptions{HTTPClient: srv.Client()})
	require.NoError(t, err)
	defer c.Close()
	assert.Equal(t, c.nc, got)
}

// The connection is closed as the response arrives.
func TestDialConnectionIsGone(t *testing.T) {
	srv := newServer(t, echo(t, nil))
	var nc net.Conn
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn:              func(info httptrace.GotConnInfo) { nc = info.Conn },
		GotFirstResponseByte: func() { nc.Close() },
	})
	_, _, err := Dial(ctx, wsURL(srv), &DialOptions{HTTPClient: freshClient(t)})
	require.ErrorIs(t, err, net.ErrClosed)
	assertOnePrefix(t, err)
}

func TestBodyConn(t *testing.T) {
	srv := newServer(t, echo(t, nil))
	tr := roundTripper(srv.Client().Transport.RoundTrip)
	c, _, err := Dial(t.Context(), wsURL(srv), &DialOptions{HTTPClient: &http.Client{Transport: tr}})
	require.NoError(t, err)
	defer c.Close()
	nc := c.nc.(*bodyConn)
	assert.IsType(t, &net.TCPConn{}, nc.NetConn())
	assert.NoError(t, nc.CloseWrite())
	_, err = nc.Write([]byte("x"))
	assert.Error(t, err)
	assert.NoError(t, nc.SetDeadline(longAgo))
	_, err = nc.Read(make([]byte, 1))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)

	none := &bodyConn{ReadWriteCloser: struct{ io.ReadWriteCloser }{}, remote: "example.com"}
	assert.ErrorIs(t, none.CloseWrite(), errors.ErrUnsupported)
	for _, set := range []func(time.Time) error{none.SetDeadline, none.SetReadDeadline, none.SetWriteDeadline} {
		assert.ErrorIs(t, set(time.Time{}), os.ErrNoDeadline)
	}
	assert.Equal(t, "example.com", none.RemoteAddr().String())
	assert.Equal(t, "unknown", none.LocalAddr().String())
	assert.Equal(t, "tcp", none.LocalAddr().Network())
}

// FuzzResponse: whatever is accepted obeys the rules.
func FuzzResponse(f *testing.F) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	files, err := filepath.Glob("testdata/handshake/responses/*.http")
	require.NoError(f, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add([]byte(fillIn(string(b), key)), false)
	}
	connection := regexp.MustCompile(`(?:^|,)[ \t]*[uU][pP][gG][rR][aA][dD][eE][ \t]*(?:,|$)`)
	upgrade := regexp.MustCompile(`^[wW][eE][bB][sS][oO][cC][kK][eE][tT]$`)
	f.Fuzz(func(t *testing.T, b []byte, compression bool) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
		if err != nil {
			return
		}
		h := resp.Header
		opts := &DialOptions{Subprotocols: vectorSubprotocols}
		extensions := h["Sec-Websocket-Extensions"]
		agreed := extensions == nil
		if compression {
			opts.Compression = &Compression{}
			// What is offered is no takeover for the server, and any window for the client.
			agreed = agreed || regexp.MustCompile(`^[\t ,]*permessage-deflate([\t ]*;[\t ]*(server_no_context_takeover|`+
				`client_no_context_takeover|(server|client)_max_window_bits[\t ]*=[\t ]*("?)[\\0-9]+"?)[\t ]*)*[\t ,]*$`).
				MatchString(strings.Join(extensions, ","))
		}
		protocol := strings.Join(h["Sec-Websocket-Protocol"], "\n")
		valid := resp.StatusCode == 101 &&
			upgrade.MatchString(strings.Join(h["Upgrade"], "\n")) &&
			connection.MatchString(strings.Join(h["Connection"], ",")) &&
			strings.Join(h["Sec-Websocket-Accept"], "\n") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" &&
			agreed &&
			(h["Sec-Websocket-Protocol"] == nil || protocol == "chat" || protocol == "superchat")
		cfg, err := checkResponse(resp, key, opts)
		if extensions == nil {
			assert.Equal(t, valid, err == nil, "%v", err)
		} else { // FuzzExtensions knows more of them
			assert.True(t, valid || err != nil)
		}
		if err != nil {
			assert.Less(t, len(err.Error()), 1000)
			return
		}
		assert.Equal(t, protocol, cfg.subprotocol)
		assert.Equal(t, extensions == nil, cfg.deflate == nil)
	})
}

// FuzzDial has a server answer in any way, with anything behind the handshake, all at once or
// byte by byte: a connection is made of what FuzzResponse accepts, and loses no byte.
func FuzzDial(f *testing.F) {
	files, err := filepath.Glob("testdata/handshake/responses/*.http")
	require.NoError(f, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(append(b, frame(true, OpText, "behind", false)...), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, slowly bool) {
		if len(b) > maxFuzzedStream {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			nc, peer := newPipe()
			defer peer.Close()
			var limited net.Conn = nc
			if slowly {
				limited = &chunkConn{nc, 1}
			}
			served := make(chan []byte, 1)
			go func() {
				defer close(served)
				r, err := http.ReadRequest(bufio.NewReader(peer))
				if err != nil {
					return
				}
				key := r.Header.Get("Sec-WebSocket-Key")
				answer := []byte(fillIn(string(b), key))
				_, _ = peer.Write(answer)
				_ = peer.CloseWrite()
				br := bufio.NewReader(bytes.NewReader(answer))
				for range 5 { // as many as net/http lets pass
					resp, err := http.ReadResponse(br, r)
					if err != nil {
						return
					}
					if resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode/100 > 1 {
						if _, err = checkResponse(resp, key, &DialOptions{}); err == nil {
							rest, _ := io.ReadAll(br)
							served <- append([]byte{}, rest...)
						}
						return
					}
				}
			}()
			tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return limited, nil }}
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			cfg := config{client: true, maxMessageSize: 1000, keepAlive: -1}
			c, resp, err := Dial(t.Context(), "ws://server.example.com/", &DialOptions{HTTPClient: client, MaxMessageSize: 1000, KeepAlive: -1})
			behind := <-served
			require.Equal(t, behind != nil, err == nil, "%v", err)
			if err != nil {
				require.Nil(t, c)
				if resp != nil {
					_, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
				}
				return
			}
			defer c.Close()
			want, _ := judgeStream(behind, cfg)
			var got outcome
			got.err = ways[0].read(t.Context(), c, got.add).Error()
			require.Equal(t, want.messages, got.messages)
			require.Equal(t, want.err, got.err)
		})
	})
}
