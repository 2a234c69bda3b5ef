package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPythonCandidates(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("programs have other names there")
	}
	root := t.TempDir()
	file := func(elem ...string) string {
		path := filepath.Join(append([]string{root}, elem...)...)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o755))
		return path
	}
	shim := file("pyenv", "shims", "python2.7")
	system := file("usr", "python2.7")
	pyenv := file("pyenv", "versions", "2.7.18", "bin", "python2.7")
	home := file("home", ".pyenv", "versions", "2.7.9", "bin", "python2.7")
	file("pyenv", "versions", "3.13.0", "bin", "python3.13")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "odd", "python2.7"), 0o755))

	path := filepath.Dir(shim) + ":relative:" + filepath.Join(root, "odd") + ":" + filepath.Dir(system) + ":" + filepath.Dir(shim)
	tests := []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"nothing is set", nil, nil},
		{"PATH comes before pyenv, and pyenv's shims are no reason to stop", map[string]string{"PATH": path, "PYENV_ROOT": filepath.Join(root, "pyenv")}, []string{shim, system, pyenv}},
		{"pyenv in PYENV_ROOT", map[string]string{"PYENV_ROOT": filepath.Join(root, "pyenv"), "HOME": filepath.Join(root, "home")}, []string{pyenv}},
		{"pyenv in its usual place", map[string]string{"HOME": filepath.Join(root, "home")}, []string{home}},
		{"no pyenv", map[string]string{"HOME": filepath.Join(root, "usr")}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, pythonCandidates(func(name string) string { return test.env[name] }))
		})
	}
}

func TestPythonEnv(t *testing.T) {
	assert.Equal(t, []string{"PATH=/bin", "PYTHONUNBUFFERED=1"},
		pythonEnv([]string{"PYTHONPATH=/x", "PATH=/bin", "PYTHONHOME=/y", "PYTHONUNBUFFERED=1"}))
}

func TestInstallHint(t *testing.T) {
	for output, want := range map[string]string{
		"/usr/bin/python2.7: No module named pip":                                       "has no pip",
		"wsaccel/utf8validator.c:16:10: fatal error: Python.h: No such file":            "headers of Python 2.7",
		"unable to execute 'gcc': No such file or directory":                            "C compiler",
		"Could not find a version that satisfies the requirement virtualenv":            "could not fetch",
		"NewConnectionError(...): Failed to establish a new connection: [Errno 111]...": "could not fetch",
	} {
		assert.Contains(t, installHint([]byte(output)), want)
	}
	assert.Empty(t, installHint([]byte("something else")))
}

func TestLastLines(t *testing.T) {
	assert.Equal(t, "b\nc", string(lastLines([]byte("a\nb\nc\n"), 2)))
	assert.Equal(t, "a", string(lastLines([]byte("a"), 2)))
}

func TestContainerCommand(t *testing.T) {
	image := []string{suiteImage, "wstest", "-m"}
	tests := []struct {
		name      string
		container container
		mode      string
		want      []string
	}{
		{"docker, server role", container{"/usr/bin/docker", "linux", "1000:100"}, fuzzingClient, append([]string{
			"/usr/bin/docker", "run", "--rm", "--init", "--volume", "/reports/echo:/reports", "--env", "PYTHONUNBUFFERED=1", "--env", "HOME=/tmp",
			"--user", "1000:100", "--network", "host",
		}, append(image, "fuzzingclient", "-u", "0", "-s", "/reports/spec.json")...)},
		{"docker, client role", container{"/usr/bin/docker", "linux", "1000:100"}, fuzzingServer, append([]string{
			"/usr/bin/docker", "run", "--rm", "--init", "--volume", "/reports/echo:/reports", "--env", "PYTHONUNBUFFERED=1", "--env", "HOME=/tmp",
			"--user", "1000:100", "--publish", "127.0.0.1:9001:9001",
		}, append(image, "fuzzingserver", "-u", "0", "-s", "/reports/spec.json")...)},
		{"podman, client role", container{"/usr/bin/podman", "linux", "1000:100"}, fuzzingServer, append([]string{
			"/usr/bin/podman", "run", "--rm", "--init", "--volume", "/reports/echo:/reports", "--env", "PYTHONUNBUFFERED=1", "--env", "HOME=/tmp",
			"--userns=keep-id", "--user", "1000:100", "--publish", "127.0.0.1:9001:9001",
		}, append(image, "fuzzingserver", "-u", "0", "-s", "/reports/spec.json")...)},
		{"docker in a virtual machine, server role", container{"/usr/local/bin/docker", "darwin", "501:20"}, fuzzingClient, append([]string{
			"/usr/local/bin/docker", "run", "--rm", "--init", "--volume", "/reports/echo:/reports", "--env", "PYTHONUNBUFFERED=1", "--env", "HOME=/tmp",
		}, append(image, "fuzzingclient", "-u", "0", "-s", "/reports/spec.json")...)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, test.container.command(test.mode, "/reports/echo", 9001))
		})
	}

	reports, host := container{goos: "linux"}.place("/reports/echo")
	assert.Equal(t, "/reports", reports)
	assert.Equal(t, "127.0.0.1", host)
	_, host = container{goos: "windows"}.place("/reports/echo")
	assert.Equal(t, "host.docker.internal", host)
}

