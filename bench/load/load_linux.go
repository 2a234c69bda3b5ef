// Package load talks to the servers that are measured: one thread, epoll, frames made by hand. It shares no code with
// any of them.
package load

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a server may take to answer anything at all.
const patience = 20 * time.Second

// A Spec says what the connections of a Group do.
type Spec struct {
	Addr  string
	Conns int

	Plain  bool   // bytes and no WebSocket: no handshake, no frames
	Offer  string // Sec-WebSocket-Extensions
	Fanout bool   // the first connection writes, and every one gets the answer

	// A connection's turn is to write one of Turns, one after the other, and to read Replies messages of Size bytes
	// each; -1 means any size.
	Turns   [][]byte
	Replies int
	Size    int

	// Verify is given each message in full, if it is set: that of a connection's turn.
	Verify func(conn, turn int, m Message) error
}

// A Message is what a server sent.
type Message struct {
	First   byte // of its first frame
	Payload []byte
}

// A Group is a number of connections to one server.
type Group struct {
	spec  Spec
	epoll int
	conns []*conn
	buf   []byte
	wire  int64
}

type conn struct {
	fd      int
	parser  parser
	turn    int    // how many have begun
	out     []byte // what is still to be written
	waiting bool   // for the socket to take more
	await   int    // replies of this turn that are not there
	read    int    // replies
}

// Open connects, and does the opening handshakes.
func Open(spec Spec) (*Group, error) {
	g := &Group{spec: spec, buf: make([]byte, 256<<10)}
	var err error
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	const batch = 64
	for len(g.conns) < spec.Conns {
		fds, err := dial(spec.Addr, min(batch, spec.Conns-len(g.conns)))
		for _, fd := range fds {
			c := &conn{fd: fd}
			c.parser.keep = spec.Verify != nil
			if spec.Plain {
				c.parser.plain = spec.Size
			}
			g.conns = append(g.conns, c)
		}
		if err == nil && !spec.Plain {
			err = upgrade(fds, spec.Addr, spec.Offer)
		}
		if err != nil {
			g.Close()
			return nil, err
		}
	}
	for i, c := range g.conns {
		if err := unix.SetNonblock(c.fd, true); err != nil {
			g.Close()
			return nil, err
		}
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, c.fd, &ev); err != nil {
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

// Close drops the connections. They are reset: thousands of ports would wait for a minute otherwise.
func (g *Group) Close() {
	for _, c := range g.conns {
		reset(c.fd)
	}
	unix.Close(g.epoll)
}

func reset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// Count is what came back.
type Count struct {
	Messages int
	Bytes    int64 // on the wire, headers included
	Elapsed  time.Duration
}

// Run lets every connection take turns, turns of them if that is not 0, until d has passed, and waits for the answers.
// Until there are at least so many, it goes on for up to three times as long.
func (g *Group) Run(d time.Duration, least, turns int) (Count, error) {
	start := time.Now()
	for _, c := range g.conns {
		c.turn, c.read = 0, 0
	}
	g.wire = 0
	r := run{Group: g, end: start.Add(d), last: start.Add(3 * d), least: least, turns: turns}
	if g.spec.Fanout {
		r.fanout()
	} else {
		for i := range g.conns {
			r.begin(i)
		}
	}
	r.loop()
	return Count{Messages: r.messages, Bytes: g.wire, Elapsed: time.Since(start)}, r.err
}

type run struct {
	*Group
	end      time.Time // no turn begins after it, if there are enough messages
	last     time.Time // or after that
	least    int
	over     bool
	turns    int
	active   int // connections that are in a turn
	messages int
	err      error
}

func (r *run) loop() {
	events := make([]unix.EpollEvent, 512)
	for r.active > 0 && r.err == nil {
		n, err := unix.EpollWait(r.epoll, events, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("no answer in %v; %d connections wait for one", patience, r.active)
		}
		if err != nil {
			r.err = err
			return
		}
		if now := time.Now(); now.After(r.last) || now.After(r.end) && r.messages >= r.least {
			r.over = true
		}
		for _, ev := range events[:n] {
			i := int(ev.Fd)
			if ev.Events&unix.EPOLLOUT != 0 {
				r.write(i)
			}
			if ev.Events&^unix.EPOLLOUT != 0 {
				r.receive(i)
			}
		}
	}
}

// begin begins the next turn of a connection, if there is one.
func (r *run) begin(i int) {
	c := r.conns[i]
	if r.over || r.turns > 0 && c.turn == r.turns {
		return
	}
	r.active++
	c.await = r.spec.Replies
	r.send(i)
}

// fanout begins a turn of them all.
func (r *run) fanout() {
	if r.over || r.turns > 0 && r.conns[0].turn == r.turns {
		return
	}
	for _, c := range r.conns {
		c.await = r.spec.Replies
	}
	r.active = len(r.conns)
	r.send(0)
}

func (r *run) send(i int) {
	c := r.conns[i]
	c.out = r.spec.Turns[c.turn%len(r.spec.Turns)]
	c.turn++
	r.write(i)
}

func (r *run) write(i int) {
	c := r.conns[i]
	for len(c.out) > 0 {
		n, err := unix.Write(c.fd, c.out)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			r.fail(i, err)
			return
		}
		c.out = c.out[n:]
	}
	if wait := len(c.out) > 0; wait != c.waiting {
		c.waiting = wait
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if wait {
			ev.Events |= unix.EPOLLOUT
		}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_MOD, c.fd, &ev); err != nil {
			r.fail(i, err)
		}
	}
}

