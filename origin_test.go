package websocket

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseOrigin(t *testing.T) {
	for s, want := range map[string]origin{
		"http://example.com":           {"http", "example.com", "", false},
		"HTTP://EXAMPLE.com:80":        {"http", "example.com", "", false},
		"https://example.com:443":      {"https", "example.com", "", false},
		"http://example.com:443":       {"http", "example.com", "443", false},
		"https://example.com:0443":     {"https", "example.com", "", false},
		"http://localhost:8080":        {"http", "localhost", "8080", false},
		"http://127.0.0.1:8080":        {"http", "127.0.0.1", "8080", true},
		"http://[::1]":                 {"http", "::1", "", true},
		"http://[0:0::0001]:8080":      {"http", "::1", "8080", true},
		"http://example.com.":          {"http", "example.com.", "", false},
		"http://xn--bcher-kva.example": {"http", "xn--bcher-kva.example", "", false},
		"moz-extension://a_b-1":        {"moz-extension", "a_b-1", "", false},
	} {
		o, ok := parseOrigin(s)
		assert.True(t, ok, s)
		assert.Equal(t, want, o, s)
	}
	for _, s := range []string{
		"", "null", "*", "example.com", "//example.com", "http:", "http://", "http:///", "http:example.com", "://example.com",
		"http://example.com/", "http://example.com?", "http://example.com#", "http://a@example.com", "http://example.com:",
		"http://example.com:65536", "http://example.com:-1", "http://example.com:x", "http://exa mple.com", " http://example.com",
		"http://example.com ", "http://example.com\n", "http://a,b", "http://*.example.com", "http://.example.com", "http://a..b", "http://.",
		"http://bücher.example", "http://\u212aelvin.example", "x://::1", "1x://a", "http://[1.2.3.4]", "http://[::1%25lo]", "http://[::1%lo]", "http://[::1]:", "http://exa%6dple.com", "http://[::1", "http://::1", "http://[::1]x", "http://example.com, http://example.com",
	} {
		_, ok := parseOrigin(s)
		assert.False(t, ok, "%q", s)
	}
}

// Entries are compared as origins, and not as strings.
func TestTrustedOriginsInOtherSpellings(t *testing.T) {
	for entry, from := range map[string]string{
		"HTTPS://Trusted.Example":        "https://trusted.example",
		"https://trusted.example:443":    "https://trusted.example",
		"http://trusted.example:080":     "http://trusted.example",
		"https://[2001:DB8:0:0::1]":      "https://[2001:db8::1]",
		"https://*.Trusted.example:0443": "https://www.trusted.example",
	} {
		ok, err := trustsOrigin([]string{from}, "server.example.com", []string{entry})
		require.NoError(t, err, entry)
		assert.True(t, ok, entry)
		ok, err = trustsOrigin([]string{from + ":1"}, "server.example.com", []string{entry})
		require.NoError(t, err, entry)
		assert.False(t, ok, entry)
	}
}

func TestTrustsOriginMistake(t *testing.T) {
	_, err := trustsOrigin(nil, "example.com", []string{"example.com"})
	assert.EqualError(t, err, `"example.com" is not of the form "scheme://host[:port]"`)
	_, err = trustsOrigin(nil, "example.com", []string{"wss://example.com"})
	assert.EqualError(t, err, `"wss://example.com" is a server and not the origin of a page, which is http or https`)
}

// FuzzOrigin: an origin that is trusted for the host's sake is that host, as package url reads it.
func FuzzOrigin(f *testing.F) {
	f.Add("http://example.com", "example.com")
	f.Add("https://example.com", "EXAMPLE.com:443")
	f.Add("http://[::1]:80", "[0:0::1]")
	f.Add("http://example.com/", "example.com")
	f.Add("https://a.wild.example", "example.com")
	f.Fuzz(func(t *testing.T, from, host string) {
		ok, err := trustsOrigin([]string{from}, host, []string{"https://*.wild.example"})
		require.NoError(t, err)
		if !ok {
			return
		}
		u, err := url.Parse(strings.ToLower(from))
		require.NoError(t, err)
		if u.Scheme == "https" && strings.HasSuffix(u.Hostname(), ".wild.example") {
			return
		}
		h, err := url.Parse(u.Scheme + "://" + strings.ToLower(host))
		require.NoError(t, err)
		assert.Contains(t, []string{"http", "https"}, u.Scheme)
		if !strings.Contains(host, "[") {
			assert.Equal(t, h.Hostname(), u.Hostname())
		}
		assert.Empty(t, u.Path+u.RawQuery+u.Fragment)
	})
}
