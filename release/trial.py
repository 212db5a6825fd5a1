"""Whether a wheel works where nothing else is: installed into an empty environment, far from the checkout."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

from release.text import Refused

CONTENT = b"A file that a release has moved.\n"


def run(*command: str | Path, cwd: Path, home: Path | None = None) -> str:
    """What a command prints; one that fails is a reason to refuse the release.

    With a ``home`` of its own it finds nothing of whoever makes the release: no configuration, no key, no packages.
    """
    environment = None
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
    """Install the wheel and use it: both commands are there, know their version, and one moves a file."""
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / "bin"
    home = folder / "home"
    home.mkdir()
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=folder)

    def said(program: str, *arguments: str | Path) -> str:
        return run(programs / program, *arguments, cwd=home, home=home)

    _expect(said("realize", "--version") == f"realize {version}\n", "realize --version")
    _expect("Exit codes:" in said("realize", "--help"), "realize --help")
    _expect("realized" in said("twistd", "--help"), "twistd --help")
    source, destination = home / "source", home / "destination"
    source.mkdir()
    source.joinpath("file").write_bytes(CONTENT)
    said("realize", source, destination)
    arrived = destination.joinpath("file").read_bytes() == CONTENT
    _expect(arrived and not source.joinpath("file").exists(), "a move between two local directories")


def _expect(fine: object, what: str) -> None:
    if not fine:
        raise Refused(f"the installed wheel fails at {what}")
