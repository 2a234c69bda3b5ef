package websocket

import (
	"math"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
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
	largest := bufferSizes[len(bufferSizes)-1]
	for i, size := range bufferSizes {
		if i > 0 {
			require.Greater(t, size, bufferSizes[i-1])
			require.LessOrEqual(t, size, 4*bufferSizes[i-1], "what is asked for is not much less than what one gets")
		}
		require.Equal(t, i, bufferClass(size))
		if size < largest {
			require.Equal(t, i+1, bufferClass(size+1))
		}
	}
	require.Zero(t, bufferClass(0))
	require.Equal(t, len(bufferSizes)-1, bufferClass(largest+1))
	require.Equal(t, len(bufferSizes)-1, bufferClass(math.MaxInt))
	for _, n := range []int{0, 1, 1 << 10, 16<<10 + maxHeaderSize, 16<<10 + maxHeaderSize + headroom + 1, 64 << 10, 1 << 20, largest, largest + 1} {
		b := getBuffer(n)
		require.Empty(t, b.b)
		require.GreaterOrEqual(t, cap(b.b), min(n, largest))
		require.Equal(t, bufferClass(n), b.class)
		b.b = append(b.b, 1, 2, 3)
		b.frames = append(b.frames, framed{1, 3})
		putBuffer(b)
		require.Empty(t, b.b)
		require.Empty(t, b.frames)

		b = getRoom(n)
		require.Empty(t, b.b)
		require.GreaterOrEqual(t, cap(b.b), n)
		require.Equal(t, bufferClass(n), b.class)
		putBuffer(b)
	}
	putBuffer(nil)
}

// A message of a round size that is a power of two, its header, and what may be kept in front of
// them fit into the buffer of the same name.
func TestBuffersAreForMessages(t *testing.T) {
	for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20} {
		require.Equal(t, bufferClass(size), bufferClass(headroom+maxHeaderSize+size))
	}
}

func TestReserve(t *testing.T) {
	largest := bufferSizes[len(bufferSizes)-1]
	for _, n := range []int{0, 1, 1 << 10, 100_000, largest - 3, largest, 3 * largest} {
		b := getBuffer(10)
		b.b = append(b.b, "abc"...)
		b.frames = append(b.frames, framed{7, 3})
		got := b.reserve(n)
		require.Equal(t, "abc", string(got.b))
		require.Equal(t, []framed{{7, 3}}, got.frames)
		require.GreaterOrEqual(t, cap(got.b), n+3)
		require.Equal(t, bufferClass(n+3), got.class)
		if 3+n <= bufferSizes[0] {
			require.Same(t, b, got)
			require.Same(t, b, got.reserve(cap(b.b)-3), "to the last byte")
		} else {
			require.NotSame(t, b, got)
			require.Empty(t, b.b, "it was given back")
			require.Empty(t, b.frames)
		}
		putBuffer(got)
	}
}

// pooledExactly makes what a test puts into a pool be there until the test ends.
func pooledExactly(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	procs, percent := runtime.GOMAXPROCS(1), debug.SetGCPercent(-1) // processors share no pool, a collection empties it
	t.Cleanup(func() {
		runtime.GOMAXPROCS(procs)
		debug.SetGCPercent(percent)
	})
}

// pooled returns the buffers of a class that getBuffer would return.
func pooled(class int) (all []*buffer) {
	for {
		b, ok := bufferPools[class].Get().(*buffer)
		if !ok {
			return all
		}
		all = append(all, b)
	}
}

// A buffer whose slice was replaced goes where its new size belongs, or nowhere.
func TestPutBufferOfAnotherSize(t *testing.T) {
	pooledExactly(t)
	last := len(bufferSizes) - 1
	for _, tc := range []struct{ size, class int }{
		{bufferSizes[0], 0},
		{bufferSizes[1] - 1, 0},
		{bufferSizes[1], 1},
		{100_000, 3},
		{bufferSizes[7], 7},
		{bufferSizes[last] - 1, last - 1},
		{bufferSizes[last], last},
		{2 * bufferSizes[last], last},
		{2*bufferSizes[last] + 1, -1},
	} {
		b := getBuffer(0)
		b.b = make([]byte, 5, tc.size)
		b.frames = append(b.frames, framed{1, 5})
		putBuffer(b)
		for class := range bufferSizes {
			// Others may be there, of a test that is not through yet.
			require.Equal(t, class == tc.class, slices.Contains(pooled(class), b), "%d bytes in class %d", tc.size, class)
		}
		if tc.class >= 0 {
			require.Empty(t, b.b)
			require.Empty(t, b.frames)
			require.Equal(t, tc.class, b.class)
			require.Equal(t, tc.size, cap(b.b))
		}
	}
}
