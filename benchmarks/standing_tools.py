"""Programs that watch a directory, or look into it by a timer, and move or copy what lands there, as people run them.

Everything goes over loopback.
What encrypts and what does not is said with each.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from benchmarks.ports import wait_until_listening
from tests.processes import Site, free_port, start_daemon, wait_for

SETTLE_S: Final = 1
"""Seconds that each program waits after a change, where it can be told."""

TIMER_S: Final = 60.0
"""Seconds between two starts of a program that is run by a timer."""


class StandingTool(ABC):
    """Moves what lands in ``source`` to ``destination``, from `start` to `stop`."""

    name: str
    how: str
    removes = True
    """Whether a file is gone from the source when it has arrived."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.destination = folder / "source", folder / "destination"
        self.source.mkdir(parents=True)
        self.destination.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def start(self) -> None:
        """Start both ends; returns when they are at work."""

    def run(self, *argv: object, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program that `stop` will end; what it says is in a log of its own."""
        with (self.folder / f"{len(self.processes)}.log").open("wb") as said:
            process = subprocess.Popen(
                [str(each) for each in argv],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, **(environment or {})},
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End both."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(20)


@final
class Realize(StandingTool):
    """Two daemons."""

    name, how = "Realize", f"settle {SETTLE_S} s; TLS, verified, durable"

    def start(self) -> None:
        """See `StandingTool`."""
        site = Site(self.folder, inbox=self.destination)
        site.start()
        assert site.daemon is not None
        config = self.folder / "mover.toml"
        config.write_text(
            f'key = "command.key"\nlisten = []\n[peers.hostb]\naddress = "127.0.0.1:{site.port}"\n'
            f'key = "{site.keys["daemon"]}"\n[moves.bench]\nfrom = [{json.dumps(str(self.source))}]\n'
            f'to = "hostb::inbox"\nsettle = "{SETTLE_S}s"\n'
        )
        log = self.folder / "mover.log"
        mover = start_daemon(config, log)
        wait_for(lambda: b'"event":"started"' in log.read_bytes())
        self.processes += [mover, site.daemon]


@final
class Lsyncd(StandingTool):
    """Starts rsync, which removes what it has copied, after a delay."""

    name, how = "lsyncd and rsync", f"delay {SETTLE_S} s, to rsyncd, --remove-source-files; not encrypted, not durable"

    def start(self) -> None:
        """See `StandingTool`."""
        port = free_port()
        rsyncd = self.folder / "rsyncd.conf"
        rsyncd.write_text(
            f"address = 127.0.0.1\nuse chroot = no\nuid = {os.geteuid()}\ngid = {os.getegid()}\n"
            f"[inbox]\npath = {self.destination}\nread only = no\n"
        )
        config = self.folder / "lsyncd.lua"
        config.write_text(
            f'settings {{ nodaemon = true, logfile = "{self.folder}/lsyncd.log" }}\n'
            f'sync {{ default.rsync, source = "{self.source}", target = "rsync://127.0.0.1:{port}/inbox",\n'
            f"  delay = {SETTLE_S}, delete = false,\n"
            '  rsync = { archive = true, compress = false, _extra = { "--remove-source-files" } } }\n'
        )
        server = self.run("rsync", "--daemon", "--no-detach", f"--port={port}", f"--config={rsyncd}")
        wait_until_listening(port)
        self.run("lsyncd", "-nodaemon", config)
        self.processes.remove(server)
        self.processes.append(server)
        time.sleep(3)  # it says nothing when it watches


@final
class Syncthing(StandingTool):
    """Keeps two directories the same: it copies, and what is removed at one end goes at the other one as well."""

    name, how = "Syncthing", f"fsWatcherDelayS {SETTLE_S}; TLS; removes nothing"
    removes = False

    def start(self) -> None:
        """See `StandingTool`."""
        homes = [self.folder / "syncthing-source", self.folder / "syncthing-destination"]
        for home in homes:
            subprocess.run(
                ["syncthing", "generate", f"--home={home}", "--no-default-folder"], check=True, capture_output=True
            )
        ids = [
            subprocess.run(
                ["syncthing", f"--home={home}", "--device-id"], check=True, capture_output=True, text=True
            ).stdout.strip()
            for home in homes
        ]
        ports = [free_port(), free_port()]
        for home, folder, port in zip(homes, (self.source, self.destination), ports, strict=True):
            (folder / ".stfolder").mkdir()
            (home / "config.xml").write_text(_syncthing_config(folder, port, ids, ports))
        for home in homes:
            environment = {"HOME": str(self.folder), "STNORESTART": "1", "STNOUPGRADE": "1"}
            self.run("syncthing", "serve", f"--home={home}", "--no-browser", environment=environment)
        probe = self.source / "probe"
        probe.write_bytes(b"1")
        wait_for((self.destination / "probe").exists, 90)


def _syncthing_config(folder: Path, port: int, ids: Sequence[str], ports: Sequence[int]) -> str:
    devices = "".join(
        f'<device id="{each}" name="{at}" compression="never"><address>tcp://127.0.0.1:{at}</address></device>'
        for each, at in zip(ids, ports, strict=True)
    )
    members = "".join(f'<device id="{each}"/>' for each in ids)
    return (
        f'<configuration version="36">'
        f'<folder id="bench" path="{folder}" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true" '
        f'fsWatcherDelayS="{SETTLE_S}">{members}</folder>{devices}<gui enabled="false"/>'
        f"<options><listenAddress>tcp://127.0.0.1:{port}</listenAddress>"
        "<globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>"
        "<relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted>"
        "<reconnectionIntervalS>2</reconnectionIntervalS><startBrowser>false</startBrowser>"
        "<autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled>"
        "</options></configuration>"
    )


@final
class Rclone(StandingTool):
    """Run by a timer, as cron(8) or a unit of systemd would."""

    name, how = "rclone move", f"each minute, --min-age {SETTLE_S}s, to rclone serve sftp; SSH, not durable"

    def start(self) -> None:
        """See `StandingTool`."""
        port = free_port()
        server = self.run(
            "rclone", "serve", "sftp", self.destination, f"--addr=127.0.0.1:{port}", "--user=u", "--pass=p",
            environment={"HOME": str(self.folder)},
        )  # fmt: skip
        wait_until_listening(port)
        word = subprocess.run(["rclone", "obscure", "p"], check=True, capture_output=True, text=True).stdout.strip()
        target = f":sftp,host=127.0.0.1,port={port},user=u,pass={word}:"
        script = (
            f'while :; do rclone move "{self.source}" "{target}" --min-age {SETTLE_S}s & sleep {TIMER_S:g}; wait; done'
        )
        self.run("/bin/sh", "-c", script, environment={"HOME": str(self.folder)})
        self.processes.remove(server)
        self.processes.append(server)


TOOLS: Final[Sequence[type[StandingTool]]] = (Realize, Lsyncd, Syncthing, Rclone)


class Arrivals:
    """Notes when each file that was announced is there, with its size, and gone from the source if the tool removes."""

    def __init__(self, tool: StandingTool) -> None:
        self._tool = tool
        self._waiting: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.latencies: list[float] = []
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def closed(self, name: str, size: int) -> None:
        """Announce a file that was closed just now."""
        with self._lock:
            self._waiting[name] = (time.monotonic(), size)

    def wait(self, seconds: float) -> int:
        """Wait until all have arrived, or so long; the answer is how many are missing."""
        ends = time.monotonic() + seconds
        while self._waiting and time.monotonic() < ends:
            time.sleep(0.05)
        self._stopping.set()
        self._thread.join()
        return len(self._waiting)

    def _look_on(self) -> None:
        while not self._stopping.wait(0.01):
            with self._lock:
                waiting = list(self._waiting.items())
            for name, (closed, size) in waiting:
                try:
                    there = (self._tool.destination / name).stat().st_size == size
                except FileNotFoundError:
                    continue
                if there and not (self._tool.removes and (self._tool.source / name).exists()):
                    self.latencies.append(time.monotonic() - closed)
                    with self._lock:
                        del self._waiting[name]
