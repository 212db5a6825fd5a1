"""The file systems that a campaign moves files between: mounted for it, and unmounted again.

All of this needs root; `missing` says what else this machine lacks.

A file system that is unmounted lives on if a program has made a mount namespace meanwhile, with a copy of every mount:
it goes on writing to a disk that we have given another content, and what is synced there afterwards is lost.
So a campaign has a namespace of its own (`isolate`), and looks whether a file system has really ended (`Loop`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parent.parent

_libc: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS: Final = 0x20000
_DEVICES: Final = Path("/sys/block")
_ENDS_WITHIN_S: Final = 20

IMAGES: Final = {
    "ext4": (["mkfs.ext4", "-q", "-F"], 64 << 20, ""),
    "xfs": (["mkfs.xfs", "-q", "-f", "-K"], 320 << 20, "nouuid"),
    "btrfs": (["mkfs.btrfs", "-q", "-f", "-K"], 128 << 20, ""),
}
"""How each file system is made, its size in bytes, and how it is mounted beside its own copy."""

PROGRAMS: Final = {
    "mount": "mount",
    "umount": "mount",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "strace": "strace",
}
"""Each program that is needed, and the Debian package that has it."""


def missing() -> list[str]:
    """What this machine lacks, one sentence each; a campaign is refused, not shortened, if anything is missing."""
    lacks = [] if os.geteuid() == 0 else ["root: file systems are mounted"]
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=path) is None:
            lacks.append(f"{program}: apt-get install {package}")
    devices = [device for device in ("/dev/fuse", "/dev/loop-control") if not os.path.exists(device)]
    lacks += [f"{device}: the kernel of this machine, or its container, does not offer it" for device in devices]
    known = Path("/proc/filesystems").read_text().split()
    lacks += [f"{name}: modprobe {name}" for name in ("fuse", "ext4", "xfs", "btrfs") if name not in known]
    return lacks


def isolate() -> None:
    """Give this process, and all that it starts, a mount namespace of its own.

    What they mount is unmounted when the last of them has ended, however that was.
    To be called before there is another thread.
    """
    if _libc.unshare(_CLONE_NEWNS):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot make a mount namespace: {os.strerror(number)}")
    run("mount", "--make-rprivate", "/")


def run(*command: str | Path) -> str:
    """The output of a program; if it fails, its message is the error."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


def unmount(folder: Path) -> None:
    """Unmount, even if a process that was just killed still has files open there."""
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while os.path.ismount(folder):
        try:
            run("umount", folder)
        except RuntimeError:
            if time.monotonic() > deadline:
                run("umount", "-l", folder)
                return
            time.sleep(0.05)


class Loop:
    """A file system in a file, mounted through a loop device."""

    def __init__(self, file: Path, kind: str, folder: Path, *options: str) -> None:
        self._file, self._kind, self._folder, self._options = file, kind, folder, options
        self._device = ""

    def mount(self) -> None:
        """Mount it, through a device that goes when the file system ends."""
        self._device = run("losetup", "--find", "--show", self._file)
        try:
            run("mount", "-t", self._kind, *self._options, self._device, self._folder)
        finally:
            run("losetup", "--detach", self._device)

    def unmount(self) -> None:
        """Unmount it, and wait until nothing can write to the file any more; raises `RuntimeError` if that lasts."""
        unmount(self._folder)
        backing = _DEVICES / Path(self._device).name / "loop" / "backing_file"
        deadline = time.monotonic() + _ENDS_WITHIN_S
        while self._device and self._is_behind(backing):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._file}: is unmounted, and in use: another mount namespace may have it")
            time.sleep(0.005)
        self._device = ""

    def _is_behind(self, backing: Path) -> bool:
        with contextlib.suppress(OSError):  # the device is free
            return backing.read_text().rstrip("\n") == str(self._file)
        return False


class Served:
    """A process of `campaigns.file_server`, and the connection to it."""

    def __init__(self, kind: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaigns.file_server", kind, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._answer()

    def ask(self, name: str, *positional: object, **named: object) -> Any:
        """Call a method in that process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, positional, named]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process; its file systems must be unmounted already."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the file server ended with {self._process.wait()}")
        return json.loads(line)


class Strict:
    """A source and a destination on `campaigns.strict.StrictTree`."""

    def __init__(self, folder: Path) -> None:
        self.source, self.destination = folder / "strict-source", folder / "strict-destination"
        for each in (self.source, self.destination):
            each.mkdir()
        self._served = Served("strict", str(self.source), str(self.destination))
        self.ask = self._served.ask

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.source, self.destination):
            unmount(each)
        self._served.close()


class Image:
    """A real file system on a disk that loses what was not flushed in a power cut."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.mounted = folder / kind
        self._disk, self._copy, self._looked = folder / "disk", folder / "copy", folder / "looked"
        for each in (self.mounted, self._disk, self._looked):
            each.mkdir()
        _, size, beside = IMAGES[kind]
        self._served = Served("disk", str(self._disk), str(size))
        self._served.ask("load", str(template(folder.parent, kind)))
        self._loop = Loop(self._disk / "disk", kind, self.mounted)
        self._beside = Loop(self._copy, kind, self._looked, *(("-o", beside) if beside else ()))
        self._loop.mount()

    def leave(self, kept: str, seed: int) -> int:
        """Save the image that a power cut would leave at this instant; returns how many blocks would be lost."""
        lost: int = self._served.ask("leave", str(self._copy), kept, seed)
        return lost

    def fail(self) -> None:
        """Let every write and every flush fail from now on, until the disk is healed or the image reverted."""
        self._served.ask("fail")

    def heal(self) -> None:
        """Let writes and flushes succeed again."""
        self._served.ask("heal")

    @contextlib.contextmanager
    def look(self) -> Iterator[Path]:
        """Mount the saved image, while the file system itself stays in use."""
        self._beside.mount()
        try:
            yield self._looked
        finally:
            self._beside.unmount()

    def revert(self) -> None:
        """Continue with the saved image, as when the power is back; no file may be open on the file system."""
        self._loop.unmount()
        self._served.ask("load", str(self._copy))
        self._loop.mount()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.unmount()
        finally:
            unmount(self._disk)
            self._served.close()


class Small:
    """A file system that is soon full."""

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        self.mounted = folder / "small"
        self.mounted.mkdir()
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", self.mounted)
            return
        image = folder / "small.image"
        with image.open("wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        run("mount", "-o", "loop", image, self.mounted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        unmount(self.mounted)


def template(folder: Path, kind: str) -> Path:
    """An empty image, made once and shared by all cases that start with it."""
    made = folder / f"empty.{kind}"
    if not made.exists():
        command, size, _ = IMAGES[kind]
        new = folder / f"empty.{kind}.{os.getpid()}"
        with new.open("wb") as file:
            file.truncate(size)
        run(*command, new)
        new.rename(made)
    return made