func TestVenvCommand(t *testing.T) {
	argv := venv("suite").command(fuzzingServer, "reports", 9001)
	assert.Equal(t, venv("suite").python(), argv[0])
	assert.Equal(t, []string{"-m", "fuzzingserver", "-u", "0", "-s", filepath.Join("reports", "spec.json")}, argv[len(argv)-6:])
	assert.Contains(t, argv[3], `interface="127.0.0.1"`)
}

func TestWriteSpec(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "echo")
	s := spec{OutDir: dir, Servers: []specServer{{Agent: "echo", URL: "ws://127.0.0.1:1/echo"}}, Cases: selection{"6.4.*"}}
	require.NoError(t, writeSpec(dir, s))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "index.json"), nil, 0o644))
	require.NoError(t, writeSpec(dir, s), "a second time")
	assert.NoFileExists(t, filepath.Join(dir, "index.json"), "what an earlier run left")

	data, err := os.ReadFile(filepath.Join(dir, "spec.json"))
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(data, &got))
	assert.Equal(t, map[string]any{
		"outdir":              dir,
		"servers":             []any{map[string]any{"agent": "echo", "url": "ws://127.0.0.1:1/echo"}},
		"cases":               []any{"6.4.*"},
		"exclude-cases":       []any{},
		"exclude-agent-cases": map[string]any{},
	}, got)
}

func TestWriteSpecLeavesOtherThingsAlone(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	require.NoError(t, os.WriteFile(precious, nil, 0o644))
	assert.ErrorContains(t, writeSpec(dir, spec{}), "holds other things")
	assert.FileExists(t, precious)
}

// fakePython is a shell script in the place of Python 2.7: it writes down how it is called, makes the virtual
// environment, whose Python it is too, and fails at the step that has the file fail in its name.
const fakePython = `#!/bin/sh
echo "${PYTHONPATH:+with tool }$*" | tr '\n' ' ' >> LOG
echo >> LOG
case "$*" in *"$(cat FAIL)"*) echo "unable to execute 'gcc'"; exit 1;; esac
if [ "$2" = virtualenv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
`

func TestInstallSuite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for Python is a shell script")
	}
	root := t.TempDir()
	log, fail := filepath.Join(root, "log"), filepath.Join(root, "fail")
	python := filepath.Join(root, "python2.7")
	script := strings.NewReplacer("LOG", log, "FAIL", fail).Replace(fakePython)
	require.NoError(t, os.WriteFile(python, []byte(script), 0o755))
	failAt := func(step string) { require.NoError(t, os.WriteFile(fail, []byte(step), 0o644)) }
	logged := func() string {
		data, err := os.ReadFile(log)
		require.NoError(t, err)
		require.NoError(t, os.Remove(log))
		return string(data)
	}
	dir := filepath.Join(root, "cache", "suite")
	left := func() []string {
		entries, err := filepath.Glob(filepath.Join(root, "cache", "*"))
		require.NoError(t, err)
		return entries
	}
	install := func() (suite, []string, error) {
		var said []string
		s, err := installSuite(t.Context(), python, dir, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
		return s, said, err
	}

	failAt("autobahntestsuite==")
	_, _, err := install()
	require.ErrorContains(t, err, "-m pip install --no-build-isolation autobahntestsuite==25.10.1: exit status 1")
	assert.ErrorContains(t, err, "unable to execute 'gcc'", "what the step said")
	assert.ErrorContains(t, err, "needs a C compiler", "what it means")
	assert.Empty(t, left(), "nothing stays of an installation that failed")
	logged()

	failAt("nothing")
	s, said, err := install()
	require.NoError(t, err)
	assert.Equal(t, venv(dir), s)
	assert.Equal(t, []string{dir}, left(), "only the suite stays")
	assert.FileExists(t, venv(dir).python())
	assert.Contains(t, strings.Join(said, "\n"), "installing autobahntestsuite 25.10.1")
	steps := strings.Split(strings.TrimSpace(logged()), "\n")
	require.Len(t, steps, 6)
	assert.Contains(t, steps[0], "-m pip install --target")
	assert.Contains(t, steps[1], "with tool -m virtualenv")
	assert.Contains(t, steps[2], "cryptography==3.3.2")
	assert.NotContains(t, steps[2], "with tool")
	assert.Contains(t, steps[5], "import os, sys, autobahntestsuite, wsaccel", "the last step checks what is there, and where")
	assert.Regexp(t, `/cache/suite\.building-[0-9]+/venv$`, steps[5])

	_, said, err = install()
	require.NoError(t, err)
	assert.Equal(t, []string{"suite: " + dir}, said)
	assert.NoFileExists(t, log, "nothing is done a second time")
}
