package websocket

import (
	"context"
	"sync"
)

// A turn is a right that one goroutine holds at a time, first come, first served. Unlike for
// a sync.Mutex, waiting for it can be given up, and is durably blocking in testing/synctest.
// It costs an idle connection 24 bytes, where a channel costs 104.
type turn struct {
	mu     sync.Mutex
	held   bool
	barred bool // only for those who pass the bar; of a turn that is not held
	first  *waiting
}

// waiting is a goroutine that waits for a turn.
type waiting struct {
	granted chan struct{} // closed when it has the turn
	passes  bool          // the bar
	next    *waiting
}

// try takes the turn if nobody holds it.
func (t *turn) try() bool {
	t.mu.Lock()
	free := !t.held
	t.held = true
	t.mu.Unlock()
	return free
}

// ask takes the turn, with a nil result, or gets in line for it. Only who passes gets a turn
// that is barred.
func (t *turn) ask(passes bool) *waiting {
	var w *waiting
	t.mu.Lock()
	if !t.held && (passes || !t.barred) {
		t.held = true
	} else {
		w = &waiting{granted: make(chan struct{}), passes: passes}
		last := &t.first
		for *last != nil {
			last = &(*last).next
		}
		*last = w
	}
	t.mu.Unlock()
	return w
}

// leave gets w out of the line. It returns false if w has got the turn meanwhile.
func (t *turn) leave(w *waiting) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := &t.first; *p != nil; p = &(*p).next {
		if *p == w {
			*p = w.next
			return true
		}
	}
	return false
}

// release gives the turn to the next in line.
func (t *turn) release() { t.releaseBarred(false) }

// releaseBarred gives the turn to the next in line who passes the bar, if there is one.
func (t *turn) releaseBarred(bar bool) {
	t.mu.Lock()
	t.barred = bar
	next := &t.first
	for *next != nil && bar && !(*next).passes {
		next = &(*next).next
	}
	if w := *next; w != nil {
		*next = w.next
		close(w.granted)
	} else {
		t.held = false
	}
	t.mu.Unlock()
}

// wait takes the turn. It returns false if ctx or the connection ended first.
func (c *Conn) wait(ctx context.Context, t *turn) bool {
	w := t.ask(true)
	if w == nil {
		return true
	}
	select {
	case <-w.granted:
		return true
	case <-ctx.Done():
	case <-c.over():
	}
	return !t.leave(w)
}
