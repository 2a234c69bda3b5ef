package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/strictws/websocket"
)

// acknowledge makes an acknowledgement go out. The receiver does not send it: two receivers that wait for the network
// would wait for each other.
func (s *session) acknowledge(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived = n
	if !s.acking {
		s.acking = true
		s.wg.Go(s.sendAcks)
	}
}

func (s *session) sendAcks() {
	typ := s.typ
	if typ == 0 {
		typ = websocket.Binary
	}
	var buf [headerSize]byte
	for {
		s.mu.Lock()
		n := s.arrived
		if n == s.acked {
			s.acking = false
			s.mu.Unlock()
			return
		}
		s.acked = n
		s.mu.Unlock()
		if err := s.c.Write(s.ctx, typ, appendHeader(buf[:0], kindAck, n, 0)); err != nil {
			s.writeFailed(err)
			return
		}
		s.figures.Acks.inc()
	}
}

// send sends messages, as the pace and the window allow, until the connection ends.
func (s *session) send() {
	r := s.draw(3)
	pause := func() time.Duration { return time.Duration(r.ExpFloat64() * float64(s.gap)) }
	timer := time.NewTimer(pause())
	defer timer.Stop()
	life := func() time.Duration { return time.Duration(r.ExpFloat64() * float64(s.life)) }
	end := time.NewTimer(life())
	defer end.Stop()
	stop, wanted := s.stopping, 0
	for {
		s.link.mu.Lock()
		n, again := s.link.out.next(wanted > 0)
		settled := s.link.out.settled()
		s.link.mu.Unlock()
		if n > 0 {
			if !again {
				wanted--
			}
			if !s.sendMessage(r, n) {
				return
			}
			continue
		}
		if stop == nil && settled && s.pings.Load() == 0 && !s.sendFinal() {
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		case <-stop:
			stop, wanted = nil, 0
		case n := <-s.burst:
			if stop != nil {
				wanted += n
			}
		case <-end.C:
			if s.started.Load() {
				s.wg.Go(s.abort)
			} else {
				end.Reset(life())
			}
		case <-timer.C:
			if stop == nil {
				continue
			}
			timer.Reset(pause())
			wanted = min(wanted+1, window)
			switch p := r.IntN(100); {
			case p < 5:
				wanted += r.IntN(8)
			case p < 8:
				s.pings.Add(1)
				s.wg.Go(s.ping)
			case p < 18:
				if !s.sendBroadcast() {
					return
				}
			}
		}
	}
}

func (s *session) ping() {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	switch err := s.c.Ping(ctx); {
	case err == nil:
		s.figures.Pings.inc()
		s.pings.Add(-1)
		s.wakeSender()
	case s.ctx.Err() == nil && ctx.Err() != nil:
		s.fail("client %d, connection %d: no Pong in %v", s.id, s.epoch, patience)
	case s.ctx.Err() == nil:
		s.writeFailed(err)
	}
}

func (s *session) sendBroadcast() bool {
	b := s.broadcast.Load()
	if b == nil || s.typ == websocket.Binary {
		return true
	}
	if err := s.c.WritePrepared(s.ctx, b.prepared); err != nil {
		s.writeFailed(err)
		return false
	}
	s.broadcastsSent++
	return true
}

// sendMessage sends message n, again and again as long as sending it is cancelled without effect. It returns false
// when the connection is over.
func (s *session) sendMessage(r *rand.Rand, n uint64) bool {
	select {
	case s.underWay <- struct{}{}:
		s.held.Add(1)
	case <-s.ctx.Done():
		return false
	}
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	typ, msg := s.link.out.lane.append((*buf)[:0], kindMessage, n, s.typ)
	*buf = msg
	for {
		limit := time.Duration(-1)
		if r.IntN(20) == 0 {
			limit = time.Duration(r.Int64N(int64(3*time.Millisecond))) - time.Millisecond/2
		}
		way, err := s.write(r, typ, msg, limit)
		cancelled := errors.Is(err, context.DeadlineExceeded) || way == "NetConn" && errors.Is(err, os.ErrDeadlineExceeded)
		if cancelled {
			s.figures.WritesCut.inc()
			s.cut = s.cut || errors.Is(err, net.ErrClosed) || way == "NetConn" // which does not say
		}
		switch {
		case err == nil:
			s.written.Store(n)
			s.figures.Sent.inc()
			s.figures.SentBytes.Add(int64(len(msg)))
			s.figures.Ways.add("sent by " + way)
			return true
		case s.ctx.Err() != nil:
			return false
		case cancelled:
			// Either it had no effect, and the message is sent once more; or the connection was cut, as the next
			// Write will say too. A message that got through all the same would arrive twice.
		default:
			s.writeFailed(err)
			return false
		}
	}
}

