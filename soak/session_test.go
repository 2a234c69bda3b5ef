package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/strictws/websocket"
)

func TestBroadcasts(t *testing.T) {
	s := new(soak)
	s.init("server", settings{}, time.Hour)
	ses := &session{soak: s, link: newLink(0, 7, toServer, toClient)}
	take := func(kind byte, n uint64, body string) error {
		return ses.take(websocket.Text, record{kind, n, []byte(body)})
	}
	broadcast := func(n uint64) error {
		_, rec := lane{0, 0, toAll}.append(nil, kindBroadcast, n, websocket.Text)
		return take(kindBroadcast, n, string(rec[headerSize:]))
	}
	for _, n := range []uint64{1, 3, 3, 4} {
		require.NoError(t, broadcast(n))
	}
	require.ErrorContains(t, broadcast(3), "broadcast 3 arrived after 4")
	require.ErrorContains(t, take(kindFinal, 0, "0 5"), "4 broadcasts arrived, of 5 that were sent")
	require.ErrorContains(t, take(kindFinal, 0, "0 3"), "4 broadcasts arrived, of 3 that were sent")
	require.NoError(t, take(kindFinal, 0, "0 4"))
}

// TestExplain shows what a soak makes of a connection that the library closed because a context ended.
func TestExplain(t *testing.T) {
	over := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if !assert.NoError(t, err) {
			return
		}
		defer c.Close()
		stream, err := c.NextWriter(t.Context(), websocket.Binary) // whose end does not come
		assert.NoError(t, err)
		_, err = stream.Write(make([]byte, 64<<10))
		assert.NoError(t, err)
		<-over
	}))
	defer srv.Close()
	defer close(over)

	write := func(ctx context.Context, c *websocket.Conn) error {
		return c.Write(ctx, websocket.Binary, make([]byte, 64<<20))
	}
	for name, tt := range map[string]struct {
		call   func(ctx context.Context, c *websocket.Conn) error
		cut    bool
		ending string
	}{
		"Write":           {write, true, "cut"},
		"Write of nobody": {write, false, ""},
		"NextWriter": {func(ctx context.Context, c *websocket.Conn) error {
			w, err := c.NextWriter(ctx, websocket.Binary)
			for err == nil {
				_, err = w.Write(make([]byte, 64<<10))
			}
			return err
		}, true, "cut"},
		"NextReader": {func(ctx context.Context, c *websocket.Conn) error {
			_, r, err := c.NextReader(ctx)
			if err == nil {
				_, err = io.ReadAll(r)
			}
			return err
		}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
			require.NoError(t, err)
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, tt.call(ctx, c), context.DeadlineExceeded)
			_, _, err = c.Read(t.Context(), nil)

			s := new(soak)
			s.init("client", settings{}, time.Hour)
			assert.Equal(t, tt.ending, (&session{soak: s, cut: tt.cut}).explain(err))
			assert.Equal(t, tt.ending == "", len(s.failures()) == 1, s.failures())
		})
	}
}
