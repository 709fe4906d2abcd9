package chaos

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// link is the only way from one part of the pipeline to another: a TCP proxy whose traffic can be delayed, held, cut and led elsewhere.
// What is held is not lost, as TCP would not lose it.
//
// It is our own: Toxiproxy as a library brings a web server, two logging and a process-supervision library, and dials before it
// accepts, so that it cannot be a server that answers nobody.
type link struct {
	name     string
	listener net.Listener

	mu       sync.Mutex
	upstream string
	delay    time.Duration
	open     chan struct{} // closed while traffic may pass
	pairs    map[*pair]struct{}
	done     chan struct{}
}

// pair is one connection on both its sides.
type pair struct {
	client, server net.Conn // server is nil until it was reached
	gone           chan struct{}
	once           sync.Once
}

func newLink(name, upstream string) (*link, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening link %s: %w", name, err)
	}
	l := &link{name: name, listener: listener, upstream: upstream, open: make(chan struct{}), pairs: map[*pair]struct{}{}, done: make(chan struct{})}
	close(l.open)
	go l.serve()
	return l, nil
}

func (l *link) address() string { return l.listener.Addr().String() }

// close ends the link and everything on it.
func (l *link) close() {
	close(l.done)
	_ = l.listener.Close()
	l.reset()
}

// hold lets nothing pass, in either direction and for new connections too, which are accepted: each side sees a peer that is silent.
func (l *link) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
		l.open = make(chan struct{})
	default:
	}
}

// release ends a hold.
func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
	default:
		close(l.open)
	}
}

// slow delays every piece of data by d.
func (l *link) slow(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// reset breaks every connection; both sides see "connection reset by peer".
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		p.reset()
	}
}

// lead makes new connections go to another address, and breaks those that there are.
func (l *link) lead(upstream string) {
	l.mu.Lock()
	l.upstream = upstream
	l.mu.Unlock()
	l.reset()
}

func (l *link) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		p := &pair{client: client, gone: make(chan struct{})}
		l.mu.Lock()
		l.pairs[p] = struct{}{}
		l.mu.Unlock()
		go l.carry(p)
	}
}

func (l *link) carry(p *pair) {
	defer func() {
		p.reset()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.pairs, p)
	}()
	if !l.pass(p) {
		return
	}
	l.mu.Lock()
	upstream := l.upstream
	l.mu.Unlock()
	dialer := net.Dialer{Timeout: 10 * time.Second}
	server, err := dialer.DialContext(context.Background(), "tcp", upstream)
	if err != nil {
		return
	}
	l.mu.Lock()
	p.server = server
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { l.pump(p, server, p.client) })
	both.Go(func() { l.pump(p, p.client, server) })
	both.Wait()
}

// pump copies one direction until it ends, and passes the end on.
func (l *link) pump(p *pair, to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !l.pass(p) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				p.reset()
				return
			}
		}
		if err != nil {
			if l.pass(p) {
				_ = to.(*net.TCPConn).CloseWrite()
			}
			return
		}
	}
}

// pass waits until traffic may pass; false when the connection is gone.
func (l *link) pass(p *pair) bool {
	l.mu.Lock()
	open, delay := l.open, l.delay
	l.mu.Unlock()
	select {
	case <-open:
	case <-p.gone:
		return false
	case <-l.done:
		return false
	}
	if delay == 0 {
		return true
	}
	select {
	case <-time.After(delay):
		return true
	case <-p.gone:
		return false
	}
}

func (p *pair) reset() {
	p.once.Do(func() { close(p.gone) })
	for _, c := range []net.Conn{p.client, p.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // an RST instead of a FIN
			_ = tcp.Close()
		}
	}
}

// used says whether there is a connection.
func (l *link) used() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pairs) > 0
}
