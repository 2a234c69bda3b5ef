package server

import (
	"net"
	"runtime"
	"syscall"
)

func init() {
	register(Variant{Name: "kernel", Plain: true, EventLoop: true, Serve: serveKernel,
		Does: func(m Mode) bool { return !m.Broadcast && !m.Idle && !m.Handshake && !m.TLS && !m.Deflate }})
}

// serveKernel echoes bytes with the least there is to do: one thread that asks the kernel where something has arrived,
// reads it, and writes it. There are no goroutines and no frames.
func serveKernel(ln net.Listener, _ Mode) error {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	// With one, the scheduler would look for other work whenever the thread waits.
	runtime.GOMAXPROCS(2)
	l := &kernelLoop{epoll: epoll, buf: make([]byte, 256<<10), unsent: map[int][]byte{}}
	failed := make(chan error, 2)
	go func() { failed <- l.run() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err == nil {
				err = l.add(c)
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	return <-failed
}

type kernelLoop struct {
	epoll  int
	buf    []byte
	unsent map[int][]byte // what a connection did not take yet; it is not read from meanwhile
}

// add takes a connection over from the runtime's poller.
func (l *kernelLoop) add(c net.Conn) error {
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var fd int
	var dupErr error
	err = raw.Control(func(theirs uintptr) { fd, dupErr = syscall.Dup(int(theirs)) })
	if err != nil {
		return err
	}
	if dupErr != nil {
		return dupErr
	}
	return l.await(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLIN)
}

func (l *kernelLoop) await(op, fd int, events uint32) error {
	return syscall.EpollCtl(l.epoll, op, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

func (l *kernelLoop) run() error {
	runtime.LockOSThread()
	var events [256]syscall.EpollEvent
	for {
		n, err := syscall.EpollWait(l.epoll, events[:], -1)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for i := range n {
			fd := int(events[i].Fd)
			if err := l.echo(fd); err != nil && !transient(err) {
				delete(l.unsent, fd)
				syscall.Close(fd)
			}
		}
	}
}

// echo reads once, unless something is left to be sent, and writes once.
func (l *kernelLoop) echo(fd int) error {
	p, late := l.unsent[fd]
	if !late {
		n, err := syscall.Read(fd, l.buf)
		if err != nil {
			return err
		}
		if n == 0 {
			return net.ErrClosed
		}
		p = l.buf[:n]
	}
	n, err := syscall.Write(fd, p)
	if err != nil && !transient(err) {
		return err
	}
	switch p = p[max(n, 0):]; {
	case len(p) > 0 && late:
		l.unsent[fd] = p
	case len(p) > 0:
		l.unsent[fd] = append([]byte(nil), p...)
		return l.await(syscall.EPOLL_CTL_MOD, fd, syscall.EPOLLOUT)
	case late:
		delete(l.unsent, fd)
		return l.await(syscall.EPOLL_CTL_MOD, fd, syscall.EPOLLIN)
	}
	return nil
}

// transient reports whether a call that failed is to be made again when the kernel says that something is ready.
func transient(err error) bool { return err == syscall.EAGAIN || err == syscall.EINTR }
