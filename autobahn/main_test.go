package main

import (
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseOptions(t *testing.T) {
	everyone := []string{"echo", "echo-stream", "echo-prepared", "echo-netconn", "client-messages", "client-streams"}
	tests := []struct {
		args   []string
		agents []string
		cases  int
	}{
		{nil, everyone, 301},
		{[]string{"-cases", "all"}, everyone, 517},
		{[]string{"-role", "server"}, everyone[:4], 301},
		{[]string{"-role", "client"}, everyone[4:], 301},
		{[]string{"-agents", "client-streams,echo", "-cases", "12-13"}, []string{"echo", "client-streams"}, 216},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			opts, err := parseOptions(test.args, io.Discard)
			require.NoError(t, err)
			assert.Equal(t, test.agents, agentNamesOf(opts.agents))
			assert.Len(t, expected().subset(opts.cases), test.cases)
			assert.Positive(t, opts.jobs)
		})
	}
	for _, args := range [][]string{
		{"-role", "peer"}, {"-agents", "echo,nobody"}, {"-role", "client", "-agents", "echo"}, {"-cases", "8"},
		{"-jobs", "0"}, {"-compression", "off"}, {"-unknown"}, {"argument"},
	} {
		t.Run("bad "+strings.Join(args, " "), func(t *testing.T) {
			_, err := parseOptions(args, io.Discard)
			assert.Error(t, err)
		})
	}
}

func TestHelpListsTheFlags(t *testing.T) {
	var help strings.Builder
	_, err := parseOptions([]string{"-h"}, &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	for _, name := range []string{"-agents", "-cases", "-compression", "-container", "-jobs", "-out", "-race", "-role", "-suite"} {
		assert.Contains(t, help.String(), "\n  "+name)
	}
	assert.Contains(t, help.String(), "echo-netconn")
}
