package websocket

import (
	"context"
	"sync"
)

// Prepared is a message that is sent many times: it is compressed once for all connections
// that agreed on the same form of compression. It may be used by any number of goroutines and
// connections at a time.
type Prepared struct {
	typ   MessageType
	plain preparedForm

	mu    sync.Mutex
	forms map[deflateVariant]*preparedForm
}

// preparedForm is a message as it is sent.
type preparedForm struct {
	payload    []byte
	compressed bool
}

// Prepare makes a Prepared of a copy of p. Text must be UTF-8.
func Prepare(typ MessageType, p []byte) *Prepared {
	return &Prepared{typ: typ, plain: preparedForm{payload: append(offPage(len(p)), p...)}}
}

// form returns what a connection with the deflater d, which may be nil, sends.
func (m *Prepared) form(d *deflater) *preparedForm {
	if d == nil || !d.wants(len(m.plain.payload)) {
		return &m.plain
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.forms[d.variant]
	if !ok {
		f = &m.plain
		if z, ok := d.variant.appendMessage(nil, m.plain.payload); ok {
			f = &preparedForm{payload: z, compressed: true}
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
	h := Header{Fin: true, RSV1: f.compressed, Opcode: Opcode(m.typ)}
	if !f.compressed || !d.takeover {
		return c.sendMessage(ctx, h, f.payload, false)
	}
	defer c.out.message.release()
	err := c.sendMessage(ctx, h, f.payload, true)
	if err == nil {
		d.adopt(m.plain.payload) // what follows may refer to it
	}
	return err
}
