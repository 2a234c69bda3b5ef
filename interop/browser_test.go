package interop

import (
	"cmp"
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
	for mode, agreed := range map[string]string{"off": "", "on": noTakeover, "takeover": "permessage-deflate"} {
		t.Run("compression "+mode, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			addr := startEchod(t, ctx, echod, "-compression", mode)

			url, w := tap(t, "ws://"+addr)
			page := "http" + strings.TrimPrefix(url, "ws")

			// Not t.TempDir, which does not forgive what the last of Chromium's processes may yet write.
			profile, err := os.MkdirTemp("", "profile-")
			require.NoError(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(profile) })
			opts := append(chromedp.DefaultExecAllocatorOptions[:],
				chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 860),
				chromedp.UserDataDir(profile), chromedp.Env("TMPDIR="+profile),
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
				chromedp.Navigate(page),
				chromedp.Click("#connect button", chromedp.ByQuery),
				chromedp.WaitVisible(`//*[@id="state"][text()="connected"]`, chromedp.BySearch),
				chromedp.SetValue("#message", strings.Repeat("again and ", 500)+"again", chromedp.ByQuery),
				chromedp.Click("#send button", chromedp.ByQuery),
				received("Server: Hello. You said: again and"),
				chromedp.SetValue("#message", "Hello from ", chromedp.ByQuery),
				chromedp.SendKeys("#message", "a browser", chromedp.ByQuery), // by keys
				chromedp.Click("#send button", chromedp.ByQuery),
				received("Server: Hello. You said: Hello from a browser"),
				chromedp.Text("#extensions", &extensions, chromedp.ByQuery),
				chromedp.SetValue("#code", "4321", chromedp.ByQuery),
				chromedp.SetValue("#reason", "enough", chromedp.ByQuery),
				chromedp.Click("#close button", chromedp.ByQuery),
				received("4321 “enough” · wasClean: true"),
				chromedp.WaitVisible(`//*[@id="state"][text()="not connected"]`, chromedp.BySearch),
				chromedp.CaptureScreenshot(&screenshot),
			))
			require.NoError(t, chromedp.Cancel(ctx)) // ends its connections, and so the relay's

			links := w.notes(t)
			require.Len(t, links, 1)
			talk := links[0]
			require.NoError(t, talk.fromClient.unexpected)
			require.NoError(t, talk.fromServer.unexpected)
			require.Equal(t, agreed, talk.extensions)
			require.Equal(t, cmp.Or(agreed, "none"), extensions, "what the page shows")
			for _, s := range []side{talk.fromClient, talk.fromServer} {
				require.Len(t, s.messages, 2)
				require.Equal(t, agreed != "", s.messages[0].compressed, "the long one")
				require.Equal(t, []string{"4321 enough"}, s.closes)
			}
			if dir := os.Getenv("SCREENSHOTS"); dir != "" {
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "echod-"+mode+".png"), screenshot, 0o644))
			}
		})
	}
}
