package websocket

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Compression turns on permessage-deflate (RFC 7692) if the peer supports it too. The zero
// value is a good choice; it costs an idle connection no memory.
//
// What JSON messages of three sizes take on the wire, and of one core's time to compress, as
// measured by go test -run - -bench Deflate:
//
//	                        170 B           1 KB            36 KB
//	ContextTakeover false   137 B    8 µs   410 B   17 µs   7.5 KB   350 µs
//	ContextTakeover true     62 B    3 µs   209 B   14 µs   7.2 KB   350 µs
//	and WindowBits 12        66 B    5 µs   234 B   18 µs   8.0 KB   430 µs
//	and WindowBits 9         73 B    6 µs   329 B   19 µs    11 KB   460 µs
//
// While a message is compressed or decompressed, up to 200 KB or 90 KB are on loan from pools
// that all connections share. Do not compress secrets together with text that an attacker
// chooses: the size of the result tells about the secrets, and with context takeover that
// goes for all messages of the connection.
type Compression struct {
	// ContextTakeover lets a message refer to those before it. That makes messages that
	// resemble each other a lot smaller, for up to 100 KB of memory a connection: see
	// WindowBits. The peer may decline it for either direction.
	ContextTakeover bool

	// WindowBits is the base-2 logarithm of how many bytes back a message may refer, 8 to
	// 15; 0 means 15. It holds for what we send. With ContextTakeover the peer is asked for
	// the same, but for no less than 9; one that cannot limit its window has to do without
	// takeover. So it bounds what a connection holds between messages:
	//
	//	WindowBits   for sending   for receiving
	//	15           56 KiB        40 KiB
	//	12           11 KiB         5 KiB
	//	 9            4 KiB         1 KiB
	//
	// One that has sent or received little holds less.
	WindowBits int

	// Level says how hard to look for repetitions, from 1, the fastest, to 9, the smallest;
	// 0 means 4. It makes no difference to memory.
	Level int

	// MinSize is the size of the smallest message, in bytes, that is compressed. 0 means 512,
	// or 32 with ContextTakeover; a negative value, messages of any size. A message that
	// does not get smaller is sent as it is in any case, but for one of up to 1 KiB with
	// ContextTakeover, to which later ones may refer, and for one of [Conn.NextWriter], of
	// which the first piece decides.
	MinSize int
}

const (
	defaultLevel           = 4
	defaultMinSize         = 512
	defaultMinSizeTakeover = 32

	minWindowBits = 8
	maxWindowBits = 15
	// minPeerBits is the smallest window that is asked of a peer: zlib cannot compress with
	// one of 8 bits, so that many peers would have to decline. Those that ask it of us get it.
	minPeerBits = 9
)

// validate reports the caller's error.
func (c *Compression) validate() error {
	switch {
	case c == nil:
		return nil
	case c.WindowBits != 0 && (c.WindowBits < minWindowBits || c.WindowBits > maxWindowBits):
		return fmt.Errorf("Compression.WindowBits is %d, not between %d and %d", c.WindowBits, minWindowBits, maxWindowBits)
	case c.Level < 0 || c.Level >= len(efforts):
		return fmt.Errorf("Compression.Level is %d, not between 0 and %d", c.Level, len(efforts)-1)
	}
	return nil
}

// sendBits and recvBits are the largest windows that c allows, the latter with ContextTakeover.
func (c *Compression) sendBits() int {
	if c.WindowBits == 0 {
		return maxWindowBits
	}
	return c.WindowBits
}

func (c *Compression) recvBits() int {
	return max(c.sendBits(), minPeerBits)
}

// deflateParams is what was agreed on, and our own settings.
type deflateParams struct {
	send, recv deflateContext
	level      int
	minSize    int
}

// deflateContext is what was agreed on for one direction.
type deflateContext struct {
	takeover bool
	bits     int // of the window
}

func (c *Compression) params(send, recv deflateContext) *deflateParams {
	p := &deflateParams{send: send, recv: recv, level: c.Level, minSize: c.MinSize}
	if p.level == 0 {
		p.level = defaultLevel
	}
	switch {
	case p.minSize < 0:
		p.minSize = 0
	case p.minSize == 0 && send.takeover:
		p.minSize = defaultMinSizeTakeover
	case p.minSize == 0:
		p.minSize = defaultMinSize
	}
	return p
}

