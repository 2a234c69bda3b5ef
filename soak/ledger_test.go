package main

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/strictws/websocket"
)

// arrive delivers message n of the lane that from is, to in.
func arrive(in *inbox, from lane, n uint64) error {
	typ, rec := from.append(nil, kindMessage, n, 0)
	return in.receive(n, typ, 0, rec[headerSize:])
}

func TestInbox(t *testing.T) {
	l := lane{seed: 1, id: 7, direction: toServer}
	// corrupt changes something of message 3, which is the next one.
	typ, rec := l.append(nil, kindMessage, 3, 0)
	body := rec[headerSize:]
	require.Greater(t, len(body), 2)
	corrupt := func(change func(b []byte) []byte) func(*inbox) error {
		return func(in *inbox) error {
			return in.receive(3, typ, 0, change(append([]byte(nil), body...)))
		}
	}
	for name, tt := range map[string]struct {
		next func(*inbox) error
		err  string
	}{
		"the next one": {func(in *inbox) error { return arrive(in, l, 3) }, ""},
		"lost":         {func(in *inbox) error { return arrive(in, l, 4) }, "message 4 arrived after message 2: what is between them is lost, or late"},
		"duplicate":    {func(in *inbox) error { return arrive(in, l, 2) }, "message 2 arrived again, after message 2"},
		"reordered":    {func(in *inbox) error { return arrive(in, l, 1) }, "message 1 arrived again, after message 2"},
		"other client": {func(in *inbox) error { return arrive(in, lane{seed: 1, id: 8, direction: toServer}, 3) }, "message 3"},
		"other way":    {func(in *inbox) error { return arrive(in, lane{seed: 1, id: 7, direction: toClient}, 3) }, "message 3"},
		"other seed":   {func(in *inbox) error { return arrive(in, lane{seed: 2, id: 7, direction: toServer}, 3) }, "message 3"},
		"type":         {func(in *inbox) error { return in.receive(3, 3-typ, 0, body) }, "message 3 came as"},
		"first byte":   {corrupt(func(b []byte) []byte { b[0] ^= 1; return b }), "is corrupt: byte 0 of"},
		"last byte":    {corrupt(func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b }), "is corrupt: byte"},
		"cut":          {corrupt(func(b []byte) []byte { return b[:len(b)-1] }), "bytes instead of"},
		"longer":       {corrupt(func(b []byte) []byte { return append(b, 0) }), "bytes instead of"},
		"contents of 1 ": {func(in *inbox) error {
			_, rec := l.append(nil, kindMessage, 1, typ)
			return in.receive(3, typ, 0, rec[headerSize:])
		}, "message 3"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &inbox{lane: l}
			require.NoError(t, arrive(in, l, 1))
			require.NoError(t, arrive(in, l, 2))
			err := tt.next(in)
			if tt.err == "" {
				require.NoError(t, err)
				assert.EqualValues(t, 3, in.last)
				return
			}
			require.ErrorContains(t, err, tt.err)
			assert.EqualValues(t, 2, in.last, "it does not count")
		})
	}
}

func TestInboxFinal(t *testing.T) {
	l := lane{seed: 1, id: 7}
	in := &inbox{lane: l}
	bytes := uint64(l.size(1) + l.size(2))
	require.NoError(t, arrive(in, l, 1))
	require.NoError(t, arrive(in, l, 2))
	require.NoError(t, in.final(2, bytes))
	require.ErrorContains(t, in.final(3, bytes), "arrived, of 3 with")
	require.ErrorContains(t, in.final(1, bytes), "arrived, of 1 with")
	require.ErrorContains(t, in.final(2, bytes+1), "that were sent")
}

