package websocket

import (
	"os"
	"time"
)

// ticked is called when a tick passed while reading. The third silent one after a Ping has
// gone out means that the peer is dead; a peer that says anything, and one that takes
// what we write, is alive.
func (c *Conn) ticked() error {
	in := &c.in
	if in.tick == 0 {
		return os.ErrDeadlineExceeded // not a deadline of ours
	}
	if err := in.watch.setDeadlineAt(c, time.Now().Add(in.tick)); err != nil {
		return err
	}
	if in.heard {
		in.heard, in.pinged, in.quiet = false, false, 0
		c.flushQueued()
		return nil
	}
	if !in.pinged {
		if c.tryPing() {
			in.pinged, in.quiet = true, 1
			return nil
		}
		// The wire is taken. A peer that is slow to take a message cannot answer yet.
		if sent := c.out.sent.Load(); sent != in.sent {
			in.sent, in.quiet = sent, 0
			return nil
		}
	}
	if in.quiet++; in.quiet < 3 {
		return nil
	}
	return errConnectionSilent
}
