package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParseProgress(t *testing.T) {
	id, ok := parseProgress("Running test case ID 6.4.1 for agent echo-stream from peer tcp4:127.0.0.1:9001")
	assert.True(t, ok)
	assert.Equal(t, "6.4.1", id)
	for _, line := range []string{"", "Ok, will run 301 test cases against 1 servers", "Running test case ID 6.4.1"} {
		_, ok = parseProgress(line)
		assert.False(t, ok, line)
	}
}

func TestProgress(t *testing.T) {
	p := newProgress(301)
	assert.Equal(t, "no case runs", p.String())
	p.at("echo", "1.1.1")
	p.at("echo-stream", "1.1.1")
	p.at("echo", "1.1.2")
	assert.Equal(t, "echo: case 1.1.2, 2/301 · echo-stream: case 1.1.1, 1/301", p.String())
	p.done("echo")
	p.done("echo")
	assert.Equal(t, "echo-stream: case 1.1.1, 1/301", p.String())
}

func TestLineWriter(t *testing.T) {
	var lines []string
	w := &lineWriter{line: func(line string) { lines = append(lines, line) }}
	for _, part := range []string{"fir", "st\nsecond\r\n\nthi", "", "rd"} {
		n, err := fmt.Fprint(w, part)
		assert.NoError(t, err)
		assert.Equal(t, len(part), n)
	}
	assert.Equal(t, []string{"first", "second", ""}, lines)
}

func TestEchodArgs(t *testing.T) {
	args := echodArgs(true)
	assert.Contains(t, args, "127.0.0.1:0", "the loopback interface, a free port")
	assert.Contains(t, args, "16777216", "the longest message of cases 9.1.6 and 9.2.6")
	assert.Contains(t, args, "takeover")
	assert.Contains(t, echodArgs(false), "on")
}
