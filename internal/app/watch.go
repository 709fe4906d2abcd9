package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/leat-io/leat/internal/safetext"
)

// Control sequences of terminals (ECMA-48, xterm's alternate screen).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // another screen, without a cursor: what was on the terminal comes back at the end
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// WatchStatus shows the status on the whole terminal, anew every so often, until ctx ends. It is calm: it draws over what is there
// instead of clearing it first, and a look that fails leaves the last one standing, with its age.
func (a *App) WatchStatus(ctx context.Context, out *os.File, every time.Duration, all bool) (err error) {
	if !term.IsTerminal(int(out.Fd())) {
		return errors.New("--watch draws on a terminal, and the output is none; use leat status, or -o json")
	}
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return fmt.Errorf("drawing the status: %w", err)
	}
	defer func() {
		_, leaveErr := io.WriteString(out, leaveScreen)
		err = errors.Join(err, leaveErr)
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last bytes.Buffer
	for {
		report, lookErr := a.Status(ctx, all)
		if ctx.Err() != nil {
			return nil
		}
		if lookErr == nil {
			last.Reset()
			if err := report.WriteText(&last); err != nil {
				return err
			}
		}
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil {
			width, height = 80, 24
		}
		if _, err := io.WriteString(out, screen(safetext.Clean(a.hider.Hide(last.String())), a.hider.Error(lookErr), every, width, height)); err != nil {
			return fmt.Errorf("drawing the status: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// screen fits text into a terminal: lines are cut at its width, and what is below its height is counted instead of scrolling away.
func screen(text string, failed error, every time.Duration, width, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	foot := fmt.Sprintf("every %s, Ctrl-C ends", every)
	if failed != nil {
		foot = fmt.Sprintf("the last look was in vain: %v", failed)
	}
	room := max(1, height-2)
	if len(lines) > room {
		hidden := len(lines) - room + 1
		lines = append(lines[:room-1], fmt.Sprintf("… and %d lines more: leat status --all | less", hidden))
	}
	var b strings.Builder
	b.WriteString(toTop)
	for _, l := range append(lines, "", foot)[:min(len(lines)+2, height)] {
		b.WriteString(cut(l, width))
		b.WriteString(clearLine + "\r\n")
	}
	return strings.TrimSuffix(b.String(), "\r\n") + clearBelow
}

func cut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:max(0, width-1)]) + "…"
	}
	return s
}
