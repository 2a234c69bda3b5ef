//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/strictws/websocket"
)

// fault in the environment names what is wrong with the server.
const fault = "SOAK_TEST_FAULT"

// TestMain lets the test's program be the server, as main does.
func TestMain(m *testing.M) {
	if len(os.Args) != 2 || os.Args[1] != serverArgument {
		os.Exit(m.Run())
	}
	switch os.Getenv(fault) {
	case "":
		main()
	case "other seed": // it expects and sends what the clients do not
		serveFaulty(func(line string) string { return strings.Replace(line, `"Seed":1,`, `"Seed":2,`, 1) })
	case "break":
		serveFaulty(func(line string) string {
			if line == "stop" { // each client's next connection is its last
				breakConnections()
			}
			return line
		})
	case "mute":
		serveFaulty(func(line string) string {
			if line == "finish" {
				time.Sleep(time.Hour)
			}
			return line
		})
	case "undead":
		serveFaulty(func(line string) string { return line })
		time.Sleep(time.Hour)
	}
}

// hurry shortens settleTime during a test.
func hurry(t *testing.T) {
	before := settleTime
	settleTime = 500 * time.Millisecond
	t.Cleanup(func() { settleTime = before })
}

// serveFaulty serves, with something done at each line that it is told.
func serveFaulty(fault func(line string) string) {
	in, lines := io.Pipe()
	go func() {
		defer lines.Close()
		for told := bufio.NewScanner(os.Stdin); told.Scan(); {
			fmt.Fprintln(lines, fault(told.Text()))
		}
	}()
	if err := serve(in, os.Stdout); err != nil {
		panic(err)
	}
}

// breakConnections ends TCP on all connections of the process, as neither side does.
func breakConnections() {
	for fd := range 1000 {
		if _, err := syscall.Getpeername(fd); err == nil {
			syscall.Shutdown(fd, syscall.SHUT_RDWR)
		}
	}
}

func TestSoak(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-connections=50", "-for=2s", "-rate=500", "-life=1s", "-progress=1s"}, &stdout, &stderr)
	t.Logf("%s", &stdout)
	require.Zero(t, status, "%s", &stderr)
	assert.Contains(t, stdout.String(), "\nPASS:")
	for _, line := range []string{"messages that arrived", "acknowledged by the peer", "Reads cancelled"} {
		assert.Regexp(t, line+` +[1-9]\d* +[1-9]`, stdout.String())
	}
	for _, line := range []string{"sent again after a connection was lost", "Shutdown", "reset"} {
		assert.Regexp(t, line+` +([1-9]\d* +\d|\d+ +[1-9])`, stdout.String())
	}
}

func TestSoakCutShort(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(ctx, []string{"-connections=10", "-rate=500", "-for=1h"}, &stdout, &stderr), "%s%s", &stdout, &stderr)
	assert.Regexp(t, `\nPASS, but cut short after 0\.\d s of 1h0m0s: `, stdout.String())
}

func TestSoakFails(t *testing.T) {
	for _, tt := range []struct{ fault, duration, violation string }{
		{"other seed", "20s", `connection 1, .*: message 1 `},
		{"break", "1s", `connection \d+ broke, and neither side did it: `},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Setenv(fault, tt.fault)
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), []string{"-connections=10", "-rate=500", "-for=" + tt.duration}, &stdout, &stderr)
			require.Equal(t, 1, status, "%s%s", &stdout, &stderr)
			assert.Regexp(t, `\nFAIL \(seed 1\)\n(client|server): client \d, `+tt.violation, stdout.String())
		})
	}
}

func TestServerHangs(t *testing.T) {
	hurry(t)
	for _, tt := range []struct{ fault, err string }{
		{"mute", `soak: server: no answer to "finish" in 2s`},
		{"undead", "soak: server: signal: killed"},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Setenv(fault, tt.fault)
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), []string{"-connections=10", "-rate=500", "-for=100ms"}, &stdout, &stderr)
			require.Equal(t, 2, status, "%s%s", &stdout, &stderr)
			assert.Contains(t, stderr.String(), tt.err)
		})
	}
}

// TestSessionHangs lets a session wait for what it does not get.
func TestSessionHangs(t *testing.T) {
	hurry(t)
	hung := &remote{link: newLink(1, 7, toServer, toClient), endings: make(map[uint64]bool)}
	hung.link.mu.Lock()
	s := &server{clients: map[uint64]*remote{7: hung}}
	s.init("server", settings{Seed: 1}, time.Hour)
	where, closeAll, err := s.open(filesNeeded(1))
	require.NoError(t, err)
	url := fmt.Sprintf("ws://%s/soak?id=7&epoch=1&last=0&known=0&typ=0&narrow=0", where.Plain[0])
	c, _, err := websocket.Dial(t.Context(), url, nil)
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool { return s.sessions.Load() == 1 }, time.Minute, time.Millisecond)

	s.finish(closeAll)
	violations := s.failures()
	require.Len(t, violations, 3)
	assert.Equal(t, "server: 1 sessions are left", violations[0])
	assert.Equal(t, "server: 1 sessions go on, although all was given up", violations[1])
	assert.Contains(t, violations[2], "goroutines are left")
	hung.link.mu.Unlock()
	s.fence.Wait()
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args []string
		err  string
	}{
		{[]string{"-connections=0"}, "must be positive"},
		{[]string{"-rate=0"}, "must be positive"},
		{[]string{"-life=0"}, "must be positive"},
		{[]string{"-for=-1s"}, "must not be negative"},
		{[]string{"-drain=-1s"}, "must not be negative"},
		{[]string{"server", "x"}, `unexpected argument "server"`},
		{[]string{"-for=soon"}, "invalid value"},
		{[]string{"-connections=1000000000"}, "ulimit -Hn"},
	} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, 2, run(t.Context(), tt.args, &stdout, &stderr), tt.args)
		assert.Contains(t, stderr.String(), tt.err)
	}
	assert.Zero(t, run(t.Context(), []string{"-h"}, new(bytes.Buffer), new(bytes.Buffer)))
}

func TestSettle(t *testing.T) {
	before, err := measureWarm()
	require.NoError(t, err)
	assert.Positive(t, before.PeakRSS)

	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	now, err := measure()
	require.NoError(t, err)
	assert.Equal(t, before.Files+1, now.Files)
	require.NoError(t, f.Close())

	done := make(chan struct{})
	go func() { <-done }()
	now, err = measure()
	require.NoError(t, err)
	assert.Equal(t, before.Goroutines+1, now.Goroutines, fmt.Sprint(now))
	close(done)

	_, err = settle(before)
	assert.NoError(t, err)
}
