//go:build !linux

package main

import (
	"errors"
	"syscall"
)

func raiseFileLimit(int) error { return errors.New("this needs Linux: /proc, and all of 127.0.0.0/8") }

var groupOfItsOwn *syscall.SysProcAttr
