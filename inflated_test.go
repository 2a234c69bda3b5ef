package websocket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// agreed is permessage-deflate as two endpoints may have agreed on it.
func agreed(takeover bool, bits int) *deflateParams {
	one := deflateContext{takeover: takeover, bits: bits}
	return &deflateParams{send: one, recv: one, level: defaultLevel}
}

// compressedFrame returns the frame of a client, with RSV1 set.
func compressedFrame(fin bool, op Opcode, payload string) []byte {
	b := frame(fin, op, payload, true)
	b[0] |= 0x40
	return b
}

// compressedStreams are what clients send when permessage-deflate was agreed on, with
// context takeover.
func compressedStreams(t testing.TB) []stream {
	z := func(fin bool, op Opcode, payload string) []byte {
		return compressedFrame(fin, op, string(unhex(t, payload)))
	}
	f := func(fin bool, op Opcode, payload string) []byte { return frame(fin, op, payload, true) }
	plain := func(fin bool, op Opcode, payload string) []byte { return f(fin, op, string(unhex(t, payload))) }
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	deflated := func(s string) string {
		out, ok := newDeflater(agreed(false, 15)).variant.appendMessage(nil, []byte(s))
		require.True(t, ok)
		return string(out)
	}
	const (
		hello  = "f248cdc9c90700"
		broke  = "unexpected EOF"
		failed = "section 7.2.2"
	)
	return []stream{
		{"section 7.2.3.1", z(true, OpText, hello), []string{"text Hello"}, broke},
		{"section 7.2.3.1: fragments", join(z(false, OpText, "f248cd"), plain(true, OpContinuation, "c9c90700")), []string{"text Hello"}, broke},
		{"section 7.2.3.2: shared window", join(z(true, OpText, hello), z(true, OpText, "f200110000")), []string{"text Hello", "text Hello"}, broke},
		{"section 7.2.3.3: block without compression", z(true, OpText, "000500faff48656c6c6f00"), []string{"text Hello"}, broke},
		{"section 7.2.3.4: BFINAL", z(true, OpText, "f348cdc9c9070000"), []string{"text Hello"}, broke},
		{"section 7.2.3.4: BFINAL, then more", z(true, OpText, "f348cdc9c90700"+hello), []string{"text HelloHello"}, broke},
		{"section 7.2.3.5: two blocks", z(true, OpText, "f248050000 00ffffcac9c90700"), []string{"text Hello"}, broke},
		{"section 7.2.3.6: empty message", z(true, OpText, "00"), []string{"text "}, broke},
		{"no payload at all", join(z(true, OpText, ""), z(true, OpText, hello)), []string{"text ", "text Hello"}, broke},
		{"mixed", join(f(true, OpText, "plain"), z(true, OpText, hello), f(true, OpBinary, "plain"), z(true, OpBinary, "f200110000")),
			[]string{"text plain", "text Hello", "binary plain", "binary Hello"}, broke},
		{"control frames between fragments", join(z(false, OpText, "f2"), f(true, OpPing, "p"), plain(false, OpContinuation, ""),
			plain(true, OpContinuation, "48cdc9c90700"), f(true, OpPing, "q"), z(true, OpText, "f200110000")),
			[]string{"text Hello", "text Hello"}, broke},
		{"section 6.1: RSV1 on a continuation", join(z(false, OpText, "f248cd"), z(true, OpContinuation, "c9c90700")), nil, "section 6.1"},
		{"section 6.1: RSV1 on a ping", z(true, OpPing, ""), nil, "section 6.1"},
		{"cut off by the connection", z(true, OpText, hello)[:9], nil, broke},
		{"truncated", z(true, OpText, "f248cd"), nil, failed},
		{"corrupt", z(true, OpText, "ffffffff"), nil, failed},
		{"trailing garbage", z(true, OpBinary, hello+"ffff"), nil, failed},
		{"text is not UTF-8", compressedFrame(true, OpText, deflated(strings.Repeat("\xff", 100))), nil, "section 8.1"},
		{"binary is not checked", compressedFrame(true, OpBinary, deflated(strings.Repeat("\xff", 100))), []string{"binary " + strings.Repeat("\xff", 100)}, broke},
		{"at the limit", compressedFrame(true, OpText, deflated(strings.Repeat("x", 5000))), []string{"text " + strings.Repeat("x", 5000)}, broke},
		{"over the limit", compressedFrame(true, OpText, deflated(strings.Repeat("x", 5001))), nil, "size limit"},
		{"far over the limit", compressedFrame(true, OpText, deflated(strings.Repeat("x", 2_000_000))), nil, "size limit"},
		{"payload over the limit", compressedFrame(true, OpText, strings.Repeat("x", 5700))[:8], nil, "size limit"},
	}
}

