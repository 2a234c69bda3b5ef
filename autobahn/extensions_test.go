package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseExtensions(t *testing.T) {
	value := func(name, value string) parameter { return parameter{name: name, value: value, hasValue: true} }
	good := []struct {
		lines []string
		want  []extension
	}{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{"a"}, []extension{{name: "a"}}},
		{[]string{"a, b;c"}, []extension{{name: "a"}, {name: "b", params: []parameter{{name: "c"}}}}},
		{[]string{"a", "b"}, []extension{{name: "a"}, {name: "b"}}},
		{[]string{" ,a ; b = 9 ;c=\"10\" , , d"}, []extension{{name: "a", params: []parameter{value("b", "9"), value("c", "10")}}, {name: "d"}}},
		{[]string{`a;b="1\0"`}, []extension{{name: "a", params: []parameter{value("b", "10")}}}},
	}
	for _, test := range good {
		t.Run(strings.Join(test.lines, "|"), func(t *testing.T) {
			got, err := parseExtensions(test.lines)
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
	for _, line := range []string{"a b", "a;", "a;=1", "a;b=", `a;b="`, `a;b=""`, `a;b="x y"`, `a;b="x"y`, "=", "a/b", "a;b=c=d", "é"} {
		t.Run("bad "+line, func(t *testing.T) {
			_, err := parseExtensions([]string{line})
			assert.Error(t, err)
		})
	}
}

func TestCheckExtensions(t *testing.T) {
	const d = "permessage-deflate"
	tests := []struct {
		name          string
		offer, answer string // the header's lines, separated by |
		want          string // part of the only problem, "" if there is none
	}{
		{"nothing at all", "", "", ""},
		{"declined", d, "", ""},
		{"plain", d, d, ""},
		{"not offered", "", d, "fits no offer"},
		{"another extension", d, "bbf-usp-protocol", "more than one permessage-deflate"},
		{"twice", d + ", " + d, d + ", " + d, "more than one permessage-deflate"},
		{"malformed answer", d, d + ";", "is malformed"},
		{"malformed offer", d + ";", "", "is malformed"},

		{"RFC 7692 section 7.1: unknown parameter", d, d + "; window", "unknown parameter window"},
		{"RFC 7692 section 7.1: unknown parameter in an offer", d + "; window", "", ""}, // nothing was agreed on
		{"RFC 7692 section 7.1: parameter twice", d, d + "; client_no_context_takeover; client_no_context_takeover", "client_no_context_takeover twice"},

		{"RFC 7692 section 7.1.1: with a value", d, d + "; server_no_context_takeover=1", "server_no_context_takeover with a value"},
		{"RFC 7692 section 7.1.1.1: granted", d + "; server_no_context_takeover", d + "; server_no_context_takeover", ""},
		{"RFC 7692 section 7.1.1.1: not granted", d + "; server_no_context_takeover", d, "server_no_context_takeover was asked for"},
		{"RFC 7692 section 7.1.1.1: unasked", d, d + "; server_no_context_takeover", ""},
		{"RFC 7692 section 7.1.1.2: hint taken", d + "; client_no_context_takeover", d + "; client_no_context_takeover", ""},
		{"RFC 7692 section 7.1.1.2: hint not taken", d + "; client_no_context_takeover", d, ""},
		{"RFC 7692 section 7.1.1.2: without a hint", d, d + "; client_no_context_takeover", ""},

		{"RFC 7692 section 7.1.2.1: same", d + "; server_max_window_bits=15", d + "; server_max_window_bits=15", ""},
		{"RFC 7692 section 7.1.2.1: less", d + "; server_max_window_bits=15", d + "; server_max_window_bits=9", ""},
		{"RFC 7692 section 7.1.2.1: quoted", d + `; server_max_window_bits="10"`, d + "; server_max_window_bits=10", ""},
		{"RFC 7692 section 7.1.2.1: unasked", d, d + "; server_max_window_bits=9", ""},
		{"RFC 7692 section 7.1.2.1: more", d + "; server_max_window_bits=9", d + "; server_max_window_bits=10", "server_max_window_bits is more"},
		{"RFC 7692 section 7.1.2.1: not echoed", d + "; server_max_window_bits=15", d, "server_max_window_bits was asked for"},
		{"RFC 7692 section 7.1.2.1: too small", d, d + "; server_max_window_bits=7", `answer: server_max_window_bits="7"`},
		{"RFC 7692 section 7.1.2.1: too large", d, d + "; server_max_window_bits=16", `answer: server_max_window_bits="16"`},
		{"RFC 7692 section 7.1.2.1: leading zero", d, d + "; server_max_window_bits=09", `answer: server_max_window_bits="09"`},
		{"RFC 7692 section 7.1.2.1: no value", d, d + "; server_max_window_bits", `answer: server_max_window_bits=""`},

		{"RFC 7692 section 7.1.2.2: offered without a value", d + "; client_max_window_bits", d + "; client_max_window_bits=9", ""},
		{"RFC 7692 section 7.1.2.2: same", d + "; client_max_window_bits=10", d + "; client_max_window_bits=10", ""},
		{"RFC 7692 section 7.1.2.2: ignored", d + "; client_max_window_bits=10", d, ""},
		{"RFC 7692 section 7.1.2.2: more", d + "; client_max_window_bits=10", d + "; client_max_window_bits=11", "client_max_window_bits is more"},
		{"RFC 7692 section 7.1.2.2: not offered", d, d + "; client_max_window_bits=15", "client_max_window_bits was not offered"},
		{"RFC 7692 section 7.1.2.2: answered without a value", d + "; client_max_window_bits", d + "; client_max_window_bits", `answer: client_max_window_bits=""`},
		{"RFC 7692 section 7.1.2.2: bad offer accepted", d + "; client_max_window_bits=16", d, `offer: client_max_window_bits="16"`},

		{"RFC 7692 section 5.1: the second of three offers", d + "; server_max_window_bits=9|" + d + "; server_no_context_takeover, " + d, d + "; server_no_context_takeover", ""},
		{"RFC 7692 section 5.1: the offer of something else", "x-webkit-deflate-frame, " + d, d, ""},
		{"RFC 7692 section 5.1: none of two offers", d + "; server_max_window_bits=9, " + d + "; server_no_context_takeover", d, "was asked for and is not granted (RFC 7692 section 7.1.2.1); server_no"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems := checkExtensions(handshake("GET / HTTP/1.1\r\nHost: localhost", test.offer), handshake("HTTP/1.1 101 Switching Protocols", test.answer), false)
			if test.want == "" {
				assert.Empty(t, problems)
				return
			}
			require.Len(t, problems, 1)
			assert.Contains(t, problems[0], test.want)
		})
	}
}

func TestCheckExtensionsWhereOneIsNeeded(t *testing.T) {
	assert.False(t, needsExtension("1.1.1"))
	assert.True(t, needsExtension("12.1.1"))
	assert.True(t, needsExtension("13.7.18"))

	const offer = "permessage-deflate"
	request := handshake("GET / HTTP/1.1\r\nHost: localhost", offer)
	assert.Empty(t, checkExtensions(request, handshake("HTTP/1.1 101 Switching Protocols", offer), true))
	problems := checkExtensions(request, handshake("HTTP/1.1 101 Switching Protocols", ""), true)
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0], "no extension was agreed on")

	// The suite writes this where there was no handshake.
	problems = checkExtensions("?", "?", false)
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0], "no readable request")
	problems = checkExtensions(request, "?", false)
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0], "no readable response")
}

// handshake returns the head of an HTTP message with the lines of its extension header.
func handshake(start, lines string) string {
	var b strings.Builder
	b.WriteString(start + "\r\n")
	if lines != "" {
		for line := range strings.SplitSeq(lines, "|") {
			b.WriteString("Sec-WebSocket-Extensions: " + line + "\r\n")
		}
	}
	return b.String() + "\r\n"
}
