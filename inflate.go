package websocket

import (
	"compress/flate"
	"errors"
	"io"
	"sync"
)

// Why a message cannot be inflated. All but the first are the peer's failure to write DEFLATE
// data; an error of the source of a streamed message is passed on as it is.
var (
	errInflateLimit     = errors.New("message exceeds the size limit when it is inflated")
	errInflateTruncated = errors.New("compressed message is cut off")
	errInflateCorrupt   = errors.New("compressed message is corrupt")
)

// inflater decompresses the messages of a connection (RFC 7692 section 7.2.2). The holder of
// the read turn uses it. After an error the connection is over.
//
// Between messages it holds nothing, or the peer's window with context takeover.
type inflater struct {
	takeover bool
	text     tail
}

func newInflater(p *deflateParams) *inflater {
	// A peer that agreed to 256 bytes may use 512: zlib, which cannot do less, did so
	// silently up to version 1.2.8, and some of its users still do.
	return &inflater{takeover: p.recv.takeover, text: tail{size: max(1<<p.recv.bits, 512)}}
}

// appendMessage appends the message whose compressed form is payload. The message may have
// limit bytes; dst is not grown for more. If there is an error, dst is returned as it was.
func (f *inflater) appendMessage(dst, payload []byte, limit int64) ([]byte, error) {
	in := f.open(payload, nil)
	defer in.release()
	out, recorded := dst, len(dst)
	for {
		if room := limit - int64(len(out)-len(dst)); len(out) == cap(out) && room >= 0 {
			n := expected(len(out)-len(dst), len(payload)-len(in.payload), len(payload))
			if int64(n) > room {
				n = int(room) + 1 // for one byte that would be too many
			}
			out = append(make([]byte, 0, len(out)+n), out...)
		}
		n, err := in.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if int64(len(out)-len(dst)) > limit {
			return dst, errInflateLimit
		}
		switch err {
		case nil:
		case io.EOF:
			if f.takeover {
				in.text.write(out[recorded:])
			}
			return out, nil
		case errFinalBlock:
			in.text.write(out[recorded:])
			recorded = len(out)
			in.restart()
		default:
			return dst, err
		}
	}
}

// expected guesses how much is to come of a message after n bytes, for which the decompressor
// has read so much of the payload. What it asks of memory is in proportion to n.
func expected(n, read, payload int) int {
	if n == 0 {
		return max(min(2*payload, 64<<10), 512)
	}
	rest := 1.1 * float64(n) * float64(payload-read) / float64(read)
	return int(min(max(rest, float64(n/2)), float64(max(n, min(15*n, 16<<20))))) + 512
}

// reader returns a reader of the message whose compressed form src yields. It is for one
// goroutine. Before the next message it must have been read to io.EOF, or closed.
func (f *inflater) reader(src io.Reader, limit int64) *inflateReader {
	return &inflateReader{f: f, src: src, left: limit}
}

type inflateReader struct {
	f    *inflater
	src  io.Reader
	in   *inflation // from the first Read to the first error
	left int64
	err  error

	ahead   [1]byte // of the message, read by more
	isAhead bool
}

func (r *inflateReader) Read(p []byte) (n int, err error) {
	if r.isAhead && len(p) > 0 {
		n = copy(p, r.ahead[:])
		r.isAhead = false
	}
	m, err := r.read(p[n:])
	return n + m, err
}

// more reports whether there is more of the message. It may read of the source.
func (r *inflateReader) more() bool {
	if !r.isAhead {
		n, _ := r.read(r.ahead[:])
		r.isAhead = n > 0
	}
	return r.isAhead
}

