"""Booted Debian systems on this one: made by debootstrap, run by systemd-nspawn, with a network of their own.

Needs root. A machine is a copy of the base, so that its file system is an ordinary one. None outlives the program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from trials.commands import Failed, output

RELEASE: Final = "bookworm"

PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "iproute2", "ca-certificates"),
    *("bash-completion", "logrotate", "man-db", "python3"),
)
"""What the base has beside the essential packages: all that Realize depends on, so that apt needs no network."""

PROGRAMS: Final = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2"}
"""Programs that this machine needs, and their packages."""

ZONE: Final = "realize"
NETWORK: Final = "10.77.91"
_BOOTS_WITHIN_S: Final = 60.0
_STOPS_WITHIN_S: Final = 60.0


def base(cache: Path) -> Path:
    """The system that machines are copies of; it is downloaded unless the cache has it."""
    made = cache / f"base-{RELEASE}-{'-'.join(PACKAGES[-4:])}"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        begun = cache / "begun"
        shutil.rmtree(begun, ignore_errors=True)
        output("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, begun, mirror())
        for archive in (begun / "var" / "cache" / "apt" / "archives").glob("*.deb"):
            archive.unlink()
        begun.rename(made)
    return made


def mirror() -> str:
    """Where this machine has its packages from."""
    places = output("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    if not places:
        raise Failed("apt knows no mirror: is this Debian, and was apt-get update run?")
    return max(set(places), key=places.count)


class Machine:
    """A system that runs from when it is entered until it is left."""

    def __init__(self, name: str, number: int, origin: Path, folder: Path) -> None:
        """``number`` is the last part of its address."""
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self.root = folder / name
        self._origin = origin
        self._console = folder / f"{name}.console"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        output("cp", "--archive", "--reflink=auto", self._origin, self.root)
        (self.root / "etc" / "hostname").write_text(f"{self.name}\n")
        (self.root / "etc" / "machine-id").write_text("")
        self._boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command there as root, and return how it ended."""
        entered = ("nsenter", f"--target={self._leader}", "--all", "env", "--ignore-environment", "HOME=/root")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        words = [*entered, path, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *map(str, command)]
        return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)

    def output(self, *command: str | Path, stdin: str = "") -> str:
        """What a command there prints; one that fails raises `Failed`."""
        done = self.run(*command, stdin=stdin)
        if done.returncode:
            said = (done.stderr + done.stdout).strip()
            raise Failed(f"on {self.name}: {' '.join(map(str, command))} ended with {done.returncode}: {said[-2000:]}")
        return done.stdout

    def shell(self, script: str) -> str:
        """What a script for sh prints there; it ends at its first command that fails, and then raises `Failed`."""
        return self.output("sh", "-euc", script)

    def wait(self, script: str, within_s: float = 30.0) -> None:
        """Until a script for sh succeeds; raises `Failed` if that takes too long."""
        until = time.monotonic() + within_s
        while (done := self.run("sh", "-euc", script)).returncode:
            if time.monotonic() > until:
                said = (done.stderr + done.stdout).strip()
                raise Failed(f"on {self.name}, for {within_s:g} s, in vain: {script}: {said[-2000:]}")
            time.sleep(0.1)

    def path(self, inside: str) -> Path:
        """A path of it as this machine sees it."""
        return self.root / inside.lstrip("/")

    def _boot(self) -> None:
        options = ("--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no")
        where = (f"--directory={self.root}", f"--machine={self.name}", f"--network-zone={ZONE}")
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                ["systemd-nspawn", *options, *where],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        until = time.monotonic() + _BOOTS_WITHIN_S
        while not self._is_up():
            if self._nspawn.poll() is not None or time.monotonic() > until:
                raise Failed(f"{self.name} does not boot: {self._console.read_text()[-2000:]}")
            time.sleep(0.1)
        for link in (f"vb-{self.name}", f"vz-{ZONE}"):
            output("ip", "link", "set", link, "up")
        self.shell(f"ip address add {self.address}/24 dev host0; ip link set host0 up")

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        self._leader = leader_of(self._nspawn.pid)
        return self._leader != 0 and self.run("systemctl", "is-system-running").stdout in {"running\n", "degraded\n"}

    def _stop(self) -> None:
        if self._nspawn is None:
            return
        if self._leader and self._nspawn.poll() is None:
            self.run("systemctl", "poweroff")
        try:
            self._nspawn.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()


def leader_of(nspawn: int) -> int:
    """The process that is the first one inside; 0 if there is none yet."""
    return next((int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(int(name)) == nspawn), 0)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
