"""Two machines with Realize: ``camera`` has files, and ``nas`` takes them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from trials.commands import require
from trials.machines import Machine

CONFIG: Final = "/etc/realize/realized.toml"
BATCH_CONFIG: Final = "/etc/realize/realize.toml"
KEY: Final = "/etc/realize/realized.key"
INBOX: Final = "/srv/realize/inbox"
OUTBOX: Final = "/srv/realize/outbox"
AS_SERVICE: Final = ("runuser", "-u", "realize", "--")


@frozen
class Site:
    """What the checks have: both machines, the package, and the same package as a later version of it."""

    camera: Machine
    nas: Machine
    package: Path
    later: Path
    checkout: Path
    origin: Path
    """What machines are copies of."""
    folder: Path
    """Where a check may put what it needs."""
    files: int
    """How many small files the audit trail has to show."""

    @property
    def machines(self) -> tuple[Machine, Machine]:
        """Both."""
        return self.camera, self.nas

    def install(self, machine: Machine, package: Path) -> str:
        """Install a package as an operator would; what apt prints."""
        inside = f"/root/{package.name}"
        machine.path(inside).write_bytes(package.read_bytes())
        return machine.output("apt-get", "install", "--yes", "--quiet", inside)

    def offer(self, name: str, size: int, seed: int) -> str:
        """Put a file of random content into the outbox of camera; its digest."""
        content = random.Random(seed).randbytes(size)
        self._put(name, content)
        return hashlib.sha256(content).hexdigest()

    def offer_many(self, count: int) -> None:
        """Put so many small files there, a thousand to a directory."""
        for number in range(count):
            self._put(f"many/{number // 1000}/{number}", b"%d" % number)

    def _put(self, name: str, content: bytes) -> None:
        path = self.camera.path(f"{OUTBOX}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def move(self, options: str = "") -> subprocess.CompletedProcess[str]:
        """Move all that is in the outbox, as the batch job `camera` of the package."""
        self.job("camera", options)
        return self.camera.run("systemctl", "start", "realize-move@camera.service")

    def job(self, name: str, options: str) -> None:
        """Configure a batch job that moves the outbox."""
        lines = (f"SOURCE={OUTBOX}", "DESTINATION=nas::inbox", f"OPTIONS={options}")
        self.camera.path(f"/etc/realize/{name}.env").write_text("\n".join(lines) + "\n")
        self.camera.shell(f"chown -R realize:realize {OUTBOX}")

    def arrived(self, name: str) -> str:
        """The digest of a file in the inbox of nas."""
        path = self.nas.path(f"{INBOX}/{name}")
        require(path.is_file(), f"{name} is not in the inbox")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def left(self) -> list[str]:
        """The files that are in the outbox."""
        root = self.camera.path(OUTBOX)
        return [name for _, _, names in os.walk(root) for name in names]

    @contextlib.contextmanager
    def configured(self, machine: Machine, change: Callable[[str], str], config: str = CONFIG) -> Iterator[None]:
        """Have a configuration changed for a time; that of the daemon unless another one is named."""
        path = machine.path(config)
        former = path.read_text()
        path.write_text(change(former))
        try:
            yield
        finally:
            path.write_text(former)

    def change(self, machine: Machine, config: str, former: str, now: str) -> None:
        """Have something else in a configuration than what is there once."""
        path = machine.path(config)
        text = path.read_text()
        require(text.count(former) == 1, f"{config} has not once {former!r}")
        path.write_text(text.replace(former, now))


def state_of(machine: Machine, unit: str, name: str = "ActiveState") -> str:
    """A property of a unit."""
    return machine.output("systemctl", "show", f"--property={name}", "--value", unit).strip()