func TestOutbox(t *testing.T) {
	l := lane{seed: 1, id: 7}
	begin := func(t *testing.T) *outbox { // 1 to 5 are sent, 1 and 2 acknowledged
		out := &outbox{lane: l}
		_, err := out.resume(0)
		require.NoError(t, err)
		for n := uint64(1); n <= 5; n++ {
			got, again := out.next(true)
			require.Equal(t, n, got)
			require.False(t, again)
		}
		require.NoError(t, out.acknowledge(2))
		require.EqualValues(t, l.size(1)+l.size(2), out.bytes)
		return out
	}

	t.Run("acknowledged again", func(t *testing.T) {
		require.ErrorContains(t, begin(t).acknowledge(2), "message 2 was acknowledged again, after message 2")
	})
	t.Run("acknowledged before it was sent", func(t *testing.T) {
		require.ErrorContains(t, begin(t).acknowledge(6), "message 6 was acknowledged, and the last that was sent is 5")
	})
	t.Run("an acknowledged one is lost", func(t *testing.T) {
		_, err := begin(t).resume(1)
		require.ErrorContains(t, err, "message 2 was acknowledged, and now the last that arrived is 1")
	})
	t.Run("more arrived than was sent", func(t *testing.T) {
		_, err := begin(t).resume(6)
		require.ErrorContains(t, err, "message 6 arrived, and the last that was sent is 5")
	})
	t.Run("sent again", func(t *testing.T) {
		out := begin(t)
		again, err := out.resume(3) // its acknowledgement was lost
		require.NoError(t, err)
		require.EqualValues(t, 2, again)
		require.ErrorContains(t, out.acknowledge(4), "message 4 was acknowledged, and the last that was sent is 3")
		for n := uint64(4); n <= 5; n++ {
			got, again := out.next(false)
			require.Equal(t, n, got)
			require.True(t, again)
		}
		got, _ := out.next(false)
		require.Zero(t, got)
		require.False(t, out.settled())
		require.NoError(t, out.acknowledge(5))
		require.True(t, out.settled())
	})
	t.Run("window", func(t *testing.T) {
		out := begin(t)
		for n := uint64(6); n <= 2+window; n++ {
			got, _ := out.next(true)
			require.Equal(t, n, got)
		}
		got, _ := out.next(true)
		require.Zero(t, got)
		require.NoError(t, out.acknowledge(3))
		got, _ = out.next(true)
		require.EqualValues(t, 3+window, got)
	})
}

func TestMessages(t *testing.T) {
	l := lane{seed: 1, id: 7, direction: toClient}
	longest := 0
	for _, w := range words {
		longest = max(longest, len(w))
	}
	require.LessOrEqual(t, longest, longestWord)

	sizes := make(map[string]int)
	seen := make(map[string]bool)
	for n := uint64(1); n <= 20000; n++ {
		size := l.size(n)
		switch {
		case size == maxRecordSize:
			sizes["1 MiB"]++
		case size > 16<<10:
			sizes["large"]++
		case size > 512:
			sizes["medium"]++
		case size == headerSize:
			sizes["empty"]++
			continue
		default:
			sizes["small"]++
		}
		if size > 16<<10 || size < headerSize+128 {
			continue
		}
		for _, want := range []websocket.MessageType{0, websocket.Text, websocket.Binary} {
			typ, rec := l.append(nil, kindMessage, n, want)
			require.Len(t, rec, size)
			require.True(t, typ == websocket.Binary || utf8.Valid(rec), "message %d", n)
			if want != 0 {
				require.Equal(t, want, typ)
			} else {
				body := string(rec[headerSize:])
				require.False(t, seen[body], "message %d is like an earlier one", n)
				seen[body] = true
			}
			parsed, err := parseRecord(rec)
			require.NoError(t, err)
			require.Equal(t, record{kindMessage, n, rec[headerSize:]}, parsed)
		}
	}
	for _, size := range []string{"1 MiB", "large", "medium", "empty", "small"} {
		assert.NotZero(t, sizes[size], size)
	}
}

func TestNoRecord(t *testing.T) {
	_, rec := lane{}.append(nil, kindMessage, 1, 0)
	for _, b := range [][]byte{nil, rec[:headerSize-1], rec[:len(rec)-1], append(rec[:len(rec):len(rec)], 'x'), append([]byte("Mzz"), rec[3:]...)} {
		_, err := parseRecord(b)
		assert.Error(t, err, "%q", b[:min(len(b), headerSize)])
	}
}
