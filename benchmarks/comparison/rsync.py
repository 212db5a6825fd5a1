"""rsync over ssh, to its own daemon, and to that daemon through TLS."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import evolve, field, frozen

from benchmarks.comparison.credentials import Credentials, make_credentials
from benchmarks.comparison.programs import path_of
from benchmarks.comparison.ssh import PROGRAMS as SSH_PROGRAMS
from benchmarks.comparison.ssh import serve_ssh, ssh_command
from benchmarks.comparison.tool import ALL, MOVES, Guarantees, OptionedTool, Place, Start, Tool
from benchmarks.comparison.workloads import BIG
from tests.processes import free_port

PARTIAL: Final = ".rsync-partial"
ARCHIVE: Final = ("-a", "--remove-source-files", f"--partial-dir={PARTIAL}")
AES: Final = ("-c", "aes128-gcm@openssh.com")
OVER_SSH: Final = Guarantees("ssh", "a digest of each file", "no")


@frozen
class Rsync(OptionedTool):
    """What all ways of calling it have in common."""

    at_final_name: bool = field(default=False, kw_only=True)
    """Whether it goes on with what is at the name of the file, and not in a directory for partial files."""

    @property
    def arguments(self) -> list[str]:
        """Options of rsync."""
        mine = [each for each in ARCHIVE if not (self.at_final_name and each.startswith("--partial-dir"))]
        return [*mine, *self.options]

    def half(self, place: Place) -> Path:
        """See `Tool`."""
        return place.destination / BIG if self.at_final_name else place.destination / PARTIAL / BIG


@frozen
class OverSsh(Rsync):
    """As most people call it."""

    ssh_options: Sequence[str] = field(default=(), kw_only=True)

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return SSH_PROGRAMS | {"rsync"}

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        return serve_ssh(place, start)

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`."""
        ssh = " ".join([ssh_command(place), "-p", str(port), *self.ssh_options])
        return ["rsync", *self.arguments, "-e", ssh, f"{place.source}/", f"127.0.0.1:{place.destination}/"]


@frozen
class ToDaemon(Rsync):
    """Plain TCP to a daemon, which has TCP_NODELAY: small files wait for delayed acknowledgements otherwise."""

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return frozenset({"rsync"})

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        config, port = place.scratch / "rsyncd.conf", free_port()
        # It would write as nobody; only root may choose.
        owner = f"uid = {os.geteuid()}\ngid = {os.getegid()}\n" if os.geteuid() == 0 else ""
        config.write_text(
            f"use chroot = no\n{owner}socket options = TCP_NODELAY\n"
            f"[inbox]\npath = {place.destination}\nread only = no\n"
        )
        at = ("--address=127.0.0.1", f"--port={port}")
        start([path_of("rsync"), "--daemon", "--no-detach", *at, f"--config={config}"], port)
        return port

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`."""
        return ["rsync", *self.arguments, f"{place.source}/", f"rsync://127.0.0.1:{port}/inbox/"]


@frozen
class OverTls(ToDaemon):
    """rsync-ssl to stunnel, which hands on to the daemon; certificates at both ends."""

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return frozenset({"rsync", "rsync-ssl", "stunnel", "openssl"})

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        daemon, made, port = super().serve(place, start), make_credentials(place.scratch), free_port()
        config = place.scratch / "stunnel.conf"
        config.write_text(
            "foreground = yes\npid =\nsslVersionMin = TLSv1.3\n"
            "socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
            f"[rsync]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{daemon}\n"
            f"cert = {made.certificate('server')}\nkey = {made.key('server')}\nCAfile = {made.authority}\n"
            "verifyChain = yes\nrequireCert = yes\n"
        )
        start([path_of("stunnel"), config], port)
        return port

    def environment(self, place: Place) -> Mapping[str, str]:
        """See `Tool`."""
        made = Credentials(place.scratch)
        return {
            "RSYNC_SSL_TYPE": "openssl",
            "RSYNC_SSL_CA_CERT": str(made.authority),
            "RSYNC_SSL_CERT": str(made.certificate("client")),
            "RSYNC_SSL_KEY": str(made.key("client")),
        }

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`; the certificate is for the name, rsync-ssl takes no address for it."""
        return ["rsync-ssl", *self.arguments, f"{place.source}/", f"rsync://localhost:{port}/inbox/"]


def durable(tool: Rsync) -> Rsync:
    """The same with ``--fsync``."""
    return evolve(
        tool,
        name=f"{tool.name}-fsync",
        title=f"{tool.title}, `--fsync`",
        how=f"{tool.how} --fsync",
        guarantees=evolve(tool.guarantees, durable="yes"),
        options=(*tool.options, "--fsync"),
        workloads=MOVES,
    )


SSH: Final = OverSsh("rsync-ssh", "rsync over ssh", "rsync -a --remove-source-files -e ssh", OVER_SSH, ALL)
SSH_AES: Final = OverSsh(
    "rsync-ssh-aes",
    "rsync over ssh, AES",
    f"rsync -a --remove-source-files -e 'ssh {' '.join(AES)}'",
    OVER_SSH,
    ALL,
    ssh_options=AES,
)
SSL: Final = OverTls(
    "rsync-ssl",
    "rsync-ssl to stunnel",
    "rsync-ssl -a --remove-source-files",
    Guarantees("TLS 1.3", "a digest of each file", "no"),
    ALL,
)
DAEMON: Final = ToDaemon(
    "rsyncd",
    "rsync to its daemon",
    "rsync -a --remove-source-files rsync://...",
    Guarantees("**no**", "a digest of each file", "no"),
    ALL,
    bound="not encrypted",
)

TOOLS: Final[Sequence[Tool]] = (
    SSH,
    SSH_AES,
    SSL,
    DAEMON,
    *map(durable, (SSH, SSH_AES, SSL, DAEMON)),
    evolve(
        SSH,
        name="rsync-ssh-4k",
        title="rsync over ssh, blocks of 4 KiB",
        how=f"{SSH.how} --block-size=4096",
        options=("--block-size=4096",),
        workloads=("changed",),
    ),
    evolve(
        SSH_AES,
        name="rsync-ssh-aes-whole",
        title="rsync over ssh, AES, whole files",
        how=f"{SSH_AES.how} -W",
        options=("-W",),
        workloads=("changed", "half-there"),
    ),
    evolve(
        SSH,
        name="rsync-ssh-append-verify",
        title="rsync over ssh, `--append-verify`",
        how=f"{SSH.how} --append-verify",
        options=("--append-verify",),
        workloads=("half-there",),
        at_final_name=True,
    ),
)
