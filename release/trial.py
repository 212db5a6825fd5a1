"""Whether a wheel, and a Debian package, works where nothing else is, far from the checkout."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Mapping
from pathlib import Path

from release.text import Refused

CONTENT = b"A file that a release has moved.\n"


def run(*command: str | Path, cwd: Path, home: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints; one that fails is a reason to refuse the release.

    With a ``home`` of its own it finds nothing of whoever makes the release: no configuration, no key, no packages.
    Without that, ``environment`` takes the place of ours.
    """
    if home is not None:
        ours = ("PYTHON", "VIRTUAL_ENV", "REALIZE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment["HOME"] = str(home)
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-20:]
        raise Refused("\n".join([f"{' '.join(words)} failed with exit code {done.returncode}:", *said]))
    return done.stdout


def try_wheel(wheel: Path, version: str, folder: Path) -> None:
    """Install the wheel into an empty environment, and use it."""
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=folder)
    _try_programs(programs, version, folder / "home", "wheel")


def try_deb(package: Path, version: str, folder: Path) -> None:
    """Unpack the Debian package without installing it, and use what it brings; `make try-systemd` installs it."""
    run("dpkg-deb", "--extract", package, folder / "unpacked", cwd=folder)
    _try_programs(folder / "unpacked" / "opt" / "realize" / "bin", version, folder / "home-deb", "Debian package")


def _try_programs(programs: Path, version: str, home: Path, what: str) -> None:
    """Both commands are there, know their version, and one moves a file."""
    home.mkdir()

    def said(program: str, *arguments: str | Path) -> str:
        # By way of its Python, for scripts name the one of the place where they will be.
        return run(programs / "python3", programs / program, *arguments, cwd=home, home=home)

    def expect(fine: object, at: str) -> None:
        if not fine:
            raise Refused(f"the installed {what} fails at {at}")

    expect(said("realize", "--version") == f"realize {version}\n", "realize --version")
    expect("Exit codes:" in said("realize", "--help"), "realize --help")
    expect("realized" in said("twistd", "--help"), "twistd --help")
    source, destination = home / "source", home / "destination"
    source.mkdir()
    source.joinpath("file").write_bytes(CONTENT)
    said("realize", source, destination)
    arrived = destination.joinpath("file").read_bytes() == CONTENT
    expect(arrived and not source.joinpath("file").exists(), "a move between two local directories")
