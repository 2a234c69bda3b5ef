package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/strictws/websocket/bench/load"
	"github.com/strictws/websocket/bench/server"
)

// The tests start the servers as the command does: this program is them.
func TestMain(m *testing.M) {
	if os.Getenv(isCommand) != "" || len(os.Args) > 1 && os.Args[1] == "-serve" {
		main()
		return
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // of the hundreds of servers
	os.Exit(m.Run())
}

// isCommand is set in the environment of a test program that is to be the command.
const isCommand = "BENCH_IS_COMMAND"

func command(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), isCommand+"=1")
	return c
}

func testCores(t *testing.T) cores {
	t.Helper()
	c, err := chooseCores()
	require.NoError(t, err)
	return c
}

// Every server answers what it is sent, in each kind of cell that it can be measured in.
func TestServersEcho(t *testing.T) {
	on := testCores(t)
	for _, name := range []string{"echo/16B/1", "echo/125B/64", "echo/64KiB/1", "echo/4MiB/1", "text/utf8/1", "text/ascii/1",
		"pipelined/1", "broadcast/1000", "deflate/1KiB", "deflate/16KiB", "takeover/1KiB", "takeover/16KiB", "idle/64KiB"} {
		c := find(t, name)
		t.Run(name, func(t *testing.T) {
			for _, v := range server.Variants() {
				if v.Supports(c.mode) {
					assert.NoError(t, verify(v, c, on), v.Name)
				}
			}
		})
	}
}

// An answer does not wait for the rest of the next message, nor is it lost when a Close is right behind.
func TestAnswersDoNotWait(t *testing.T) {
	on := testCores(t)
	key := [4]byte{1, 2, 3, 4}
	frame := load.AppendFrame(nil, load.Binary, key, []byte("abc"))
	closing := load.AppendFrame(nil, 0x88, key, []byte{1000 >> 8, 1000 & 0xff})
	for _, v := range server.Variants() {
		if v.Plain {
			continue
		}
		p, err := start(v, server.Mode{}, on)
		require.NoError(t, err, v.Name)
		defer p.stop(nil)
		c, err := net.Dial("tcp", p.addr)
		require.NoError(t, err, v.Name)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		require.NoError(t, err, v.Name)
		r := bufio.NewReader(c)
		response, err := http.ReadResponse(r, nil)
		require.NoError(t, err, v.Name)
		require.Equal(t, http.StatusSwitchingProtocols, response.StatusCode, v.Name)

		first := len(frame) + 3
		all := slices.Concat(frame, frame, frame, closing)
		answer := make([]byte, 5)
		for i, part := range [][]byte{all[:first], all[first:]} {
			_, err = c.Write(part)
			require.NoError(t, err, v.Name)
			for range 1 + i {
				_, err = io.ReadFull(r, answer)
				require.NoError(t, err, v.Name)
				assert.Equal(t, "\x82\x03abc", string(answer), v.Name)
			}
		}
	}
}

// The check is one: it finds an answer that is not what was sent.
func TestVerifyFindsWrongAnswers(t *testing.T) {
	c := find(t, "echo/125B/1")
	m := load.Message{First: load.Binary, Payload: append([]byte{}, c.messages[0]...)}
	require.NoError(t, c.verify(false)(0, 0, m))
	m.Payload[100]++
	assert.ErrorContains(t, c.verify(false)(0, 0, m), "is not the message")

	c = find(t, "deflate/1KiB")
	payload, err := compress(c.messages[3])
	require.NoError(t, err)
	assert.Less(t, len(payload), 700)
	m = load.Message{First: load.Text | load.Compressed, Payload: payload}
	assert.NoError(t, c.verify(false)(0, 3, m))
	assert.ErrorContains(t, c.verify(false)(0, 4, m), "is not the message")
	m = load.Message{First: load.Text, Payload: c.messages[3]}
	assert.ErrorContains(t, c.verify(false)(0, 3, m), "not compressed")
	m = load.Message{First: load.Binary | load.Compressed, Payload: payload}
	assert.ErrorContains(t, c.verify(false)(0, 3, m), "first byte")
}

