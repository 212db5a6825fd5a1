"""`Containerfile` without an engine: its steps are taken on a copy of the base, and what it starts is started there.

Only what our file needs of the format is known; anything else raises `Failed`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import Factory, define

from trials.commands import Failed, output
from trials.machines import leader_of

OF_THE_ENGINE: Final = frozenset({"ARG", "EXPOSE", "STOPSIGNAL", "USER", "VOLUME"})
"""What changes no file: the user and the volumes are those of whoever runs it."""

_ENDS_WITHIN_S: Final = 45.0


@define
class Image:
    """The root of the last stage, and what it says about running it."""

    root: Path
    environment: dict[str, str] = Factory(dict)
    entry_point: Sequence[str] = ()
    command: Sequence[str] = ()
    health: Sequence[str] = ()

    def run(self, *command: str, as_user: str, binds: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command as an engine with `--user` does, to its end."""
        words = self._words([*self.entry_point, *command], as_user, binds)
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def start(self, as_user: str, binds: Sequence[str]) -> Container:
        """Run what it runs unless it is told otherwise."""
        words = self._words([*self.entry_point, *self.command], as_user, binds)
        log = self.root.with_suffix(".log")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        return Container(self, as_user, process, log)

    def _words(self, command: Sequence[str], as_user: str, binds: Sequence[str]) -> list[str]:
        for bind in binds:
            # An engine makes the places of its volumes.
            (self.root / bind.rpartition(":")[2].lstrip("/")).mkdir(exist_ok=True)
        return [*_nspawn(self.root), "--read-only", *(f"--bind={bind}" for bind in binds), *_as(as_user), *command]


@define
class Container:
    """What runs of an image."""

    image: Image
    as_user: str
    process: subprocess.Popen[bytes]
    log: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `docker exec` does."""
        entered = ("nsenter", f"--target={leader_of(self.process.pid)}", "--all", *_as(self.as_user))
        return subprocess.run([*entered, *command], capture_output=True, text=True, check=False)

    def wait_for_health(self, within_s: float) -> None:
        """Until its health check succeeds; raises `Failed` if that takes too long."""
        until = time.monotonic() + within_s
        while (done := self.run(*self.image.health)).returncode:
            if time.monotonic() > until or self.process.poll() is not None:
                raise Failed(f"the container is not healthy: {done.stderr}{self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> int:
        """Stop it as `docker stop` does; its exit code."""
        if self.process.poll() is None:
            os.kill(leader_of(self.process.pid), signal.SIGTERM)
        try:
            return self.process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed("the container does not end") from None


def steps(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Containerfile, each with what follows it."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            instruction, _, rest = line.partition(" ")
            yield instruction, rest.strip()


def build(context: Path, origin: Path, folder: Path) -> Image:
    """Take the steps of the `Containerfile` of a checkout; ``origin`` is a system in the place of its base."""
    image, stages = Image(folder), dict[str, Image]()
    for instruction, rest in steps((context / "Containerfile").read_text()):
        words = rest.split()
        if instruction == "FROM":
            image = Image(folder / f"stage-{len(stages)}")
            stages[words[-1]] = image
            output("cp", "--archive", "--reflink=auto", origin, image.root)
        elif instruction == "RUN":
            output(*_nspawn(image.root), *_network(), *_environment(image.environment), "/bin/sh", "-c", rest)
        elif instruction == "COPY":
            _copy(words, context, image, stages)
        elif instruction == "ENV":
            image.environment |= dict(word.split("=", 1) for word in words)
        elif instruction == "ENTRYPOINT":
            image.entry_point = json.loads(rest)
        elif instruction == "CMD":
            image.command = json.loads(rest)
        elif instruction == "HEALTHCHECK":
            image.health = json.loads(rest.partition(" CMD ")[2])
        elif instruction not in OF_THE_ENGINE:
            raise Failed(f"this trial does not know the instruction {instruction}")
    return image


def _copy(words: list[str], context: Path, image: Image, stages: dict[str, Image]) -> None:
    origin = context
    if words[0].startswith("--from="):
        origin = stages[words.pop(0).removeprefix("--from=")].root
    *sources, target = words
    place = image.root / target.lstrip("/")
    for source in (origin / each.lstrip("/") for each in sources):
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        else:
            into = place / source.name if target.endswith("/") else place
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, into)


def _nspawn(root: Path) -> list[str]:
    return ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit", "--console=pipe"]


def _network() -> list[str]:
    """What pip needs of this machine to find its index, for the steps of a build."""
    files = [path for path in ("/etc/pip.conf", "/etc/ssl/certs") if os.path.exists(path)]
    names = [
        name for name in os.environ if name in {"SSL_CERT_FILE", "PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"}
    ]
    return [*(f"--bind-ro={path}" for path in files), *(f"--setenv={name}={os.environ[name]}" for name in names)]


def _environment(values: dict[str, str]) -> list[str]:
    return [f"--setenv={name}={value}" for name, value in values.items()]


def _as(user: str) -> list[str]:
    uid, gid = user.split(":")
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return ["/usr/bin/env", path, "/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
