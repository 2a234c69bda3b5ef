package echo

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/strictws/websocket"
)

// Greeting answers each text message with "Server: Hello. You said: " and the message, and each binary message with
// the message itself. It logs when a message was received and when the answer was sent.
func (s *Server) Greeting(w http.ResponseWriter, r *http.Request) {
	log := s.logger()
	s.accept(w, r, func(c *websocket.Conn) error { return greet(c, log) })
}

func greet(c *websocket.Conn, log *slog.Logger) error {
	const hello = "Server: Hello. You said: "
	remote := c.RemoteAddr().String()
	for msg, err := range c.Messages(context.Background()) {
		if err != nil {
			return err
		}
		log.Info("Message received from Client", "remote", remote, "type", msg.Type.String(), "bytes", len(msg.Payload))
		answer := msg.Payload
		if msg.Type == websocket.Text {
			answer = append([]byte(hello), answer...)
		}
		if err := c.Write(context.Background(), msg.Type, answer); err != nil {
			return err
		}
		log.Info("Message sent to Client", "remote", remote, "type", msg.Type.String(), "bytes", len(answer))
	}
	return nil
}

// Messages echoes with Messages and Queue: a message is held whole, and the answers to many that arrive together go
// out together.
func (s *Server) Messages(w http.ResponseWriter, r *http.Request) {
	s.accept(w, r, echoMessages)
}

func echoMessages(c *websocket.Conn) error {
	for msg, err := range c.Messages(context.Background()) {
		if err != nil {
			return err
		}
		if err := c.Queue(context.Background(), msg.Type, msg.Payload); err != nil {
			return err
		}
	}
	return nil
}

// Streams echoes with NextReader and NextWriter: a message goes back while it still arrives, whatever its length.
func (s *Server) Streams(w http.ResponseWriter, r *http.Request) {
	s.accept(w, r, echoStreams)
}

func echoStreams(c *websocket.Conn) error {
	for {
		if err := echoStream(c); err != nil {
			return err
		}
	}
}

func echoStream(c *websocket.Conn) error {
	typ, msg, err := c.NextReader(context.Background())
	if err != nil {
		return err
	}
	answer, err := c.NextWriter(context.Background(), typ)
	if err != nil {
		return err
	}
	if _, err := io.Copy(answer, msg); err != nil {
		return err
	}
	return answer.Close()
}

// Prepared echoes with Read, Prepare and WritePrepared. The latter are made for one message to many connections.
func (s *Server) Prepared(w http.ResponseWriter, r *http.Request) {
	s.accept(w, r, echoPrepared)
}

func echoPrepared(c *websocket.Conn) error {
	var buf []byte
	for {
		typ, msg, err := c.Read(context.Background(), buf[:0])
		if err != nil {
			return err
		}
		if err := c.WritePrepared(context.Background(), websocket.Prepare(typ, msg)); err != nil {
			return err
		}
		buf = msg
	}
}

// NetConn echoes with io.Copy from a net.Conn to itself. Text comes back as text and binary as binary.
func (s *Server) NetConn(w http.ResponseWriter, r *http.Request) {
	s.accept(w, r, echoNetConn)
}

func echoNetConn(c *websocket.Conn) error {
	nc := websocket.NetConn(c, 0)
	if _, err := io.Copy(nc, nc); err != nil {
		return err
	}
	// To a net.Conn a normal closure is io.EOF and no more; the Conn knows the code.
	_, _, err := c.Read(context.Background(), nil)
	return err
}

// Clock sends the time as a text message (RFC 3339), at once and then every second, until the client leaves.
func (s *Server) Clock(w http.ResponseWriter, r *http.Request) {
	s.accept(w, r, tick)
}

func tick(c *websocket.Conn) error {
	// Somebody must read, or nobody answers a Ping and nobody notices that the client left.
	left := make(chan error, 1)
	go func() {
		for {
			if _, _, err := c.NextReader(context.Background()); err != nil {
				left <- err
				return
			}
		}
	}()

	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for now := time.Now(); ; {
		if err := c.Write(context.Background(), websocket.Text, now.AppendFormat(nil, time.RFC3339)); err != nil {
			c.Close() // ends the reader
			<-left
			return err
		}
		select {
		case err := <-left:
			return err
		case now = <-ticker.C:
		}
	}
}
