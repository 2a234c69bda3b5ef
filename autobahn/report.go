package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// A result is what came of testing one agent.
type result struct {
	agent    string
	dir      string // of the reports
	cases    map[string]caseReport
	failures []string // what went wrong with the run itself
}

func (r *result) failf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// A caseReport is the part of the suite's report of a case that matters here.
type caseReport struct {
	outcome
	Description  string `json:"description"`
	Result       string `json:"result"`       // explains Behavior
	ResultClose  string `json:"resultClose"`  // explains BehaviorClose
	HTTPRequest  string `json:"httpRequest"`  // the client's opening handshake
	HTTPResponse string `json:"httpResponse"` // the server's

	RemoteCloseCode *int `json:"remoteCloseCode"` // ours; nil if our Close frame had none, or there was none
	ExpectedClose   struct {
		ClosedByMe bool `json:"closedByMe"` // by the suite
	} `json:"expectedClose"`

	Traffic traffic `json:"trafficStats"` // of the cases that test compression

	file string
}

// A traffic is what the suite received in a case, all messages together.
type traffic struct {
	Messages int `json:"incomingWebSocketMessages"`
	Payload  int `json:"incomingOctetsAppLevel"`       // bytes as the application has them
	Sent     int `json:"incomingOctetsWebSocketLevel"` // bytes in frames
}

// html returns the page that shows the report.
func (c caseReport) html() string { return strings.TrimSuffix(c.file, ".json") + ".html" }

// read reads the reports that the suite wrote.
func (r *result) read() error {
	data, err := os.ReadFile(filepath.Join(r.dir, "index.json"))
	if err != nil {
		return fmt.Errorf("the suite wrote no reports: %w", err)
	}
	var index map[string]map[string]struct {
		outcome
		File string `json:"reportfile"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	r.cases = make(map[string]caseReport)
	var problems []error
	for id, entry := range index[r.agent] {
		c := caseReport{file: filepath.Join(r.dir, filepath.Base(entry.File))}
		data, err := os.ReadFile(c.file)
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		if err == nil && c.outcome != entry.outcome {
			err = fmt.Errorf("case %s: index.json says %v, %s says %v", id, entry.outcome, entry.File, c.outcome)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r.cases[id] = c
	}
	return errors.Join(problems...)
}

// checkCloseCode is stricter than the suite, to which it is all the same whether an endpoint says why it fails the
// connection or just drops TCP: RFC 6455 section 7.1.7 wants a Close frame with an appropriate code.
func (c caseReport) checkCloseCode() []string {
	if c.ExpectedClose.ClosedByMe || c.RemoteCloseCode != nil || c.BehaviorClose != "OK" {
		return nil
	}
	return []string{"we failed the connection without a Close frame that has a code"}
}

// checkCompressed is stricter than the suite, to which an endpoint that agrees on compression and never does it is as
// good as any. All of its texts and pictures get smaller in messages of 1 KiB.
func (t traffic) checkCompressed() []string {
	if t.Messages == 0 || t.Payload/t.Messages < 1024 || t.Sent < t.Payload {
		return nil
	}
	return []string{fmt.Sprintf("we did not compress: %d bytes of messages took %d in frames", t.Payload, t.Sent)}
}

// String returns the outcome in the suite's words.
func (o outcome) String() string { return o.Behavior + ", close " + o.BehaviorClose }

// A difference is a case that did not come out as expected.
type difference struct {
	id     string
	what   []string
	report *caseReport // nil if there is none
}

// differences compares the cases with what is expected of them, in the order of the cases.
func (r *result) differences(want expectation) []difference {
	var diffs []difference
	ids := make(map[string]bool)
	for id := range want {
		ids[id] = true
	}
	for id := range r.cases {
		ids[id] = true
	}
	for _, id := range slices.SortedFunc(maps.Keys(ids), compareIDs) {
		d := difference{id: id}
		expected, isExpected := want[id]
		got, isThere := r.cases[id]
		if isThere {
			d.report = &got
		}
		switch {
		case !isThere:
			d.what = append(d.what, "missing")
		case !isExpected:
			d.what = append(d.what, fmt.Sprintf("not among the expected cases; it is %v", got.outcome))
		case got.outcome != expected:
			d.what = append(d.what, fmt.Sprintf("expected %v; got %v", expected, got.outcome), got.Result, got.ResultClose)
		}
		if isThere {
			d.what = append(d.what, checkExtensions(got.HTTPRequest, got.HTTPResponse, needsExtension(id))...)
			d.what = append(d.what, got.checkCloseCode()...)
			d.what = append(d.what, got.Traffic.checkCompressed()...)
		}
		if len(d.what) > 0 {
			diffs = append(diffs, d)
		}
	}
	return diffs
}

// summarize prints the counts by section and what differs, and reports whether nothing does.
func summarize(out io.Writer, want expectation, results []*result, failures []string) bool {
	var sections []string
	wanted := make(map[string]int)
	for _, id := range want.ids() {
		s := section(id)
		if wanted[s]++; wanted[s] == 1 {
			sections = append(sections, s)
		}
	}

	fmt.Fprintf(out, "\nCases as expected, by section:\n\n")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "agent\t%s\tall\n", strings.Join(sections, "\t"))
	diffs := make(map[*result][]difference)
	ok := len(failures) == 0
	for _, r := range results {
		diffs[r] = r.differences(want)
		ok = ok && len(diffs[r]) == 0 && len(r.failures) == 0
		differing := make(map[string]int) // expected cases only, so that no count goes below zero
		all := 0
		for _, d := range diffs[r] {
			if _, isExpected := want[d.id]; isExpected {
				differing[section(d.id)]++
				all++
			}
		}
		fmt.Fprint(table, r.agent)
		for _, s := range sections {
			fmt.Fprintf(table, "\t%d/%d", wanted[s]-differing[s], wanted[s])
		}
		fmt.Fprintf(table, "\t%d/%d\n", len(want)-all, len(want))
	}
	table.Flush()

	for _, failure := range failures {
		fmt.Fprintf(out, "\nFAIL %s\n", failure)
	}
	for _, r := range results {
		for _, failure := range r.failures {
			fmt.Fprintf(out, "\nFAIL %s: %s\n", r.agent, failure)
		}
		var missing []string
		for _, d := range diffs[r] {
			if d.report == nil {
				missing = append(missing, d.id)
				continue
			}
			fmt.Fprintf(out, "\nFAIL %s: case %s: %s\n", r.agent, d.id, firstLine(d.report.Description))
			for _, line := range d.what {
				fmt.Fprintf(out, "     %s\n", line)
			}
			fmt.Fprintf(out, "     %s\n", d.report.html())
		}
		if len(missing) > 0 {
			// One line: where the server or the suite died there can be hundreds.
			fmt.Fprintf(out, "\nFAIL %s: missing, for the suite reports nothing of them (%d): %s\n", r.agent, len(missing), strings.Join(missing, " "))
		}
	}

	fmt.Fprintf(out, "\nReports:\n")
	for _, r := range results {
		if len(r.cases) > 0 {
			fmt.Fprintf(out, "  %s\n", filepath.Join(r.dir, "index.html"))
		}
	}
	if ok {
		fmt.Fprintf(out, "\nPASS: all cases are as expected, for all agents\n")
	} else {
		fmt.Fprintf(out, "\nFAIL\n")
	}
	return ok
}

// firstLine returns the first line of a description, which can go on in HTML.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s, _, _ = strings.Cut(s, "<br>")
	return strings.TrimSpace(s)
}
