package websocket

import (
	"context"
	"sync"
)

// Prepared is a message that is sent many times: it is framed once for all server
// connections, and compressed once for all that agreed on the same form of compression. It
// may be used by any number of goroutines and connections at a time.
type Prepared struct {
	typ   MessageType
	plain preparedForm

	mu         sync.Mutex
	compressed map[deflateVariant]*preparedForm
}

// preparedForm is a message as it is sent.
type preparedForm struct {
	payload []byte // of frame
	frame   []byte // as a server sends it
	rsv1    bool
}

// Prepare makes a Prepared of a copy of p. Text must be UTF-8.
func Prepare(typ MessageType, p []byte) *Prepared {
	return &Prepared{typ: typ, plain: newPreparedForm(typ, p, false)}
}

func newPreparedForm(typ MessageType, payload []byte, rsv1 bool) preparedForm {
	h := Header{Fin: true, RSV1: rsv1, Opcode: Opcode(typ), Length: uint64(len(payload))}
	frame := AppendHeader(make([]byte, 0, maxHeaderSize+len(payload)), h)
	n := len(frame)
	frame = append(frame, payload...)
	return preparedForm{payload: frame[n:], frame: frame, rsv1: rsv1}
}

// form returns what a connection with the deflater d, which may be nil, sends.
func (m *Prepared) form(d *deflater) *preparedForm {
	if d == nil || !d.wants(len(m.plain.payload)) {
		return &m.plain
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.compressed[d.variant]
	if !ok {
		f = &m.plain
		if z, ok := d.variant.appendMessage(nil, m.plain.payload); ok {
			c := newPreparedForm(m.typ, z, true)
			f = &c
		}
		if m.compressed == nil {
			m.compressed = make(map[deflateVariant]*preparedForm)
		}
		m.compressed[d.variant] = f
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
	defer c.out.message.release()
	d := c.out.deflate
	f := m.form(d)
	err := c.writePrepared(ctx, m.typ, f)
	if f.rsv1 {
		if err == nil {
			d.adopt(m.plain.payload) // what follows may refer to it
		} else {
			d.reset()
		}
	}
	return err
}

func (c *Conn) writePrepared(ctx context.Context, typ MessageType, f *preparedForm) error {
	if c.out.mask {
		return c.writeFrame(ctx, Header{Fin: true, RSV1: f.rsv1, Opcode: Opcode(typ)}, f.payload)
	}
	if err := c.takeWire(ctx); err != nil {
		return err
	}
	defer c.releaseWire()
	if err := c.out.err.get(); err != nil {
		return err
	}
	return c.sendBytes(ctx, f.frame)
}
