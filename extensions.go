package websocket

import (
	"errors"
	"fmt"
	"strings"
)

// extension is an element of a Sec-WebSocket-Extensions header (RFC 6455 section 9.1).
type extension struct {
	name   string
	params []extensionParam
}

type extensionParam struct {
	name, value string
	hasValue    bool
}

// maxListed bounds what is kept of a list, whose elements take more memory than they took on
// the wire.
const maxListed = 100

var errListTooLong = fmt.Errorf("more than %d elements", maxListed)

// parseExtensions parses header lines, which are one list, of at least one element:
//
//	extension-list  = 1#extension
//	extension       = extension-token *( ";" extension-param )
//	extension-param = token [ "=" (token | quoted-string) ]
//
// Parameters are elements too.
func parseExtensions(lines []string) ([]extension, error) {
	var list []extension
	n := 0
	for _, line := range lines {
		s := headerScanner{rest: line}
		for !s.done() {
			if s.skip(',') {
				continue // RFC 2616 section 2.1: an element may be empty
			}
			ext := extension{name: s.token()}
			for n++; !s.failed && s.skip(';') && n <= maxListed; n++ {
				p := extensionParam{name: s.token()}
				if s.skip('=') {
					p.hasValue = true
					p.value = s.value()
				}
				ext.params = append(ext.params, p)
			}
			if n > maxListed {
				return nil, errListTooLong
			}
			if s.failed || !s.done() && !s.skip(',') {
				return nil, fmt.Errorf("syntax error before %s", clip(s.rest))
			}
			list = append(list, ext)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no extension in it")
	}
	return list, nil
}

// headerScanner takes a header value apart. There may be white space between all parts.
type headerScanner struct {
	rest   string
	failed bool
}

func (s *headerScanner) done() bool {
	s.rest = strings.TrimLeft(s.rest, " \t")
	return s.rest == ""
}

func (s *headerScanner) skip(c byte) bool {
	if s.done() || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *headerScanner) token() string {
	s.done()
	n := 0
	for n < len(s.rest) && isTokenChar(s.rest[n]) {
		n++
	}
	t := s.rest[:n]
	s.rest = s.rest[n:]
	s.failed = s.failed || n == 0
	return t
}

// value takes a token, which may be quoted: RFC 6455 section 9.1 wants one in the quotes too.
func (s *headerScanner) value() string {
	if !s.skip('"') {
		return s.token()
	}
	var b strings.Builder
	for i := 0; i < len(s.rest); i++ {
		c := s.rest[i]
		if c == '"' {
			s.rest = s.rest[i+1:]
			s.failed = s.failed || b.Len() == 0
			return b.String()
		}
		if c == '\\' && i+1 < len(s.rest) {
			i++
			c = s.rest[i]
		}
		if !isTokenChar(c) {
			break
		}
		b.WriteByte(c)
	}
	s.failed = true
	return ""
}