// RFC 7692 section 7.
const (
	extensionName            = "permessage-deflate"
	paramServerNoTakeover    = "server_no_context_takeover"
	paramClientNoTakeover    = "client_no_context_takeover"
	paramServerMaxWindowBits = "server_max_window_bits"
	paramClientMaxWindowBits = "client_max_window_bits"
)

// deflateTerms is an offer, or the response to one.
type deflateTerms struct {
	serverNoTakeover, clientNoTakeover bool
	serverBits, clientBits             int  // 0: not given
	clientBitsAllowed                  bool // client_max_window_bits was there, with a value or not
}

func (t *deflateTerms) String() string {
	var b strings.Builder
	b.Grow(128) // hardly any is longer
	b.WriteString(extensionName)
	param := func(name string, value int) {
		b.WriteString("; ")
		b.WriteString(name)
		if value != 0 {
			b.WriteByte('=')
			b.WriteString(strconv.Itoa(value))
		}
	}
	if t.serverNoTakeover {
		param(paramServerNoTakeover, 0)
	}
	if t.clientNoTakeover {
		param(paramClientNoTakeover, 0)
	}
	if t.serverBits != 0 {
		param(paramServerMaxWindowBits, t.serverBits)
	}
	if t.clientBitsAllowed {
		param(paramClientMaxWindowBits, t.clientBits)
	}
	return b.String()
}

// parseDeflateTerms judges parameters as RFC 7692 section 7.1 wants it: those that are not
// defined, have a value that is not, or occur twice make the whole invalid.
func parseDeflateTerms(params []extensionParam, response bool) (t deflateTerms, err error) {
	seen := make(map[string]bool)
	for _, p := range params {
		if seen[p.name] {
			return t, fmt.Errorf("parameter %s occurs twice", p.name)
		}
		seen[p.name] = true
		valid := false
		switch p.name {
		case paramServerNoTakeover: // section 7.1.1.1
			t.serverNoTakeover, valid = true, !p.hasValue
		case paramClientNoTakeover: // section 7.1.1.2
			t.clientNoTakeover, valid = true, !p.hasValue
		case paramServerMaxWindowBits: // section 7.1.2.1
			t.serverBits, valid = parseWindowBits(p.value)
		case paramClientMaxWindowBits: // section 7.1.2.2: an offer needs no value
			t.clientBitsAllowed, valid = true, !response
			if p.hasValue {
				t.clientBits, valid = parseWindowBits(p.value)
			}
		default:
			return t, fmt.Errorf("unknown parameter %s", clip(p.name))
		}
		if !valid {
			return t, fmt.Errorf("invalid value %s of parameter %s", clip(p.value), p.name)
		}
	}
	return t, nil
}

// parseWindowBits wants a decimal number from 8 to 15 without leading zeros.
func parseWindowBits(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	if err != nil || n < minWindowBits || n > maxWindowBits || strconv.Itoa(n) != s {
		return 0, false
	}
	return n, true
}

// acceptDeflate is the server's side. It accepts the first offer that it can, of the
// extensions that a request asks for, and returns the response. If there is none, or c is
// nil, it returns "", nil: the connection goes without compression.
func acceptDeflate(extensions []extension, c *Compression) (response string, p *deflateParams) {
	if c == nil {
		return "", nil
	}
	for _, ext := range extensions {
		if ext.name != extensionName {
			continue
		}
		// RFC 7692 section 7.1: an invalid offer is declined, the next one may do.
		if offer, err := parseDeflateTerms(ext.params, false); err == nil {
			answer, p := c.accept(offer)
			return answer.String(), p
		}
	}
	return "", nil
}