// write sends a message in one of the ways there are, in the time of limit unless that is -1.
func (s *session) write(r *rand.Rand, typ websocket.MessageType, msg []byte, limit time.Duration) (way string, err error) {
	ctx := s.ctx
	if limit != -1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	switch p := r.IntN(100); {
	case s.nc != nil && p < 50:
		if limit != -1 {
			s.nc.SetWriteDeadline(time.Now().Add(limit))
			defer s.nc.SetWriteDeadline(time.Time{})
		}
		_, err = s.nc.Write(msg)
		return "NetConn", err
	case p < 20 && limit == -1: // Queue has no more to do with a context than Flush
		if err := s.c.Queue(ctx, typ, msg); err != nil {
			return "Queue", err
		}
		return "Queue", s.c.Flush(ctx)
	case p < 60:
		return "Write", s.c.Write(ctx, typ, msg)
	case p < 75:
		return "WritePrepared", s.c.WritePrepared(ctx, websocket.Prepare(typ, msg))
	default:
		return "NextWriter", s.writePieces(ctx, r, typ, msg)
	}
}

func (s *session) writePieces(ctx context.Context, r *rand.Rand, typ websocket.MessageType, msg []byte) error {
	w, err := s.c.NextWriter(ctx, typ)
	if err != nil {
		return err
	}
	if r.IntN(3) == 0 {
		if _, err := w.(io.ReaderFrom).ReadFrom(bytes.NewReader(msg)); err != nil {
			return err
		}
		return w.Close()
	}
	for len(msg) > 0 {
		n := min(1+int(r.ExpFloat64()*(8<<10)), len(msg))
		if _, err := w.Write(msg[:n]); err != nil {
			return err
		}
		if msg = msg[n:]; r.IntN(20) == 0 { // the peer waits in the middle of a message
			time.Sleep(time.Duration(r.Int64N(int64(5 * time.Millisecond))))
		}
	}
	return w.Close()
}

// writeFailed judges the error of a write. How the connection ended is the receiver's to say.
func (s *session) writeFailed(err error) {
	_, closed := errors.AsType[*websocket.CloseError](err)
	switch {
	case closed, s.ctx.Err() != nil:
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF):
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
	default:
		s.fail("client %d, connection %d: %v", s.id, s.epoch, err)
	}
}

// sendFinal says once that all our messages have arrived, and how many broadcasts must have.
func (s *session) sendFinal() bool {
	s.mu.Lock()
	skip := s.finishing || s.ending != ""
	s.finishing = s.finishing || !skip
	s.mu.Unlock()
	if skip {
		return true
	}
	s.link.mu.Lock()
	count := s.link.out.sent
	body := fmt.Sprint(s.link.out.bytes, s.broadcastsSent)
	s.link.mu.Unlock()
	typ := s.typ
	if typ == 0 {
		typ = websocket.Text
	}
	msg := append(appendHeader(nil, kindFinal, count, len(body)), body...)
	if err := s.c.Write(s.ctx, typ, msg); err != nil {
		s.writeFailed(err)
		return false
	}
	s.final(true, false)
	return true
}

// final notes that the last record of a side was exchanged. After both, a client closes.
func (s *session) final(sent, came bool) {
	s.mu.Lock()
	s.finalSent = s.finalSent || sent
	s.finalCame = s.finalCame || came
	both := s.finalSent && s.finalCame
	s.mu.Unlock()
	if both && s.side == "client" && s.end(finished) {
		s.wg.Go(func() {
			if err := s.shutdown(websocket.StatusNormalClosure); err != nil && s.soak.ctx.Err() == nil {
				s.fail("client %d, connection %d: the last closing handshake: %v", s.id, s.epoch, err)
			}
		})
	}
}
