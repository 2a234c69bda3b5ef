package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/strictws/websocket"
)

// A fleet is all the clients.
type fleet struct {
	soak
	where   whereabouts
	roots   *x509.CertPool
	dialing chan struct{} // one for each Dial that is under way

	connected atomic.Int64 // clients that have been connected
	complete  atomic.Int64 // clients that have finished
	going     atomic.Int64 // clients that run
}

const dialsAtOnce = 32

// A client keeps up one connection after another until all is said.
type client struct {
	*fleet
	id    uint64
	link  *link
	epoch uint64

	known uint64           // the ends of all connections up to this one are accounted for
	ends  map[uint64]error // of connections that we did not end, by epoch

	delivered map[uint64]uint64 // of connections that we shut down, by epoch: of what must have arrived, the last
}

func (cl *client) run() {
	cl.going.Add(1)
	defer cl.going.Add(-1)
	for first := true; ; {
		ses, err := cl.dial(first)
		if cl.ctx.Err() != nil {
			return
		}
		if err != nil {
			cl.fail("client %d, connection %d: %v", cl.id, cl.epoch, err)
			return
		}
		if ses == nil {
			continue // cancelled
		}
		if first {
			cl.connected.Add(1)
			first = false
		}
		ending, err := ses.run()
		if ses.greeted { // even if it was the last one
			cl.account(ses)
		}
		if ending == "Shutdown" {
			cl.delivered[ses.epoch] = ses.delivered
		}
		switch {
		case ending == finished:
			cl.complete.Add(1)
			return
		case cl.ctx.Err() != nil:
			return
		case ending != "":
			cl.figures.Aborts.add(ending)
		default:
			cl.ends[ses.epoch] = err
		}
	}
}

// account checks that every connection before that of ses was ended by somebody, and that what went out before a
// Shutdown has arrived if only we ended that connection: in its hello the server has told which ones it did end.
func (cl *client) account(ses *session) {
	fields := strings.Fields(ses.endings)
	told := func(epoch uint64) bool { return slices.Contains(fields, strconv.FormatUint(epoch, 10)) }
	for epoch, err := range cl.ends {
		if told(epoch) {
			cl.figures.Told.inc()
		} else {
			cl.fail("client %d, connection %d broke, and neither side did it: %v", cl.id, epoch, err)
		}
		delete(cl.ends, epoch)
	}
	for epoch, n := range cl.delivered {
		if n > ses.arrival && !told(epoch) {
			cl.fail("client %d, connection %d was shut down after message %d, and the last that arrived is %d",
				cl.id, epoch, n, ses.arrival)
		}
		delete(cl.delivered, epoch)
	}
	cl.known = ses.epoch - 1
}

// narrowBuffer is the size of a socket's buffers that makes writes wait. With less than that, the kernel moves no more
// than some 50 KB a second over loopback, whose segments are larger.
const narrowBuffer = 16 << 10

// way draws how one end receives.
func way(r *rand.Rand, typ websocket.MessageType) string {
	way := receivingWays[r.IntN(len(receivingWays))]
	if way == "NetConn" && typ == 0 {
		way = "Read"
	}
	return way
}

// compression draws what one end offers or accepts.
func compression(r *rand.Rand) *websocket.Compression {
	level := r.IntN(10)
	switch p := r.IntN(10); {
	case p < 3:
		return nil
	case p < 5:
		return &websocket.Compression{Level: level}
	default:
		return &websocket.Compression{ContextTakeover: true, WindowBits: 8 + r.IntN(8), Level: level}
	}
}

// keepAlive draws an interval, which is at times shorter than the silence between messages.
func keepAlive(r *rand.Rand) time.Duration {
	return []time.Duration{-1, 0, 20 * time.Second}[r.IntN(3)]
}

func tcpConn(nc net.Conn) *net.TCPConn {
	if over, ok := nc.(*tls.Conn); ok {
		nc = over.NetConn()
	}
	return nc.(*net.TCPConn)
}

// dial connects once. It returns nil if it has cancelled that itself.
func (cl *client) dial(first bool) (*session, error) {
	select {
	case cl.dialing <- struct{}{}:
		defer func() { <-cl.dialing }()
	case <-cl.ctx.Done():
		return nil, nil
	}
	cl.epoch++
	ses := &session{soak: &cl.soak, link: cl.link, id: cl.id, epoch: cl.epoch}
	r := ses.draw(0)
	ses.typ = []websocket.MessageType{0, 0, websocket.Text, websocket.Binary}[r.IntN(4)]
	ses.way = way(r, ses.typ)
	narrow := r.IntN(5) == 0
	scheme, addr := "ws", cl.where.Plain[r.IntN(len(cl.where.Plain))]
	if r.IntN(20) == 0 {
		scheme, addr = "wss", cl.where.TLS
	}

	ctx, cancel := context.WithTimeout(cl.ctx, patience)
	defer cancel()
	cancelled := r.IntN(50) == 0 && !cl.isStopping() && !first
	if cancelled {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.Int64N(int64(3*time.Millisecond))))
		defer cancel()
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: cl.roots, ServerName: serverName},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			ses.raw = nc.(*net.TCPConn)
			if narrow {
				ses.raw.SetReadBuffer(narrowBuffer)
				ses.raw.SetWriteBuffer(narrowBuffer)
			}
			return nc, nil
		},
	}
	cl.link.mu.Lock()
	last := cl.link.in.last
	cl.link.mu.Unlock()
	small := 0
	if narrow {
		small = 1
	}
	url := fmt.Sprintf("%s://%s/soak?id=%d&epoch=%d&last=%d&known=%d&typ=%d&narrow=%d",
		scheme, addr, cl.id, cl.epoch, last, cl.known, ses.typ, small)
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:  &http.Client{Transport: transport},
		Compression: compression(r),
		KeepAlive:   keepAlive(r),
	})
	if err != nil {
		if cancelled && errors.Is(err, context.DeadlineExceeded) {
			cl.figures.DialsCut.inc()
			return nil, nil
		}
		return nil, err
	}
	ses.c = c
	cl.figures.Kinds.add(scheme)
	cl.figures.Kinds.add(agreed(resp.Header.Get("Sec-WebSocket-Extensions")))
	if narrow {
		cl.figures.Kinds.add("small socket buffers")
	}
	return ses, nil
}

// agreed says what compression was agreed on.
func agreed(extensions string) string {
	switch {
	case extensions == "":
		return "not compressed"
	case strings.Contains(extensions, "server_no_context_takeover") && strings.Contains(extensions, "client_no_context_takeover"):
		return "compressed without takeover"
	default:
		return "compressed with takeover"
	}
}
