package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// otherSeed in the environment makes the server expect and send what the clients do not.
const otherSeed = "SOAK_TEST_OTHER_SEED"

// TestMain lets the test's program be the server, as main does.
func TestMain(m *testing.M) {
	if len(os.Args) != 2 || os.Args[1] != serverArgument {
		os.Exit(m.Run())
	}
	if os.Getenv(otherSeed) == "" {
		main()
		return
	}
	in := bufio.NewReader(os.Stdin)
	set, err := in.ReadString('\n')
	if err == nil {
		set = strings.Replace(set, `"Seed":1,`, `"Seed":2,`, 1)
		err = serve(io.MultiReader(strings.NewReader(set), in), os.Stdout)
	}
	if err != nil {
		panic(err)
	}
}

func TestSoak(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-connections=50", "-for=2s", "-rate=500", "-life=1s", "-progress=1s"}, &stdout, &stderr)
	t.Logf("%s", &stdout)
	require.Zero(t, status, "%s", &stderr)
	assert.Contains(t, stdout.String(), "\nPASS")
	for _, line := range []string{"messages that arrived", "acknowledged by the peer", "Reads cancelled"} {
		assert.Regexp(t, line+` +[1-9]\d* +[1-9]`, stdout.String())
	}
	for _, line := range []string{"sent again after a connection was lost", "Shutdown", "reset"} {
		assert.Regexp(t, line+` +([1-9]\d* +\d|\d+ +[1-9])`, stdout.String())
	}
}

func TestSoakFails(t *testing.T) {
	t.Setenv(otherSeed, "1")
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-connections=10", "-for=20s", "-rate=500"}, &stdout, &stderr)
	require.Equal(t, 1, status, "%s", &stderr)
	assert.Regexp(t, `\nFAIL \(seed 1\)\n(client|server): client \d, connection 1, .*: message 1 `, stdout.String())
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args []string
		err  string
	}{
		{[]string{"-connections=0"}, "must be positive"},
		{[]string{"-rate=0"}, "must be positive"},
		{[]string{"-life=0"}, "must be positive"},
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
