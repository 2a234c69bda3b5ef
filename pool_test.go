package websocket

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOffPage(t *testing.T) {
	const page = 4 << 10
	for _, n := range []int{0, 1, 1000, 32<<10 - 1, 32 << 10, 64 << 10, 1 << 20, 3<<20 + 7} {
		b := offPage(n)
		require.Empty(t, b)
		require.GreaterOrEqual(t, cap(b), n)
		require.Less(t, cap(b), n+page)
		if n >= 32<<10 {
			require.EqualValues(t, pageOffset, reflect.ValueOf(b).Pointer()%page)
		}
	}
}

func TestBuffers(t *testing.T) {
	for _, n := range []int{0, 1, 1 << 10, 16<<10 + maxHeaderSize, 16<<10 + maxHeaderSize + 1, 64 << 10, 1 << 20} {
		b := getBuffer(n)
		require.Empty(t, b.b)
		require.GreaterOrEqual(t, cap(b.b), min(n, joinedSize+maxHeaderSize))
		b.b = append(b.b, 1, 2, 3)
		b.frames = append(b.frames, framed{1, 3})
		putBuffer(b)
		require.Empty(t, b.b)
		require.Empty(t, b.frames)
	}
	putBuffer(nil)
}