// accept answers a valid offer. There is none that we cannot live with.
func (c *Compression) accept(offer deflateTerms) (answer deflateTerms, p *deflateParams) {
	send := deflateContext{takeover: c.ContextTakeover && !offer.serverNoTakeover, bits: c.sendBits()}
	recv := deflateContext{takeover: c.ContextTakeover && !offer.clientNoTakeover, bits: maxWindowBits}

	// RFC 7692 section 7.1.2.1: accepted by a response with the same value or a smaller one.
	if offer.serverBits != 0 {
		send.bits = min(send.bits, offer.serverBits)
		answer.serverBits = send.bits
	}
	if recv.takeover {
		// Section 7.1.2.2: only a client that has offered it can be limited, and one that has
		// named a value will keep to it.
		bits := c.recvBits()
		if offer.clientBits != 0 {
			bits = min(bits, offer.clientBits)
		}
		switch {
		case bits == maxWindowBits:
		case offer.clientBitsAllowed:
			recv.bits = bits
			answer.clientBitsAllowed, answer.clientBits = true, bits
		default:
			recv.takeover = false
		}
	}
	// Sections 7.1.1.1 and 7.1.1.2: either may be answered without having been offered.
	//
	// A client that goes on with takeover nevertheless, as Jetty's does, breaks the agreement
	// and will not be understood: to keep a window for its sake would cost every idle
	// connection 40 KiB. With ContextTakeover it is allowed what it does.
	answer.serverNoTakeover = !send.takeover
	answer.clientNoTakeover = !recv.takeover
	return answer, c.params(send, recv)
}

// offers returns what a client asks for, most preferred first.
func (c *Compression) offers() []deflateTerms {
	// client_max_window_bits lets the server limit us.
	offer := deflateTerms{clientBitsAllowed: true}
	if c.sendBits() < maxWindowBits {
		offer.clientBits = c.sendBits()
	}
	if !c.ContextTakeover {
		offer.serverNoTakeover, offer.clientNoTakeover = true, true
		return []deflateTerms{offer}
	}
	if c.recvBits() == maxWindowBits {
		return []deflateTerms{offer}
	}
	// Many servers cannot limit their window. Then they are to do without takeover.
	limited, reset := offer, offer
	limited.serverBits = c.recvBits()
	reset.serverNoTakeover = true
	return []deflateTerms{limited, reset}
}

// offer returns the Sec-WebSocket-Extensions header of a client's request.
func (c *Compression) offer() string {
	var list []string
	for _, offer := range c.offers() {
		list = append(list, offer.String())
	}
	return strings.Join(list, ", ")
}

// checkDeflateResponse is the client's side. It judges the Sec-WebSocket-Extensions header
// lines of a response to c.offer(). Without lines it returns nil, nil: the connection goes
// without compression.
func checkDeflateResponse(lines []string, c *Compression) (*deflateParams, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	extensions, err := parseExtensions(lines)
	if err != nil {
		return nil, fmt.Errorf("invalid Sec-WebSocket-Extensions %s in the response: %w", clipList(lines), err)
	}
	for i, ext := range extensions {
		// RFC 6455 section 9.1: a server answers only with what was asked for.
		if ext.name != extensionName {
			return nil, fmt.Errorf("the server uses extension %s, which was not asked for", clip(ext.name))
		}
		if i > 0 {
			return nil, fmt.Errorf("the server accepted extension %s twice", extensionName)
		}
	}
	answer, err := parseDeflateTerms(extensions[0].params, true)
	if err == nil {
		err = c.judge(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("invalid response to the offer of %s: %w", extensionName, err)
	}
	send := deflateContext{takeover: c.ContextTakeover && !answer.clientNoTakeover, bits: c.sendBits()}
	if answer.clientBits != 0 {
		send.bits = min(send.bits, answer.clientBits)
	}
	recv := deflateContext{takeover: !answer.serverNoTakeover, bits: maxWindowBits}
	if answer.serverBits != 0 {
		recv.bits = answer.serverBits
	}
	return c.params(send, recv), nil
}

// judge reports why answer accepts none of our offers.
func (c *Compression) judge(answer deflateTerms) (err error) {
	for _, offer := range c.offers() {
		switch {
		case offer.serverNoTakeover && !answer.serverNoTakeover: // RFC 7692 section 7.1.1.1
			err = errors.New(paramServerNoTakeover + " was asked for and is missing")
		case offer.serverBits != 0 && answer.serverBits == 0: // section 7.1.2.1
			err = errors.New(paramServerMaxWindowBits + " was asked for and is missing")
		case offer.serverBits != 0 && answer.serverBits > offer.serverBits:
			err = fmt.Errorf("%s is %d, and %d was asked for", paramServerMaxWindowBits, answer.serverBits, offer.serverBits)
		default:
			return nil
		}
	}
	return err
}
