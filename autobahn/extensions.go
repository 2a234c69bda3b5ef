package main

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// This file reads what was negotiated from the opening handshakes in the suite's reports, and judges it by RFC 7692
// alone: the suite does not look at all of it. It shares no code with the library, whose work it checks.

// needsExtension reports whether a case tests compression. Without an extension it would test nothing.
func needsExtension(id string) bool { return section(id) == "12" || section(id) == "13" }

// An extension is an element of Sec-WebSocket-Extensions, with its parameters in their order.
type extension struct {
	name   string
	params []parameter
}

type parameter struct {
	name, value string
	hasValue    bool
}

// get returns a parameter's value.
func (e extension) get(name string) (value string, present bool) {
	for _, p := range e.params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// The parameters of permessage-deflate.
const (
	deflate          = "permessage-deflate"
	serverNoTakeover = "server_no_context_takeover"
	clientNoTakeover = "client_no_context_takeover"
	serverWindow     = "server_max_window_bits"
	clientWindow     = "client_max_window_bits"
)

// checkExtensions judges the answer, in an HTTP response, to the offers in an HTTP request. It returns what is wrong.
func checkExtensions(request, response string, needed bool) []string {
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	if err != nil {
		return []string{fmt.Sprintf("the report has no readable request: %v", err)}
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(response)), req)
	if err != nil {
		return []string{fmt.Sprintf("the report has no readable response: %v", err)}
	}
	const header = "Sec-Websocket-Extensions"
	offers, err := parseExtensions(req.Header[header])
	if err != nil {
		return []string{fmt.Sprintf("the offer %q is malformed: %v", req.Header[header], err)}
	}
	answers, err := parseExtensions(res.Header[header])
	if err != nil {
		return []string{fmt.Sprintf("the answer %q is malformed: %v", res.Header[header], err)}
	}
	if len(answers) == 0 {
		if needed {
			return []string{fmt.Sprintf("no extension was agreed on; the offer was %q", req.Header[header])}
		}
		return nil
	}

	var problems []string
	for _, offer := range offers {
		if offer.name == deflate {
			problems = append(problems, checkParams(offer, "offer")...)
		}
	}
	if len(answers) > 1 || answers[0].name != deflate {
		// Nothing else is offered here, and RFC 7692 section 5 allows it once, since both would claim RSV1.
		return append(problems, fmt.Sprintf("the answer %q is more than one %s", res.Header[header], deflate))
	}
	answer := answers[0]
	problems = append(problems, checkParams(answer, "answer")...)
	// RFC 7692 section 5.1: an answer accepts one of the offers. Which one, it does not say.
	var misfits []string
	for _, offer := range offers {
		misfit := checkFit(offer, answer)
		if misfit == "" {
			return problems
		}
		misfits = append(misfits, misfit)
	}
	return append(problems, fmt.Sprintf("the answer %q fits no offer of %q: %s", res.Header[header], req.Header[header], strings.Join(misfits, "; ")))
}

// checkParams judges the parameters of an offer or an answer by themselves.
func checkParams(e extension, kind string) []string {
	var problems []string
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s: %s", kind, fmt.Sprintf(format, args...)))
	}
	var seen []string
	for _, p := range e.params {
		if slices.Contains(seen, p.name) {
			complain("%s twice (RFC 7692 section 7.1)", p.name)
		}
		seen = append(seen, p.name)
		switch p.name {
		case serverNoTakeover, clientNoTakeover:
			if p.hasValue {
				complain("%s with a value (RFC 7692 section 7.1.1)", p.name)
			}
		case serverWindow, clientWindow:
			if !p.hasValue && p.name == clientWindow && kind == "offer" {
				break // RFC 7692 section 7.1.2.2: the client only says that it understands the parameter
			}
			if _, ok := windowBits(p.value); !ok {
				complain("%s=%q (RFC 7692 section 7.1.2)", p.name, p.value)
			}
		default:
			complain("unknown parameter %s (RFC 7692 section 7.1)", p.name)
		}
	}
	return problems
}

