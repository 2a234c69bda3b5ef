// Package interop tests the library against WebSocket implementations that nobody here wrote:
// gorilla/websocket, coder/websocket and lxzan/gws for Go, ws and the built-in client of
// Node.js, websockets for Python, and Chromium. Each is server and client in turn.
//
//	./setup        # installs the ones that are not Go, as root on Debian
//	go test ./...
//
// It is a module of its own, so that none of them is a dependency of the library.
package interop
