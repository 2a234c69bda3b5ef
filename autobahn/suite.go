package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const (
	suiteVersion = "25.10.1"
	suiteImage   = "crossbario/autobahn-testsuite:" + suiteVersion
)

// A suite is an installed test suite: what knows how to run its program, wstest.
type suite interface {
	// command returns the command line that runs wstest in a mode, fuzzingclient or fuzzingserver, with the
	// specification spec.json in dir. A fuzzing server listens on port.
	command(mode, dir string, port int) []string

	// place returns what wstest calls dir, and the name by which it reaches this machine's loopback interface.
	place(dir string) (reports, host string)
}

// findSuite returns the suite that the options and the machine allow for, and installs it if need be.
func findSuite(ctx context.Context, opts *options, logf func(string, ...any)) (suite, error) {
	if opts.container != "" {
		return newContainer(opts.container, logf)
	}
	candidates := pythonCandidates(os.Getenv)
	for _, python := range candidates {
		// A shim of pyenv's can stand in PATH for a version that is not there, or not switched on.
		if exec.CommandContext(ctx, python, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))").Run() != nil {
			continue
		}
		dir := opts.suiteDir
		if dir == "" {
			cache, err := os.UserCacheDir()
			if err != nil {
				return nil, fmt.Errorf("%w; -suite names a directory for the suite", err)
			}
			dir = filepath.Join(cache, "strictws-websocket", "autobahntestsuite-"+suiteVersion)
		}
		return installSuite(ctx, python, dir, logf)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, program := range []string{"docker", "podman"} {
		if exec.CommandContext(ctx, program, "info").Run() == nil {
			return newContainer(program, logf)
		}
	}
	tried := "found none"
	if len(candidates) > 0 {
		tried = "none of these runs: " + strings.Join(candidates, ", ")
	}
	return nil, fmt.Errorf("the suite needs Python 2.7, and looking in PATH and among pyenv's versions %s; docker and podman cannot be used either", tried)
}

// pythonCandidates returns the files that may be a Python 2.7: those in PATH, then pyenv's.
func pythonCandidates(getenv func(string) string) []string {
	var found []string
	add := func(path string) {
		if info, err := os.Stat(path); err == nil && !info.IsDir() && !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	name := "python2.7"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	for _, dir := range filepath.SplitList(getenv("PATH")) {
		if filepath.IsAbs(dir) {
			add(filepath.Join(dir, name))
		}
	}
	root := getenv("PYENV_ROOT")
	if root == "" && getenv("HOME") != "" {
		root = filepath.Join(getenv("HOME"), ".pyenv")
	}
	if root != "" {
		versions, _ := filepath.Glob(filepath.Join(root, "versions", "2.7*", "bin", name)) // the pattern is well-formed
		for _, path := range versions {
			add(path)
		}
	}
	return found
}

// installSteps are the arguments of Python for each step of the installation. The first two run the Python that was
// found, the others that of the virtual environment. The suite's requirements do not build with what pip would choose
// by itself for a Python that old, so those that matter are pinned and come first.
func installSteps(tool, env string) [][]string {
	return [][]string{
		{"-m", "pip", "install", "--target", tool, "virtualenv==20.15.1"},
		{"-m", "virtualenv", env},
		{"-m", "pip", "install", "incremental==16.10.1", "pyOpenSSL==19.1.0", "cryptography==3.3.2", "setuptools==44.0.0", "wheel==0.36.2"},
		{"-m", "pip", "install", "--no-build-isolation", "Twisted==19.10.0"},
		{"-m", "pip", "install", "--no-build-isolation", "autobahntestsuite==" + suiteVersion},
		{"-c", checkInstalled, env},
	}
}

// checkInstalled fails if the suite is not there in its version, or is not in the virtual environment but in the
// Python that was found: that one belongs to the machine and must stay as it is.
const checkInstalled = `
import os, sys, autobahntestsuite, wsaccel
assert autobahntestsuite.version == "` + suiteVersion + `", autobahntestsuite.version
for module in autobahntestsuite, wsaccel:
    assert os.path.realpath(module.__file__).startswith(os.path.realpath(sys.argv[1]) + os.sep), module.__file__
`

// installSuite returns the suite in dir. If it is not there, it is built beside it and moved when it is complete, so
// that neither a failure nor a second installation at the same time can leave half of one.
func installSuite(ctx context.Context, python, dir string, logf func(string, ...any)) (suite, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	installed := venv(dir)
	if _, err := os.Stat(installed.python()); err == nil {
		logf("suite: %s", dir)
		return installed, nil
	}
	logf("suite: installing autobahntestsuite %s with %s into %s", suiteVersion, python, dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	// Beside dir, because a rename does not cross file systems.
	build, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".building-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(build)
	tool, env := filepath.Join(build, "tool"), filepath.Join(build, "venv")
	steps := installSteps(tool, env)
	for i, args := range steps {
		program := python
		if i >= 2 {
			program = venv(env).python() // as argv[0] too: Python looks for its modules beside it
		}
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = pythonEnv(os.Environ())
		if i == 1 {
			cmd.Env = append(cmd.Env, "PYTHONPATH="+tool)
		}
		said := strings.Join(args, " ")
		if i == len(steps)-1 {
			said = "-c (is all of it there?)"
		}
		logf("suite: step %d of %d: python %s", i+1, len(steps), said)
		if output, err := cmd.CombinedOutput(); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return nil, cause
			}
			return nil, fmt.Errorf("installing the suite: python %s: %w\n%s%s", said, err, lastLines(output, 25), installHint(output))
		}
	}
	// Programs of a virtual environment name its directory, but the suite is only ever run through its Python.
	if err := os.Rename(env, dir); err != nil {
		if _, statErr := os.Stat(installed.python()); statErr != nil {
			return nil, err
		}
		// Somebody else installed it meanwhile.
	}
	return installed, nil
}