// windowBits reads 8 to 15, without leading zeros.
func windowBits(s string) (bits int, ok bool) {
	bits, err := strconv.Atoi(s)
	return bits, err == nil && bits >= 8 && bits <= 15 && s == strconv.Itoa(bits)
}

// checkFit returns why an answer cannot be one to an offer, "" if it can.
func checkFit(offer, answer extension) string {
	if offer.name != deflate {
		return offer.name + " was offered"
	}
	if _, asked := offer.get(serverNoTakeover); asked {
		if _, granted := answer.get(serverNoTakeover); !granted {
			return serverNoTakeover + " was asked for and is not granted (RFC 7692 section 7.1.1.1)"
		}
	}
	if asked, ok := offer.get(serverWindow); ok {
		granted, isGranted := answer.get(serverWindow)
		if !isGranted {
			return serverWindow + " was asked for and is not granted (RFC 7692 section 7.1.2.1)"
		}
		askedBits, _ := windowBits(asked)
		if bits, _ := windowBits(granted); bits > askedBits {
			return serverWindow + " is more than was asked for (RFC 7692 section 7.1.2.1)"
		}
	}
	if demanded, ok := answer.get(clientWindow); ok {
		offered, isOffered := offer.get(clientWindow)
		if !isOffered {
			return clientWindow + " was not offered (RFC 7692 section 7.1.2.2)"
		}
		bits, _ := windowBits(demanded)
		if offeredBits, hasValue := windowBits(offered); hasValue && bits > offeredBits {
			return clientWindow + " is more than was offered (RFC 7692 section 7.1.2.2)"
		}
	}
	return ""
}

// parseExtensions reads the lines of a Sec-WebSocket-Extensions header, which are one list (RFC 6455 section 9.1).
func parseExtensions(lines []string) ([]extension, error) {
	var list []extension
	s := strings.Join(lines, ",")
	for {
		s = strings.TrimLeft(s, " \t,") // RFC 9110 section 5.6.1.2: a list may have empty elements
		if s == "" {
			return list, nil
		}
		var e extension
		var err error
		if e.name, s, err = parseToken(s); err != nil {
			return nil, err
		}
		for {
			s = skipSpace(s)
			rest, more := strings.CutPrefix(s, ";")
			if !more {
				break
			}
			var p parameter
			if p, s, err = parseParameter(skipSpace(rest)); err != nil {
				return nil, err
			}
			e.params = append(e.params, p)
		}
		list = append(list, e)
		if s != "" && s[0] != ',' {
			return nil, fmt.Errorf("%q after %s", s, e.name)
		}
	}
}

func parseParameter(s string) (p parameter, rest string, err error) {
	if p.name, s, err = parseToken(s); err != nil {
		return p, s, err
	}
	s = skipSpace(s)
	value, hasValue := strings.CutPrefix(s, "=")
	if !hasValue {
		return p, s, nil
	}
	p.hasValue = true
	value = skipSpace(value)
	if quoted, isQuoted := strings.CutPrefix(value, `"`); isQuoted {
		// RFC 6455 section 9.1: what is quoted must be a token when the quotes are off, so it has no escapes to keep.
		content, rest, closed := strings.Cut(quoted, `"`)
		content = strings.ReplaceAll(content, `\`, "")
		if token, trailing, err := parseToken(content); !closed || err != nil || trailing != "" || token == "" {
			return p, rest, fmt.Errorf("%s has a quoted value that is no token", p.name)
		}
		p.value = content
		return p, rest, nil
	}
	p.value, s, err = parseToken(value)
	return p, s, err
}

// parseToken splits a token (RFC 9110 section 5.6.2) off s.
func parseToken(s string) (token, rest string, err error) {
	end := strings.IndexFunc(s, func(r rune) bool {
		isTokenChar := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
		return !isTokenChar
	})
	if end < 0 {
		end = len(s)
	}
	if end == 0 {
		return "", s, fmt.Errorf("no token at %q", s)
	}
	return s[:end], s[end:], nil
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t") }
