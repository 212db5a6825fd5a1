"""Starts the command and the daemon as copies of a process that has loaded them: loading is most of what a start costs.

What they do is what they always do, in a process of their own, with the descriptors, the directory, the environment and
the arguments that they are given; only no module is loaded. So what is about loading, or about anything else that is
settled before `main` runs, starts cold: `Popen` does that by itself for all that it does not know.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pkgutil import walk_packages

from tests.processes import COMMAND, ENVIRONMENT, ROOT, TWISTD

SETTLED_LATE = frozenset(
    {
        *("COLUMNS", "HOME", "PATH", "REALIZE_CONFIG", "REALIZE_KEY"),
        *("NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "WATCHDOG_PID", "WATCHDOG_USEC", "XDG_RUNTIME_DIR"),
    }
)
"""Variables of the environment that nothing has looked at before `main` runs."""
MAX_REQUEST_BYTES = 150_000
PR_SET_CHILD_SUBREAPER = 36


class Popen(subprocess.Popen):
    """A process like any other one, started as a copy if that is one of the two programs, and nothing else is asked."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        startupinfo, creationflags, shell, *pipes = rest[:9]
        special = [preexec_fn, *pass_fds, startupinfo, creationflags, shell, executable]
        settled = None if env is None or any(special) or rest[9:] != AS_USUAL else _request(args, cwd, env)
        if settled is None:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
            return
        stdin, _, _, stdout, _, stderr = pipes
        try:
            self.pid = STARTER.start(settled, [stdin, stdout, stderr])
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)


PROGRAMS = {"command": COMMAND, "daemon": TWISTD}
AS_USUAL = (True, None, None, None, -1, False, -1)
"""Signals, groups, user, umask, session and process group of `subprocess.Popen`, where none is given."""


def _request(args, cwd, env):
    """What the starter is to do; None if that is no job for it."""
    args = list(map(os.fspath, args))
    kind = next((name for name, usual in PROGRAMS.items() if args[: len(usual)] == usual), None)
    base = STARTER.environment
    other = {name for name in base.keys() | env.keys() if base.get(name) != env.get(name)}
    if kind is None or not other <= SETTLED_LATE or not all(isinstance(each, str) for each in args):
        return None
    ignored = [number for number in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(number) is signal.SIG_IGN]
    where = os.fsdecode(cwd or os.getcwd())
    request = json.dumps([kind, args[len(PROGRAMS[kind]) :], where, {name: env.get(name) for name in other}, ignored])
    return request.encode() if len(request) < MAX_REQUEST_BYTES else None


class Starter:
    """The process that has loaded all, from the first request on; ends with this one."""

    def __init__(self) -> None:
        self.environment = dict(ENVIRONMENT)
        self._socket: socket.socket | None = None

    def start(self, request: bytes, streams: list[int]) -> int:
        """The id of a new process, a child of this one; a stream is -1 where it is that of this process."""
        if self._socket is None:
            self._socket = self._begin()
        ours = [own if fd == -1 else fd for own, fd in enumerate(streams)]
        # What the starter starts becomes a child of this process: what is between them has ended before it answers.
        # Other orphans are none of ours.
        _take_orphans(True)
        try:
            socket.send_fds(self._socket, [request], ours)
            answer = self._socket.recv(100)
        finally:
            _take_orphans(False)
        if not answer:
            raise OSError("the process that starts others has ended")
        return int(answer)

    def held(self) -> set[str]:
        """What this has open, as /proc tells it."""
        return set() if self._socket is None else {os.readlink(f"/proc/self/fd/{self._socket.fileno()}")}

    def _begin(self) -> socket.socket:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            command = [sys.executable, "-m", "tests.warm", str(its.fileno())]
            starter = subprocess.Popen(command, cwd=ROOT, env=self.environment, pass_fds=[its.fileno()])
        atexit.register(starter.wait)
        atexit.register(ours.close)
        return ours


def _take_orphans(taken: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(taken), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


STARTER = Starter()


def serve(number: int) -> Callable[[], object]:
    """Load all, and copy this process for each request; returns what to run in a copy."""
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins
    from twisted.scripts import twistd

    import realize
    from realize.cli import main

    list(getPlugins(IServiceMaker))
    for each in walk_packages(realize.__path__, "realize."):
        if not each.name.endswith("__main__"):
            import_module(each.name)
    assert "twisted.internet.reactor" not in sys.modules, "each process has to make its own"
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=number) as requests:
        while True:
            request, streams, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 3)
            if not request:
                os._exit(0)
            kind, args, *given = json.loads(request)
            if (pid := _copied(partial(_settle, streams, *given))) == 0:
                break
            for each in streams:
                os.close(each)
            requests.send(b"%d" % pid)
    sys.argv = [main.__file__ if kind == "command" else "-c", *args]
    return main.main if kind == "command" else twistd.run


def _copied(become: Callable[[], object]) -> int:
    """Like fork(), but the copy is a child of whoever takes orphans, and `become` has run in it before its id is known.

    So nobody sees it half way, as nobody sees what `Popen` starts before `exec`.
    """
    come, go = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid:
            os.write(go, b"%d" % pid)
            os._exit(0)
    if between == 0:
        os.close(come)
        become()
        os.close(go)
        return 0
    os.close(go)
    os.waitpid(between, 0)
    with open(come, "rb") as told:
        return int(told.read())


def _settle(streams: list[int], where: str, env: dict[str, str | None], ignored: list[int]) -> None:
    """Become the process that was asked for, as far as Python would do that before `main` runs."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    for name, value in env.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    os.chdir(where)
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        signal.signal(number, signal.SIG_IGN if number in ignored else usual)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        before = getattr(sys, name)
        lines = name == "stderr" or os.isatty(number)
        stream = open(  # noqa: SIM115 -- as Python opens its own
            number, mode, encoding=before.encoding, errors=before.errors, closefd=False
        )
        stream.reconfigure(line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    serve(int(sys.argv[1]))()