func TestCompressedStreams(t *testing.T) {
	for _, s := range compressedStreams(t) {
		t.Run(s.name, func(t *testing.T) {
			cfg := streamConfig
			cfg.deflate = agreed(true, 15)
			checkStream(t, cfg, s)
		})
	}
}

// journal returns messages that resemble each other, of all sizes.
func journal(rnd *rand.Rand, n int) [][]byte {
	var all [][]byte
	for i := range n {
		var b bytes.Buffer
		for range 1 << rnd.IntN(12) {
			fmt.Fprintf(&b, `{"id":%d,"user":"user-%d","ok":%t},`, i, rnd.IntN(100), rnd.IntN(2) == 0)
		}
		if rnd.IntN(10) == 0 { // what does not get smaller
			for range 3000 {
				b.WriteByte(byte(rnd.Uint32()))
			}
		}
		all = append(all, b.Bytes())
	}
	return append(all, nil)
}

// All ways of writing and reading, over one connection: what one leaves behind the next one
// has to go on from.
func TestCompressedConversation(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		for _, bits := range []int{8, 9, 12, 15} {
			t.Run(fmt.Sprintf("takeover %t, %d bits", takeover, bits), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := agreed(takeover, bits)
					a, b := connect(t, config{deflate: p}, config{deflate: p, maxMessageSize: -1})
					for _, c := range []struct{ from, to *Conn }{{a, b}, {b, a}} {
						rnd := rand.New(rand.NewPCG(1, uint64(bits)))
						messages := journal(rnd, 60)
						var prepared []*Prepared
						for _, m := range messages {
							prepared = append(prepared, Prepare(Binary, m))
						}
						done := make(chan error, 1)
						go func() {
							for i, m := range messages {
								var err error
								switch i % 4 {
								case 0, 1:
									err = c.from.Write(t.Context(), Binary, m)
								case 2:
									err = c.from.WritePrepared(t.Context(), prepared[i])
								case 3:
									var w io.WriteCloser
									if w, err = c.from.NextWriter(t.Context(), Binary); err == nil {
										_, err = w.(io.ReaderFrom).ReadFrom(bytes.NewReader(m))
										assert.NoError(t, w.Close())
									}
								}
								if err != nil {
									done <- err
									return
								}
							}
							done <- nil
						}()
						for i, m := range messages {
							var got []byte
							var err error
							switch i % 4 {
							case 0, 1:
								_, got, err = c.to.Read(t.Context(), nil)
							case 2:
								var r io.Reader
								_, r, err = c.to.NextReader(t.Context())
								require.NoError(t, err)
								got, err = io.ReadAll(r)
							case 3: // dropped half-read
								var r io.Reader
								_, r, err = c.to.NextReader(t.Context())
								require.NoError(t, err)
								got = m[:min(len(m), 7)]
								head := make([]byte, len(got))
								_, err = io.ReadFull(r, head)
								require.Equal(t, got, head)
								got = m
							}
							require.NoError(t, err, i)
							require.True(t, bytes.Equal(m, got), "message %d of %d bytes", i, len(m))
						}
						require.NoError(t, <-done)
					}
				})
			})
		}
	}
}

