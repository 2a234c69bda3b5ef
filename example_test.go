package websocket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/rpc"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/strictws/websocket"
)

// echo is the server of README.md.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered the request
	}
	go func() {
		defer c.Close()
		for msg, err := range c.Messages(context.Background()) {
			if err != nil || answer(c, msg) != nil {
				return
			}
		}
	}()
}

func answer(c *websocket.Conn, msg websocket.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // for a peer that does not read
	defer cancel()
	return c.Write(ctx, msg.Type, msg.Payload)
}

// The code in README.md is code of this file.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("no code in README.md")
	}
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		if !strings.Contains(flat(string(source)), flat(code)) {
			t.Errorf("not in example_test.go:\n%s", code)
		}
	}
}

func Example() {
	srv := httptest.NewServer(http.HandlerFunc(echo))
	defer srv.Close()
	url := "ws" + strings.TrimPrefix(srv.URL, "http")

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Write(ctx, websocket.Text, []byte("Hello")); err != nil {
		log.Fatal(err)
	}
	typ, msg, err := c.Read(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", typ, msg)
	if err := c.Shutdown(ctx, websocket.StatusNormalClosure, "bye"); err != nil {
		log.Fatal(err)
	}

	// Output: text: Hello
}

// A refused handshake comes with the server's answer.
func ExampleDial_refused() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "come back tomorrow", http.StatusServiceUnavailable)
	}))
	defer srv.Close()

	_, resp, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		if resp == nil {
			log.Fatal(err) // there was no answer
		}
		body, _ := io.ReadAll(resp.Body)
		fmt.Printf("%s: %s", resp.Status, body)
	}

	// Output: 503 Service Unavailable: come back tomorrow
}

// Messages that are better not held in memory are streamed. The writer is closed only if the
// message is complete: to close the connection gives up one that is not.
func ExampleConn_NextReader() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		typ, msg, err := c.NextReader(r.Context())
		if err != nil {
			return
		}
		answer, err := c.NextWriter(r.Context(), typ)
		if err != nil {
			return
		}
		if _, err := io.Copy(answer, msg); err != nil {
			return
		}
		answer.Close()
		_, _, _ = c.Read(r.Context(), nil) // until the client closes
	}))
	defer srv.Close()

	ctx := context.Background()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	w, err := c.NextWriter(ctx, websocket.Text)
	if err != nil {
		log.Fatal(err)
	}
	for _, piece := range []string{"one ", "message ", "in ", "pieces"} {
		if _, err := io.WriteString(w, piece); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	_, r, err := c.NextReader(ctx)
	if err != nil {
		log.Fatal(err)
	}
	msg, err := io.ReadAll(r)
	fmt.Printf("%s %v\n", msg, err)
	_ = c.Shutdown(ctx, websocket.StatusNormalClosure, "")

	// Output: one message in pieces <nil>
}

// The server prefers its own order.
func ExampleConn_Subprotocol() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"v2.chat", "v1.chat"}})
		if err != nil {
			return
		}
		defer c.Close()
		_, _, _ = c.Read(r.Context(), nil)
	}))
	defer srv.Close()

	opts := &websocket.DialOptions{Subprotocols: []string{"v1.chat", "v2.chat"}}
	c, _, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(srv.URL, "http"), opts)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.Subprotocol())

	// Output: v2.chat
}

// A CloseError says that the peer closed, with its code and reason.
func ExampleCloseError() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_ = c.Shutdown(r.Context(), 4001, "not today")
	}))
	defer srv.Close()

	ctx := context.Background()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, _, err = c.Read(ctx, nil)
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		fmt.Println(closed.Code, closed.Reason)
	}

	// Output: 4001 not today
}

// A Read with a limit loses nothing: the next one goes on.
func ExampleConn_Read_limit() {
	srv := httptest.NewServer(http.HandlerFunc(echo))
	defer srv.Close()

	c, _, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	_, _, err = c.Read(ctx, nil)
	cancel()
	fmt.Println(errors.Is(err, context.DeadlineExceeded))

	_ = c.Write(context.Background(), websocket.Text, []byte("still there"))
	_, msg, _ := c.Read(context.Background(), nil)
	fmt.Printf("%s\n", msg)

	// Output:
	// true
	// still there
}

