package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strictws/websocket"
)

// The server is a process of its own, since the limit of open files is one on processes. Its
// standard input has its settings as a line of JSON, and then commands: "figures", "start" and "stop"
// for the aborts, "give up", and "finish". It answers the settings with where it is, and "figures" and
// "finish" with its figures. When its input ends, it exits.

// settings are what both processes go by.
type settings struct {
	Connections int
	Seed        uint64
	Gap         time.Duration // between the messages of a lane, on average
	Life        time.Duration // of a connection, on average
}

// whereabouts are how the server is reached.
type whereabouts struct {
	Plain       []string // addresses
	TLS         string   // address
	Certificate []byte   // DER
	Error       string   // why it is not
}

// addresses are how many addresses the server has: between two addresses there are not many more ports than
// connections, and some are in TIME_WAIT.
const addresses = 4

type server struct {
	soak
	fence    sync.WaitGroup // sessions
	sessions atomic.Int64   // how many it has

	mu      sync.Mutex // guards what follows
	clients map[uint64]*remote
}

// A remote is what the server knows of a client.
type remote struct {
	link *link

	mu       sync.Mutex // guards what follows
	epoch    uint64     // of the latest connection
	latest   *session
	gone     chan struct{}   // closed when the latest session is over
	endings  map[uint64]bool // the epochs of connections that we ended, until the client knows
	complete bool            // all was exchanged, on both lanes
}

// serve is the server's process, from the settings to the last figures.
func serve(in io.Reader, out io.Writer) error {
	commands := bufio.NewScanner(in)
	answers := json.NewEncoder(out)
	if !commands.Scan() {
		return errors.New("no settings on standard input")
	}
	var set settings
	if err := json.Unmarshal(commands.Bytes(), &set); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	s := &server{clients: make(map[uint64]*remote)}
	s.init("server", set, 2*set.Life)
	defer s.giveUp()

	where, closeAll, err := s.open(filesNeeded(set.Connections))
	if err != nil {
		where.Error = err.Error()
	}
	if err := answers.Encode(where); err != nil || where.Error != "" {
		return err
	}
	defer closeAll()
	go s.renewBroadcast()
	for commands.Scan() {
		switch commands.Text() {
		case "figures":
		case "start":
			s.started.Store(true)
			continue
		case "stop":
			close(s.stopping)
			continue
		case "give up":
			s.giveUp()
			continue
		case "finish":
			s.finish(closeAll)
		}
		s.figures.Violations = s.failures()
		if err := answers.Encode(&s.figures); err != nil {
			return err
		}
	}
	return commands.Err()
}

// open begins to serve.
func (s *server) open(files int) (where whereabouts, closeAll func(), err error) {
	if err := raiseFileLimit(files); err != nil {
		return where, nil, err
	}
	if s.figures.Before, err = measureWarm(); err != nil {
		return where, nil, err
	}
	cert, err := selfSigned()
	if err != nil {
		return where, nil, err
	}
	where.Certificate = cert.Certificate[0]
	mux := http.NewServeMux()
	mux.HandleFunc("/soak", s.handle)
	srv := &http.Server{
		Handler:     mux,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context { return context.WithValue(ctx, connKey{}, nc) },
		TLSConfig:   &tls.Config{Certificates: []tls.Certificate{cert}},
		ErrorLog:    log.New(io.Discard, "", 0), // TLS handshakes that clients cancel
	}
	for i := range addresses + 1 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", 1+i)); err != nil {
			srv.Close()
			return where, nil, err
		}
		if i < addresses {
			where.Plain = append(where.Plain, l.Addr().String())
			go srv.Serve(l)
		} else {
			where.TLS = l.Addr().String()
			go srv.ServeTLS(l, "", "")
		}
	}
	return where, func() { srv.Close() }, nil
}

type connKey struct{}

// measureWarm measures after the runtime has opened what it keeps open.
func measureWarm() (resources, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return resources{}, err
	}
	l.Close()
	return measure()
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(0, 0, 30),
		DNSNames:     []string{serverName},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

const serverName = "soak.test"

