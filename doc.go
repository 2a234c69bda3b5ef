// Package websocket implements the WebSocket protocol (RFC 6455) for clients and servers,
// with compression (RFC 7692), on the standard library.
//
// A server turns an HTTP request into a connection with [Accept]; a client makes one with
// [Dial]. Both get a [Conn], which reads and writes messages:
//
//	c, err := websocket.Accept(w, r, nil)
//	if err != nil {
//		return // Accept has answered the request
//	}
//	defer c.Close()
//	for msg, err := range c.Messages(ctx) {
//		if err != nil {
//			return
//		}
//		if err := c.Write(ctx, msg.Type, msg.Payload); err != nil {
//			return
//		}
//	}
//
// [Conn.Messages] lends each message for one iteration; [Conn.Read] returns one that is the
// caller's for good, [Conn.NextReader] a stream of one that is better not held in memory.
//
// The protocol is enforced as the RFC has it, and no option relaxes it: masking, fragmentation,
// reserved bits, UTF-8 as it arrives, close codes.
//
// # Contexts
//
// A context bounds the call that it is given to, not the connection. A Read whose context
// ends returns an error that matches the context's, and the next Read goes on from there, be
// it in the middle of a frame, of a fragmented or of a compressed message. A Write whose
// context ends before its first byte went out has had no effect.
//
// In two cases the connection is closed, since nobody could find the next boundary: a frame
// that was cut while it was written, and a streamed message ([Conn.NextReader],
// [Conn.NextWriter]) whose context ended inside it. The error of the call matches the
// context's and [net.ErrClosed] then. Over TLS, a frame counts as cut once its turn to be
// written has come.
//
// A context's end is turned into a deadline of the network connection. A loop that reads with
// one context costs nothing more than its first call. A connection that has no deadlines, as a
// RoundTripper of [DialOptions] may return, is closed instead, with such an error.
//
// # Concurrency
//
// Any number of goroutines may write, ping and close; messages never interleave. One reads at
// a time, others wait for their turn. A message that is streamed by NextWriter holds up other
// messages until it is closed, but not control frames.
//
// # Many messages, many connections
//
// A Write is one write of the network, which is most of what a small message costs. Writes that
// several goroutines make at the same time are combined. [Conn.Queue] lets messages wait for
// company: in an application that answers from the goroutine that reads, it takes the place of
// Write, and the answers to messages that have arrived together go out together, at the latest
// before the next Read waits. Other goroutines end what they queue with [Conn.Flush].
//
// A message to many connections is compressed once by [Prepare]. [Conn.TryWritePrepared] does
// not wait for slow peers:
//
//	m := websocket.Prepare(websocket.Text, p)
//	for c := range conns.All() { // a Conns
//		if sent, err := c.TryWritePrepared(m); err == nil && !sent {
//			slow(c) // goes without it, or is closed
//		}
//	}
//
// # Control frames and keepalive
//
// Nothing runs behind the caller's back: a connection has no goroutine, and no timer but the
// deadline of the network connection. (But what a reader has to send, and the network does not
// take at once, is left to a goroutine for as long as that takes. Over TLS that is so for each
// Pong, and for what is queued, since what has begun there cannot be given up.) Whoever reads
// answers Pings and the peer's Close. So an application must read, even if it expects no
// messages, for instance in a goroutine that ends with the connection. [Conn.Ping] and
// [Conn.Shutdown] do the reading themselves when nobody else does.
//
// A pending Read also notices a dead peer: at the latest when KeepAlive (of [AcceptOptions]
// and [DialOptions], 30 seconds unless set) has passed in silence it sends a Ping, and at the
// latest when twice that has passed, it returns an error. A peer that sends anything at all,
// or that is still taking a message of ours, is alive. What the network has taken already
// cannot be followed: a peer needs to get through that, and to the Ping behind it, within one
// interval, or say something meanwhile.
//
// # Closing
//
// [Conn.Shutdown] performs the closing handshake and waits for the peer's part of it.
// [Conn.Close] does not wait; defer it. When the peer closes, Read answers with the peer's
// own code and reason, and returns a [*CloseError]. When the peer breaks a rule or a limit,
// the connection is closed with the code that the RFC wants, and Read returns a
// [*ProtocolError].
//
// # Draining a server
//
// http.Server.Shutdown neither sees nor closes connections that [Accept] has taken over.
// A [Conns] in [AcceptOptions] keeps them, and [Conns.Shutdown] closes them: each as soon as
// its application waits for a message, so that the answer to the last one still goes out, and
// all that are left when a context ends. From its beginning on, Accept answers with 503.
//
//	srv.RegisterOnShutdown(func() { conns.Shutdown(ctx, websocket.StatusGoingAway, "restarting") })
//	err := errors.Join(srv.Shutdown(ctx), conns.Shutdown(ctx, websocket.StatusGoingAway, "restarting"))
//
// The first line lets both drain at the same time; srv.Shutdown does not wait for what it has
// started, hence the second call.
//
// # Errors
//
// Each direction of a connection keeps its first permanent error and returns it ever after.
//
//	error                      cause                                       use the Conn again?
//	match with
//
//	ctx.Err(), context.Cause   the call's context ended                    yes, unless it matches
//	errors.Is                                                              net.ErrClosed too
//
//	*CloseError                the peer closed; Code and Reason are its    no
//	errors.As                  own
//
//	*ProtocolError             the peer broke a rule (1002), sent text     no
//	errors.As                  that is not UTF-8 or data that cannot be
//	                           inflated (1007), or exceeded a limit
//	                           (1009); we closed with Code
//
//	net.ErrClosed              Close or Shutdown was called, or a frame    no
//	errors.Is                  or a streamed message was cut by its
//	                           context
//
//	io.ErrUnexpectedEOF        the peer dropped TCP without a Close frame  no
//	errors.Is
//
//	os.ErrDeadlineExceeded     the peer is gone without a trace: it did    no
//	errors.Is                  not answer the keepalive
//
//	others, such as            the network's error, wrapped; after a       no
//	syscall.ECONNRESET         failed Write, Read may still return what
//	                           the peer has sent before
//
// Invalid arguments, such as a close code that may not be sent, are refused with an error and
// have no effect.
//
// # Limits
//
// A message of more than MaxMessageSize bytes, 1 MiB unless set, is refused at the header of
// the frame that exceeds it, before its payload is read; a compressed one as soon as it
// exceeds the limit while it is inflated, or before that if its compressed form exceeds the
// limit by more than an eighth. Memory follows the bytes that arrived and not the
// lengths that were claimed; a Messages loop that has 16 KiB of a message may take as much as
// the message before it took. At most 1024 fragments of a message may be empty. Of the Pings
// that arrive while no Pong can be sent, the latest is remembered.
//
// What bounds an opening handshake is what bounds any request of net/http: a server's
// MaxHeaderBytes, 1 MiB unless set, and its ReadHeaderTimeout, which has to be set; for a
// client the context of Dial and its Transport's MaxResponseHeaderBytes.
//
// # Memory
//
// An idle connection holds no buffer. What net/http holds for a request lives as long as the
// handler runs, 10 KB and more: a server with many connections returns from the handler and
// goes on in a goroutine of its own, with a context of its own.
//
// A loop over [Conn.Messages] has the memory of each message on loan, until the next one. A
// goroutine that does little else than that and Queue needs a stack of 2 KiB, so that an idle
// connection over TCP takes about 4.5 KB in all.
//
// The result of [Conn.Read] is appended to the caller's slice, which is the caller's for good.
// With a nil slice each message is allocated. A slice that is used again stays while nothing
// comes, and grows to the largest message so far:
//
//	typ, buf, err = c.Read(ctx, buf[:0])
package websocket
