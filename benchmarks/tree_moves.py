"""Moving a tree that is staged below a folder, with Realize and with rsync, for the benchmarks that compare both."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from benchmarks.ports import wait_until_listening
from benchmarks.procfs import Ran, cpu_seconds, run_watched
from tests.processes import ENVIRONMENT, Site, free_port


@frozen
class Run:
    """One run, and the CPU seconds of the daemon."""

    ran: Ran
    daemon_cpu: float


def move_by_realize(folder: Path, options: Sequence[str], *, local: bool, accept: Sequence[str] = ()) -> Run:
    """Move ``source`` of a folder to ``target``, or to a daemon that accepts these attributes."""
    site, source = Site(folder), folder / "source"
    if accept:
        config = folder / "realized.toml"
        config.write_text(config.read_text().replace("[dirs.inbox]", f"[dirs.inbox]\naccept = {[*accept]}"))
    environment = {**ENVIRONMENT, "REALIZE_CONFIG": str(folder / "realize.toml")}
    if local:
        return Run(
            run_watched(site.command("--quiet", *options, str(source), str(folder / "target")), environment), 0.0
        )
    site.start()
    assert site.daemon is not None
    try:
        before = cpu_seconds(site.daemon.pid)
        ran = run_watched(site.command("--quiet", *options, str(source), "hostb::inbox"), environment)
        return Run(ran, cpu_seconds(site.daemon.pid) - before)
    finally:
        site.stop()


def move_by_rsync(folder: Path, options: Sequence[str], *, local: bool) -> Run:
    """Move ``source`` of a folder to ``target`` by rsync, by way of a daemon unless it is ``local``."""
    source, target = folder / "source", folder / "target"
    target.mkdir()
    command = ["rsync", *options, "--remove-source-files", f"{source}/"]
    if local:
        return Run(run_watched([*command, f"{target}/"], dict(os.environ)), 0.0)
    with rsync_daemon(folder, target) as port:
        return Run(run_watched([*command, f"rsync://127.0.0.1:{port}/inbox/"], dict(os.environ)), 0.0)


@contextmanager
def rsync_daemon(folder: Path, target: Path) -> Iterator[int]:
    """The port of a daemon of rsync that serves ``target`` as ``inbox``."""
    config, port = folder / "rsyncd.conf", free_port()
    config.write_text(
        f"use chroot = no\nmunge symlinks = no\nuid = {os.geteuid()}\ngid = {os.getegid()}\n"
        f"socket options = TCP_NODELAY\n[inbox]\npath = {target}\nread only = no\n"
    )
    at = ("--address=127.0.0.1", f"--port={port}")
    daemon = subprocess.Popen(["rsync", "--daemon", "--no-detach", *at, f"--config={config}"])
    try:
        wait_until_listening(port)
        yield port
    finally:
        daemon.terminate()
        daemon.wait()