// renewBroadcast makes a new broadcast every second.
func (s *server) renewBroadcast() {
	for n := uint64(1); ; n++ {
		typ, msg := lane{s.seed, 0, toAll}.append(nil, kindBroadcast, n, websocket.Text)
		s.broadcast.Store(&broadcast{n, websocket.Prepare(typ, msg)})
		select {
		case <-time.After(time.Second):
		case <-s.stopping:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// handle begins a session, and leaves it to a goroutine of its own.
func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	number := func(name string) uint64 {
		n, err := strconv.ParseUint(q.Get(name), 10, 64)
		if err != nil {
			s.fail("request for %s: %v", r.URL, err)
		}
		return n
	}
	id, epoch, last, known := number("id"), number("epoch"), number("last"), number("known")
	typ, narrow := websocket.MessageType(number("typ")), number("narrow") == 1

	s.mu.Lock()
	client := s.clients[id]
	if client == nil {
		client = &remote{link: newLink(s.seed, id, toServer, toClient), endings: make(map[uint64]bool)}
		s.clients[id] = client
	}
	s.mu.Unlock()

	ses := &session{soak: &s.soak, link: client.link, id: id, epoch: epoch, typ: typ}
	rnd := ses.draw(0)
	ses.way = way(rnd, typ)
	ses.raw = tcpConn(r.Context().Value(connKey{}).(net.Conn))
	if narrow {
		ses.raw.SetReadBuffer(narrowBuffer)
		ses.raw.SetWriteBuffer(narrowBuffer)
	}
	var err error
	ses.c, err = websocket.Accept(w, r, &websocket.AcceptOptions{
		Compression: compression(rnd),
		KeepAlive:   keepAlive(rnd),
	})
	if err != nil {
		return // the client cancelled, or it will say what it was told
	}

	client.mu.Lock()
	if epoch <= client.epoch {
		client.mu.Unlock()
		ses.c.Close() // a Dial that the client cancelled, and has forgotten
		return
	}
	before, gone := client.latest, client.gone
	client.epoch, client.latest, client.gone = epoch, ses, make(chan struct{})
	done := client.gone
	client.mu.Unlock()

	s.fence.Go(func() {
		s.sessions.Add(1)
		defer s.sessions.Add(-1)
		defer close(done)
		if before != nil {
			// What of the previous session is still being received must be received before the client is told how far
			// we are.
			before.end(fenced)
			before.c.Close()
			<-gone
		}
		client.converse(ses, last, known)
	})
}

// converse runs a session.
func (client *remote) converse(ses *session, last, known uint64) {
	client.mu.Lock()
	for epoch := range client.endings {
		if epoch <= known {
			delete(client.endings, epoch)
		} else {
			ses.endings += strconv.FormatUint(epoch, 10) + " "
		}
	}
	client.mu.Unlock()

	client.link.mu.Lock()
	acked := client.link.out.acked
	again, err := client.link.out.resume(last)
	ses.figures.Acked.Add(int64(client.link.out.acked - acked))
	client.link.mu.Unlock()
	if err != nil {
		ses.fail("client %d, connection %d: %v", ses.id, ses.epoch, err)
		ses.c.Close()
		return
	}
	ses.figures.Again.Add(int64(again))
	ending, err := ses.run()

	client.mu.Lock()
	defer client.mu.Unlock()
	ses.mu.Lock()
	defer ses.mu.Unlock()
	switch _, closed := errors.AsType[*websocket.CloseError](err); {
	case ending == "" && closed && ses.finalSent && ses.finalCame:
		client.complete = true
	case ending == fenced: // the client has broken the connection, or will be asked why it did not
	case ending != "":
		client.endings[ses.epoch] = true
		ses.figures.Aborts.add(ending)
	}
}

// finish checks that all that clients had to say has been said, and that nothing is left.
func (s *server) finish(closeAll func()) {
	if !soon(&s.fence) {
		s.fail("%d sessions are left", s.sessions.Load())
		if !soon(&s.fence) { // settle shows where they are
			s.fail("%d sessions go on, although all was given up", s.sessions.Load())
		}
	}
	closeAll()
	s.mu.Lock()
	for id, client := range s.clients {
		client.mu.Lock()
		if !client.complete && s.ctx.Err() == nil {
			s.fail("client %d has not finished", id)
		}
		client.mu.Unlock()
	}
	s.clients = nil
	s.mu.Unlock()
	var err error
	if s.figures.After, err = settle(s.figures.Before); err != nil {
		s.fail("%v", err)
	}
}
