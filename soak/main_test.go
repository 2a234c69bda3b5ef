package main

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain lets the test's program be the server, as main does.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == serverArgument {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestSoak(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-connections=50", "-for=2s", "-rate=500", "-life=1s", "-progress=1s"}, &stdout, &stderr)
	t.Logf("%s", &stdout)
	require.Zero(t, status, "%s", &stderr)
	assert.Contains(t, stdout.String(), "\nPASS")
	for _, line := range []string{"messages that arrived", "sent again after a connection was lost", "Reads cancelled", "reset"} {
		assert.Regexp(t, line+` +[1-9][0-9]* +[1-9]`, stdout.String())
	}
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
