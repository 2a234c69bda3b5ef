package websocket

import (
	"fmt"
	"net/netip"
	"net/url"
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
	p.origin, ok = parseOrigin(scheme + "://" + host)
	if !ok || p.subdomains && p.isIP {
		return p, fmt.Errorf(`%s is not of the form "scheme://host[:port]"`, clip(entry))
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
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || !equalFold(s, u.Scheme+"://"+u.Host) {
		return origin{}, false
	}
	o = origin{scheme: u.Scheme, host: strings.ToLower(u.Hostname()), port: u.Port()}
	if addr, err := netip.ParseAddr(o.host); err == nil {
		o.host, o.isIP = addr.String(), true
	} else if !isHostname(o.host) {
		return origin{}, false
	}
	if o.port == "" {
		return o, !strings.HasSuffix(u.Host, ":")
	}
	port, err := strconv.ParseUint(o.port, 10, 16)
	if err != nil {
		return origin{}, false
	}
	o.port = strconv.FormatUint(port, 10)
	if o.scheme == "http" && o.port == "80" || o.scheme == "https" && o.port == "443" {
		o.port = ""
	}
	return o, true
}

// isHost reports whether o is a web page of host, a request's Host header. The
// scheme is not compared: whether the request came in by TLS is known only to
// the proxy in front, if there is one.
func (o origin) isHost(host string) bool {
	if o.scheme != "http" && o.scheme != "https" {
		return false
	}
	own, ok := parseOrigin(o.scheme + "://" + host)
	return ok && o == own
}

// isHostname reports whether s can be a host name in lower case.
func isHostname(s string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
