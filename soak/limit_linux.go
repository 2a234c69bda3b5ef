package main

import (
	"fmt"
	"syscall"
)

// raiseFileLimit raises the limit of open files as far as it goes, and returns an error if that is less than need.
func raiseFileLimit(need int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	if limit.Cur < uint64(need) {
		return fmt.Errorf("a process may open %d files (ulimit -Hn), and this takes up to %d: raise the limit, or lower -connections", limit.Cur, need)
	}
	return nil
}

// groupOfItsOwn keeps Ctrl-C from a process: it is the client's to handle.
var groupOfItsOwn = &syscall.SysProcAttr{Setpgid: true}
