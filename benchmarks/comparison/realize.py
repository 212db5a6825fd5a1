"""Realize itself."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.comparison.tool import ALL, Guarantees, Place, Start, Tool
from benchmarks.comparison.workloads import BIG
from realize.fs.names import partial_name
from realize.store.local.partial_marks import RECEIVING
from tests.processes import TWISTD, Site, free_port

COMMAND: Final = Path(sysconfig.get_path("scripts")) / "realize"


@frozen
class Realize(Tool):
    """The command and a daemon, with keys of both."""

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return frozenset()

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        if self.half(place).exists():
            self.half(place).chmod(RECEIVING)
        site = Site(place.scratch, inbox=place.destination)
        site.port = free_port()
        site.write_daemon_config()
        site.write_command_config()
        start([*TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", place.scratch / "realized.toml"], site.port)
        return site.port

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`; the address on the command line is that of the link, if there is one."""
        config = place.scratch / "realize.toml"
        lines = config.read_text().splitlines()
        config.write_text(
            "\n".join(f'address = "127.0.0.1:{port}"' if line.startswith("address") else line for line in lines)
        )
        jobs = [f"--jobs={place.jobs}"] if place.jobs else []
        return [COMMAND, "--config", config, "--quiet", *jobs, place.source, "hostb::inbox"]

    def half(self, place: Place) -> Path:
        """See `Tool`: where it would have left it itself."""
        return place.destination / os.fsdecode(partial_name(os.fsencode(BIG)))


@frozen
class Damaged(Realize):
    """The same with a wrong byte in the half that is there: it has to find that, and to send the rest anew."""

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        with self.half(place).open("r+b") as file:
            file.seek(self.half(place).stat().st_size // 2)
            [byte] = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        return super().serve(place, start)


OURS: Final = Realize(
    "realize",
    "**Realize**",
    "realize SOURCE PEER::DIRECTORY",
    Guarantees("TLS 1.3", "a digest of each file", "yes"),
    ALL,
)

TOOLS: Final[Sequence[Tool]] = (
    OURS,
    Damaged(
        "realize-damaged",
        "Realize, a byte of the half is wrong",
        OURS.how,
        OURS.guarantees,
        ("half-there",),
        bound="a byte of the half is wrong",
    ),
)