// A message that had no effect is not what later ones refer to.
func TestCompressedWriteWithoutEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := agreed(true, 15)
		nc, peer := newPipe()
		c := newConn(nc, nil, config{deflate: p})
		defer c.Close()
		rnd := rand.New(rand.NewPCG(1, 2))
		require.NoError(t, c.Write(t.Context(), Binary, randomBytes(rnd, pipeSize-4))) // all that the network takes
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		msg := jsonMessage(rnd, 1000)
		require.ErrorIs(t, c.Write(ctx, Text, msg), context.DeadlineExceeded)
		r := newConn(peer, nil, config{client: true, deflate: p})
		defer r.Close()
		_, _, err := r.Read(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, c.Write(t.Context(), Text, msg))
		_, got, err := r.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, string(msg), string(got))
	})
}

// A message that had no effect, or was cut, is not what later ones refer to.
func TestCancelledCompressedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := agreed(true, 15)
		nc, peer := newPipe()
		c := newConn(nc, nil, config{deflate: p})
		defer c.Close()
		filler := make([]byte, pipeSize-4) // with its header, all that the network takes
		for i := range filler {
			filler[i] = byte(rand.Uint32())
		}
		require.NoError(t, c.Write(t.Context(), Binary, filler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		secret := []byte(strings.Repeat("never sent ", 40))
		require.ErrorIs(t, c.Write(ctx, Text, secret), context.DeadlineExceeded)

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w, err := c.NextWriter(ctx, Text)
		require.NoError(t, err)
		_, _ = w.Write(bytes.Repeat(secret, 100))
		require.ErrorIs(t, w.Close(), context.DeadlineExceeded)

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.WritePrepared(ctx, Prepare(Text, secret)), context.DeadlineExceeded)

		r := newConn(peer, nil, config{client: true, deflate: p})
		defer r.Close()
		_, got, err := r.Read(t.Context(), nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(filler, got))
		require.NoError(t, c.Write(t.Context(), Text, secret))
		_, got, err = r.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, string(secret), string(got))
	})
}

// The same for each way of writing by itself, with another message in line.
func TestCompressedWriteThatIsTakenBack(t *testing.T) {
	secret := strings.Repeat("never sent ", 40)
	for name, write := range map[string]func(context.Context, *Conn) error{
		"Write":         func(ctx context.Context, c *Conn) error { return c.Write(ctx, Text, []byte(secret)) },
		"WritePrepared": func(ctx context.Context, c *Conn) error { return c.WritePrepared(ctx, Prepare(Text, []byte(secret))) },
		"Queue": func(ctx context.Context, c *Conn) error {
			return c.Queue(ctx, Text, []byte(secret+string(randomBytes(rand.New(rand.NewPCG(1, 2)), queueSize))))
		},
	} {
		for _, takeover := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, takeover %t", name, takeover), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := agreed(takeover, 15)
					nc, peer := newPipeSize(0, pipeSize)
					c := newConn(nc, nil, config{deflate: p})
					defer c.Close()
					first := later(func() error { return c.Write(t.Context(), Text, []byte("first")) })
					synctest.Wait()
					ctx, cancel := context.WithCancel(t.Context())
					gone := later(func() error { return write(ctx, c) })
					synctest.Wait()
					next := later(func() error { return c.Write(t.Context(), Text, []byte(secret)) })
					synctest.Wait()
					cancel()
					require.ErrorIs(t, <-gone, context.Canceled)
					window(peer, pipeSize)
					r := newConn(peer, nil, config{client: true, deflate: p})
					defer r.Close()
					for _, want := range []string{"first", secret} {
						_, got, err := r.Read(t.Context(), nil)
						require.NoError(t, err)
						require.Equal(t, want, string(got))
					}
					require.NoError(t, <-first)
					require.NoError(t, <-next)
				})
			})
		}
	}
}

// The compressor forgets a streamed message that did not get further than its first frame.
func TestCancelledCompressedStream(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := agreed(takeover, 15)
			nc, peer := newPipe()
			c := newConn(nc, nil, config{deflate: p})
			defer c.Close()
			window(peer, 0)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			w, err := c.NextWriter(ctx, Binary)
			require.NoError(t, err)
			_, err = w.Write(randomBytes(rand.New(rand.NewPCG(1, 2)), 100_000))
			require.ErrorIs(t, err, context.DeadlineExceeded)

			window(peer, pipeSize)
			r := newConn(peer, nil, config{client: true, deflate: p})
			defer r.Close()
			for range 2 {
				text := strings.Repeat("streamed ", 5000)
				w, err = c.NextWriter(t.Context(), Text)
				require.NoError(t, err)
				_, err = io.WriteString(w, text)
				require.NoError(t, err)
				require.NoError(t, w.Close())
				_, got, err := r.Read(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, text, string(got))
			}
		})
	}
}

