// Package tap writes the Test Anything Protocol: the part of the interface that the OCI validation suite uses of a
// library that Debian does not have.  Lines are what counts; YAML is written as JSON, which is YAML.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T is a stream of numbered results.
type T struct {
	Writer io.Writer
	count  *int
	todo   bool
}

// New writes to standard output.
func New() *T { return &T{Writer: os.Stdout, count: new(int)} }

func (t *T) out() io.Writer {
	if t.Writer == nil {
		return os.Stdout
	}
	return t.Writer
}

// Header writes the version, and the plan if it is known.
func (t *T) Header(plan int) {
	fmt.Fprintln(t.out(), "TAP version 13")
	if plan > 0 {
		fmt.Fprintf(t.out(), "1..%d\n", plan)
	}
}

// Ok writes one result.
func (t *T) Ok(good bool, description string) {
	*t.count++
	word, note := "ok", ""
	if !good {
		word = "not ok"
	}
	if t.todo {
		note = " # TODO"
	}
	fmt.Fprintf(t.out(), "%s %d - %s%s\n", word, *t.count, strings.ReplaceAll(description, "\n", " "), note)
}

func (t *T) Pass(description string) { t.Ok(true, description) }
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip writes so many results that were not looked at.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		*t.count++
		fmt.Fprintf(t.out(), "ok %d # SKIP %s\n", *t.count, description)
	}
}

// Todo is a stream whose failures are expected.
func (t *T) Todo() *T {
	other := *t
	other.todo = true
	return &other
}

// AutoPlan writes the plan at the end.
func (t *T) AutoPlan() { fmt.Fprintf(t.out(), "1..%d\n", *t.count) }

func (t *T) Diagnostic(text string) {
	fmt.Fprintln(t.out(), "# "+strings.ReplaceAll(text, "\n", "\n# "))
}

func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML writes details of the result before it.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out(), "  ---\n  %s\n  ...\n", text)
	return nil
}
