package chaos

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// kind is a kind of fault. begin brings it about and returns what ends it.
type kind struct {
	name        string
	area        area
	least, most time.Duration // of its hold
	begin       func(ctx context.Context, w *world, p planned) (end healer, err error)
	about       string // for the report
}

type healer func(ctx context.Context) error

func nothing(context.Context) error { return nil }

// kinds are all kinds of faults; the short form leaves out what takes long and what needs another build of the program.
func kinds(long bool) []kind {
	all := slices.Concat(processKinds(long), kafkaKinds(), sourceKinds(), reportingKinds(), networkKinds())
	if long {
		all = append(all, kind{
			"clock_jump", clockArea, time.Second, 4 * time.Second, jumpClock,
			"the clock of a stage's two processes jumps by up to 30 minutes, forth or back, and later back again",
		})
	}
	return all
}

func processKinds(long bool) []kind {
	var all []kind
	for _, a := range []area{relayArea, normalizeArea, publishArea} {
		stage := string(a)
		longest := 8 * time.Second // relays leave the group after 6 s of silence, the others after 10 s
		if a != relayArea {
			longest = 12 * time.Second
		}
		on := func(name string, least, most time.Duration, begin func(ctx context.Context, w *world, stage string, p planned) (healer, error), about string) {
			all = append(all, kind{stage + "_" + name, a, least, most, func(ctx context.Context, w *world, p planned) (healer, error) {
				return begin(ctx, w, stage, p)
			}, about})
		}
		on("kill", 0, 2*time.Second, killOne, "SIGKILL of one process, started again after the hold")
		on("kill_both", 0, time.Second, killBoth, "SIGKILL of both processes at once")
		on("term", 0, time.Second, termOne, "SIGTERM of one process; it must end with exit code 0")
		on("freeze", 500*time.Millisecond, 3*time.Second, freeze, "SIGSTOP for less than the session timeout, then SIGCONT")
		if long {
			on("freeze_long", longest, longest+2*time.Second, freeze, "SIGSTOP past the session timeout: it wakes up as a zombie")
		}
	}
	if long {
		all = append(all, kind{
			"relay_two_owners", relayArea, 0, 500 * time.Millisecond, twoOwners,
			"the owner of the source is stopped and its database session ended until the other has taken over; then it wakes up, an owner too",
		})
	}
	return all
}

func killOne(_ context.Context, w *world, stage string, p planned) (healer, error) {
	m := w.of(stage, p.Target)[0]
	return func(context.Context) error { return m.start() }, m.down(syscall.SIGKILL)
}

func killBoth(_ context.Context, w *world, stage string, p planned) (healer, error) {
	two := w.of(stage, p.Target)
	err := errors.Join(two[0].down(syscall.SIGKILL), two[1].down(syscall.SIGKILL))
	return func(context.Context) error { return errors.Join(two[0].start(), two[1].start()) }, err
}

func termOne(_ context.Context, w *world, stage string, p planned) (healer, error) {
	m := w.of(stage, p.Target)[0]
	return func(context.Context) error { return m.start() }, m.down(syscall.SIGTERM)
}

func freeze(_ context.Context, w *world, stage string, p planned) (healer, error) {
	m := w.of(stage, p.Target)[0]
	return func(context.Context) error { return m.signal(syscall.SIGCONT) }, m.signal(syscall.SIGSTOP)
}

func twoOwners(ctx context.Context, w *world, p planned) (healer, error) {
	owner, other := w.of("relay", p.Target)[0], w.of("relay", p.Target)[1]
	reading := func(m *member) bool { return w.links["relay "+m.instance+" to source"].used() }
	if reading(other) {
		owner, other = other, owner
	}
	if err := owner.signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	wake := func(context.Context) error { return owner.signal(syscall.SIGCONT) }
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// The source may be the object of another fault at the moment.
	if err := again(limit, func() error { return w.source.cut(limit, "leat-relay-%") }); err != nil {
		return wake, err
	}
	err := again(limit, func() error {
		if !reading(other) {
			return errors.New("the other relay has not taken over")
		}
		return nil
	})
	if err != nil { // another fault keeps it from doing so: then this was a long stop
		w.note("relay_two_owners: %v", err)
	}
	return wake, nil
}

func jumpClock(_ context.Context, w *world, p planned) (healer, error) {
	c := w.clocks[stages()[p.Target%3]]
	by := time.Duration(p.Amount-50) * 36 * time.Second
	return func(context.Context) error { return c.set(0) }, c.set(by)
}

func kafkaKinds() []kind {
	return []kind{
		{"broker_kill", kafkaArea, 500 * time.Millisecond, 4 * time.Second, killBroker, "SIGKILL of one of three brokers (each is a controller too), started again"},
		{"broker_term", kafkaArea, 0, 2 * time.Second, termBroker, "SIGTERM of one broker, which hands its leaderships over; started again"},
		{"broker_freeze", kafkaArea, time.Second, 6 * time.Second, freezeBroker, "SIGSTOP of one broker, in half of the cases past its session; then SIGCONT"},
		{"leader_moves", kafkaArea, 0, 500 * time.Millisecond, moveLeaders, "the leader of every partition of every topic moves to another broker, also those of offsets and transactions"},
	}
}

