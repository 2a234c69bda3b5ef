package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
)

// Run is the server's process. It writes its address to w, and then answers each line that it reads. It returns
// when there are no more, or when the server has failed.
func Run(name string, m Mode, r io.Reader, w io.Writer) error {
	v, err := Find(name)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(w, ln.Addr())
	end := make(chan error, 2)
	go func() { end <- fmt.Errorf("%s: %w", name, v.Serve(ln, m)) }()
	go func() { end <- answer(r, w) }()
	return <-end
}

// answer answers each line that it reads.
func answer(r io.Reader, w io.Writer) error {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "collect": // so that nobody pays for what was before
			runtime.GC()
			fmt.Fprintln(w, "ok")
		case "usage":
			u, err := usage()
			if err != nil {
				return err
			}
			fmt.Fprintln(w, u.CPU, u.Calls)
		case "profile": // from now to the end
			f, err := os.Create(argument)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
			fmt.Fprintln(w, "ok")
		case "joined":
			fmt.Fprintln(w, joined.Load())
		case "memory":
			rss, err := resident()
			if err != nil {
				return err
			}
			fmt.Fprintln(w, rss)
		default:
			return fmt.Errorf("unknown command %q", command)
		}
	}
	return nil
}

// Usage is what the process has used since it started.
type Usage struct {
	CPU   int64 // nanoseconds, user and system
	Calls int64 // read and write system calls, 0 if the system does not count them
}

func usage() (Usage, error) {
	var u Usage
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return u, err
	}
	u.CPU = ru.Utime.Nano() + ru.Stime.Nano()
	if b, err := os.ReadFile("/proc/self/io"); err == nil {
		for line := range bytes.Lines(b) {
			var name string
			var n int64
			if _, err := fmt.Sscan(string(line), &name, &n); err == nil && (name == "syscr:" || name == "syscw:") {
				u.Calls += n
			}
		}
	}
	return u, nil
}

// resident returns the resident memory, in bytes, once the heap has been given back as far as possible.
func resident() (int64, error) {
	for range 2 { // what is in a sync.Pool survives the first
		debug.FreeOSMemory()
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no VmRSS")
}
