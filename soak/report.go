package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// A report is a run of the soak, and what there is to say about it.
type report struct {
	opts  *options
	out   io.Writer
	start time.Time

	fleet          *fleet
	server         *peer
	client, remote *figures // of the two processes

	connecting time.Duration // until all clients had been connected
	running    time.Duration // from then on
	draining   time.Duration // until all had arrived
	fewest     int64         // connections that were open at the same time while running
	most       int64
	busy       int64 // messages that arrived while running
	given      bool  // up
}

// run runs the soak. Its error says why that could not be done; violations are in the figures.
func (r *report) run(ctx context.Context) error {
	before, err := measureWarm()
	if err != nil {
		return err
	}
	set := settings{
		Connections: r.opts.connections,
		Seed:        r.opts.seed,
		Gap:         time.Duration(float64(2*r.opts.connections) / float64(r.opts.rate) * float64(time.Second)),
		Life:        r.opts.life,
	}
	var where whereabouts
	if r.server, where, err = startServer(set); err != nil {
		return err
	}
	err = r.converse(ctx, set, where)
	if endErr := r.server.end(); err == nil {
		err = endErr
	}
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	r.client.Before = before
	if r.client.After, err = settle(before); err != nil {
		r.fleet.fail("%v", err)
	}
	if !r.given {
		r.compare(r.client.Acked.Load(), r.remote.Received.Load())
		r.compare(r.remote.Acked.Load(), r.client.Received.Load())
		made, ended := r.client.Conns.Load(), r.client.Aborts.sum()+r.client.Told.Load()
		if finished := r.fleet.complete.Load(); made != ended+finished {
			r.fleet.fail("%d connections were made, %d of them ended and %d finished", made, ended, finished)
		}
	}
	r.client.Violations = r.fleet.failures()
	return nil
}

func (r *report) compare(acked, received int64) {
	if acked != received {
		r.fleet.fail("%d messages were acknowledged in one direction, and %d arrived", acked, received)
	}
}

// converse runs the clients, from the first connection to the last.
func (r *report) converse(ctx context.Context, set settings, where whereabouts) error {
	cert, err := x509.ParseCertificate(where.Certificate)
	if err != nil {
		return err
	}
	fl := &fleet{where: where, roots: x509.NewCertPool(), dialing: make(chan struct{}, dialsAtOnce)}
	fl.roots.AddCert(cert)
	fl.init("client", set, set.Life)
	defer fl.giveUp()
	r.fleet, r.client = fl, &fl.figures

	var clients sync.WaitGroup
	for id := range uint64(set.Connections) {
		cl := &client{fleet: fl, id: id, link: newLink(set.Seed, id, toClient, toServer)}
		cl.ends, cl.delivered = make(map[uint64]error), make(map[uint64]uint64)
		clients.Go(cl.run)
	}
	err = r.watch(ctx)
	if err != nil || fl.ctx.Err() != nil {
		r.given = true
		fl.giveUp()
	}
	if !soon(&clients) { // settle shows where they are
		r.given = true
		fl.fail("%d clients go on, although all was said or given up", fl.going.Load())
	}
	if err != nil {
		return err
	}
	if r.given { // the server may have what hangs
		if err := r.server.ask("give up", nil); err != nil {
			return err
		}
	}
	return r.ask("finish")
}

// ask replaces the server's figures.
func (r *report) ask(command string) error {
	remote := new(figures)
	if err := r.server.ask(command, remote); err != nil {
		return err
	}
	r.remote = remote
	return nil
}

// watch sees the soak through its phases. It returns early when something is violated.
func (r *report) watch(ctx context.Context) error {
	fl, all := r.fleet, int64(r.opts.connections)
	began := time.Now()
	connected := func() bool { return fl.connected.Load() == all }
	if err := r.wait(ctx, "connecting", patience+time.Duration(all)*10*time.Millisecond, connected); err != nil || fl.ctx.Err() != nil {
		return err
	}
	if !connected() && ctx.Err() == nil {
		fl.fail("only %d of %d clients could connect", fl.connected.Load(), all)
		return nil
	}
	r.connecting = time.Since(began)

	if err := r.server.ask("start", nil); err != nil {
		return err
	}
	fl.started.Store(true)
	began = time.Now()
	r.fewest = fl.figures.Open.Load()
	arrived := r.arrived()
	if err := r.wait(ctx, "running", r.opts.duration, func() bool { return false }); err != nil || fl.ctx.Err() != nil {
		return err
	}
	r.running = time.Since(began)
	r.busy = r.arrived() - arrived

	began = time.Now()
	if err := r.server.ask("stop", nil); err != nil {
		return err
	}
	close(fl.stopping)
	complete := func() bool { return fl.complete.Load() == all }
	if err := r.wait(context.Background(), "draining", r.opts.drain, complete); err != nil || fl.ctx.Err() != nil {
		return err
	}
	if !complete() {
		fl.fail("%d of %d clients have not finished after %v: messages, acknowledgements or Pongs are lost", all-fl.complete.Load(), all, r.opts.drain)
	}
	r.draining = time.Since(began)
	return nil
}

