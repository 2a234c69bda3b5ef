package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// TestBrowser talks to echod by its page, as a person does, in Chromium. It leaves a
// screenshot in the directory that SCREENSHOTS names.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	need(t, err)
	echod := buildEchod(t)
	for _, mode := range []string{"off", "on", "takeover"} {
		t.Run("compression "+mode, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			addr := startEchod(t, ctx, echod, "-compression", mode)

			// Chromium may still be writing when the test is over, which t.TempDir does not forgive.
			profile, err := os.MkdirTemp("", "profile-")
			require.NoError(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(profile) })
			opts := append(chromedp.DefaultExecAllocatorOptions[:],
				chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 860),
				chromedp.UserDataDir(profile),
				chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
			ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, opts...)
			defer cancelAllocator()
			ctx, cancelBrowser := chromedp.NewContext(ctx)
			defer cancelBrowser()

			received := func(text string) chromedp.Action {
				return chromedp.WaitVisible(fmt.Sprintf(`//tr[contains(@class, "received")][contains(., %q)]`, text), chromedp.BySearch)
			}
			var extensions string
			var screenshot []byte
			require.NoError(t, chromedp.Run(ctx,
				chromedp.Navigate("http://"+addr+"/"),
				chromedp.Click("#connect button", chromedp.ByQuery),
				chromedp.WaitVisible(`//*[@id="state"][text()="connected"]`, chromedp.BySearch),
				chromedp.SetValue("#message", "Hello from a browser", chromedp.ByQuery),
				chromedp.Click("#send button", chromedp.ByQuery),
				received("Server: Hello. You said: Hello from a browser"),
				chromedp.SetValue("#message", strings.Repeat("again and ", 500)+"again", chromedp.ByQuery),
				chromedp.Click("#send button", chromedp.ByQuery),
				received("Server: Hello. You said: again and"),
				chromedp.Text("#extensions", &extensions, chromedp.ByQuery),
				chromedp.SetValue("#code", "4321", chromedp.ByQuery),
				chromedp.SetValue("#reason", "enough", chromedp.ByQuery),
				chromedp.Click("#close button", chromedp.ByQuery),
				received("4321"),
				chromedp.WaitVisible(`//*[@id="state"][text()="not connected"]`, chromedp.BySearch),
				chromedp.CaptureScreenshot(&screenshot),
			))
			require.Equal(t, mode != "off", strings.Contains(extensions, "permessage-deflate"), extensions)
			if dir := os.Getenv("SCREENSHOTS"); dir != "" {
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "echod-"+mode+".png"), screenshot, 0o644))
			}
		})
	}
}
