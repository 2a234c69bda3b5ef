//go:build !unix

package websocket

import "net"

// socket is for systems on which system calls can be made directly.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) writeNow([]byte) int { return 0 }

// waiter is for systems on which a socket can be read without a buffer at hand.
type waiter struct{ keep int }

func newWaiter(*socket) *waiter { return nil }

func (*waiter) read() (int, error) { return 0, nil }

func (*waiter) take() *buffer { return nil }
