package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Other people's clients talk to echod, the program. Chromium does in TestBrowser.
func TestEchod(t *testing.T) {
	program := buildEchod(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addr := startEchod(t, ctx, program, "-compression", "takeover", "-log-level", "error")
	for _, path := range []string{"/echo", "/echo/stream", "/echo/prepared", "/echo/netconn"} {
		url := "ws://" + addr + path
		for _, p := range peers {
			t.Run(p.name+" "+path, func(t *testing.T) {
				p.client(t, server{url: url, plain: true})
				p.client(t, server{url: url, plain: true, compress: true, takeover: true})
			})
		}
		for _, s := range scripts {
			t.Run(s.name+" "+path, func(t *testing.T) {
				for _, deflate := range []string{`null`, `{}`} {
					options := map[string]any{"url": url, "plain": true, "deflate": json.RawMessage(deflate)}
					require.NoError(t, s.run(t, ctx, "client", options).Run())
				}
			})
		}
		t.Run("Node's own "+path, func(t *testing.T) {
			options := map[string]any{"url": url, "plain": true, "builtin": true}
			require.NoError(t, nodeBuiltin(t).run(t, ctx, "client", options).Run())
		})
	}
}

func buildEchod(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "echod")
	out, err := exec.Command("go", "build", "-o", program, "github.com/strictws/websocket/cmd/echod").CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

// startEchod starts echod until the test ends, and returns its address.
func startEchod(t *testing.T, ctx context.Context, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	require.True(t, ok, line)
	return addr
}