// arrived is how many messages have, in both directions.
func (r *report) arrived() int64 {
	n := r.client.Received.Load()
	if r.remote != nil {
		n += r.remote.Received.Load()
	}
	return n
}

// wait watches until done, for at most the given time, and tells how it goes.
func (r *report) wait(ctx context.Context, phase string, limit time.Duration, done func() bool) error {
	const step = 200 * time.Millisecond
	end := time.Now().Add(limit)
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	next := time.Now().Add(r.opts.progress)
	before, since := r.arrived(), time.Now()
	for i := 1; !done() && time.Now().Before(end); i++ {
		select {
		case <-ticker.C:
		case <-r.fleet.ctx.Done():
			return r.ask("figures")
		case <-ctx.Done():
			return nil
		}
		open := r.client.Open.Load()
		r.most = max(r.most, open)
		if phase == "running" {
			r.fewest = min(r.fewest, open)
		}
		if i%5 != 0 {
			continue
		}
		if err := r.ask("figures"); err != nil {
			return err
		}
		if len(r.remote.Violations) > 0 {
			r.fleet.giveUp()
			return nil
		}
		if now := time.Now(); now.After(next) {
			n := r.arrived()
			fmt.Fprintf(r.out, "%4.0fs %-10s  %d open, %d connected so far, %d ended by us and %d by the server, %d messages (%.0f/s), %d sent again\n",
				time.Since(r.start).Seconds(), phase, open, r.client.Conns.Load(), r.client.Aborts.sum(), r.remote.Aborts.sum(),
				n, float64(n-before)/now.Sub(since).Seconds(), r.client.Again.Load()+r.remote.Again.Load())
			before, since = n, now
			next = now.Add(r.opts.progress)
		}
	}
	return r.ask("figures")
}

// print prints the figures of both sides.
func (r *report) print() {
	fmt.Fprintf(r.out, "\n%d connections at the same time (%d to %d while running), seed %d\n", r.opts.connections, r.fewest, r.most, r.opts.seed)
	fmt.Fprintf(r.out, "%.1f s connecting, %.1f s running, %.1f s draining; %.0f messages arrived a second while running\n\n",
		r.connecting.Seconds(), r.running.Seconds(), r.draining.Seconds(), float64(r.busy)/max(r.running.Seconds(), 1e-3))

	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(name string, of func(*figures) string) {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", name, of(r.client), of(r.remote))
	}
	number := func(name string, of func(*figures) *counter) {
		line(name, func(f *figures) string { return fmt.Sprint(of(f).Load()) })
	}
	size := func(name string, of func(*figures) *counter) {
		line(name, func(f *figures) string { return mebibytes(of(f).Load()) })
	}
	tallies := func(of func(*figures) *tally) {
		names := make(map[string]bool)
		for _, f := range []*figures{r.client, r.remote} {
			for _, name := range of(f).names() {
				names[name] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			line("  "+name, func(f *figures) string { return fmt.Sprint(of(f).get(name)) })
		}
	}
	fmt.Fprint(w, "\tclients\tserver\t\n")
	number("connections", func(f *figures) *counter { return &f.Conns })
	tallies(func(f *figures) *tally { return &f.Kinds })
	line("connections ended", func(f *figures) string { return fmt.Sprint(f.Aborts.sum()) })
	tallies(func(f *figures) *tally { return &f.Aborts })
	number("closing handshakes that were answered", func(f *figures) *counter { return &f.Handshakes })
	number("Dials cancelled", func(f *figures) *counter { return &f.DialsCut })
	number("Reads cancelled", func(f *figures) *counter { return &f.ReadsCut })
	number("Writes cancelled", func(f *figures) *counter { return &f.WritesCut })
	number("Pings answered", func(f *figures) *counter { return &f.Pings })
	number("messages sent", func(f *figures) *counter { return &f.Sent })
	size("MiB", func(f *figures) *counter { return &f.SentBytes })
	number("sent again after a connection was lost", func(f *figures) *counter { return &f.Again })
	number("acknowledged by the peer", func(f *figures) *counter { return &f.Acked })
	number("messages that arrived", func(f *figures) *counter { return &f.Received })
	size("MiB", func(f *figures) *counter { return &f.RecvBytes })
	number("acknowledgements sent", func(f *figures) *counter { return &f.Acks })
	number("broadcasts that arrived", func(f *figures) *counter { return &f.Broadcast })
	tallies(func(f *figures) *tally { return &f.Ways })
	line("goroutines before", func(f *figures) string { return fmt.Sprint(f.Before.Goroutines) })
	line("goroutines after", func(f *figures) string { return fmt.Sprint(f.After.Goroutines) })
	line("open files before", func(f *figures) string { return fmt.Sprint(f.Before.Files) })
	line("open files after", func(f *figures) string { return fmt.Sprint(f.After.Files) })
	line("peak memory, MiB", func(f *figures) string { return mebibytes(max(f.Before.PeakRSS, f.After.PeakRSS)) })
	w.Flush()
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) }