// One measurement of each kind, with every server, as short as can be.
func TestMeasure(t *testing.T) {
	on := testCores(t)
	b := budget{warm: time.Millisecond, measure: 5 * time.Millisecond, upgrades: 20}
	for _, name := range []string{"echo/16B/64", "broadcast/1000", "handshake", "idle/125B", "idle-tls/125B"} {
		c := find(t, name)
		c.conns = min(c.conns, 20)
		t.Run(name, func(t *testing.T) {
			for _, v := range server.Variants() {
				if !v.Supports(c.mode) {
					continue
				}
				s, err := measure(v, c, b, on)
				require.NoError(t, err, v.Name)
				if c.kind != idle && c.kind != idleTLS {
					assert.Positive(t, s.Cost, v.Name)
					assert.Positive(t, s.Rate, v.Name)
				}
			}
		})
	}
}

// What the servers say of themselves: whether they refuse text that is not UTF-8.
func TestValidates(t *testing.T) {
	on := testCores(t)
	c := find(t, "text/utf8/1")
	c.messages = [][]byte{append([]byte(strings.Repeat("a", 100)), 0xff)}
	c.mode.Size = len(c.messages[0])
	for _, v := range server.Variants() {
		if v.Plain || !v.Supports(c.mode) {
			continue
		}
		if err := verify(v, c, on); v.Validates {
			assert.Error(t, err, v.Name)
		} else {
			assert.NoError(t, err, v.Name)
		}
	}
}

func TestRun(t *testing.T) {
	cells, err := chooseCells("echo/16B/1", false)
	require.NoError(t, err)
	require.Len(t, cells, 1)
	servers, err := chooseVariants("raw,strictws,gobwas-low,strictws-messages")
	require.NoError(t, err)
	var names []string
	for _, v := range servers {
		names = append(names, v.Name)
	}
	assert.Equal(t, []string{"gobwas-low", "raw", "raw-large", "strictws", "strictws-messages"}, names, "each once")

	var progress strings.Builder
	o := options{rounds: 2, budget: budget{measure: 2 * time.Millisecond}, cores: testCores(t), progress: &progress}
	results := o.run(cells, servers)
	require.Len(t, results, 1)
	assert.Empty(t, results[0].failed)
	assert.Len(t, results[0].samples, 4, "raw-large is for large messages")
	for name, samples := range results[0].samples {
		assert.Len(t, samples, 2, name)
	}
	assert.Empty(t, results[0].twins)
	assert.Contains(t, progress.String(), "cell 1 of 1, round 2 of 2: echo/16B/1\n")
	writeDetails(io.Discard, results)
	var head strings.Builder
	writeHead(&head, options{rounds: 7, budget: o.budget})
	assert.Contains(t, head.String(), "; medians of 7 rounds of 2ms, of idle connections 3.\n")

	o.rounds, o.twins, o.budget.profiles = 1, 2, t.TempDir()
	results = o.run(cells, servers)
	for name := range results[0].samples {
		assert.Len(t, results[0].samples[name], 1, name)
		require.Len(t, results[0].twins[name], 2, name)
		assert.Len(t, results[0].twins[name][0], 1, name)
		assert.Len(t, results[0].twins[name][1], 1, name)
	}
	profile, err := os.ReadFile(filepath.Join(o.budget.profiles, "echo-16B-1-strictws.pprof"))
	require.NoError(t, err)
	assert.NotEmpty(t, profile)

	_, err = chooseVariants("raw,nothing")
	assert.ErrorContains(t, err, "no server")
}

