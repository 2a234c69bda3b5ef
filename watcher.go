package websocket

import (
	"context"
	"sync"
	"time"
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// watcher lets the end of a context interrupt one direction of a connection, by a deadline
// in the past. It stays armed between calls, so that a loop with one context arms it once.
//
// The holder of the direction's turn calls watch and setDeadlineAt.
type watcher struct {
	mu       sync.Mutex // guards what follows and orders the setting of deadlines
	armed    *interrupt // nil if no context is watched
	deadline time.Time  // the one that holds unless fired
	fired    bool       // the deadline is in the past, to interrupt
	retired  bool
	writes   bool // constant: it is the deadline of writes
	closes   bool // constant: there are no deadlines, and to interrupt is to close
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

// watch makes ctx, which has not ended, the one that interrupts.
func (w *watcher) watch(c *Conn, ctx context.Context) {
	done := ctx.Done()
	w.mu.Lock()
	if !w.watches(done) && !w.retired {
		w.disarm(c)
		if done != nil {
			a := &interrupt{done: done}
			w.armed = a
			a.stop = context.AfterFunc(ctx, func() { w.poke(c, a) })
		}
	}
	w.mu.Unlock()
}

// ended says that the call with the context is over, whose end interrupts nothing from then on.
// Where that does no harm the context stays watched.
func (w *watcher) ended(c *Conn) {
	if w.closes {
		w.watch(c, context.Background())
	}
}

// watches reports whether done is that of the context that interrupts, or nil and there is none.
func (w *watcher) watches(done <-chan struct{}) bool {
	if w.armed == nil {
		return done == nil
	}
	return w.armed.done == done
}

// poke interrupts the call that is in progress, if there is one. Unless by is nil it does so
// on behalf of a context, which must still be the one that is watched.
func (w *watcher) poke(c *Conn, by *interrupt) {
	w.mu.Lock()
	if by != nil && by != w.armed {
		w.mu.Unlock()
		return
	}
	w.fired = true
	err := w.set(c, longAgo)
	w.mu.Unlock()
	if err != nil {
		c.drop(errNoDeadlines)
	}
}

// endPoke ends what poke did, unless the end of ctx did it too.
func (w *watcher) endPoke(c *Conn, ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() == nil {
		w.calm(c)
	}
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
