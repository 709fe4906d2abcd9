package offsets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Member is a member of a consumer group.
type Member struct {
	ID         string `json:"id"`
	InstanceID string `json:"instance_id,omitempty"` // of a static member
	ClientID   string `json:"client_id"`
	Host       string `json:"host"`
}

func (m Member) String() string {
	name := m.ClientID + " at " + strings.TrimPrefix(m.Host, "/")
	if m.InstanceID != "" {
		return "static member " + m.InstanceID + " (" + name + ")"
	}
	return name
}

// State of a group that Kafka does not know.
const noGroup = "Dead"

// groupInfo is what Kafka says about a group. Asking for it never makes one.
type groupInfo struct {
	State    string // Empty, Stable, PreparingRebalance, ...; Dead: there is no such group
	Protocol string // classic or consumer; or another type of group
	Members  []Member
}

func (g *groupInfo) exists() bool { return g.State != noGroup }
func (g *groupInfo) active() bool { return len(g.Members) > 0 || g.exists() && g.State != "Empty" }

// steady asks again while Kafka says that it will soon be able to answer: its coordinator moves or is busy, a leader changes. It is for
// questions only.
func steady[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	for tries := 0; ; tries++ {
		v, err := ask()
		if err == nil || tries == 40 || !isMoved(err) || errors.Is(err, kerr.UnstableOffsetCommit) || wait(ctx, 250*time.Millisecond) != nil {
			return v, err
		}
	}
}

// describe asks for a group of either protocol.
func (o *Offsets) describe(ctx context.Context, group string) (groupInfo, error) {
	return steady(ctx, func() (groupInfo, error) { return o.describeOnce(ctx, group) })
}

func (o *Offsets) describeOnce(ctx context.Context, group string) (groupInfo, error) {
	classic, err := o.adm.DescribeGroups(ctx, group)
	if err != nil {
		return groupInfo{}, fmt.Errorf("describing group %s: %w", group, err)
	}
	g := classic[group]
	if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
		return groupInfo{}, fmt.Errorf("describing group %s: %w", group, g.Err)
	}
	if g.Err == nil && g.State != noGroup && g.State != "" {
		info := groupInfo{State: g.State, Protocol: "classic"}
		if g.ProtocolType != "" && g.ProtocolType != "consumer" {
			info.Protocol = g.ProtocolType
		}
		for _, m := range g.Members {
			info.Members = append(info.Members, member(m.MemberID, m.InstanceID, m.ClientID, m.ClientHost))
		}
		return info, nil
	}
	return o.describeNext(ctx, group)
}

// describeNext asks for a group of the protocol of KIP-848, and then whether there is a group of that name at all.
func (o *Offsets) describeNext(ctx context.Context, group string) (groupInfo, error) {
	next, err := o.adm.DescribeConsumerGroups(ctx, group)
	if err := errors.Join(err, next[group].Err); isMoved(err) { // others say that the broker or the group is of another kind
		return groupInfo{}, fmt.Errorf("describing group %s: %w", group, err)
	}
	if g, ok := next[group]; err == nil && ok && g.Err == nil && g.State != noGroup && g.State != "" {
		info := groupInfo{State: g.State, Protocol: "consumer"}
		for _, m := range g.Members {
			info.Members = append(info.Members, member(m.MemberID, m.InstanceID, m.ClientID, m.ClientHost))
		}
		return info, nil
	}
	listed, err := o.adm.ListGroups(ctx)
	if err != nil {
		return groupInfo{}, fmt.Errorf("listing groups: %w", err)
	}
	if g, ok := listed[group]; ok && g.State != noGroup {
		return groupInfo{State: g.State, Protocol: g.ProtocolType}, nil
	}
	return groupInfo{State: noGroup}, nil
}

func member(id string, instance *string, client, host string) Member {
	m := Member{ID: id, ClientID: client, Host: host}
	if instance != nil {
		m.InstanceID = *instance
	}
	return m
}

