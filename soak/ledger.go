package main

import (
	"fmt"

	"github.com/strictws/websocket"
)

// window is how many messages of a lane may be under way.
const window = 16

// An inbox checks the messages of a lane where they arrive: each exactly once, in order and intact.
type inbox struct {
	lane  lane
	last  uint64 // the number of the last message that arrived
	bytes uint64 // of the records of all that arrived
}

// receive takes message n, which came with the type typ, 0 if unknown, and was made for the type want, 0 for its own.
func (in *inbox) receive(n uint64, typ, want websocket.MessageType, body []byte) error {
	switch {
	case n <= in.last:
		return fmt.Errorf("message %d arrived again, after message %d", n, in.last)
	case n > in.last+1:
		return fmt.Errorf("message %d arrived after message %d: what is between them is lost, or late", n, in.last)
	}
	if err := in.lane.verify(kindMessage, n, typ, want, body); err != nil {
		return err
	}
	in.last = n
	in.bytes += uint64(headerSize + len(body))
	return nil
}

// final holds what the sender says of the whole lane against what arrived.
func (in *inbox) final(count, bytes uint64) error {
	if in.last != count || in.bytes != bytes {
		return fmt.Errorf("%d messages with %d bytes arrived, of %d with %d that were sent", in.last, in.bytes, count, bytes)
	}
	return nil
}

// An outbox keeps account of the messages of a lane where they are sent.
type outbox struct {
	lane   lane
	sent   uint64 // the highest number that was ever handed to the connection
	acked  uint64 // all up to this one have arrived
	bytes  uint64 // of the records of all that have arrived
	cursor uint64 // the next message to send over this connection
}

// resume begins a connection, whose peer says that last is what arrived last. It returns how many messages are to be
// sent again.
func (out *outbox) resume(last uint64) (again uint64, err error) {
	switch {
	case last < out.acked:
		return 0, fmt.Errorf("message %d was acknowledged, and now the last that arrived is %d", out.acked, last)
	case last > out.sent:
		return 0, fmt.Errorf("message %d arrived, and the last that was sent is %d", last, out.sent)
	}
	out.advance(last)
	out.cursor = last + 1
	return out.sent - last, nil
}

// next returns the message to send now, 0 if there is none: one that has to be sent again, or a new one if wanted.
func (out *outbox) next(wanted bool) (n uint64, again bool) {
	n = out.cursor
	again = n <= out.sent
	if n > out.acked+window || !again && !wanted {
		return 0, false
	}
	out.sent = max(out.sent, n)
	out.cursor++
	return n, again
}

// acknowledge takes the peer's word that all messages up to n have arrived.
func (out *outbox) acknowledge(n uint64) error {
	switch {
	case n <= out.acked:
		return fmt.Errorf("message %d was acknowledged again, after message %d", n, out.acked)
	case n >= out.cursor:
		return fmt.Errorf("message %d was acknowledged, and the last that was sent is %d", n, out.cursor-1)
	}
	out.advance(n)
	return nil
}

func (out *outbox) advance(n uint64) {
	for out.acked < n {
		out.acked++
		out.bytes += uint64(out.lane.size(out.acked))
	}
}

// settled reports whether all that was sent has arrived.
func (out *outbox) settled() bool { return out.acked == out.sent && out.cursor == out.sent+1 }
