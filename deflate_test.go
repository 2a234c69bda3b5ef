package websocket

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// acceptLines is acceptDeflate for header lines. Those that are no list were refused before.
func acceptLines(lines []string, c *Compression) (response string, p *deflateParams) {
	extensions, err := parseExtensions(lines)
	if err != nil {
		return "", nil
	}
	return acceptDeflate(extensions, c)
}

func TestCompressionValidate(t *testing.T) {
	for _, c := range []*Compression{
		nil, {}, {WindowBits: 8}, {WindowBits: 15}, {Level: 1}, {Level: 9}, {MinSize: -1}, {MinSize: 1 << 20},
	} {
		assert.NoError(t, c.validate(), "%+v", c)
	}
	for _, c := range []*Compression{
		{WindowBits: 7}, {WindowBits: 16}, {WindowBits: -1}, {Level: -1}, {Level: 10},
	} {
		err := c.validate()
		require.Error(t, err, "%+v", c)
		assert.Equal(t, 0, strings.Index(err.Error(), "Compression."), "the prefix comes with the handshake's error")
	}
}

func TestCompressionDefaults(t *testing.T) {
	_, p := acceptLines([]string{"permessage-deflate"}, &Compression{})
	assert.Equal(t, &deflateParams{
		send: deflateContext{bits: 15}, recv: deflateContext{bits: 15}, level: 4, minSize: 512,
	}, p)
	_, p = acceptLines([]string{"permessage-deflate"}, &Compression{ContextTakeover: true, Level: 9})
	assert.Equal(t, &deflateParams{
		send: deflateContext{takeover: true, bits: 15}, recv: deflateContext{takeover: true, bits: 15}, level: 9, minSize: 32,
	}, p)
	_, p = acceptLines([]string{"permessage-deflate"}, &Compression{MinSize: -1})
	assert.Equal(t, 0, p.minSize)
	_, p = acceptLines([]string{"permessage-deflate"}, &Compression{MinSize: 1})
	assert.Equal(t, 1, p.minSize)
}

// contexts is what a test expects to be agreed on: the number of window bits of either
// direction, negative without context takeover.
type contexts struct{ server, client int }

func serverContexts(p *deflateParams) contexts {
	return contexts{server: contextNumber(p.send), client: contextNumber(p.recv)}
}

func clientContexts(p *deflateParams) contexts {
	return contexts{server: contextNumber(p.recv), client: contextNumber(p.send)}
}

func contextNumber(c deflateContext) int {
	if c.takeover {
		return c.bits
	}
	return -c.bits
}

var (
	optPlain    = &Compression{}
	optTakeover = &Compression{ContextTakeover: true}
	optBits8    = &Compression{ContextTakeover: true, WindowBits: 8}
	optBits10   = &Compression{ContextTakeover: true, WindowBits: 10}
	optPlain10  = &Compression{WindowBits: 10}
)

