package load

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"time"
)

// TLS opens n connections over TLS, on each of which it sends message and wants answer, and returns what closes them.
func TLS(addr string, n int, plain bool, message, answer []byte) (closeAll func(), err error) {
	var conns []net.Conn
	closeAll = func() {
		for _, c := range conns {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	config := &tls.Config{
		InsecureSkipVerify: true, // the server made its certificate when it started
		NextProtos:         []string{"http/1.1"},
	}
	got := make([]byte, len(answer))
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		conns = append(conns, nc)
		nc.SetDeadline(time.Now().Add(patience))
		c := tls.Client(nc, config)
		if !plain {
			if err := sendRequest(c, addr, ""); err != nil {
				return nil, err
			}
			if err := readResponse(c, ""); err != nil {
				return nil, err
			}
		}
		if _, err := c.Write(message); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return nil, err
		}
		if !bytes.Equal(got, answer) {
			return nil, errAnswer
		}
	}
	return closeAll, nil
}
