// Package server has the servers that are measured, each in the ways of use that its documentation recommends: one
// file for each library, which calls register.
package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limit is the size of a message that every server must accept, where there is a limit to set.
const Limit = 16 << 20

// Mode says what a server is to do, and what it may tune itself for.
type Mode struct {
	Broadcast bool // send a message to all connections, and not back only
	Text      bool // messages are text
	Size      int  // of the messages
	Idle      bool // there are many connections, which do nothing: what counts is memory
	Handshake bool // connections are opened and dropped
	Deflate   bool // permessage-deflate
	Takeover  bool // with context takeover, both ways
	TLS       bool
}

// Level is the level of compression, for all alike. It is the only one that each of them has.
const Level = 1

// A Variant is a server: a library in one way of use.
type Variant struct {
	Name string // the library's, or the library's and how it is used, as in "gorilla-pool"

	Plain     bool // echoes bytes: no WebSocket beyond the answer to a handshake, where that is what counts
	NetHTTP   bool // net/http does the handshake
	EventLoop bool // there is no goroutine for each connection
	Validates bool // text that is not UTF-8 is refused
	Flate     bool // compress/flate compresses
	Gathers   bool // answers wait for each other while there are more messages to read

	// Does tells whether there is such a server for a mode; nil means that there always is, but over TLS.
	Does  func(Mode) bool
	Serve func(net.Listener, Mode) error
}

// Library is the name of the library.
func (v Variant) Library() string {
	library, _, _ := strings.Cut(v.Name, "-")
	return library
}

// Supports tells whether there is such a server for a mode.
func (v Variant) Supports(m Mode) bool {
	switch {
	case v.Does != nil:
		return v.Does(m)
	case v.Plain:
		return !m.Deflate
	default:
		return !m.TLS && !m.Takeover
	}
}

var variants []Variant

func register(v ...Variant) { variants = append(variants, v...) }

// Variants returns all servers.
func Variants() []Variant { return slices.Clone(variants) }

// Find returns the server of that name.
func Find(name string) (Variant, error) {
	i := slices.IndexFunc(variants, func(v Variant) bool { return v.Name == name })
	if i < 0 {
		return Variant{}, fmt.Errorf("there is no server %q", name)
	}
	return variants[i], nil
}

// serveHTTP serves with net/http, over HTTP/1.1, as anybody would.
func serveHTTP(ln net.Listener, m Mode, h http.HandlerFunc) error {
	srv := &http.Server{
		Handler:      h,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2
		ErrorLog:     log.New(io.Discard, "", 0),                               // connections are reset all the time
	}
	if !m.TLS {
		return srv.Serve(ln)
	}
	config, err := tlsConfig()
	if err != nil {
		return err
	}
	srv.TLSConfig = config
	return srv.ServeTLS(ln, "", "")
}

// acceptLoop calls serve for each connection, in a goroutine of its own.
func acceptLoop(ln net.Listener, serve func(net.Conn)) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go serve(c)
	}
}

// joined is how many connections are in the room. There is one room in a process.
var joined atomic.Int64

// A room has all connections of a server that broadcasts. A connection joins it before its first message is read.
type room[C comparable] struct {
	mu    sync.Mutex
	conns []C
}

func (r *room[C]) join(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	joined.Add(1)
}

func (r *room[C]) leave(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.conns, c); i >= 0 {
		r.conns = slices.Delete(r.conns, i, i+1)
		joined.Add(-1)
	}
}

func (r *room[C]) each(send func(C)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		send(c)
	}
}

func tlsConfig() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"http/1.1"},
	}, nil
}
