package processors

import (
	"context"
	"errors"
)

// Permanent marks err as one that no retry can help: a record that does not decode, breaks its contract or a business
// rule. The record goes to the dead-letter topic at once. Code is a short constant of the stage ("decode", "contract").
func Permanent(code string, err error) error { return &codedError{permanent, code, err} }

// Systemic marks err as one of the target or of a dependency, not of the record: the transaction is aborted, the runner
// pauses and probes; no attempt is spent and no dead letter is written.
func Systemic(code string, err error) error { return &codedError{systemic, code, err} }

// Transient gives an error that a retry can help a code. An error without any mark is transient with the code "unknown".
func Transient(code string, err error) error { return &codedError{transient, code, err} }

type codedError struct {
	class class
	code  string
	err   error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// Code returns the code that the innermost mark gave err, or "unknown".
func Code(err error) string {
	code := "unknown"
	for ce := (*codedError)(nil); errors.As(err, &ce); err = ce.err {
		code = ce.code
	}
	return code
}

// Class returns what err means for its record: "permanent", "systemic", else "transient"; "done" if err is nil.
func Class(err error) string { return string(classify(context.Background(), err)) }
