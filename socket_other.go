//go:build !unix

package websocket

import (
	"net"
	"sync/atomic"
)

// socket is of use on systems only where system calls can be made directly.
type socket struct{}

func (*socket) open(net.Conn) {}

func (*socket) usable() bool { return false }

func (*socket) read(int, bool) (int, error) { return 0, nil }

func (*socket) take() *buffer { return nil }

func (*socket) write([]byte, bool, *atomic.Uint64) (int, error) { return 0, nil }
