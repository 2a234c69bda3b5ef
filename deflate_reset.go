package websocket

// reset forgets the history, and a streamed message in progress: the peer has not received
// the latest of it. Messages to come do not refer to what was before.
func (d *deflater) reset() {
	if d.stream != nil {
		d.stream.take()
		d.stream.discard()
		encoders.Put(d.stream)
		d.stream = nil
	}
	d.text = nil
}
