package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// reports reads the small set of reports in testdata. They are shaped like the suite's: one case as expected in each
// of three sections, and one for each way to differ.
func reports(t *testing.T) *result {
	t.Helper()
	r := &result{agent: "echo", dir: filepath.Join("testdata", "reports", "echo")}
	require.NoError(t, r.read())
	return r
}

// wanted is what is expected of them: 2.1 is missing, 14.1.1 is not expected.
func wanted(t *testing.T) expectation {
	t.Helper()
	s, err := expected().parseSelection("1.1.1,2.1,6.3.1,6.4.1,7.1.6,7.9.1,12.1.1,13.1.1,13.3.1")
	require.NoError(t, err)
	return expected().subset(s)
}

func TestReadReports(t *testing.T) {
	r := reports(t)
	require.Len(t, r.cases, 9)
	c := r.cases["6.4.1"]
	assert.Equal(t, outcome{"NON-STRICT", "OK"}, c.outcome)
	assert.Equal(t, "Send invalid UTF-8 text message in 3 fragments (frames).", firstLine(c.Description))
	assert.Contains(t, c.HTTPRequest, "GET /echo")
	assert.Contains(t, c.HTTPResponse, "101 Switching Protocols")
	assert.Equal(t, filepath.Join(r.dir, "echo_case_6_4_1.html"), c.html())
	require.NotNil(t, c.RemoteCloseCode)
	assert.Equal(t, 1007, *c.RemoteCloseCode)
	assert.False(t, c.ExpectedClose.ClosedByMe)
	assert.Nil(t, r.cases["6.3.1"].RemoteCloseCode)
	assert.Equal(t, traffic{Messages: 1000, Payload: 16000, Sent: 16000}, r.cases["12.1.1"].Traffic)
}

func TestReadReportsThatAreBroken(t *testing.T) {
	write := func(t *testing.T, files map[string]string) *result {
		r := &result{agent: "echo", dir: t.TempDir()}
		for name, content := range files {
			require.NoError(t, os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o644))
		}
		return r
	}
	t.Run("none", func(t *testing.T) {
		assert.ErrorContains(t, write(t, nil).read(), "no reports")
	})
	t.Run("index is no JSON", func(t *testing.T) {
		assert.ErrorContains(t, write(t, map[string]string{"index.json": "{"}).read(), "index.json")
	})
	t.Run("of another agent", func(t *testing.T) {
		r := write(t, map[string]string{"index.json": `{"other": {"1.1.1": {"behavior": "OK", "behaviorClose": "OK", "reportfile": "a.json"}}}`})
		require.NoError(t, r.read())
		assert.Empty(t, r.cases) // all cases are missing
	})
	index := `{"echo": {"1.1.1": {"behavior": "OK", "behaviorClose": "OK", "reportfile": "a.json"}}}`
	t.Run("a case's report is missing", func(t *testing.T) {
		r := write(t, map[string]string{"index.json": index})
		assert.ErrorContains(t, r.read(), "a.json")
		assert.Empty(t, r.cases)
	})
	t.Run("a case's report says something else", func(t *testing.T) {
		r := write(t, map[string]string{"index.json": index, "a.json": `{"behavior": "FAILED", "behaviorClose": "OK"}`})
		assert.ErrorContains(t, r.read(), "1.1.1: index.json says OK, close OK, a.json says FAILED, close OK")
		assert.Empty(t, r.cases)
	})
}

func TestDifferences(t *testing.T) {
	got := make(map[string]string)
	var order []string
	for _, d := range reports(t).differences(wanted(t)) {
		got[d.id] = strings.Join(d.what, " / ")
		order = append(order, d.id)
	}
	require.Equal(t, []string{"2.1", "6.3.1", "6.4.1", "7.9.1", "13.1.1", "13.3.1", "14.1.1"}, order)
	assert.Equal(t, "we failed the connection without a Close frame that has a code", got["6.3.1"])
	assert.Equal(t, "missing", got["2.1"])
	assert.Equal(t, "expected OK, close OK; got NON-STRICT, close OK / Actual events match at least one expected. / Connection was properly closed", got["6.4.1"])
	assert.Contains(t, got["7.9.1"], "expected OK, close OK; got OK, close WRONG CODE")
	assert.Contains(t, got["13.1.1"], "got UNIMPLEMENTED, close OK")
	assert.Contains(t, got["13.1.1"], "no extension was agreed on")
	assert.NotContains(t, got["13.3.1"], "expected", "the suite sees nothing in it")
	assert.Contains(t, got["13.3.1"], "server_max_window_bits was asked for and is not granted")
	assert.Contains(t, got["14.1.1"], "not among the expected cases")
}