// installHint adds to the output of a failed step what it probably means.
func installHint(output []byte) string {
	has := func(s string) bool { return bytes.Contains(output, []byte(s)) }
	switch {
	case has("No module named pip"):
		return "\nThis Python 2.7 has no pip: `python2.7 -m ensurepip` may install it."
	case has("Python.h"):
		return "\nThe headers of Python 2.7 are missing; systems have them in a package such as python2.7-dev."
	case has("unable to execute") || has("command 'gcc' failed") || has("command 'cc' failed") || has("Microsoft Visual C++"):
		return "\nThe suite needs a C compiler for its module wsaccel; systems have it in a package such as gcc or build-essential."
	case has("Could not find a version") || has("Connection") || has("Temporary failure in name resolution"):
		return "\npip could not fetch the package: is there a way to the Python package index?"
	}
	return ""
}

// pythonEnv returns the environment without what would make one Python read the modules of another.
func pythonEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.HasPrefix(kv, "PYTHONPATH=") || strings.HasPrefix(kv, "PYTHONHOME=")
	})
}

func lastLines(output []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(output), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}

// A venv is the virtual environment, in the directory of this name, that the suite is installed in.
type venv string

func (v venv) python() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(string(v), "Scripts", "python.exe")
	}
	return filepath.Join(string(v), "bin", "python")
}

// wstest is what the suite's program of that name does, but that its server listens on the loopback interface only,
// where it would listen on all.
const wstest = `
import functools
from autobahntestsuite import wstest, fuzzing
fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
wstest.run()
`

func (v venv) command(mode, dir string, _ int) []string {
	return []string{v.python(), "-u", "-c", wstest, "-m", mode, "-u", "0", "-s", filepath.Join(dir, specFile)}
}

func (v venv) place(dir string) (reports, host string) { return dir, "127.0.0.1" }

// A container runs the suite's image. Nothing but the program to do so and the system it runs on matter.
type container struct {
	program string // docker or podman
	goos    string
	user    string // uid:gid, "" where there are none
}

func newContainer(program string, logf func(string, ...any)) (suite, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	logf("suite: container image %s, run by %s", suiteImage, path)
	c := container{program: path, goos: runtime.GOOS}
	if uid := os.Getuid(); uid >= 0 {
		c.user = strconv.Itoa(uid) + ":" + strconv.Itoa(os.Getgid())
	}
	return c, nil
}

func (c container) command(mode, dir string, port int) []string {
	// With an init process, a signal to the program ends the container.
	argv := []string{c.program, "run", "--rm", "--init", "--volume", dir + ":/reports", "--env", "PYTHONUNBUFFERED=1", "--env", "HOME=/tmp"}
	if c.goos == "linux" && c.user != "" {
		// The reports shall be ours, not root's. Podman without root maps its root to us by itself.
		if strings.HasPrefix(filepath.Base(c.program), "podman") {
			argv = append(argv, "--userns=keep-id")
		}
		argv = append(argv, "--user", c.user)
	}
	switch {
	case mode == fuzzingServer:
		argv = append(argv, "--publish", fmt.Sprintf("127.0.0.1:%d:%d", port, port))
	case c.goos == "linux":
		argv = append(argv, "--network", "host")
	}
	return append(argv, suiteImage, "wstest", "-m", mode, "-u", "0", "-s", "/reports/"+specFile)
}

func (c container) place(string) (reports, host string) {
	if c.goos == "linux" {
		return "/reports", "127.0.0.1"
	}
	// Containers run in a virtual machine there, whose name for the machine around it this is.
	return "/reports", "host.docker.internal"
}

// The modes of wstest, and the name of the file that says what to run.
const (
	fuzzingClient = "fuzzingclient"
	fuzzingServer = "fuzzingserver"
	specFile      = "spec.json"
)

// A spec is the specification that wstest reads.
type spec struct {
	OutDir       string              `json:"outdir"`
	URL          string              `json:"url,omitempty"`     // fuzzing server: where to listen
	Servers      []specServer        `json:"servers,omitempty"` // fuzzing client: what to test
	Cases        selection           `json:"cases"`
	ExcludeCases []string            `json:"exclude-cases"`       // always empty
	ExcludeAgent map[string][]string `json:"exclude-agent-cases"` // always empty
}

type specServer struct {
	Agent string `json:"agent"`
	URL   string `json:"url"`
}

// writeSpec makes dir anew, with nothing but the specification in it. A directory that is not one of ours is left
// alone.
func writeSpec(dir string, s spec) error {
	path := filepath.Join(dir, specFile)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s holds other things than reports: -out names another directory", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s.ExcludeCases, s.ExcludeAgent = []string{}, map[string][]string{}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
