package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExpectedIsAllOfTheSuiteAndAllOK(t *testing.T) {
	ok := outcome{"OK", "OK"}
	informational := outcome{"INFORMATIONAL", "INFORMATIONAL"}
	bySection := make(map[string]int)
	for id, o := range expected() {
		bySection[section(id)]++
		switch id {
		case "7.1.6", "7.13.1", "7.13.2":
			// The suite overwrites both outcomes of these with INFORMATIONAL, whatever happened.
			assert.Equal(t, informational, o, id)
		default:
			assert.Equal(t, ok, o, id)
		}
	}
	assert.Equal(t, map[string]int{
		"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126,
	}, bySection, "cases by section")
	assert.Len(t, expected(), 517)
	assert.Len(t, expected().subset(selection{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "8.*", "9.*", "10.*"}), 301)
}

func TestIDsAreInNumericOrder(t *testing.T) {
	ids := expectation{"10.1.1": {}, "2.10": {}, "2.9": {}, "2.1": {}, "1.1.1": {}, "12.1.10": {}, "12.1.2": {}}.ids()
	assert.Equal(t, []string{"1.1.1", "2.1", "2.9", "2.10", "10.1.1", "12.1.2", "12.1.10"}, ids)
}

func TestParseSelection(t *testing.T) {
	tests := []struct {
		list     string
		patterns selection
		cases    int
	}{
		{"all", selection{"*"}, 517},
		{"1-10", selection{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"}, 301},
		{"12-13", selection{"12.*", "13.*"}, 216},
		{"1", selection{"1.*"}, 16},
		{"6.4", selection{"6.4.*"}, 4},
		{"6.4.1", selection{"6.4.1"}, 1},
		{"2.1", selection{"2.1"}, 1}, // and not 2.10, 2.11
		{"2.1,13.3", selection{"2.1", "13.3.*"}, 19},
	}
	for _, test := range tests {
		t.Run(test.list, func(t *testing.T) {
			s, err := expected().parseSelection(test.list)
			require.NoError(t, err)
			assert.Equal(t, test.patterns, s)
			assert.Len(t, expected().subset(s), test.cases)
		})
	}
	for _, list := range []string{"", "8", "11", "14-20", "10-1", "6.99", "1,", "*", "1.*", "quick", "1-2-3", "-1"} {
		t.Run("bad "+list, func(t *testing.T) {
			_, err := expected().parseSelection(list)
			assert.Error(t, err)
		})
	}
}

func TestSelectionAlsoHoldsCasesThatAreNotExpected(t *testing.T) {
	assert.True(t, selection{"*"}.has("14.1.1"))
	assert.True(t, selection{"1.*"}.has("1.9.9"))
	assert.False(t, selection{"1.*"}.has("10.1.1"))
}
