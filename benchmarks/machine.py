"""What figures depend on besides the code: the interpreter and how it was built, the machine, the commit.

Every benchmark prints it, so that a figure can be compared with another one.
It names no path and no host.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).resolve().parent.parent

MEASURED: Final = ("realize", "twisted", "benchmarks", "tests/processes.py", "setup.cfg", "setup.py", "pyproject.toml")
"""What a commit must be unchanged in to be named as it is: results that are saved elsewhere do not change figures."""

FLAGS: Final = {"--enable-optimizations": "profile-guided", "--with-lto": "LTO"}
"""Options of Python's ``configure`` that make it faster, and what they are called."""


@frozen
class Machine:
    """Where and with what was measured."""

    python: str
    build: str
    cpu: str
    cores: int
    memory_gib: int
    kernel: str
    commit: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Short lines for people."""
        return (
            f"Python {self.python}, {self.build}",
            f"{self.cpu}, {self.cores} cores, {self.memory_gib} GiB of memory, Linux {self.kernel}",
            f"commit {self.commit}",
        )


def this_machine() -> Machine:
    """What runs this."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        python=platform.python_version(),
        build=build(
            str(sysconfig.get_config_var("CONFIG_ARGS") or ""),
            compiler=platform.python_compiler(),
            package=debian_package(os.path.realpath(sys.executable)),
            debug=hasattr(sys, "gettotalrefcount"),
        ),
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory / (1 << 30)),
        kernel=platform.release(),
        commit=commit(ROOT),
    )


def print_machine() -> None:
    """Say it above the figures."""
    print(*this_machine().lines, sep="\n", flush=True)


def build(arguments: str, *, compiler: str, package: str | None, debug: bool) -> str:
    """How an interpreter was built, from the ``arguments`` of its ``configure`` and the package that it belongs to.

    Debian sets what makes it faster in the rules of its package, where ``configure`` knows nothing of it.
    """
    given = {word.strip("'\"").partition("=")[0] for word in arguments.split()}
    found = [name for flag, name in FLAGS.items() if flag in given]
    if package is not None:
        how = f"Debian's package {package}" + (f" ({', '.join(found)})" if found else "")
    elif found:
        how = ", ".join(found)
    else:
        how = "NOT optimised (no --enable-optimizations, no --with-lto)"
    return f"{how}, {compiler}" + (", DEBUG build" if debug else "")


def debian_package(program: str) -> str | None:
    """Name and version of the Debian package that a file belongs to; None if it belongs to none."""
    owners = _said("dpkg-query", "--search", program)
    if owners is None:
        return None
    return _said("dpkg-query", "--show", "--showformat=${Package} ${Version}", owners.partition(":")[0])


def cpu_model(cpuinfo: str) -> str:
    """The name of the first processor in /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.replace("(R)", "").replace("(TM)", "").split())
    return platform.machine()


def commit(root: Path) -> str:
    """The commit that is checked out, and whether what is measured differs from it."""
    name = _said("git", "-C", str(root), "rev-parse", "--short=10", "HEAD")
    if name is None:
        return "unknown (no checkout)"
    changed = _said("git", "-C", str(root), "status", "--porcelain", "--", *MEASURED)
    return f"{name} with changes" if changed else name


def _said(*argv: str) -> str | None:
    """What a program says; None if it is not there or fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