func TestChooseCells(t *testing.T) {
	chosen, err := chooseCells("pipelined/*,echo/16B/64,pipelined", false)
	require.NoError(t, err)
	var names []string
	for _, c := range chosen {
		names = append(names, c.name)
	}
	assert.Equal(t, []string{"echo/16B/64", "pipelined/1", "pipelined/64"}, names, "each once")
	for pattern, want := range map[string]string{
		"nothing": `no cell matches "nothing"`, "echo,nothing": `no cell matches "nothing"`,
		"echo,": `no cell matches ""`, "echo,[": `syntax error in pattern: "["`,
		"idle/[a": `syntax error in pattern: "idle/[a"`,
	} {
		_, err := chooseCells(pattern, true)
		assert.ErrorContains(t, err, want)
	}
}

// Mistakes on the command line end it before anything is measured.
func TestMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	for _, args := range [][]string{
		{"echo"}, {"-list", "echo"}, {"-rounds", "-1"}, {"-twins", "-1"}, {"-time", "-1ms"}, {"-profile", file},
	} {
		var stdout, stderr strings.Builder
		c := command(args...)
		c.Stdout, c.Stderr = &stdout, &stderr
		assert.Error(t, c.Run(), args)
		assert.Equal(t, 1, c.ProcessState.ExitCode(), args)
		assert.Regexp(t, "^bench: .+\n$", stderr.String(), args)
		assert.Empty(t, stdout.String(), args)
	}
}

// The tables of what was measured come all the same, when a server fails.
func TestFailures(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "first")
	measure := func() *exec.Cmd {
		return command("-cells", "echo/16B/1", "-libs", "raw,strictws", "-rounds", "1", "-time", "1ms", "-profile", dir)
	}
	out, err := measure().Output()
	require.NoError(t, err)
	assert.NotContains(t, string(out), "### Failed")

	profile := filepath.Join(dir, "echo-16B-1-strictws.pprof")
	require.NoError(t, os.Remove(profile))
	require.NoError(t, os.Mkdir(profile, 0o777)) // where it cannot be written
	c := measure()
	out, err = c.Output()
	assert.Error(t, err)
	assert.Equal(t, 1, c.ProcessState.ExitCode())
	assert.Contains(t, string(out), "| echo/16B/1 |")
	assert.Regexp(t, "### Failed, and left out\n\n- echo/16B/1, strictws: .*is a directory\n$", string(out))
}

// A server that fails is left out and reported; the others go on.
func TestRunGoesOn(t *testing.T) {
	cells, err := chooseCells("echo/16B/1", false)
	require.NoError(t, err)
	broken := server.Variant{Name: "gone"}
	works, err := server.Find("raw")
	require.NoError(t, err)
	o := options{rounds: 1, budget: budget{measure: time.Millisecond}, cores: testCores(t), progress: io.Discard}
	results := o.run(cells, []server.Variant{broken, works})
	assert.ErrorContains(t, results[0].failed["gone"], "there is no server")
	assert.Len(t, results[0].samples["raw"], 1)
}

// Why a server has ended is said, and at once.
func TestServerGivesUp(t *testing.T) {
	v, err := server.Find("gobwas-low")
	require.NoError(t, err)
	c := find(t, "echo/16B/64")
	p, err := start(v, c.mode, testCores(t))
	require.NoError(t, err)
	few := unix.Rlimit{Cur: 16, Max: 16}
	require.NoError(t, unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &few, nil))
	begin := time.Now()
	_, err = measureMessages(p, v, c, budget{measure: time.Millisecond})
	err = p.stop(err)
	assert.Less(t, time.Since(begin), 10*time.Second)
	require.Error(t, err)
	assert.Regexp(t, "bench: gobwas-low: accept .*: too many open files$", err.Error())
	assert.Equal(t, 1, p.cmd.ProcessState.ExitCode())
}

func TestMessages(t *testing.T) {
	for _, c := range cells() {
		for _, m := range c.messages {
			assert.Len(t, m, c.mode.Size, c.name)
			if c.first&0x0f == load.Text&0x0f {
				assert.True(t, utf8.Valid(m), c.name)
			}
		}
	}
	for _, r := range string(mixedText(16 << 10)) {
		require.GreaterOrEqual(t, utf8.RuneLen(r), 2)
	}
}
