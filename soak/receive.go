package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/strictws/websocket"
)

// receive takes records until the connection ends.
func (s *session) receive() error {
	r := s.draw(2)
	var buf []byte
	for {
		if r.IntN(200) == 0 { // let the peer fill the network
			select {
			case <-time.After(time.Duration(r.Int64N(int64(200 * time.Millisecond)))):
			case <-s.ctx.Done():
			}
		}
		typ, msg, err := s.next(r, buf[:0])
		if err != nil {
			return err
		}
		rec, err := parseRecord(msg)
		if err == nil {
			err = s.take(typ, rec)
		}
		if err != nil {
			s.fail("client %d, connection %d, %s: %v", s.id, s.epoch, s.way, err)
			return err
		}
		if buf = msg; cap(buf) > keepBuffer {
			buf = nil
		}
	}
}

// take takes a record. Its error is a violation.
func (s *session) take(typ websocket.MessageType, rec record) error {
	switch rec.kind {
	case kindMessage:
		s.link.mu.Lock()
		err := s.link.in.receive(rec.number, typ, s.typ, rec.body)
		s.link.mu.Unlock()
		if err != nil {
			return err
		}
		s.figures.Received.inc()
		s.figures.RecvBytes.Add(int64(headerSize + len(rec.body)))
		s.figures.Ways.add("received by " + s.way)
		s.acknowledge(rec.number)
		return nil
	case kindAck:
		s.link.mu.Lock()
		before := s.link.out.acked
		err := s.link.out.acknowledge(rec.number)
		acked := int64(s.link.out.acked - before)
		s.link.mu.Unlock()
		s.figures.Acked.Add(acked)
		s.release(acked)
		s.wakeSender()
		return err
	case kindBroadcast:
		if rec.number < s.lastBroadcast { // the same one may come again, and again
			return fmt.Errorf("broadcast %d arrived after %d", rec.number, s.lastBroadcast)
		}
		s.lastBroadcast = rec.number
		s.broadcasts++
		s.figures.Broadcast.inc()
		return lane{s.seed, 0, toAll}.verify(kindBroadcast, rec.number, typ, websocket.Text, rec.body)
	case kindFinal:
		var bytes, broadcasts uint64
		if _, err := fmt.Sscan(string(rec.body), &bytes, &broadcasts); err != nil {
			return err
		}
		if s.broadcasts != broadcasts {
			return fmt.Errorf("%d broadcasts arrived, of %d that were sent", s.broadcasts, broadcasts)
		}
		s.link.mu.Lock()
		err := s.link.in.final(rec.number, bytes)
		s.link.mu.Unlock()
		if err == nil {
			s.final(false, true)
		}
		return err
	case kindHello:
		return s.hello(rec)
	default:
		return fmt.Errorf("record of the kind %q", rec.kind)
	}
}

// sendHello begins the exchange on the server's side. The outbox has been resumed.
func (s *session) sendHello() error {
	s.link.mu.Lock()
	last := s.link.in.last
	s.link.mu.Unlock()
	typ := s.typ
	if typ == 0 {
		typ = websocket.Text
	}
	msg := append(appendHeader(nil, kindHello, last, len(s.endings)), s.endings...)
	if err := s.c.Write(s.ctx, typ, msg); err != nil {
		return err
	}
	s.begin()
	return nil
}

// hello takes the server's hello, with which the exchange begins.
func (s *session) hello(rec record) error {
	if s.greeted || s.side != "client" {
		return errors.New("a hello that was not expected")
	}
	s.greeted, s.endings, s.arrival = true, string(rec.body), rec.number
	s.link.mu.Lock()
	before := s.link.out.acked
	again, err := s.link.out.resume(rec.number)
	s.figures.Acked.Add(int64(s.link.out.acked - before))
	s.link.mu.Unlock()
	if err != nil {
		return err
	}
	s.figures.Again.Add(int64(again))
	s.begin()
	return nil
}

// release lets n other messages be sent.
func (s *session) release(n int64) {
	s.held.Add(-n)
	for range n {
		<-s.underWay
	}
}

func (s *session) wakeSender() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next receives the next record as a message of the type typ, 0 if that is not known.
func (s *session) next(r *rand.Rand, buf []byte) (typ websocket.MessageType, msg []byte, err error) {
	switch s.way {
	case "Read":
		for {
			ctx, cancel := s.ctx, context.CancelFunc(func() {})
			if limit, ok := s.impatience(r); ok {
				ctx, cancel = context.WithTimeout(ctx, limit)
			}
			if msg, err = buf, nil; r.IntN(2) == 0 {
				typ, msg, err = s.c.Read(ctx, buf)
			} else {
				for m, e := range s.c.Messages(ctx) {
					typ, msg, err = m.Type, append(buf, m.Payload...), e
					break
				}
			}
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				return typ, msg, err
			}
			if len(msg) != len(buf) {
				return 0, nil, fmt.Errorf("a cancelled Read returned %d bytes", len(msg))
			}
			s.figures.ReadsCut.inc()
		}
	case "NextReader":
		typ, stream, err := s.c.NextReader(s.ctx)
		if err != nil {
			return 0, nil, err
		}
		b := bytes.NewBuffer(buf)
		if r.IntN(2) == 0 {
			_, err = io.Copy(b, stream) // its WriterTo, unless the buffer's ReaderFrom
			return typ, b.Bytes(), err
		}
		piece := make([]byte, 1+r.IntN(8<<10))
		_, err = io.CopyBuffer(struct{ io.Writer }{b}, struct{ io.Reader }{stream}, piece)
		return typ, b.Bytes(), err
	default:
		msg, err = s.readFull(r, buf, headerSize)
		if err != nil {
			return 0, nil, s.netConnError(err)
		}
		_, size, err := parseHeader(msg)
		if err != nil {
			return 0, nil, err
		}
		if msg, err = s.readFull(r, msg, headerSize+size); err != nil {
			return 0, nil, s.netConnError(err)
		}
		return 0, msg, nil
	}
}

// impatience draws how long a Read may take, if it is one that has a limit: from half a millisecond to what lies
// between two messages. Some end inside a message, most between two.
func (s *session) impatience(r *rand.Rand) (limit time.Duration, ok bool) {
	if r.IntN(3) > 0 {
		return 0, false
	}
	shortest := 500 * time.Microsecond
	return time.Duration(between(r, float64(shortest), float64(max(s.gap, 2*shortest)))), true
}

// readFull appends to buf from the NetConn until it has size bytes, over any number of timeouts.
func (s *session) readFull(r *rand.Rand, buf []byte, size int) ([]byte, error) {
	if cap(buf) < size {
		buf = append(make([]byte, 0, size), buf...)
	}
	for len(buf) < size {
		if limit, ok := s.impatience(r); ok {
			s.nc.SetReadDeadline(time.Now().Add(limit))
		}
		n, err := s.nc.Read(buf[len(buf):size])
		buf = buf[:len(buf)+n]
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() && s.ctx.Err() == nil {
			s.figures.ReadsCut.inc()
			s.nc.SetReadDeadline(time.Time{})
			continue
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// netConnError returns the Conn's own error in place of that of the NetConn, to which a normal closure is an io.EOF.
func (s *session) netConnError(err error) error {
	if err != io.EOF {
		return err
	}
	_, _, err = s.c.Read(s.ctx, nil)
	return err
}
