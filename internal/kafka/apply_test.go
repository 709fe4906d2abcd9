package kafka

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/internal/testenv"
)

// TestApply_WaitsForABrokerThatHasNotHeardOfATopic lets a broker refuse, at first, to tell the settings of topics that another one has listed,
// as happens on a cluster of several.
func TestApply_WaitsForABrokerThatHasNotHeardOfATopic(t *testing.T) {
	t.Parallel()
	fake := testenv.FakeCluster(t)
	s := newStage(t, fake.Brokers())
	p := s.plan(s.catalogue(4, nil))
	var refusals atomic.Int32
	fake.Cluster().ControlKey(int16(kmsg.DescribeConfigs), func(req kmsg.Request) (kmsg.Response, error, bool) {
		asked, ok := req.(*kmsg.DescribeConfigsRequest)
		if !ok || refusals.Add(1) > 2 {
			return nil, nil, false
		}
		fake.Cluster().KeepControl()
		resp := asked.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range asked.Resources {
			unheard := kmsg.NewDescribeConfigsResponseResource()
			unheard.ResourceType, unheard.ResourceName, unheard.ErrorCode = r.ResourceType, r.ResourceName, kerr.UnknownTopicOrPartition.Code
			resp.Resources = append(resp.Resources, unheard)
		}
		return resp, nil, true
	})
	require.Empty(t, s.apply(p).Remaining.Changes)
	require.Greater(t, refusals.Load(), int32(1), "the broker was asked again")
}
