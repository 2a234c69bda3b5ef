package websocket

import (
	"context"
	"sync"
)

// Prepared is a message that is sent many times: it is compressed once for all connections
// that agreed on the same form of compression. It may be used by any number of goroutines and
// connections at the same time.
type Prepared struct {
	typ   MessageType
	plain *preparedForm

	mu    sync.Mutex
	forms map[deflateVariant]*preparedForm
}

// preparedForm is a message as it is sent.
type preparedForm struct {
	h       Header
	payload []byte
	frame   []byte // of a server: header and payload
}

func prepareForm(typ MessageType, p []byte, compressed bool) *preparedForm {
	h := Header{Fin: true, RSV1: compressed, Opcode: Opcode(typ), Length: uint64(len(p))}
	frame := AppendHeader(offPage(maxHeaderSize+len(p)), h)
	n := len(frame)
	frame = append(frame, p...)
	return &preparedForm{h, frame[n:], frame}
}

// Prepare makes a Prepared of a copy of p. Text must be UTF-8.
func Prepare(typ MessageType, p []byte) *Prepared {
	return &Prepared{typ: typ, plain: prepareForm(typ, p, false)}
}

// form returns what a connection with the deflater d, which may be nil, sends.
func (m *Prepared) form(d *deflater) *preparedForm {
	if d == nil || !d.wants(len(m.plain.payload)) {
		return m.plain
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.forms[d.variant]
	if !ok {
		f = m.plain
		if z, ok := d.variant.appendMessage(nil, m.plain.payload); ok {
			f = prepareForm(m.typ, z, true)
		}
		if m.forms == nil {
			m.forms = make(map[deflateVariant]*preparedForm)
		}
		m.forms[d.variant] = f
	}
	return f
}

// WritePrepared is [Conn.Write] for a prepared message. A client masks it anew each time
// (RFC 6455 section 5.3).
func (c *Conn) WritePrepared(ctx context.Context, m *Prepared) error {
	if err := m.typ.check(); err != nil {
		return err
	}
	if err := c.takeMessage(ctx); err != nil {
		return err
	}
	d := c.out.deflate
	f := m.form(d)
	if f.h.RSV1 && d.takeover {
		defer c.out.message.release()
		err := c.sendMessage(ctx, f.h, f.payload, true)
		if err == nil {
			d.adopt(m.plain.payload) // what follows may refer to it
		}
		return err
	}
	if number, ok := c.sendPrepared(f); ok {
		c.out.message.release()
		return c.sendGathered(ctx, number, true)
	}
	return c.sendMessage(ctx, f.h, f.payload, false)
}

// sendPrepared is sendPast for f, if it is the kind of message for which to try is right.
func (c *Conn) sendPrepared(f *preparedForm) (number uint64, ok bool) {
	if c.out.box.mask || len(f.payload) > joinedSize {
		return 0, false
	}
	return c.sendPast(f.frame)
}

// TryWritePrepared is [Conn.WritePrepared] for those who cannot wait, such as a loop over many
// connections that a slow one must not hold up. It reports whether the message is on its way:
// false means that it is not and will not be, because another message is being streamed (or, with
// context takeover, is being written in any way), or because the peer has not taken what it was
// sent before, of which some 64 KiB gather beyond what the network holds. What the network does
// not take at once is sent by a goroutine that lasts as long as that takes; Close does not wait
// for it, Shutdown does.
//
// An error means that nothing can be written any more. One that the network has with this
// message is returned by a later call.
func (c *Conn) TryWritePrepared(m *Prepared) (bool, error) {
	if err := m.typ.check(); err != nil {
		return false, err
	}
	out := &c.out
	if err := out.err.get(); err != nil {
		return false, err
	}
	f := m.form(out.deflate)
	if f.h.RSV1 && out.deflate.takeover {
		if !out.message.try() {
			return false, nil
		}
		defer out.message.release()
	}
	sent := c.tryPrepared(f)
	if !sent && out.box.queued.Load() {
		c.flushQueued() // what only waits for company is in the way
		sent = c.tryPrepared(f)
	}
	if !sent {
		return false, out.err.get()
	}
	if f.h.RSV1 {
		out.deflate.adopt(m.plain.payload)
	}
	return true, nil
}

// tryPrepared sends a message in the form f, or leaves it in the outbox or to a goroutine.
func (c *Conn) tryPrepared(f *preparedForm) bool {
	out := &c.out
	if len(f.payload) > joinedSize {
		return c.tryLarge(f)
	}
	switch number, past := c.sendPrepared(f); {
	case number != 0:
		c.sendLater()
	case past:
		c.releaseWire()
	case out.box.add(f.h, f.payload, joinedSize) == 0:
		return false
	default:
		out.flushDue.Store(true)
		c.trySendDue()
	}
	return true
}

// tryLarge leaves a large message to a goroutine, if nothing is to be sent before it.
func (c *Conn) tryLarge(f *preparedForm) bool {
	if c.takePast() == 0 {
		return false
	}
	go func() {
		_ = c.sendLarge(context.Background(), f.h, f.payload)
		c.releaseWire()
	}()
	return true
}
