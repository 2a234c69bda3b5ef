//go:build !unix

package websocket

import "net"

// waiter is for systems on which a socket can be read without a buffer at hand.
type waiter struct{ keep int }

func newWaiter(net.Conn) *waiter { return nil }

func (*waiter) read() (int, error) { return 0, nil }

func (*waiter) take() *buffer { return nil }
