package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A counter is an atomic.Int64 that travels as JSON.
type counter struct{ atomic.Int64 }

func (c *counter) MarshalJSON() ([]byte, error) { return json.Marshal(c.Load()) }
func (c *counter) UnmarshalJSON(b []byte) error {
	var n int64
	err := json.Unmarshal(b, &n)
	c.Store(n)
	return err
}
func (c *counter) inc() { c.Add(1) }

// A tally counts by name.
type tally struct {
	mu sync.Mutex
	n  map[string]int64
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[string]int64)
	}
	t.n[name]++
}

func (t *tally) get(name string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[name]
}

func (t *tally) names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.n))
}

func (t *tally) sum() (sum int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.n {
		sum += n
	}
	return sum
}

func (t *tally) MarshalJSON() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return json.Marshal(t.n)
}

func (t *tally) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &t.n) }

// figures are what one of the two processes has counted.
type figures struct {
	Open  counter // connections, now
	Conns counter // connections, all
	Kinds tally   // of connections

	Sent      counter // messages, those sent again included
	SentBytes counter
	Again     counter // messages that were sent again after a connection was lost
	Acked     counter // messages
	Received  counter // messages, each verified
	RecvBytes counter
	Acks      counter // sent; one may stand for several messages
	Broadcast counter // received and verified
	Ways      tally   // of sending and receiving messages

	Handshakes counter // closings that the peer answered
	Pings      counter // answered
	ReadsCut   counter // Reads whose context ended, after which the next one went on
	WritesCut  counter // Writes whose context ended, with no effect or cutting the connection
	DialsCut   counter // Dials whose context ended
	Aborts     tally   // by kind
	Told       counter // connections that only the peer ended, as it has told

	Violations []string // the first ones
	Before     resources
	After      resources
}

// resources are what a process holds.
type resources struct {
	Goroutines int
	Files      int
	PeakRSS    int64 // bytes
}

// measure needs Linux's /proc.
func measure() (resources, error) {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return resources{}, err
	}
	res := resources{Goroutines: runtime.NumGoroutine(), Files: len(files) - 1} // one was for reading the directory
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return resources{}, err
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kb), " kB"), 10, 64)
			if err != nil {
				return resources{}, fmt.Errorf("/proc/self/status: %w", err)
			}
			res.PeakRSS = n << 10
		}
	}
	return res, nil
}

// settleTime bounds the wait for what ends: sessions, goroutines, files. Tests shorten it.
var settleTime = 20 * time.Second

// soon waits for wg, and reports whether that took no longer than settleTime.
func soon(wg *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(settleTime):
		return false
	}
}

// settle waits until the process holds no more than before, and returns an error if it still does at the end.
func settle(before resources) (after resources, err error) {
	for end := time.Now().Add(settleTime); ; time.Sleep(50 * time.Millisecond) {
		runtime.GC()
		if after, err = measure(); err != nil {
			return after, err
		}
		if after.Goroutines <= before.Goroutines && after.Files <= before.Files {
			return after, nil
		}
		if time.Now().After(end) {
			break
		}
	}
	if after.Files > before.Files {
		err = fmt.Errorf("%d files are open, %d were at the beginning", after.Files, before.Files)
	}
	if after.Goroutines > before.Goroutines {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		err = fmt.Errorf("%d goroutines are left, %d were there at the beginning", after.Goroutines, before.Goroutines)
	}
	return after, err
}
