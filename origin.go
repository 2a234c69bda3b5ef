package websocket

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// trustsOrigin judges the Origin headers of a request to host (RFC 6455 sections 4.2.2 and
// 10.2): whether the page that connects is of that host, or of a trusted origin. A request
// without the header is not a browser's and passes. The error is a malformed entry of trusted;
// all are looked at, so that one never goes unnoticed.
func trustsOrigin(lines []string, host string, trusted []string) (bool, error) {
	var from origin
	var valid bool
	if len(lines) == 1 {
		from, valid = parseOrigin(lines[0])
	}
	ok := len(lines) == 0 || valid && from.isHost(host)
	for _, entry := range trusted {
		if entry == "*" {
			ok = true
			continue
		}
		p, err := parseOriginPattern(entry)
		if err != nil {
			return false, err
		}
		ok = ok || valid && p.matches(from)
	}
	return ok, nil
}

// An originPattern is an entry of a list of trusted origins.
type originPattern struct {
	origin
	subdomains bool // those of origin, at any depth, instead of origin itself
}

func parseOriginPattern(entry string) (p originPattern, err error) {
	scheme, host, _ := strings.Cut(entry, "://")
	host, p.subdomains = strings.CutPrefix(host, "*.")
	var ok bool
	p.origin, ok = newOrigin(scheme, host)
	switch {
	case !ok || p.subdomains && p.isIP:
		return p, fmt.Errorf(`%s is not of the form "scheme://host[:port]"`, clip(entry))
	case p.scheme == "ws" || p.scheme == "wss":
		return p, fmt.Errorf("%s is a server and not the origin of a page, which is http or https", clip(entry))
	}
	return p, nil
}

func (p originPattern) matches(o origin) bool {
	if p.subdomains {
		return o.scheme == p.scheme && o.port == p.port && strings.HasSuffix(o.host, "."+p.host)
	}
	return o == p.origin
}

// An origin is a parsed Origin header (RFC 6454 section 7), in a form that can
// be compared: without its default port, in lower case.
type origin struct {
	scheme, host, port string
	isIP               bool
}

// parseOrigin reports false for anything but scheme://host[:port].
func parseOrigin(s string) (o origin, ok bool) {
	scheme, host, _ := strings.Cut(s, "://") // without "://" host is empty, which none may be
	return newOrigin(scheme, host)
}

// newOrigin makes an origin of a scheme and host[:port].
func newOrigin(scheme, host string) (o origin, ok bool) {
	if !isScheme(scheme) {
		return origin{}, false
	}
	o.scheme = strings.ToLower(scheme)
	var port string
	var hasPort bool
	if after, ok := strings.CutPrefix(host, "["); ok {
		host, port, ok = strings.Cut(after, "]")
		addr, err := netip.ParseAddr(host)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return origin{}, false
		}
		o.host, o.isIP = addr.String(), true
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			return origin{}, false
		}
	} else {
		host, port, hasPort = strings.Cut(host, ":")
		if !isHostname(host) {
			return origin{}, false
		}
		o.host = strings.ToLower(host)
		if isDigit(host[0]) { // as an address begins; the error of ParseAddr costs memory
			_, err := netip.ParseAddr(host)
			o.isIP = err == nil
		}
	}
	if !hasPort {
		return o, true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return origin{}, false
	}
	if o.scheme == "http" && n == 80 || o.scheme == "https" && n == 443 {
		return o, true
	}
	o.port = strconv.FormatUint(n, 10)
	return o, true
}

// isHost reports whether o is a web page of host, a request's Host header. The
// scheme is not compared: whether the request came in by TLS is known only to
// the proxy in front, if there is one.
func (o origin) isHost(host string) bool {
	if o.scheme != "http" && o.scheme != "https" {
		return false
	}
	own, ok := newOrigin(o.scheme, host)
	return ok && o == own
}

// isScheme reports whether s can be the scheme of a URL (RFC 3986 section 3.1).
func isScheme(s string) bool {
	return s != "" && isLetter(s[0]) && isAlphanumericOr("+-.", s)
}

// isHostname reports whether s can be a host name.
func isHostname(s string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || !isAlphanumericOr("-_", label) {
			return false
		}
	}
	return true
}

// isAlphanumericOr reports whether s has only letters, digits and characters of others.
func isAlphanumericOr(others, s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}
