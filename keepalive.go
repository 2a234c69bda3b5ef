package websocket

import (
	"errors"
	"os"
	"time"
)

// graceTimeout is the end of the last tick, in which a look is taken at what has arrived just
// in time: to the runtime a deadline that has passed comes before bytes that are there.
const graceTimeout = 10 * time.Millisecond

// errTick ends a wait when a tick has passed.
var errTick = errors.New("websocket: tick")

// setTick sets the end of the tick. It is called where the stack is small.
func (c *Conn) setTick(d time.Duration) error {
	return c.in.watch.setDeadlineAt(c, time.Now().Add(d))
}

// ticked is called when a tick passed while reading. The third silent one from the one on at
// which a Ping went out means that the peer is dead; a peer that says anything, and one that
// takes what we write, is alive.
func (c *Conn) ticked() error {
	in := &c.in
	if in.tick == 0 {
		return os.ErrDeadlineExceeded // not a deadline of ours
	}
	if in.heard {
		in.heard, in.pinged, in.quiet = false, false, 0
		return c.setTick(in.tick)
	}
	sent := c.out.sent.Load()
	switch {
	case in.pinged:
		in.quiet++
	case c.tryPing():
		in.pinged, in.quiet = true, 1
	case sent != in.sent:
		// A peer that is slow to take a message cannot answer a Ping behind it.
		in.sent, in.quiet = sent, 0
	default:
		in.quiet++
	}
	grace := min(graceTimeout, in.tick/2)
	switch in.quiet {
	case 2:
		return c.setTick(in.tick - grace)
	case 3:
		return c.setTick(grace)
	case 4:
		return errConnectionSilent
	}
	return c.setTick(in.tick)
}

// tickedAside is ticked for those who are idle, in a goroutine that lasts no longer: it needs
// more than 2 KiB of stack, which the one that waits would keep.
func (c *Conn) tickedAside() error {
	done := make(chan error, 1)
	go func() { done <- c.ticked() }()
	return <-done
}