// With takeover what is dropped has to be inflated too, in which a Read can be interrupted
// and find what cannot be inflated.
func TestDroppedCompressedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{deflate: agreed(true, 15)})
		z := string(unhex(t, "f248cdc9c90700"))
		send(t, peer, compressedFrame(false, OpText, z[:3]))
		_, _, err := c.NextReader(t.Context())
		require.NoError(t, err)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, err = c.Read(ctx, nil)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		// The second message refers to the first one (RFC 7692 section 7.2.3.2).
		send(t, peer, frame(true, OpContinuation, z[3:], true), compressedFrame(true, OpText, string(unhex(t, "f200110000"))))
		_, got, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "Hello", string(got))

		send(t, peer, compressedFrame(true, OpText, "\x07"))
		require.NoError(t, peer.CloseWrite())
		_, _, err = c.NextReader(t.Context())
		require.NoError(t, err)
		_, _, err = c.NextReader(t.Context())
		var perr *ProtocolError
		require.ErrorAs(t, err, &perr)
		require.Equal(t, StatusInvalidFramePayloadData, perr.Code)
	})
}

// A NetConn's Read that times out inside a compressed message loses nothing.
func TestNetConnReadsCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := serve(t, config{deflate: agreed(true, 15), keepAlive: -1})
		nc := NetConn(c, Text)
		z := unhex(t, "f248cdc9c90700")
		send(t, peer, compressedFrame(false, OpText, string(z[:3])))
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(time.Second)))
		b := make([]byte, 3)
		_, err := nc.Read(b)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.NoError(t, nc.SetReadDeadline(time.Time{}))
		send(t, peer, frame(true, OpContinuation, string(z[3:]), true))
		_, err = io.ReadFull(nc, b)
		require.NoError(t, err)
		require.Equal(t, "Hel", string(b))
		_, got, err := c.Read(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "lo", string(got), "Read goes on where the NetConn was")
	})
}

func TestPreparedIsCompressedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Prepare(Text, []byte(strings.Repeat("Hello ", 100)))
		var forms []*preparedForm
		for _, p := range []*deflateParams{agreed(false, 15), agreed(true, 15), agreed(true, 15), agreed(false, 9)} {
			a, b := connect(t, config{deflate: p}, config{deflate: p})
			for range 2 {
				require.NoError(t, b.WritePrepared(t.Context(), m))
				require.NoError(t, b.Write(t.Context(), Text, m.plain.payload))
				for range 2 {
					_, got, err := a.Read(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, string(m.plain.payload), string(got))
				}
			}
			forms = append(forms, m.form(b.out.deflate))
		}
		require.Len(t, m.forms, 2)
		require.Same(t, forms[0], forms[1])
		require.Same(t, forms[1], forms[2])
		require.NotSame(t, forms[2], forms[3])
		require.Less(t, len(forms[0].payload), 100)
	})
}

// Between messages a connection without takeover holds neither compressor nor decompressor.
func TestIdleCompressedConnHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := agreed(false, 15)
		a, b := connect(t, config{deflate: p}, config{deflate: p})
		for range 3 {
			require.NoError(t, a.Write(t.Context(), Text, []byte(strings.Repeat("Hello ", 1000))))
			_, _, err := b.Read(t.Context(), nil)
			require.NoError(t, err)
		}
		assert.Nil(t, a.out.deflate.text)
		assert.Nil(t, a.out.deflate.stream)
		assert.Nil(t, b.in.inflate.text.buf)
		assert.Nil(t, b.in.inflating)
		assert.Nil(t, b.in.partial)
		assert.Nil(t, b.in.pooled)
	})
}
