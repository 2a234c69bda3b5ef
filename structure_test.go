package websocket

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// imports says what each file may import: the codec does no I/O, takes no locks and knows no
// contexts, and only the handshakes know net/http.
var imports = map[string]string{
	"mask.go":       "encoding/binary math/bits",
	"frame.go":      "encoding/binary strconv",
	"utf8.go":       "encoding/binary",
	"extensions.go": "errors fmt strings",
	"fields.go":     "iter strconv strings",
	"deflate.go":    "errors fmt strconv strings",
	"compress.go":   "sync",
	"lz77.go":       "encoding/binary math/bits",
	"huffman.go":    "encoding/binary math/bits slices",
	"block.go":      "encoding/binary math/bits slices",
	"inflate.go":    "compress/flate errors io sync",
	"pool.go":       "sync",
	"turn.go":       "context sync",
	"origin.go":     "fmt net/netip strconv strings",
	"conns.go":      "context fmt iter maps net slices sync sync/atomic time",
}

// codec is pure: no file of it may mention a connection or what belongs to one.
var codec = []string{
	"mask.go", "frame.go", "utf8.go",
	"fields.go", "extensions.go", "deflate.go", "compress.go", "lz77.go", "huffman.go", "block.go", "inflate.go",
}

func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		require.NoError(t, err)
		f, err := parser.ParseFile(gotoken.NewFileSet(), name, src, 0)
		require.NoError(t, err)
		files[name] = f
	}
	return files
}

func TestImports(t *testing.T) {
	for name, f := range sources(t) {
		allowed, limited := imports[name]
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			first, _, _ := strings.Cut(path, "/")
			assert.NotContains(t, first, ".", "%s imports %s: the package has no dependencies", name, path)
			assert.NotEqual(t, "unsafe", path, name)
			if limited {
				assert.Contains(t, strings.Fields(allowed), path, name)
			}
			if path == "net/http" {
				assert.Contains(t, []string{"handshake.go", "dial.go"}, name, "only the handshakes import net/http")
			}
		}
	}
}

func TestCodecKnowsNoConnection(t *testing.T) {
	files := sources(t)
	beyond := make(map[string]string) // identifier: the file that declares it
	for name, f := range files {
		switch name {
		case "conn.go", "turn.go", "watcher.go", "read.go", "messages.go", "inflated.go", "inbound.go", "receive.go",
			"keepalive.go", "write.go", "send.go", "outbox.go", "transmit.go",
			"pool.go", "socket_unix.go", "handshake.go", "dial.go", "prepared.go", "netconn.go", "conns.go":
			for ident := range f.Scope.Objects {
				beyond[ident] = name
			}
		}
	}
	delete(beyond, "MessageType")
	for _, name := range codec {
		require.Contains(t, files, name)
		ast.Inspect(files[name], func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Obj == nil && beyond[id.Name] != "" {
				t.Errorf("%s uses %s of %s", name, id.Name, beyond[id.Name])
			}
			return true
		})
	}
}

// One function reads the network connection, one closes it, and few write it: writeResponse before
// there are frames, writeNow and transmit from then on.
func TestOneWayInOneWayOut(t *testing.T) {
	where := make(map[string][]string)
	for _, f := range sources(t) {
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if on, ok := method.X.(*ast.SelectorExpr); ok && (on.Sel.Name == "nc" || on.Sel.Name == "socket") {
					name := on.Sel.Name + "." + method.Sel.Name
					where[name] = append(where[name], fn.Name.Name)
				}
				return true
			})
		}
	}
	assert.Equal(t, []string{"receive"}, where["nc.Read"])
	assert.Equal(t, []string{"fillFromSocket"}, where["socket.read"])
	assert.ElementsMatch(t, []string{"writeResponse", "writePiece"}, where["nc.Write"])
	assert.ElementsMatch(t, []string{"writeResponse", "writeNow", "transmit"}, where["socket.write"])
	assert.Equal(t, []string{"drop"}, where["nc.Close"])
}