func TestAcceptDeflate(t *testing.T) {
	for _, test := range []struct {
		section  string
		c        *Compression
		offers   []string
		response string
		want     contexts
	}{
		// No compression without an offer, or without the option.
		{"7.1", optPlain, nil, "", contexts{}},
		{"7.1", optPlain, []string{""}, "", contexts{}},
		{"7.1", optPlain, []string{"x-webkit-deflate-frame"}, "", contexts{}},
		{"7.1", nil, []string{"permessage-deflate"}, "", contexts{}},

		{"7.1.3", optPlain, []string{"permessage-deflate"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover", contexts{-15, -15}},
		{"7.1.3", optTakeover, []string{"permessage-deflate"}, "permessage-deflate", contexts{15, 15}},
		{"7.1.3", optTakeover, []string{"permessage-deflate; client_max_window_bits; server_max_window_bits=10"},
			"permessage-deflate; server_max_window_bits=10", contexts{10, 15}},
		{"7.1.3", optTakeover, []string{"permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits"},
			"permessage-deflate; server_max_window_bits=10", contexts{10, 15}},

		{"7.1.1.1", optTakeover, []string{"permessage-deflate; server_no_context_takeover"},
			"permessage-deflate; server_no_context_takeover", contexts{-15, 15}},
		{"7.1.1.1", optTakeover, []string{"permessage-deflate; server_no_context_takeover=1"}, "", contexts{}},
		{"7.1.1.2", optTakeover, []string{"permessage-deflate; client_no_context_takeover"},
			"permessage-deflate; client_no_context_takeover", contexts{15, -15}},
		{"7.1.1.2", optTakeover, []string{"permessage-deflate; client_no_context_takeover=true"}, "", contexts{}},

		// An offered server_max_window_bits is always answered, with no more than was offered.
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=15"},
			"permessage-deflate; server_max_window_bits=15", contexts{15, 15}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=8"},
			"permessage-deflate; server_max_window_bits=8", contexts{8, 15}},
		{"7.1.2.1", optPlain10, []string{"permessage-deflate; server_max_window_bits=12"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10", contexts{-10, -15}},
		{"7.1.2.1", optPlain10, []string{"permessage-deflate"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover", contexts{-10, -15}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits"}, "", contexts{}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=7"}, "", contexts{}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=16"}, "", contexts{}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=09"}, "", contexts{}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=+9"}, "", contexts{}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=ten"}, "", contexts{}},

		// client_max_window_bits is only answered if it was offered; a client that cannot be
		// limited has to do without takeover.
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits"}, "permessage-deflate", contexts{15, 15}},
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits=15"}, "permessage-deflate", contexts{15, 15}},
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits=11"},
			"permessage-deflate; client_max_window_bits=11", contexts{15, 11}},
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits=8"},
			"permessage-deflate; client_max_window_bits=8", contexts{15, 8}},
		{"7.1.2.2", optBits10, []string{"permessage-deflate; client_max_window_bits"},
			"permessage-deflate; client_max_window_bits=10", contexts{10, 10}},
		{"7.1.2.2", optBits10, []string{"permessage-deflate; client_max_window_bits=9"},
			"permessage-deflate; client_max_window_bits=9", contexts{10, 9}},
		{"7.1.2.2", optBits10, []string{"permessage-deflate"},
			"permessage-deflate; client_no_context_takeover", contexts{10, -15}},
		{"7.1.2.2", optBits8, []string{"permessage-deflate; client_max_window_bits"},
			"permessage-deflate; client_max_window_bits=9", contexts{8, 9}},
		{"7.1.2.2", optBits10, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits"},
			"permessage-deflate; client_no_context_takeover", contexts{10, -15}},
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits=7"}, "", contexts{}},
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits=015"}, "", contexts{}},

		// Unknown parameters and duplicates decline an offer, not the next one.
		{"7.1", optTakeover, []string{"permessage-deflate; foo"}, "", contexts{}},
		{"7.1", optTakeover, []string{"permessage-deflate; server_no_context_takeover; server_no_context_takeover"}, "", contexts{}},
		{"7.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"}, "", contexts{}},
		{"7.1", optTakeover, []string{"permessage-deflate; foo=1, permessage-deflate; server_max_window_bits=12"},
			"permessage-deflate; server_max_window_bits=12", contexts{12, 15}},
		{"7.1", optTakeover, []string{"permessage-foo; x=1, permessage-deflate"}, "permessage-deflate", contexts{15, 15}},

		// RFC 6455 section 9.1: several lines are one list, in order.
		{"9.1", optTakeover, []string{"foo", "permessage-deflate; bar, permessage-deflate; server_max_window_bits=12", "permessage-deflate"},
			"permessage-deflate; server_max_window_bits=12", contexts{12, 15}},
		{"9.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=\"1\\0\""},
			"permessage-deflate; server_max_window_bits=10", contexts{10, 15}},
		{"9.1", optTakeover, []string{" ,\t, permessage-deflate\t;server_max_window_bits = 10 , ,"},
			"permessage-deflate; server_max_window_bits=10", contexts{10, 15}},
		{"9.1", optTakeover, []string{"foo; a=\"b,c\", permessage-deflate"}, "", contexts{}}, // no token in the quotes
		{"9.1", optTakeover, []string{"foo; a=\"b", "permessage-deflate"}, "", contexts{}},
		{"9.1", optTakeover, []string{"foo; a=\"\", permessage-deflate"}, "", contexts{}},
		{"9.1", optTakeover, []string{"permessage-deflate;"}, "", contexts{}},
		{"9.1", optTakeover, []string{"permessage-deflate foo"}, "", contexts{}},

		// What browsers offer.
		{"Chromium", optPlain, []string{"permessage-deflate; client_max_window_bits"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover", contexts{-15, -15}},
		{"Firefox", optPlain, []string{"permessage-deflate"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover", contexts{-15, -15}},

		// What the Autobahn suite offers.
		{"13.1", optTakeover, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits"},
			"permessage-deflate; client_no_context_takeover", contexts{15, -15}},
		{"13.2", optTakeover, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits; server_no_context_takeover"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover", contexts{-15, -15}},
		{"13.3", optTakeover, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits; server_max_window_bits=9"},
			"permessage-deflate; client_no_context_takeover; server_max_window_bits=9", contexts{9, -15}},
		{"13.4", optTakeover, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits; server_max_window_bits=15"},
			"permessage-deflate; client_no_context_takeover; server_max_window_bits=15", contexts{15, -15}},
		{"13.5", optTakeover, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits; server_no_context_takeover; server_max_window_bits=9"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9", contexts{-9, -15}},
		{"13.6", optTakeover, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits; server_no_context_takeover; server_max_window_bits=15"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15", contexts{-15, -15}},
		{"13.7", optTakeover, []string{"permessage-deflate; client_no_context_takeover; client_max_window_bits; server_no_context_takeover; server_max_window_bits=9, " +
			"permessage-deflate; client_no_context_takeover; client_max_window_bits; server_no_context_takeover, " +
			"permessage-deflate; client_no_context_takeover; client_max_window_bits"},
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9", contexts{-9, -15}},
	} {
		response, p := acceptLines(test.offers, test.c)
		assert.Equal(t, test.response, response, "section %s: %q", test.section, test.offers)
		if test.response == "" {
			assert.Nil(t, p)
		} else if assert.NotNil(t, p) {
			assert.Equal(t, test.want, serverContexts(p), "section %s: %q", test.section, test.offers)
		}
	}
}

func TestOffer(t *testing.T) {
	const (
		noTakeover = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"
		any        = "permessage-deflate; client_max_window_bits"
	)
	for _, test := range []struct {
		c    *Compression
		want string
	}{
		{optPlain, noTakeover},
		{optPlain10, noTakeover + "=10"},
		{optTakeover, any},
		{&Compression{ContextTakeover: true, WindowBits: 15}, any},
		{optBits10, "permessage-deflate; server_max_window_bits=10; client_max_window_bits=10, " +
			"permessage-deflate; server_no_context_takeover; client_max_window_bits=10"},
		{optBits8, "permessage-deflate; server_max_window_bits=9; client_max_window_bits=8, " +
			"permessage-deflate; server_no_context_takeover; client_max_window_bits=8"},
	} {
		assert.Equal(t, test.want, test.c.offer(), "%+v", test.c)
	}
}

func TestCheckDeflateResponse(t *testing.T) {
	for _, test := range []struct {
		section string
		c       *Compression
		lines   []string
		err     string // or
		want    contexts
	}{
		{"7.1", optTakeover, []string{"permessage-deflate"}, "", contexts{15, 15}},
		{"7.1", optPlain, []string{"permessage-deflate; server_no_context_takeover"}, "", contexts{-15, -15}},
		{"7.1", optTakeover, []string{"permessage-deflate; foo"}, `unknown parameter "foo"`, contexts{}},
		{"7.1", optTakeover, []string{"permessage-deflate; server_no_context_takeover; server_no_context_takeover"},
			"parameter server_no_context_takeover occurs twice", contexts{}},

		{"7.1.1.1", optPlain, []string{"permessage-deflate"}, "server_no_context_takeover was asked for and is missing", contexts{}},
		{"7.1.1.1", optTakeover, []string{"permessage-deflate; server_no_context_takeover"}, "", contexts{-15, 15}},
		{"7.1.1.1", optPlain, []string{"permessage-deflate; server_no_context_takeover=1"}, `invalid value "1" of parameter server_no_context_takeover`, contexts{}},
		{"7.1.1.2", optTakeover, []string{"permessage-deflate; client_no_context_takeover"}, "", contexts{15, -15}},
		{"7.1.1.2", optTakeover, []string{"permessage-deflate; client_no_context_takeover=\"x\""}, `invalid value "x" of parameter client_no_context_takeover`, contexts{}},

		// A server may limit itself without having been asked.
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=12"}, "", contexts{12, 15}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=8"}, "", contexts{8, 15}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits"}, `invalid value "" of parameter server_max_window_bits`, contexts{}},
		{"7.1.2.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=16"}, `invalid value "16"`, contexts{}},
		{"7.1.2.1", optBits10, []string{"permessage-deflate; server_max_window_bits=10"}, "", contexts{10, 10}},
		{"7.1.2.1", optBits10, []string{"permessage-deflate; server_max_window_bits=9"}, "", contexts{9, 10}},
		{"7.1.2.1", optBits10, []string{"permessage-deflate; server_no_context_takeover"}, "", contexts{-15, 10}},
		{"7.1.2.1", optBits10, []string{"permessage-deflate; server_max_window_bits=11"}, "invalid response", contexts{}},
		{"7.1.2.1", optBits10, []string{"permessage-deflate"}, "invalid response", contexts{}},

		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits=9"}, "", contexts{15, 9}},
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits=8"}, "", contexts{15, 8}},
		{"7.1.2.2", optBits10, []string{"permessage-deflate; server_max_window_bits=10; client_max_window_bits=15"}, "", contexts{10, 10}},
		{"7.1.2.2", optTakeover, []string{"permessage-deflate; client_max_window_bits"}, `invalid value "" of parameter client_max_window_bits`, contexts{}},

		{"9.1", optTakeover, []string{"foo"}, `the server uses extension "foo", which was not asked for`, contexts{}},
		{"9.1", optTakeover, []string{"permessage-deflate", "foo; bar"}, `the server uses extension "foo", which was not asked for`, contexts{}},
		{"9.1", optTakeover, []string{"permessage-deflate, permessage-deflate"}, "accepted extension permessage-deflate twice", contexts{}},
		{"9.1", optTakeover, []string{""}, "no extension in it", contexts{}},
		{"9.1", optTakeover, []string{"permessage-deflate; server_max_window_bits=\"10"}, "syntax error", contexts{}},
		{"9.1", optTakeover, []string{"permessage-deflate; client_max_window_bits=\"9\""}, "", contexts{15, 9}},

		// What the Autobahn suite answers.
		{"13.2", optTakeover, []string{"permessage-deflate; client_no_context_takeover"}, "", contexts{15, -15}},
		{"13.5", optPlain, []string{"permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9"}, "", contexts{-15, -9}},
	} {
		p, err := checkDeflateResponse(test.lines, test.c)
		if test.err != "" {
			require.ErrorContains(t, err, test.err, "section %s: %q", test.section, test.lines)
			assert.NotContains(t, err.Error(), "websocket:")
			assert.Nil(t, p)
			continue
		}
		require.NoError(t, err, "section %s: %q", test.section, test.lines)
		assert.Equal(t, test.want, clientContexts(p), "section %s: %q", test.section, test.lines)
	}

	p, err := checkDeflateResponse(nil, optPlain)
	assert.NoError(t, err)
	assert.Nil(t, p)
}

// Whatever both sides want, they agree, and mean the same by it.
func TestOfferIsUnderstood(t *testing.T) {
	var options []*Compression
	for bits := 7; bits <= 15; bits++ {
		w := bits
		if bits == 7 {
			w = 0
		}
		options = append(options, &Compression{WindowBits: w}, &Compression{WindowBits: w, ContextTakeover: true})
	}
	for _, client := range options {
		for _, server := range options {
			response, sp := acceptLines([]string{client.offer()}, server)
			require.NotNil(t, sp)
			cp, err := checkDeflateResponse([]string{response}, client)
			require.NoError(t, err, "%s: %s", client.offer(), response)

			// What one has in its window, the other may refer to.
			for _, d := range []struct{ send, recv deflateContext }{{sp.send, cp.recv}, {cp.send, sp.recv}} {
				assert.False(t, d.send.takeover && !d.recv.takeover)
				assert.LessOrEqual(t, d.send.bits, d.recv.bits)
			}
			// Memory is bounded by one's own option.
			for _, d := range []struct {
				c *Compression
				p *deflateParams
			}{{server, sp}, {client, cp}} {
				if d.p.recv.takeover {
					assert.True(t, d.c.ContextTakeover)
					assert.LessOrEqual(t, d.p.recv.bits, max(d.c.sendBits(), 9))
				}
				assert.LessOrEqual(t, d.p.send.bits, d.c.sendBits())
			}
		}
	}
}

// Any offer gets an answer that RFC 7692 section 7.1 allows, and any response a verdict.
func FuzzExtensions(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits", true, 0)
	f.Add("permessage-deflate; server_max_window_bits=\"1\\0\"\n,,foo; a=b", false, 9)
	f.Add("permessage-deflate; x, permessage-deflate; server_no_context_takeover; client_no_context_takeover", true, 12)
	f.Fuzz(func(t *testing.T, header string, takeover bool, bits int) {
		c := &Compression{ContextTakeover: takeover, WindowBits: bits}
		if c.validate() != nil {
			c.WindowBits = 0
		}
		lines := strings.Split(header, "\n")
		if p, err := checkDeflateResponse(lines, c); (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		response, p := acceptLines(lines, c)
		if (p == nil) != (response == "") {
			t.Fatalf("%q, %v", response, p)
		}
		if p == nil {
			return
		}
		exts, err := parseExtensions([]string{response})
		require.NoError(t, err)
		answer, err := parseDeflateTerms(exts[0].params, true)
		require.NoError(t, err)
		require.Equal(t, response, answer.String())

		offered, err := parseExtensions(lines)
		require.NoError(t, err)
		for _, ext := range offered {
			offer, err := parseDeflateTerms(ext.params, false)
			if ext.name != "permessage-deflate" || err != nil {
				continue
			}
			require.False(t, offer.serverNoTakeover && !answer.serverNoTakeover)
			require.False(t, answer.clientBitsAllowed && !offer.clientBitsAllowed)
			require.False(t, offer.serverBits != 0 && (answer.serverBits == 0 || answer.serverBits > offer.serverBits))
			require.False(t, answer.serverBits != 0 && p.send.bits > answer.serverBits)
			return // the first valid one
		}
		t.Fatal("answered without an offer")
	})
}
