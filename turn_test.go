package websocket

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// granted reports whether w has the turn.
func granted(w *waiting) bool {
	select {
	case <-w.granted:
		return true
	default:
		return false
	}
}

func TestTurn(t *testing.T) {
	t.Run("first come, first served", func(t *testing.T) {
		var turn turn
		require.True(t, turn.try())
		require.False(t, turn.try())
		a, b, c := turn.ask(true), turn.ask(true), turn.ask(true)
		for _, w := range []*waiting{a, b, c} {
			require.False(t, granted(w))
			turn.release()
			require.True(t, granted(w))
			require.False(t, turn.try(), "it was handed on")
			require.False(t, turn.leave(w), "it is not in line any more")
		}
		turn.release()
		require.Nil(t, turn.first)
		require.Nil(t, turn.ask(true))
		require.False(t, turn.try())
		turn.release()
		require.True(t, turn.try())
	})
	t.Run("out of the line", func(t *testing.T) {
		for gone := range 3 {
			var turn turn
			require.Nil(t, turn.ask(true))
			line := []*waiting{turn.ask(true), turn.ask(true), turn.ask(true)}
			require.True(t, turn.leave(line[gone]))
			require.False(t, turn.leave(line[gone]))
			for i, w := range line {
				if i != gone {
					turn.release()
					require.True(t, granted(w))
				}
			}
			require.False(t, granted(line[gone]))
			turn.release()
			require.True(t, turn.try())
		}
	})
	t.Run("barred", func(t *testing.T) {
		var turn turn
		require.Nil(t, turn.ask(false), "nothing is in the way")
		stays, passes := turn.ask(false), turn.ask(true)
		turn.releaseBarred(true)
		require.True(t, granted(passes))
		require.False(t, granted(stays))
		late := turn.ask(false)
		turn.releaseBarred(true)
		require.False(t, turn.held)
		require.NotNil(t, turn.first)
		require.False(t, granted(stays))
		later := turn.ask(false)
		require.False(t, granted(later), "nobody holds it, but it is barred")

		require.Nil(t, turn.ask(true))
		require.True(t, turn.leave(late))
		turn.releaseBarred(false)
		require.True(t, granted(stays))
		require.False(t, granted(later))
		turn.releaseBarred(false)
		require.True(t, granted(later))
		turn.releaseBarred(false)
		require.Nil(t, turn.ask(false))
	})
}

// Who waits for a turn leaves without it when its context or the connection ends.
func TestWaitForATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := serve(t, config{})
		var turn turn
		require.True(t, turn.try())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		require.False(t, c.wait(ctx, &turn))
		require.Equal(t, time.Second, time.Since(start))
		require.Nil(t, turn.first)

		got := make(chan bool, 1)
		go func() { got <- c.wait(t.Context(), &turn) }()
		synctest.Wait()
		require.Empty(t, got)
		turn.release()
		require.True(t, <-got)

		go func() { got <- c.wait(t.Context(), &turn) }()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.False(t, <-got)
		require.Nil(t, turn.first)
	})
}

// One holder at a time, and nobody is forgotten, whoever comes, leaves and is barred.
func TestTurnOfMany(t *testing.T) {
	c, _ := serve(t, config{})
	var turn turn
	holders, count := 0, 0
	hold := func() {
		holders++
		if holders != 1 {
			t.Error("two hold it at a time")
		}
		runtime.Gosched()
		count++
		holders--
	}
	const goroutines, rounds = 20, 200
	var wg sync.WaitGroup
	given := make([]int, goroutines)
	for i := range goroutines {
		wg.Go(func() {
			for n := range rounds {
				switch (i + n) % 4 {
				case 0:
					if !turn.try() {
						continue
					}
				case 1:
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*time.Microsecond)
					ok := c.wait(ctx, &turn)
					cancel()
					if !ok {
						continue
					}
				case 2:
					if !c.wait(context.Background(), &turn) {
						t.Error("nothing has ended")
						return
					}
				case 3:
					if w := turn.ask(false); w != nil {
						runtime.Gosched()
						if turn.leave(w) {
							continue
						}
					}
				}
				hold()
				given[i]++
				turn.releaseBarred(n%3 == 0)
			}
		})
	}
	wg.Wait()
	turn.release()
	require.True(t, turn.try())
	require.Nil(t, turn.first)
	sum := 0
	for _, n := range given {
		sum += n
	}
	require.Equal(t, sum, count)
	require.GreaterOrEqual(t, count, goroutines*rounds/4)
}