func (r *inflateReader) read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	if r.in == nil {
		r.in = r.f.open(nil, r.src)
	}
	if int64(len(p))-1 > r.left {
		p = p[:r.left+1] // one byte would be too many
	}
	for {
		n, err := r.in.Read(p)
		r.in.text.write(p[:n])
		switch {
		case int64(n) > r.left:
			n, err = int(r.left), errInflateLimit
		case err == errFinalBlock:
			err = nil
			r.in.restart()
		}
		r.left -= int64(n)
		if err != nil {
			r.close()
			r.err = err
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// close lets go of what the reader holds. What has not been read is lost to the window, so
// with context takeover only a connection that is over closes it early.
func (r *inflateReader) close() {
	if r.in != nil {
		r.in.release()
		r.in = nil
	}
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
}

// inflations lends what only a message in progress needs.
var inflations = sync.Pool{New: func() any {
	in := &inflation{own: tail{size: maxWindow}}
	in.flate = flate.NewReader((*inflationSource)(in))
	return in
}}

// inflation is a message that is being inflated, and the source that compress/flate reads it
// from.
type inflation struct {
	flate io.ReadCloser // also a flate.Resetter
	text  *tail         // what matches may refer to
	own   tail          // without context takeover: only for what follows a final block

	payload []byte    // at hand
	src     io.Reader // of more, nil for none
	srcErr  error     // of src, but for io.EOF
	virtual string    // what is left of behindPayload
	empty   bool      // no payload has been seen yet
	buf     [1 << 10]byte
}

// behindPayload is what the decompressor reads behind the payload: first what the sender has
// removed (RFC 7692 section 7.2.2), then an empty final block, since for compress/flate
// there is no end without.
const (
	removedTail   = "\x00\x00\xff\xff"
	finalBlock    = "\x01\x00\x00\xff\xff"
	behindPayload = removedTail + finalBlock
)

// errFinalBlock says that there is payload behind a block with BFINAL set.
var errFinalBlock = errors.New("final block")

// open begins a message with the payload, and what src yields behind it unless src is nil.
func (f *inflater) open(payload []byte, src io.Reader) *inflation {
	in := inflations.Get().(*inflation)
	in.payload, in.src, in.virtual, in.empty = payload, src, behindPayload, true
	in.text = &in.own
	if f.takeover {
		in.text = &f.text
	}
	in.restart()
	return in
}

func (in *inflation) release() {
	in.payload, in.src, in.srcErr, in.text = nil, nil, nil, nil
	in.own.buf = in.own.buf[:0]
	inflations.Put(in)
}

// restart begins a DEFLATE stream, which may refer to what came before.
func (in *inflation) restart() {
	// The error is always nil.
	_ = in.flate.(flate.Resetter).Reset((*inflationSource)(in), in.text.last())
}

// Read inflates. Its error is io.EOF at the end of the message, errFinalBlock if there is
// more to come after a restart, and that of the message otherwise. The caller records what
// it gets in text before either.
func (in *inflation) Read(p []byte) (int, error) {
	// There should be at least one byte of payload (RFC 7692 section 7.2.3.6), but some
	// compressors make none of an empty message.
	if in.empty && !in.more() && in.srcErr == nil {
		return 0, io.EOF
	}
	in.empty = false
	n, err := in.flate.Read(p)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && in.more():
		// RFC 7692 section 7.2.1: blocks may have BFINAL set; the next one follows at the
		// byte boundary.
		return n, errFinalBlock
	case in.srcErr != nil:
		return n, in.srcErr
	case err == io.EOF:
		// A final block may also have been the last one of the payload. Its end was then
		// in the payload, or the tail if it was an empty one without compression.
		switch len(in.virtual) {
		case len(behindPayload), len(finalBlock), 0:
			return n, io.EOF
		}
		return n, errInflateCorrupt
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, errInflateTruncated
	default:
		return n, errInflateCorrupt
	}
}

// more reports whether there is payload at hand, for which it reads from the source.
func (in *inflation) more() bool {
	for tries := 0; len(in.payload) == 0 && in.src != nil; tries++ {
		n, err := in.src.Read(in.buf[:])
		in.payload = in.buf[:n]
		if err == nil && n == 0 && tries == 100 {
			err = io.ErrNoProgress
		}
		if err != nil {
			in.src = nil
		}
		if err != io.EOF {
			in.srcErr = err
		}
	}
	return len(in.payload) > 0
}

// inflationSource implements [flate.Reader], of which compress/flate reads no more than it
// needs.
type inflationSource inflation

func (s *inflationSource) ReadByte() (byte, error) {
	in := (*inflation)(s)
	if len(in.payload) > 0 || in.more() {
		b := in.payload[0]
		in.payload = in.payload[1:]
		return b, nil
	}
	if in.srcErr != nil {
		return 0, in.srcErr
	}
	if in.virtual == "" {
		return 0, io.EOF
	}
	b := in.virtual[0]
	in.virtual = in.virtual[1:]
	return b, nil
}

func (s *inflationSource) Read(p []byte) (int, error) {
	in := (*inflation)(s)
	if len(in.payload) > 0 || in.more() {
		n := copy(p, in.payload)
		in.payload = in.payload[n:]
		return n, nil
	}
	if in.srcErr != nil {
		return 0, in.srcErr
	}
	// A block without compression is read in bulk. If that goes on behind what the sender
	// has removed, the block is cut off.
	if in.virtual == "" || in.virtual == finalBlock {
		return 0, io.EOF
	}
	end := len(in.virtual)
	if end > len(finalBlock) {
		end -= len(finalBlock)
	}
	n := copy(p, in.virtual[:end])
	in.virtual = in.virtual[n:]
	return n, nil
}

// tail keeps the last bytes of text.
type tail struct {
	size int
	buf  []byte // somewhat more, so that it is not moved for each write
}

func (t *tail) write(p []byte) {
	limit := t.size + t.size/8
	switch {
	case len(p) > t.size:
		p = p[len(p)-t.size:]
		t.buf = t.buf[:0]
	case len(t.buf)+len(p) > limit:
		t.buf = t.buf[:copy(t.buf, t.buf[len(t.buf)+len(p)-t.size:])]
	}
	t.buf = appendUpTo(t.buf, p, limit)
}

func (t *tail) last() []byte { return t.buf[max(len(t.buf)-t.size, 0):] }
