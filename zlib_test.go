package websocket

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// zlibPeer is Python's zlib, by way of testdata/deflate/zlib_check.py.
type zlibPeer struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func startZlib(t *testing.T) *zlibPeer {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI has to have python3, so that zlib is asked:", err)
		}
		t.Skip("no python3:", err)
	}
	cmd := exec.Command(python, "testdata/deflate/zlib_check.py")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		assert.NoError(t, cmd.Wait())
	})
	return &zlibPeer{t: t, in: in, out: bufio.NewReader(out)}
}

// ask sends a command with data, and returns the data of the answer.
func (z *zlibPeer) ask(command string, data [][]byte) (answer [][]byte, err error) {
	z.t.Helper()
	for _, d := range data {
		word := "-"
		if len(d) > 0 {
			word = hex.EncodeToString(d)
		}
		command += " " + word
	}
	_, err = io.WriteString(z.in, command+"\n")
	require.NoError(z.t, err)
	line, err := z.out.ReadString('\n')
	require.NoError(z.t, err)
	if reason, failed := strings.CutPrefix(line, "error"); failed {
		return nil, fmt.Errorf("zlib:%s", strings.TrimSpace(reason))
	}
	for _, word := range strings.Fields(line) {
		d, err := hex.DecodeString(strings.TrimPrefix(word, "-"))
		require.NoError(z.t, err)
		answer = append(answer, d)
	}
	return answer, nil
}

// zlib with the window that was agreed on understands us, and we understand it.
func TestZlib(t *testing.T) {
	z := startZlib(t)
	rnd := rand.New(rand.NewPCG(7692, 20))
	messages := [][]byte{{}, []byte("Hello"), []byte("Hello"), {}, randomBytes(rnd, 1500), make([]byte, 3000)}
	for range 10 {
		messages = append(messages, jsonMessage(rnd, 170), jsonMessage(rnd, 1<<10))
	}
	messages = append(messages, jsonMessage(rnd, 36<<10), messages[7])

	for _, takeover := range []bool{false, true} {
		for bits := 8; bits <= 15; bits++ {
			d := sending(takeover, bits, 1+bits%9)
			var sent, payloads [][]byte
			for i, m := range messages {
				var out []byte
				ok := true
				if i%3 == 0 {
					out = d.appendEnd(d.appendPiece(nil, m))
				} else {
					out, ok = d.appendMessage(nil, m)
				}
				if ok {
					sent, payloads = append(sent, m), append(payloads, out)
				}
			}
			got, err := z.ask(fmt.Sprintf("inflate %d %d", bits, b2i(takeover)), payloads)
			require.NoError(t, err)
			require.Len(t, got, len(sent))
			for i := range sent {
				require.Equal(t, string(sent[i]), string(got[i]), "takeover=%v bits=%d message %d", takeover, bits, i)
			}

			if bits == 8 {
				continue // zlib cannot compress with this window; there is a test for that
			}
			payloads, err = z.ask(fmt.Sprintf("deflate %d %d %d", bits, bits%10, b2i(takeover)), messages)
			require.NoError(t, err)
			require.Len(t, payloads, len(messages))
			f := receiving(takeover, bits)
			for i, payload := range payloads {
				m, err := f.appendMessage(nil, payload, 1<<20)
				require.NoError(t, err)
				require.Equal(t, string(messages[i]), string(m), "takeover=%v bits=%d message %d", takeover, bits, i)
			}
		}
	}
}

// The reason for minPeerBits; and the check has teeth.
func TestZlibLimits(t *testing.T) {
	z := startZlib(t)
	_, err := z.ask("deflate 8 6 1", [][]byte{[]byte("Hello")})
	assert.Error(t, err)

	m := randomBytes(rand.New(rand.NewPCG(7692, 21)), 300)
	payload := sending(false, 15, 4).appendStreamed(append(append(m, make([]byte, 500)...), m...))
	_, err = z.ask("inflate 15 0", [][]byte{payload})
	assert.NoError(t, err)
	_, err = z.ask("inflate 9 0", [][]byte{payload})
	assert.ErrorContains(t, err, "invalid distance")
}

func (d *deflater) appendStreamed(p []byte) []byte { return d.appendEnd(d.appendPiece(nil, p)) }
