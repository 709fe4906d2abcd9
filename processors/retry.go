package processors

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// RetryPolicy says how often and how late a transient failure is tried again. The zero value means the defaults.
type RetryPolicy struct {
	MaxAttempts int           // attempts in all, the first included, before the dead-letter topic; default 8
	Base        time.Duration // the shortest delay; default 1 s
	Max         time.Duration // the longest delay; default 10 min
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	return RetryPolicy{
		MaxAttempts: cmp.Or(p.MaxAttempts, 8),
		Base:        cmp.Or(p.Base, time.Second),
		Max:         cmp.Or(p.Max, max(p.Base, 10*time.Minute)),
	}
}

func (p RetryPolicy) validate() error {
	var errs []error
	if p.MaxAttempts < 1 {
		errs = append(errs, fmt.Errorf("retry max attempts %d is below 1", p.MaxAttempts))
	}
	if p.Base < 0 || p.Max < p.Base {
		errs = append(errs, fmt.Errorf("retry delays: base %s, max %s", p.Base, p.Max))
	}
	return errors.Join(errs...)
}

// delay draws the delay before the next attempt from the one before (0 at first): between Base and three times the last
// one, at most Max. Decorrelated jitter grows like an exponential back-off and keeps keys that failed together from
// coming back together; unlike full jitter it never retries at once.
func (p RetryPolicy) delay(last time.Duration) time.Duration {
	upper := min(p.Max, 3*max(last, p.Base))
	return p.Base + rand.N(upper-p.Base+1)
}
