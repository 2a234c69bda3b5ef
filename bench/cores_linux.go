package main

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// cores are the one for the servers and the one for the load generator.
type cores struct {
	server, load int
}

// chooseCores takes two of those that this process may use; they are the same one if there is no second.
func chooseCores() (cores, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return cores{}, err
	}
	c := cores{server: -1, load: -1}
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			if c.load < 0 {
				c.load = cpu
			}
			c.server = cpu
		}
	}
	return c, nil
}

func only(cpu int) *unix.CPUSet {
	var set unix.CPUSet
	set.Set(cpu)
	return &set
}

// stayOnLoad keeps this process, all its threads, on the core of the load generator.
func (c cores) stayOnLoad() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, only(c.load)); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// startOnServers calls start, which starts a process, on the servers' core: the process stays there.
func (c cores) startOnServers(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, only(c.server)); err != nil {
		return err
	}
	err := start()
	if back := unix.SchedSetaffinity(0, only(c.load)); err == nil {
		err = back
	}
	return err
}
