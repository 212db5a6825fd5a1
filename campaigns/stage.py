"""One case: a command, perhaps a daemon and a proxy, and what can be done to them; counts events and checks results."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import define, field

from campaigns.calls import at_a_call
from campaigns.oracle import LOST, Fault, Oracle, files, shown
from tests.processes import TWISTD, Proxy, Site

PATIENCE_SECONDS: Final = 120
"""An undisturbed run takes less than this."""
_INTERRUPTED: Final = {-signal.SIGKILL, 20}


@define
class Report:
    """The events and the faults of a case."""

    scene: str
    seed: int
    title: str = ""
    events: Counter[str] = field(factory=Counter)
    counts: Counter[str] = field(factory=Counter)
    faults: list[Fault] = field(factory=list)
    seconds: float = 0.0


class Rig(Site):
    """A site whose command goes through a proxy, if there is one."""

    proxy: Proxy | None = None
    further = ""
    """A further configuration line for the directory that the daemon serves."""
    outbox: Path | None = None
    """Another directory that the daemon serves, so that files can move from daemon to daemon."""
    tracer: Sequence[str] = ()
    """What the command is started with, such as strace(1)."""

    def command(self, *arguments: str) -> list[str]:
        """The command line, with what traces it."""
        return [*self.tracer, *super().command(*arguments)]

    def write_command_config(self) -> None:
        """The daemon's address is that of the proxy."""
        port = self.port
        self.port = self.proxy.port if self.proxy else port
        try:
            super().write_command_config()
        finally:
            self.port = port

    def write_daemon_config(self, extra: str = "") -> None:
        """With the further line."""
        super().write_daemon_config(extra)
        path = self.folder / "realized.toml"
        text, before = path.read_text(), f"{self.further}\n[peers."
        if self.outbox is not None:
            before = f"{self.further}\n[dirs.outbox]\npath = {json.dumps(str(self.outbox))}\n[peers."
            text = text.replace("dirs = { ", f"dirs = {{ outbox = {json.dumps(self.rights)}, ", 1)
        path.write_text(text.replace("[peers.", before, 1))


