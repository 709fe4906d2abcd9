package main

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// verify measures the proof of delivery of every row of a source that has gone the whole way: from its outbox to the reporting tables.
func (b *bench) verify(ctx context.Context) error {
	r, err := b.newBacklog(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	if err := b.wholeWay(ctx, r); err != nil {
		return err
	}
	begin := time.Now()
	cmd := exec.CommandContext(ctx, b.leat, "verify", "--source", r.system, "--config", r.config)
	cmd.Stderr = b.log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var resident float64
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("leat verify: %w", err)
			}
			u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			b.report.add("verify", "whole run s", "s", time.Since(begin).Seconds())
			b.report.add("verify", "cpu s", "s", time.Duration(u.Utime.Nano()+u.Stime.Nano()).Seconds())
			b.report.add("verify", "max rss MB", "MB", resident)
			return nil
		case <-tick.C:
			if now, err := peakResident(cmd.Process.Pid); err == nil {
				resident = max(resident, now)
			}
		}
	}
}

// wholeWay runs all stages until every row has been published.
func (b *bench) wholeWay(ctx context.Context, r *rig) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for _, stage := range []string{"relay", "normalize", "publish"} {
		if _, err := r.start(stage, "run"); err != nil {
			return err
		}
	}
	for _, topic := range []string{r.sourceInvoices, r.financeInvoices} {
		if _, err := b.arrive(ctx, topic, b.o.rows, r.failed); err != nil {
			return err
		}
	}
	for ; ; time.Sleep(100 * time.Millisecond) {
		ends, err := b.adm.ListCommittedOffsets(ctx, r.financeInvoices)
		if err != nil {
			return err
		}
		read, err := b.adm.FetchOffsetsForTopics(ctx, r.groups[2], r.financeInvoices)
		if err != nil {
			return err
		}
		behind := false
		ends.Each(func(o kadm.ListedOffset) {
			at, _ := read.Lookup(o.Topic, o.Partition)
			behind = behind || at.At < o.Offset
		})
		if !behind {
			return nil
		}
	}
}
