// Syntax of the header fields of HTTP (RFC 9110 section 5.6).

package websocket

import (
	"iter"
	"strconv"
	"strings"
)

// hasToken reports whether a comma-separated list over header lines holds
// token, in whatever case.
func hasToken(lines []string, token string) bool {
	for elem := range listElements(lines) {
		if equalFold(elem, token) {
			return true
		}
	}
	return false
}

// listElements yields the elements of a comma-separated list over header lines.
// Empty ones do not count (RFC 9110 section 5.6.1.2).
func listElements(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for elem := range strings.SplitSeq(line, ",") {
				elem = strings.Trim(elem, " \t")
				if elem != "" && !yield(elem) {
					return
				}
			}
		}
	}
}

// equalFold compares ASCII letters without regard to case. Of characters that
// Unicode folds to ASCII, all are longer than one byte: the lengths tell.
func equalFold(s, ascii string) bool {
	return len(s) == len(ascii) && strings.EqualFold(s, ascii)
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenChar(s[i]) {
			return false
		}
	}
	return s != ""
}

// isTokenChar reports whether c may be in a token (RFC 9110 section 5.6.2).
func isTokenChar(c byte) bool {
	return isLetter(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// clip quotes what the peer sent for an error message, and shortens it.
func clip(s string) string {
	const limit = 100
	if len(s) > limit {
		return strconv.Quote(s[:limit]) + "..."
	}
	return strconv.Quote(s)
}

func clipList(values []string) string { return clip(strings.Join(values, ", ")) }