class Stage:
    """The processes of a case, and the files they work on."""

    def __init__(
        self,
        folder: Path,
        report: Report,
        oracle: Oracle,
        direction: str,
        *,
        below: str = "",
        proxied: bool = False,
        options: tuple[str, ...] = (),
        further: str = "",
        site: Rig | None = None,
    ) -> None:
        self.folder, self.report, self.oracle = folder, report, oracle
        self.rng = random.Random(f"{report.scene}:{report.seed}:stage")
        self.command: subprocess.Popen[bytes] | None = None
        self.disturbed = False
        """Whether the running command may fail for a good reason."""
        self.may_leave = False
        """Whether the command may leave files at the source and still succeed."""
        self.excused = False
        """Whether any command may fail for a good reason."""
        # The oracle knows each file by its name, so a newer version is to take that of an older one.
        self._options = options if "--on-conflict" in options else ("--on-conflict", "replace", *options)
        self._starts = 0
        served = oracle.source if direction == "pull" else _without(oracle.destination, below)
        self.site = site or Rig(folder, inbox=served)
        self.site.further = further
        self.remote = direction != "local"
        source, destination = str(oracle.source), str(oracle.destination)
        if direction == "push":
            destination = f"hostb::inbox/{below}" if below else "hostb::inbox"
        elif direction == "pull":
            source = "hostb::inbox"
        elif direction == "between":
            source, destination = "hostb::outbox", "hostb::inbox"
            self.site.outbox = oracle.source
        if site is None:
            self.site.write_daemon_config()
        self.ends = (source, destination)
        if self.remote and site is None:
            self.site.start()
            if proxied:
                self.site.proxy = Proxy(self.site.port)
                self.site.write_command_config()

    def beside(self, folder: Path, oracle: Oracle) -> Stage:
        """Another command that pushes to the same daemon."""
        folder.mkdir()
        return Stage(folder, self.report, oracle, "push", options=self._options, site=self.site)

    @property
    def proxy(self) -> Proxy:
        """The proxy that the command connects through."""
        assert self.site.proxy is not None
        return self.site.proxy

    def event(self, name: str) -> None:
        """Count an event."""
        self.report.events[name] += 1
        self.disturbed = True

    def fault(self, *faults: Fault) -> None:
        """Note a fault, each only once."""
        self.report.faults += [each for each in faults if each not in self.report.faults]

    @property
    def running(self) -> bool:
        """Whether the command is still running."""
        return self.command is not None and self.command.poll() is None

    def spawn(self) -> None:
        """Start the command, unless it is running."""
        if self.running:
            return
        self.judge()
        self._starts += 1
        self.disturbed = False
        with self._said.open("wb") as said:
            self.command = self.site.spawn(
                "--quiet", *self._options, *self.ends, stdout=subprocess.DEVNULL, stderr=said
            )
        self.report.counts["commands"] += 1

    @property
    def _said(self) -> Path:
        return self.folder / f"command-{self._starts}.log"

    def judge(self) -> None:
        """Check the exit of the command that ended; to be called before anything new is made at the source."""
        if self.command is None:
            return
        code, said = self.command.wait(), self._said.read_text(errors="replace")
        self.command = None
        if "Traceback" in said:
            self.fault(Fault("traceback", said[-600:]))
        if code == 0:
            left = [shown(path) for path, _ in files(self.oracle.source) if path not in self.oracle.busy]
            if left and not self.may_leave:
                self.fault(Fault("exit code", f"0, but at the source are {left[:3]}"))
        elif code not in _INTERRUPTED and not (code == 1 and (self.disturbed or self.excused)):
            self.fault(Fault("exit code", f"{code}, and nothing was done to it: {said[-300:]}"))

    def wait(self, least: float, most: float) -> None:
        """Wait a random time, or until the command ends."""
        deadline = time.monotonic() + self.rng.uniform(least, most)
        while time.monotonic() < deadline and self.running:
            time.sleep(0.003)

    def wait_for_arrival(self, seconds: float = 3) -> None:
        """Wait until something appears at the destination, or the command ends."""
        before = _names(self.oracle.destination)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.running and _names(self.oracle.destination) == before:
            time.sleep(0.003)

    def somewhere(self) -> None:
        """Wait until a random point of a run: anywhere, or soon after something has arrived."""
        if self.rng.random() < 0.6:
            self.wait_for_arrival()
            self.wait(0, self.rng.choice([0.01, 0.05, 0.2]))
        else:
            self.wait(0, 0.6)

    def kill_command(self) -> None:
        """Kill a process with SIGKILL."""
        if not self.running:
            return
        assert self.command is not None
        self.event("kill command")
        self.command.kill()
        self.command.wait()

    def kill_daemon(self, *, restart: bool = True) -> None:
        """Kill the daemon with SIGKILL, and start the next one at once."""
        self.event("kill daemon")
        self.site.stop(signal.SIGKILL)
        if restart:
            self.site.start()

    def hit_at_a_call(self) -> None:
        """Start a command, or the daemon, that something happens to at a single system call; wait until it is over."""
        kind, tracer = at_a_call(self.rng)
        victim = "daemon" if self.remote and self.rng.random() < 0.5 else "command"
        self.kill_all()
        if victim == "daemon":
            self.site.program = [*tracer, *TWISTD]
        else:
            self.site.tracer = tracer
        try:
            if self.remote:
                self.site.start()
            self.spawn()
        except AssertionError:
            pass  # it was hit before it listened
        finally:
            self.site.program, self.site.tracer = TWISTD, ()
        self.event(f"{victim}: {kind}")
        if kind.startswith("error"):
            self.oracle.note_failures()
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline and self.running and self._daemon_lives:
            time.sleep(0.02)
        self.check()
        if victim == "daemon" and self.site.daemon is not None:
            self.site.stop(signal.SIGKILL)
        self.revive()

    @property
    def _daemon_lives(self) -> bool:
        return not self.remote or (self.site.daemon is not None and self.site.daemon.poll() is None)

    def freeze(self) -> None:
        """Nobody gets any further."""
        for process in (self.command, self.site.daemon):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGSTOP)

    def kill_all(self) -> None:
        """As a power cut does."""
        if self.running:
            assert self.command is not None
            self.command.kill()
            self.command.wait()
        if self.site.daemon is not None:
            self.site.stop(signal.SIGKILL)
        self.disturbed = True

    def revive(self) -> None:
        """Start the daemon again."""
        if self.remote and self.site.daemon is None:
            self.site.start()

    def check(self) -> None:
        """Have the oracle check both sides."""
        self.fault(*self.oracle.check())
        self.report.counts["checks"] += 1

    def wait_for_directory(self, folder: Path, seconds: float = 2) -> None:
        """Wait until it is there, or the command has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.running and not folder.exists():
            time.sleep(0.0005)

    def note_removals(self, lost: list[tuple[str, str]], bare: list[tuple[str, str]]) -> None:
        """Note as faults what a power cut right after a removal at the source would have destroyed."""
        self.fault(*(Fault(LOST, f"{name}: {what}, and was removed from the source") for name, what in lost))
        self.fault(*(Fault("attributes", f"{name}: durable {what}") for name, what in bare))

    def let_end(self) -> None:
        """Wait for the command, if one runs; start one else, and wait for that."""
        self.revive()
        self.spawn()
        self.disturbed = True
        assert self.command is not None
        try:
            self.command.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.fault(Fault("hangs", "the command has not ended"))
            self.command.kill()
        self.judge()

    def run_to_the_end(self, title: str = "final") -> None:
        """Undisturbed, let the running command end and another one finish the work; then check both sides."""
        self.revive()
        if self.running:
            self.let_end()
        self.judge()
        try:
            done = self.site.realize("--quiet", *self._options, *self.ends, timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.fault(Fault("hangs", f"{title}: the last command has not ended"))
            return
        if done.returncode or done.stderr:
            self.fault(Fault("exit code", f"{title}: {done.returncode}: {done.stderr[-400:]}"))
        self.fault(*self.oracle.final())

    def look_for_leaks(self) -> None:
        """Check that the daemon has no file of the tree open when no peer is connected."""
        if self.site.daemon is None:
            return
        folder = os.fsencode(self.site.inbox) + b"/"
        deadline = time.monotonic() + 5
        while open_files := _open_below(self.site.daemon.pid, folder):
            if time.monotonic() > deadline:
                self.fault(Fault("descriptor", f"the daemon still has {[shown(each) for each in open_files[:3]]} open"))
                return
            time.sleep(0.05)

    def close(self) -> None:
        """End all processes that are still running."""
        if self.command is not None and self.command.poll() is None:
            self.command.kill()
            self.command.wait()
        if self.site.proxy is not None:
            self.site.proxy.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.site.stop()
        log = self.site.log.read_text(errors="replace") if self.site.log.exists() else ""
        if "Traceback" in log:
            self.fault(Fault("traceback", "the daemon: " + log[log.index("Traceback") :][:600]))
        self.report.counts["files"] += len(self.oracle.versions)


def _names(folder: Path) -> set[bytes]:
    return {path for path, _ in files(folder)}


def _open_below(process: int, folder: bytes) -> list[bytes]:
    found = []
    place = f"/proc/{process}/fd"
    for name in os.listdir(place):
        with contextlib.suppress(OSError):
            target = os.fsencode(os.readlink(f"{place}/{name}"))
            if target.startswith(folder):
                found.append(target[len(folder) :])
    return found


def _without(folder: Path, below: str) -> Path:
    for _ in Path(below).parts:
        folder = folder.parent
    return folder