func killBroker(ctx context.Context, w *world, p planned) (healer, error) {
	return downBroker(ctx, w, p, func(node int) error { w.kafka.Kill(node); return nil })
}

func termBroker(ctx context.Context, w *world, p planned) (healer, error) {
	return downBroker(ctx, w, p, w.kafka.Stop)
}

func downBroker(ctx context.Context, w *world, p planned, down func(int) error) (healer, error) {
	if err := w.whole(ctx); err != nil { // one at a time
		return nil, err
	}
	node := p.Target % nodes
	return func(ctx context.Context) error {
		return errors.Join(w.kafka.Start(ctx, node), w.whole(ctx))
	}, down(node)
}

func freezeBroker(ctx context.Context, w *world, p planned) (healer, error) {
	if err := w.whole(ctx); err != nil {
		return nil, err
	}
	node := p.Target % nodes
	return func(ctx context.Context) error {
		return errors.Join(w.kafka.Signal(node, syscall.SIGCONT), w.whole(ctx))
	}, w.kafka.Signal(node, syscall.SIGSTOP)
}

// moveLeaders makes another replica of each partition the preferred one, and has it elected. No data moves.
func moveLeaders(ctx context.Context, w *world, p planned) (healer, error) {
	if err := w.whole(ctx); err != nil {
		return nil, err
	}
	m, err := w.admin.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	var assign kadm.AlterPartitionAssignmentsReq
	var elect kadm.TopicsSet
	for _, topic := range m.Topics {
		for _, part := range topic.Partitions {
			by := 1 + p.Amount%(len(part.Replicas)-1)
			assign.Assign(topic.Topic, part.Partition, slices.Concat(part.Replicas[by:], part.Replicas[:by]))
			elect.Add(topic.Topic, part.Partition)
		}
	}
	if _, err := w.admin.AlterPartitionAssignments(ctx, assign); err != nil {
		return nil, err
	}
	_, err = w.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect)
	return w.whole, err
}

func networkKinds() []kind {
	return []kind{
		{"latency", networkArea, time.Second, 4 * time.Second, latency, "5 to 100 ms more on each piece of data of a link"},
		{"loss", networkArea, time.Second, 4 * time.Second, loss, "a link stalls for 200 to 600 ms again and again, which is what lost packets are to TCP"},
		{"resets", networkArea, time.Second, 3 * time.Second, resets, "all connections of a link are reset, again and again"},
		{"partition", networkArea, time.Second, 8 * time.Second, partition, "nothing passes a link, and its connections are reset in the end"},
		{"half_dead", networkArea, time.Second, 8 * time.Second, halfDead, "connections of a link are accepted and never answered; then what was held arrives late"},
	}
}

// meant are the links of a fault: one, or now and then all links of one client to Kafka.
func meant(w *world, p planned) []*link {
	names := w.linkNames()
	name := names[p.Target%len(names)]
	client, server, _ := strings.Cut(name, " to ")
	var all []*link
	for _, n := range names {
		if n == name || p.Amount >= 70 && strings.HasPrefix(server, "broker") && strings.HasPrefix(n, client+" to broker") {
			all = append(all, w.links[n])
		}
	}
	return all
}

func latency(_ context.Context, w *world, p planned) (healer, error) {
	links := meant(w, p)
	for _, l := range links {
		l.slow(time.Duration(5+p.Amount) * time.Millisecond)
	}
	return func(context.Context) error {
		for _, l := range links {
			l.slow(0)
		}
		return nil
	}, nil
}

func loss(_ context.Context, w *world, p planned) (healer, error) {
	return repeatedly(w, p, time.Duration(200+4*p.Amount)*time.Millisecond, func(l *link, even bool) {
		if even {
			l.hold()
		} else {
			l.release()
		}
	}), nil
}

func resets(_ context.Context, w *world, p planned) (healer, error) {
	return repeatedly(w, p, time.Duration(100+3*p.Amount)*time.Millisecond, func(l *link, _ bool) { l.reset() }), nil
}

func repeatedly(w *world, p planned, every time.Duration, do func(l *link, even bool)) healer {
	links, enough, done := meant(w, p), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for even := true; ; even = !even {
			for _, l := range links {
				do(l, even)
			}
			select {
			case <-enough:
				return
			case <-time.After(every):
			}
		}
	}()
	return func(context.Context) error {
		close(enough)
		<-done
		for _, l := range links {
			l.release()
		}
		return nil
	}
}

func partition(ctx context.Context, w *world, p planned) (healer, error) {
	end, err := halfDead(ctx, w, p)
	return func(ctx context.Context) error {
		for _, l := range meant(w, p) {
			l.reset()
		}
		return end(ctx)
	}, err
}

func halfDead(_ context.Context, w *world, p planned) (healer, error) {
	links := meant(w, p)
	for _, l := range links {
		l.hold()
	}
	return func(context.Context) error {
		for _, l := range links {
			l.release()
		}
		return nil
	}, nil
}