// Before a server exits, it closes the connections that http.Server.Shutdown does not know.
func ExampleConns_Shutdown() {
	var conns websocket.Conns
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Conns: &conns})
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for {
				typ, msg, err := c.Read(context.Background(), nil)
				if err != nil || c.Write(context.Background(), typ, msg) != nil {
					return
				}
			}
		}()
	}))
	srv := ts.Config

	client, _, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(ts.URL, "http"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println("connections:", conns.Len())
	closed := make(chan error)
	go func() {
		_, _, err := client.Read(context.Background(), nil)
		closed <- err
	}()

	// On a signal, for example.
	{
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		srv.RegisterOnShutdown(func() { conns.Shutdown(ctx, websocket.StatusGoingAway, "restarting") })
		err := errors.Join(srv.Shutdown(ctx), conns.Shutdown(ctx, websocket.StatusGoingAway, "restarting"))
		fmt.Println("error:", err)
	}

	fmt.Println(<-closed)
	fmt.Println("connections:", conns.Len())

	// Output:
	// connections: 1
	// error: <nil>
	// websocket: closed by the peer: 1001 (going away): "restarting"
	// connections: 0
}

// An application that answers from the loop that reads uses Queue: the answers to messages that
// arrived together go out together, without a Flush.
func ExampleConn_Messages() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for msg, err := range c.Messages(r.Context()) {
			if err != nil {
				return
			}
			var q struct{ A, B int }
			if json.Unmarshal(msg.Payload, &q) != nil {
				_ = c.Shutdown(r.Context(), websocket.StatusUnsupportedData, "not a question")
				return
			}
			answer := fmt.Appendf(nil, "%d", q.A+q.B)
			if c.Queue(r.Context(), websocket.Text, answer) != nil {
				return
			}
		}
	}))
	defer srv.Close()

	ctx := context.Background()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for _, question := range []string{`{"A":1,"B":2}`, `{"A":3,"B":4}`, `what?`} {
		if err := c.Write(ctx, websocket.Text, []byte(question)); err != nil {
			log.Fatal(err)
		}
	}
	for msg, err := range c.Messages(ctx) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Printf("%s\n", msg.Payload)
	}

	// Output:
	// 3
	// 7
	// websocket: closed by the peer: 1003 (unsupported data): "not a question"
}

// Whoever says something is heard by all. A connection that does not take what it is sent is
// closed, and holds up nobody.
func ExampleConn_TryWritePrepared() {
	var conns websocket.Conns
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Conns: &conns})
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for msg, err := range c.Messages(context.Background()) {
				if err != nil {
					return
				}
				m := websocket.Prepare(msg.Type, msg.Payload)
				for other := range conns.All() {
					if sent, err := other.TryWritePrepared(m); err == nil && !sent {
						other.Close()
					}
				}
			}
		}()
	}))
	defer srv.Close()

	ctx := context.Background()
	var clients []*websocket.Conn
	for range 3 {
		c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	if err := clients[0].Write(ctx, websocket.Text, []byte("Hello, all")); err != nil {
		log.Fatal(err)
	}
	for _, c := range clients {
		_, msg, err := c.Read(ctx, nil)
		fmt.Printf("%s %v\n", msg, err)
	}

	// Output:
	// Hello, all <nil>
	// Hello, all <nil>
	// Hello, all <nil>
}

// Arith is a service of net/rpc.
type Arith struct{}

func (Arith) Add(args [2]int, sum *int) error {
	*sum = args[0] + args[1]
	return nil
}

// A protocol that wants a stream of bytes, such as that of net/rpc, has one.
func ExampleNetConn() {
	services := rpc.NewServer()
	_ = services.Register(Arith{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{MaxMessageSize: 16 << 20})
		if err != nil {
			return
		}
		services.ServeConn(websocket.NetConn(c, websocket.Binary))
	}))
	defer srv.Close()

	opts := &websocket.DialOptions{MaxMessageSize: 16 << 20}
	c, _, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(srv.URL, "http"), opts)
	if err != nil {
		log.Fatal(err)
	}
	client := rpc.NewClient(websocket.NetConn(c, websocket.Binary))
	defer client.Close()
	var sum int
	err = client.Call("Arith.Add", [2]int{3, 4}, &sum)
	fmt.Println(sum, err)

	// Output: 7 <nil>
}