func (r *run) receive(i int) {
	c := r.conns[i]
	n, err := unix.Read(c.fd, r.buf)
	if err == unix.EAGAIN {
		return
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		r.fail(i, err)
		return
	}
	r.wire += int64(n)
	busy := c.await > 0
	for b := r.buf[:n]; len(b) > 0; {
		n, whole, err := c.parser.next(b)
		b = b[n:]
		if err == nil && whole {
			err = r.answer(i)
		}
		if err != nil {
			r.fail(i, err)
			return
		}
	}
	if !busy || c.await > 0 {
		return
	}
	r.active--
	switch {
	case len(c.out) > 0:
		r.fail(i, errors.New("an answer before the message was sent"))
	case !r.spec.Fanout:
		r.begin(i)
	case r.active == 0:
		r.fanout()
	}
}

func (r *run) answer(i int) error {
	c := r.conns[i]
	if c.await == 0 {
		return errors.New("an answer too many")
	}
	if r.spec.Size >= 0 && c.parser.size != r.spec.Size {
		return fmt.Errorf("an answer of %d bytes and not %d", c.parser.size, r.spec.Size)
	}
	if r.spec.Verify != nil {
		turn := c.read / r.spec.Replies
		if err := r.spec.Verify(i, turn, Message{First: c.parser.first, Payload: c.parser.payload}); err != nil {
			return err
		}
	}
	r.messages++
	c.read++
	c.await--
	return nil
}

func (r *run) fail(i int, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("connection %d: %w", i, err)
	}
}

// Handshakes does n opening handshakes, each on a connection that is then dropped.
func Handshakes(addr, offer string, n int, d time.Duration) (int, error) {
	const batch = 16
	end := time.Now().Add(d)
	done := 0
	for done < n && time.Now().Before(end) {
		fds, err := dial(addr, min(batch, n-done))
		if err == nil {
			err = upgrade(fds, addr, offer)
		}
		for _, fd := range fds {
			reset(fd)
		}
		if err != nil {
			return done, err
		}
		done += len(fds)
	}
	return done, nil
}

// dial opens n connections. It returns those that it opened before an error, too.
func dial(addr string, n int) ([]int, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	to := &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	tv := unix.NsecToTimeval(int64(patience))
	var fds []int
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
			connect(fd, to),
		)
		if err != nil {
			return fds, err
		}
	}
	return fds, nil
}

// connect goes on when a signal of Go's scheduler has interrupted it.
func connect(fd int, to unix.Sockaddr) error {
	for {
		switch err := unix.Connect(fd, to); err {
		case unix.EINTR:
		case unix.EISCONN: // it was done meanwhile
			return nil
		default:
			return err
		}
	}
}

// socket is a file descriptor that blocks. With a timeout, signals of Go's scheduler interrupt its system calls.
type socket int

func (fd socket) Read(p []byte) (int, error) {
	n, err := uninterrupted(func() (int, error) { return unix.Read(int(fd), p) })
	if err == nil && n == 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

func (fd socket) Write(p []byte) (int, error) {
	return uninterrupted(func() (int, error) { return unix.Write(int(fd), p) })
}

func uninterrupted(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// upgrade does the opening handshake on all fds, side by side.
func upgrade(fds []int, addr, offer string) error {
	for _, fd := range fds {
		if err := sendRequest(socket(fd), addr, offer); err != nil {
			return err
		}
	}
	for _, fd := range fds {
		if err := readResponse(socket(fd), offer); err != nil {
			return err
		}
	}
	return nil
}

const key = "dGhlIHNhbXBsZSBub25jZQ==" // RFC 6455 section 1.3

var accept = func() string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}()

func sendRequest(w io.Writer, addr, offer string) error {
	req := "GET / HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Version: 13\r\n"
	if offer != "" {
		req += "Sec-WebSocket-Extensions: " + offer + "\r\n"
	}
	_, err := io.WriteString(w, req+"\r\n")
	return err
}

// readResponse reads and checks the response of the handshake. No server has anything to say before it is asked, so
// nothing can be behind it.
func readResponse(r io.Reader, offer string) error {
	buf := make([]byte, 4096)
	n := 0
	for !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
		k, err := r.Read(buf[n:])
		if err != nil {
			return fmt.Errorf("the handshake: %w after %q", err, buf[:n])
		}
		n += k
	}
	response := string(buf[:n])
	agreed := strings.Contains(strings.ToLower(response), "\r\nsec-websocket-extensions: permessage-deflate")
	if !strings.HasPrefix(response, "HTTP/1.1 101 ") || !strings.Contains(response, accept) || agreed != (offer != "") {
		return fmt.Errorf("the handshake was answered with %q", response)
	}
	return nil
}
