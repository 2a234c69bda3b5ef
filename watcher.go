package websocket

import (
	"context"
	"sync"
	"time"
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// watcher lets the end of a context interrupt one direction of a connection, by a deadline
// in the past. It stays armed between calls, so that a loop with one context arms it once; what
// ends between calls leaves nothing behind.
//
// The holder of the direction's turn calls watch, rest and setDeadlineAt.
type watcher struct {
	mu       sync.Mutex // guards what follows and orders the setting of deadlines
	armed    *interrupt // nil if no context is watched
	deadline time.Time  // the one that holds unless fired
	fired    bool       // the deadline is in the past, to interrupt
	retired  bool
	active   bool // there may be a call to interrupt; set by the holder of the turn alone
	writes   bool // constant: it is the deadline of writes
}

// interrupt is what the end of a context does.
type interrupt struct {
	done <-chan struct{} // of the context
	stop func() bool
}

func (w *watcher) set(c *Conn, t time.Time) error {
	if w.writes {
		return c.nc.SetWriteDeadline(t)
	}
	return c.nc.SetReadDeadline(t)
}

// watch makes ctx the one that interrupts.
func (w *watcher) watch(c *Conn, ctx context.Context) {
	done := ctx.Done()
	var err error
	w.mu.Lock()
	w.active = done != nil || w.writes
	switch {
	case w.retired:
	case !w.watches(done):
		w.disarm(c)
		if done != nil {
			a := &interrupt{done: done}
			w.armed = a
			a.stop = context.AfterFunc(ctx, func() { w.poke(c, a) })
		}
	case done != nil && ctx.Err() != nil: // which poke may have taken no notice of
		err = w.fire(c)
	}
	w.mu.Unlock()
	if err != nil {
		c.drop(errNoDeadlines)
	}
}

// watches reports whether done is that of the context that interrupts, or nil and there is none.
func (w *watcher) watches(done <-chan struct{}) bool {
	if w.armed == nil {
		return done == nil
	}
	return w.armed.done == done
}

// rest says that the call is over.
func (w *watcher) rest(c *Conn) {
	if w.active {
		w.deactivate(c)
	}
}

func (w *watcher) deactivate(c *Conn) {
	w.mu.Lock()
	w.active = false
	w.calm(c)
	w.mu.Unlock()
}

// poke interrupts the call that is in progress, if there is one. Unless by is nil it does so
// on behalf of a context, which must still be the one that is watched.
func (w *watcher) poke(c *Conn, by *interrupt) {
	var err error
	w.mu.Lock()
	if w.active && (by == nil || by == w.armed) {
		err = w.fire(c)
	}
	w.mu.Unlock()
	if err != nil {
		c.drop(errNoDeadlines)
	}
}

func (w *watcher) fire(c *Conn) error {
	w.fired = true
	return w.set(c, longAgo)
}

// endPoke ends what poke did for another goroutine. It reports false if nothing has interrupted.
func (w *watcher) endPoke(c *Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	fired := w.fired
	w.calm(c)
	return fired
}

func (w *watcher) disarm(c *Conn) {
	if w.armed == nil {
		return
	}
	w.armed.stop()
	w.armed = nil
	w.calm(c)
}

func (w *watcher) calm(c *Conn) {
	if w.fired {
		w.fired = false
		_ = w.set(c, w.deadline)
	}
}

// setDeadlineAt sets the deadline that holds while nothing interrupts; zero means none.
func (w *watcher) setDeadlineAt(c *Conn, t time.Time) (err error) {
	w.mu.Lock()
	w.deadline = t
	if !w.fired {
		err = w.set(c, t)
	}
	w.mu.Unlock()
	return err
}

// retire lets go of the context for good.
func (w *watcher) retire(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disarm(c)
	w.retired = true
}