// refuseType says why a group of another type has no offsets to plan for, "" if it has.
func (g *groupInfo) refuseType(group string) string {
	if !g.exists() || g.Protocol == "classic" || g.Protocol == "consumer" {
		return ""
	}
	return fmt.Sprintf("group %s is of type %s: only consumer groups have offsets to move", group, g.Protocol)
}

// names lists members for people.
func names(members []Member) string {
	all := make([]string, len(members))
	for i, m := range members {
		all[i] = m.String()
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func statics(members []Member) (names []string) {
	for _, m := range members {
		if m.InstanceID != "" {
			names = append(names, m.InstanceID)
		}
	}
	slices.Sort(names)
	return names
}

// refuseActive says why offsets of a group with members cannot be written, "" if they can.
func (g *groupInfo) refuseActive(group string, drains bool) string {
	if !g.active() {
		return ""
	}
	text := fmt.Sprintf("group %s is active (%s): ", group, g.State)
	if len(g.Members) > 0 {
		text += fmt.Sprintf("its %d members would go on from where they are: %s. ", len(g.Members), names(g.Members))
	}
	text += "Stop its processes"
	if drains {
		text += ", or let them step aside with --drain"
	}
	if s := statics(g.Members); len(s) > 0 {
		text += fmt.Sprintf(". Static members (%s) that are stopped still count until their session timeout has passed: --wait 1m waits for it",
			strings.Join(s, ", "))
	}
	return text
}

// awaitEmpty waits until the group has no members.
func (o *Offsets) awaitEmpty(ctx context.Context, group string, timeout time.Duration) (groupInfo, error) {
	deadline := o.now().Add(timeout)
	told := ""
	for {
		g, err := o.describe(ctx, group)
		if err != nil || !g.active() || !o.now().Before(deadline) {
			return g, err
		}
		if text := names(g.Members); text != told {
			o.progress("group %s has %d members: waiting until they are gone: %s", group, len(g.Members), text)
			told = text
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return g, err
		}
	}
}

// unsettled is how long a transaction that commits offsets may stay open after its member has gone: twice the stages' own timeout.
const unsettled = 80 * time.Second

// committed returns what a group has committed. With stable it first waits for the end of transactions that commit offsets: of a member
// that was killed, Kafka aborts it only when its time is over.
func (o *Offsets) committed(ctx context.Context, group string, stable bool) (kadm.OffsetResponses, error) {
	if !stable {
		return o.fetchCommitted(ctx, group)
	}
	deadline := o.now().Add(unsettled)
	for told := false; ; told = true {
		commits, err := o.fetchCommitted(kadm.RequireStable(ctx), group)
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			return commits, err
		}
		if !o.now().Before(deadline) {
			return nil, refuse(fmt.Sprintf("a transaction that commits offsets of group %s has been open for %s: "+
				"find its owner with kafka-transactions.sh find-hanging", group, unsettled))
		}
		if !told {
			o.progress("a transaction that commits offsets of group %s is still open: waiting for its end", group)
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (o *Offsets) fetchCommitted(ctx context.Context, group string) (kadm.OffsetResponses, error) {
	commits, err := steady(ctx, func() (kadm.OffsetResponses, error) {
		commits, err := o.adm.FetchOffsets(ctx, group)
		if err == nil {
			err = commits.Error()
		}
		return commits, err
	})
	if errors.Is(err, kerr.GroupIDNotFound) {
		return kadm.OffsetResponses{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the committed offsets of group %s: %w", group, err)
	}
	commits.DeleteFunc(func(c kadm.OffsetResponse) bool { return c.At < 0 })
	return commits, nil
}

func commitOf(commits kadm.OffsetResponses, topic string, partition int32) *Commit {
	c, ok := commits.Lookup(topic, partition)
	if !ok {
		return nil
	}
	return &Commit{Offset: c.At, LeaderEpoch: c.LeaderEpoch, Metadata: c.Metadata}
}