func TestSummaryOfDifferences(t *testing.T) {
	r := reports(t)
	r.failf("wstest: exit status 1")
	var out strings.Builder
	assert.False(t, summarize(&out, wanted(t), []*result{r}, []string{"echod ended before it was stopped"}))
	summary := out.String()

	assert.Contains(t, summary, `
agent  1    2    6    7    12   13   all
echo   1/1  0/1  0/2  1/2  1/1  0/2  3/9
`)
	assert.Contains(t, summary, "\nFAIL echod ended before it was stopped\n")
	assert.Contains(t, summary, "\nFAIL echo: wstest: exit status 1\n")
	assert.Contains(t, summary, "\nFAIL echo: missing, for the suite reports nothing of them (1): 2.1\n")
	assert.Contains(t, summary, `
FAIL echo: case 7.9.1: Send close with invalid close code 0
     expected OK, close OK; got OK, close WRONG CODE
     Actual events match at least one expected.
     The close code should have been 1002 or empty
     `+filepath.Join(r.dir, "echo_case_7_9_1.html")+"\n")
	assert.Contains(t, summary, "\nFAIL echo: case 14.1.1: A case of a later version\n")
	assert.Contains(t, summary, filepath.Join(r.dir, "index.html"))
	assert.True(t, strings.HasSuffix(summary, "\nFAIL\n"))
}

func TestSummaryWithoutDifferences(t *testing.T) {
	r := reports(t)
	want := expectation{"1.1.1": {"OK", "OK"}, "7.1.6": {"INFORMATIONAL", "INFORMATIONAL"}, "12.1.1": {"OK", "OK"}}
	for id := range r.cases {
		if _, ok := want[id]; !ok {
			delete(r.cases, id)
		}
	}
	var out strings.Builder
	assert.True(t, summarize(&out, want, []*result{r}, nil))
	assert.Contains(t, out.String(), "agent  1    7    12   all\necho   1/1  1/1  1/1  3/3\n")
	assert.NotContains(t, out.String(), "FAIL")

	t.Run("but with a failure of the run", func(t *testing.T) {
		failed := &result{agent: r.agent, dir: r.dir, cases: r.cases}
		failed.failf("wstest was stopped")
		assert.False(t, summarize(&strings.Builder{}, want, []*result{failed}, nil))
	})
	t.Run("but with a failure of echod", func(t *testing.T) {
		assert.False(t, summarize(&strings.Builder{}, want, []*result{r}, []string{"echod: exit status 66"}))
	})
	t.Run("but without any case", func(t *testing.T) {
		out.Reset()
		assert.False(t, summarize(&out, want, []*result{{agent: "echo"}}, nil))
		assert.Contains(t, out.String(), "0/3")
	})
}

func TestCheckCompressed(t *testing.T) {
	assert.Empty(t, traffic{}.checkCompressed(), "a case without traffic")
	assert.Empty(t, traffic{Messages: 1000, Payload: 16000, Sent: 16000}.checkCompressed(), "short messages need not be compressed")
	assert.Empty(t, traffic{Messages: 1000, Payload: 1024000, Sent: 60000}.checkCompressed())
	assert.Equal(t, []string{"we did not compress: 1024000 bytes of messages took 1024000 in frames"},
		traffic{Messages: 1000, Payload: 1024000, Sent: 1024000}.checkCompressed())
}

func TestCheckCloseCode(t *testing.T) {
	code := 1002
	report := func(closedBySuite bool, code *int, behaviorClose string) caseReport {
		c := caseReport{outcome: outcome{"OK", behaviorClose}, RemoteCloseCode: code}
		c.ExpectedClose.ClosedByMe = closedBySuite
		return c
	}
	assert.Empty(t, report(false, &code, "OK").checkCloseCode())
	assert.Empty(t, report(true, nil, "OK").checkCloseCode(), "an answer to a Close without a code has none")
	assert.Empty(t, report(false, nil, "FAILED").checkCloseCode(), "is a difference anyway")
	assert.NotEmpty(t, report(false, nil, "OK").checkCloseCode())
}
