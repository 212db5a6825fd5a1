"""rclone, to a server of sftp and to its own server of WebDAV."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from benchmarks.comparison.credentials import Credentials, make_credentials
from benchmarks.comparison.programs import path_of
from benchmarks.comparison.ssh import PROGRAMS as SSH_PROGRAMS
from benchmarks.comparison.ssh import serve_ssh
from benchmarks.comparison.tool import Guarantees, OptionedTool, Place, Start, Tool
from tests.processes import free_port


@frozen
class Rclone(OptionedTool):
    """What both have in common."""

    def moving(self, place: Place, target: str, *options: str) -> list[str]:
        """The command with its options."""
        jobs = [f"--transfers={place.jobs}"] if place.jobs else []
        return ["rclone", "--config", "", "move", str(place.source), target, *options, *jobs, *self.options]


@frozen
class ToSftp(Rclone):
    """To the server of ssh; digests are made there with md5sum(1), as a configuration of rclone says that found it."""

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return SSH_PROGRAMS | {"rclone"}

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        return serve_ssh(place, start)

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`."""
        key = Credentials(place.scratch).user_key
        return self.moving(
            place,
            f":sftp:{place.destination}",
            "--sftp-host=127.0.0.1",
            f"--sftp-port={port}",
            f"--sftp-user={getpass.getuser()}",
            f"--sftp-key-file={key}",
            "--sftp-md5sum-command=md5sum",
            "--sftp-sha1sum-command=sha1sum",
        )


@frozen
class ToWebdav(Rclone):
    """To ``rclone serve webdav`` over TLS with certificates at both ends."""

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return frozenset({"rclone"})

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        made, port = make_credentials(place.scratch), free_port()
        start(
            [
                path_of("rclone"), "--config", "", "serve", "webdav", place.destination, f"--addr=127.0.0.1:{port}",
                "--cert", made.certificate("server"), "--key", made.key("server"), "--client-ca", made.authority,
            ],
            port,
        )  # fmt: skip
        return port

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`."""
        made = Credentials(place.scratch)
        return self.moving(
            place,
            ":webdav:",
            f"--webdav-url=https://127.0.0.1:{port}",
            "--webdav-vendor=other",
            f"--ca-cert={made.authority}",
            f"--client-cert={made.certificate('client')}",
            f"--client-key={made.key('client')}",
        )


SFTP: Final = ToSftp(
    "rclone-sftp", "rclone over sftp", "rclone move to sftp", Guarantees("ssh", "a digest of each file", "no")
)

TOOLS: Final[Sequence[Tool]] = (
    SFTP,
    evolve(
        SFTP,
        name="rclone-sftp-8",
        title="rclone over sftp, 8 at once",
        how=f"{SFTP.how} --transfers=8",
        options=("--transfers=8",),
        workloads=("small", "mixture"),
    ),
    # It makes a call every 10 ms at most, so that many small files take minutes.
    ToWebdav(
        "rclone-webdav",
        "rclone over WebDAV",
        "rclone move to rclone serve webdav",
        Guarantees("TLS 1.3", "sizes only", "no"),
        ("large", "mixture"),
    ),
)
