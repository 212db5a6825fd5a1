"""Compare Realize with the tools that people move files with today, on this machine, in one table.

    make bench
    python -m benchmarks.compare [--quick] [--runs 5] [--only W1,W2] [--fs shm,disk] [--tools rsync-ssh,...]

The other tools, the workloads and the timing come from ``peers.py``, which is not part of this repository: its folder
is ``../shared/bench`` beside the checkout, or the one that ``--peers`` or the environment variable ``REALIZE_PEERS``
names.
It sets up each run anew, measures the time from the start of the command to its end, reads /proc for both sides, and
compares the destination with the original byte by byte; the tools take turns, so that all get the same conditions.
Daemons (ours, sshd, rsyncd and stunnel) are started before the measurement, and their CPU time is counted.
Its ``results.jsonl`` has every single run.

``speed`` is how many times as fast a tool is as the fastest encrypted peer that does the same work; on the disk,
``durable`` compares with the fastest of those that wait for the disk, as we always do.
``src`` is the command with its child processes, ``dst`` the daemon with its own.
``wire`` is what the loopback interface carried, including other traffic and that between stunnel and rsyncd.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import statistics
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import moving
from benchmarks.machine import print_machine
from benchmarks.tables import mebibytes, spread, table
from realize.fs.names import partial_name
from realize.keys import generate_identity, write_identity
from tests.processes import UNSET

ROOT: Final = Path(__file__).resolve().parent.parent
SCRIPTS: Final = Path(sysconfig.get_path("scripts"))
PORT: Final = 22950
OURS: Final = "realize"
RAW: Final = "raw Twisted TLS"

CASES: Final = [
    ("W1", "shm"),
    ("W1", "disk"),
    ("W2", "shm"),
    ("W2", "disk"),
    ("W3", "shm"),
    ("W4", "shm"),
    ("W5", "shm"),
]
QUICK: Final = [("W1", "shm"), ("W2", "shm"), ("W3", "shm")]

PEERS: Final = {
    "W1": ["rsync-ssh", "rsync-ssh-aes", "rsync-ssl-nodelay", "rclone-sftp", "rclone-webdavs", "lftp"],
    "W2": ["rsync-ssh", "rsync-ssl-nodelay", "rclone-sftp", "rclone-sftp-t8", "lftp", "lftp-p4"],
    "W3": [
        "rsync-ssh",
        "rsync-ssh-aes",
        "rsync-ssl-nodelay",
        "rclone-sftp",
        "rclone-sftp-t8",
        "rclone-webdavs",
        "lftp-p4",
    ],
    "W4": ["rsync-ssh", "rsync-ssh-b4k", "rsync-ssh-inplace", "rsync-ssh-whole", "rsync-ssl-nodelay"],
    "W5": ["rsync-ssh", "rsync-ssh-append-verify", "rsync-ssl-nodelay"],
}
"""The encrypted tools that are compared with ours."""

DURABLE: Final = ["rsync-ssh-fsync", "rsync-ssl-nodelay-fsync"]
"""The tools that wait for the disk; compared on the disk only."""

QUICK_PEERS: Final = {"rsync-ssh", "rsync-ssh-aes", "rsync-ssl-nodelay", "rclone-sftp"}

REFERENCES: Final = {
    "rsync-daemon-nodelay": "not encrypted",
    "rsync-ssh-append": "does not look at the half that is there",
    "lftp-continue": "does not look at the half that is there",
    "realize-damaged": "a byte of the half that is there is wrong",
    RAW: "bytes only, without start-up",
}
"""Tools that are measured but not compared with, and why."""

REFERENCES_OF: Final = {
    "W5": ["rsync-daemon-nodelay", "rsync-ssh-append", "lftp-continue", "realize-damaged"],
}

PACKAGES: Final = {
    "rsync": "rsync",
    "rsync-ssl": "rsync",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "stunnel4": "stunnel4",
    "openssl": "openssl",
    "rclone": "rclone",
    "lftp": "lftp",
}
"""The Debian package of each program."""

ROOM: Final = 3.2
"""Space that a run needs, in sizes of the workload: for both sides, and for memory that is warmed up first."""


# The peers


def load_peers(folder: Path) -> Any:
    """The module ``peers.py`` in a folder; None if it does not exist."""
    path = folder / "peers.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("peers", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["peers"] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def add_realize(peers: Any) -> None:
    """Add Realize to the tools."""

    class Daemon(peers.Server):
        port = OURS

        def argv(self) -> list[Any]:
            config = peers.CONF / f"realized-{self.fs}.toml"
            return [SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "realized", "--config", config]

    class Realize(peers.Tool):
        name, how, fsyncs = OURS, "TLS 1.3, both keys pinned; every file verified and durable", True
        workloads = tuple(peers.WORKLOADS)

        def servers(self, job: Any) -> list[Any]:
            return [Daemon(job.fs)]

        def command(self, job: Any) -> list[str]:
            config = str(peers.CONF / "realize.toml")
            return [str(SCRIPTS / "realize"), "--config", config, "--quiet", str(job.src), "hostb::inbox"]

        def partial_place(self, job: Any) -> Path:
            return Path(job.dst, os.fsdecode(partial_name(os.fsencode(peers.BIG))))

    class Damaged(Realize):
        """The same with a wrong byte in the half that is there: it must be detected, and everything after it sent."""

        name = "realize-damaged"
        workloads = ("W5",)

        def servers(self, job: Any) -> list[Any]:
            with self.partial_place(job).open("r+b") as file:
                file.seek(job.workload.partial // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))
            return super().servers(job)

    peers.PORTS[OURS] = PORT
    for tool in (Realize(), Damaged()):
        peers.TOOLS[tool.name] = tool
    for name in UNSET:
        peers.ENVIRONMENT.pop(name, None)


def needs(peers: Any, tool: Any) -> set[str]:
    """The programs that a tool consists of."""
    ssh = {"ssh", "ssh-keygen", "sshd"}
    if isinstance(tool, peers.Rsync):
        encryption: dict[str, set[str]] = {"ssh": ssh, "ssl": {"rsync-ssl", "stunnel4", "openssl"}}
        return {"rsync"} | encryption.get(tool.transport.split("-")[0], set())
    if isinstance(tool, peers.Rclone):
        return {"rclone"} | (ssh if tool.remote == "sftp" else {"openssl"})
    if isinstance(tool, peers.Lftp):
        return {"lftp"} | ssh
    return set()


def missing_programs(programs: set[str]) -> set[str]:
    """The programs that are missing on this machine."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {program for program in programs if shutil.which(program, path=path) is None}


def prepare(peers: Any) -> None:
    """Write keys, configurations and workloads where `peers.setup` does, for the tools that this machine has."""
    for folder in (peers.CONF, peers.LOGS, peers.BENCH / "home", peers.BENCH / "work"):
        folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and not missing_programs({"ssh-keygen"}):
        peers.make_ssh()
    if not missing_programs({"openssl"}):
        peers.make_certificates()
    peers.make_configurations()
    print(f"writing the workloads below {peers.DATA}, where they stay", file=sys.stderr)
    peers.build_workloads()
    keys = {}
    for name in ("command", "daemon"):
        file = peers.CONF / f"{name}.realize-key"
        file.unlink(missing_ok=True)
        identity = generate_identity()
        write_identity(str(file), identity)
        keys[name] = identity.public_key.base64
    for fs, root in peers.ROOTS.items():
        (peers.CONF / f"realized-{fs}.toml").write_text(
            f'key = "daemon.realize-key"\nlisten = ["tcp:{PORT}:interface=127.0.0.1"]\n'
            f'[dirs.inbox]\npath = "{root / "dst"}"\n'
            f'[peers.bench]\nkey = "{keys["command"]}"\ndirs = {{ inbox = ["read", "write", "remove"] }}\n'
        )
    (peers.CONF / "realize.toml").write_text(
        f'key = "command.realize-key"\n[peers.hostb]\naddress = "127.0.0.1:{PORT}"\nkey = "{keys["daemon"]}"\n'
    )


# The runs


class Comparison:
    """Measures, and keeps the results."""

    def __init__(self, peers: Any, runs: int) -> None:
        self._peers = peers
        self._runs = runs
        self.notes: list[str] = []
        self._said: set[str] = set()

    def case(self, workload: str, fs: str, wanted: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of every tool for one workload; the tools take turns."""
        names = list(self._usable(workload, wanted))
        payload = self._peers.WORKLOADS[workload].payload
        if not self._has_room(workload, fs, payload):
            return {}
        if workload == "W1" and fs == "shm" and not missing_programs({"openssl"}):
            names.append(RAW)
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for run in range(1, self._runs + 1):
            for name in names:
                if any(row["timed_out"] for row in rows[name]):
                    continue
                row = self._raw(payload) if name == RAW else self._measured(name, workload, fs, run)
                rows[name].append(row)
                print(f"{workload} {fs:4} run {run} {name:24} {row['wall_s']:8.2f} s", file=sys.stderr)
        return rows

    def _measured(self, name: str, workload: str, fs: str, run: int) -> dict[str, Any]:
        row = self._peers.measure(self._peers.TOOLS[name], self._peers.WORKLOADS[workload], fs, run)
        disturbed = self._peers.disturbed_by_others(row)
        return {**row, "disturbed": disturbed}

    def _raw(self, payload: int) -> dict[str, Any]:
        rate = self._peers.stream_rate(sys.executable, "twisted256", payload) * (1 << 20)
        return {"wall_s": payload / rate, "timed_out": False, "ok": True, "faults": [], "exit_code": 0}

    def _usable(self, workload: str, wanted: Sequence[str]) -> Iterator[str]:
        for name in wanted:
            tool = self._peers.TOOLS[name]
            programs = needs(self._peers, tool)
            if workload not in tool.workloads:
                continue
            if lacking := missing_programs(programs):
                packages = " ".join(sorted({PACKAGES[program] for program in lacking}))
                self._say(f"left out, for want of {', '.join(sorted(lacking))}: {name} (apt-get install {packages})")
            elif programs and os.geteuid():
                self._say(f"left out, for its server wants root here: {name}")
            else:
                yield name

    def _has_room(self, workload: str, fs: str, payload: int) -> bool:
        root = self._peers.ROOTS[fs]
        place = root if root.exists() else root.parent
        free = shutil.disk_usage(place).free
        if free < ROOM * payload:
            self._say(
                f"left out, for want of room: {workload} on {place}, "
                f"which has {mebibytes(free)} MiB free and needs {mebibytes(ROOM * payload)}"
            )
            return False
        return True

    def _say(self, note: str) -> None:
        if note not in self._said:
            self._said.add(note)
            self.notes.append(note)
            print(note, file=sys.stderr)


# The table

HEAD: Final = (
    "", "tool", "seconds", "min to max", "rate", "speed", "durable", "+sync s", "CPU s src", "dst", "MiB src", "dst",
    "wire MB", "runs", "remarks",
)  # fmt: skip


def is_peer(name: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether these are valid runs of another tool that does the same work as we do."""
    return name != OURS and name not in REFERENCES and bool(rows) and all(row["ok"] for row in rows)


def best_seconds(by_tool: dict[str, list[dict[str, Any]]], *, durable: bool) -> float | None:
    """The time in seconds of the fastest encrypted peer, or of the fastest that waits for the disk."""
    return min(
        (
            statistics.median(row["wall_s"] for row in rows)
            for name, rows in by_tool.items()
            if is_peer(name, rows) and (rows[0]["fsyncs"] or not durable)
        ),
        default=None,
    )


def case_rows(
    label: str, files: int, payload: int, by_tool: dict[str, list[dict[str, Any]]], *, on_disk: bool
) -> Iterator[list[str]]:
    """The lines of one workload, the fastest first."""
    best = best_seconds(by_tool, durable=False)
    best_durable = best_seconds(by_tool, durable=True) if on_disk else None

    def of(reference: float | None, seconds: float) -> str:
        return "" if reference is None else f"{reference / seconds:.2f}x"

    def middle(rows: Sequence[dict[str, Any]], *keys: str, unit: float = 1, places: int = 0) -> str:
        if keys[0] not in rows[0]:
            return ""
        return f"{statistics.median(sum(row[key] for key in keys) for row in rows) / unit:.{places}f}"

    measured = {name: rows for name, rows in by_tool.items() if rows}
    for name, rows in sorted(measured.items(), key=lambda item: statistics.median(row["wall_s"] for row in item[1])):
        walls = [row["wall_s"] for row in rows]
        seconds = statistics.median(walls)
        yield [
            label,
            name,
            f"{seconds:.2f}",
            spread(walls),
            f"{files / seconds:,.0f} files/s" if files > 2000 else f"{payload / seconds / 1e6:,.0f} MB/s",
            of(best, seconds),
            of(best_durable, seconds),
            middle(rows, "settle_s", places=2) if on_disk else "",
            middle(rows, "client_user_s", "client_system_s", places=2),
            middle(rows, "server_user_s", "server_system_s", places=2),
            middle(rows, "client_peak_rss", unit=1 << 20),
            middle(rows, "server_peak_rss", unit=1 << 20),
            middle(rows, "wire_bytes", unit=1e6, places=1),
            str(len(rows)),
            remarks(name, rows),
        ]


def remarks(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Remarks that are needed to interpret these runs."""
    found = [REFERENCES[name]] if name in REFERENCES else []
    if any(row["timed_out"] for row in rows):
        found.append("given up")
    elif faults := [row for row in rows if not row["ok"]]:
        found.append(f"WRONG: exit code {faults[0]['exit_code']}, {'; '.join(faults[0]['faults'])[:80]}")
    if disturbed := sum(row.get("disturbed", False) for row in rows):
        found.append(f"{disturbed} beside other load")
    return "; ".join(found)


def beside_raw(by_tool: dict[str, list[dict[str, Any]]]) -> str | None:
    """The rate of moving one file as a fraction of the rate of raw bytes, start-up included."""
    if not by_tool.get(RAW) or not by_tool.get(OURS):
        return None
    raw, ours = (statistics.median(row["wall_s"] for row in by_tool[name]) for name in (RAW, OURS))
    return f"W1: {raw / ours:.2f} of the rate of raw bytes through Twisted's TLS (wanted: at least 0.75)"


def tools_of(workload: str, fs: str, *, quick: bool) -> list[str]:
    """The tools to measure, ours first."""
    peers = PEERS[workload] + (DURABLE if fs == "disk" else [])
    references = REFERENCES_OF.get(workload, ["rsync-daemon-nodelay"])
    if quick:
        peers = [name for name in peers if name in QUICK_PEERS]
    return [OURS, *peers, *references]


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds, three workloads, few tools, RAM disk only")
    parser.add_argument("--runs", type=int, help="rounds  [default: 5]")
    parser.add_argument("--only", metavar="W1,...", help="workloads")
    parser.add_argument("--fs", metavar="shm,disk", help="file systems")
    parser.add_argument("--tools", metavar="NAME,...", help="other tools than the usual ones")
    parser.add_argument(
        "--peers",
        type=Path,
        default=os.environ.get("REALIZE_PEERS") or ROOT.parent / "shared" / "bench",
        help="the folder of peers.py  [default: REALIZE_PEERS, or ../shared/bench beside the checkout]",
    )
    arguments = parser.parse_args()
    print_machine()
    peers = load_peers(arguments.peers)
    if peers is None:
        print(
            f"{arguments.peers}/peers.py, which runs the other tools, is missing (name its folder with --peers or "
            "REALIZE_PEERS): only Realize is measured"
        )
        moving.report(list(moving.WORKLOADS), "/dev/shm", arguments.runs or 3)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    peers.become_subreaper()
    add_realize(peers)
    prepare(peers)
    comparison = Comparison(peers, arguments.runs or (3 if arguments.quick else 5))
    lines: list[list[str]] = []
    for workload, fs in QUICK if arguments.quick else CASES:
        if (arguments.only and workload not in arguments.only.split(",")) or (
            arguments.fs and fs not in arguments.fs.split(",")
        ):
            continue
        tools = arguments.tools.split(",") if arguments.tools else tools_of(workload, fs, quick=arguments.quick)
        by_tool = comparison.case(workload, fs, tools)
        about = peers.WORKLOADS[workload]
        lines += case_rows(f"{workload} {fs}", about.files, about.payload, by_tool, on_disk=fs == "disk")
        if note := beside_raw(by_tool):
            comparison.notes.append(note)
    print(table(HEAD, lines, left=2))
    for workload in dict.fromkeys(line[0].split()[0] for line in lines):
        print(f"{workload}: {peers.WORKLOADS[workload].title}")
    print(*comparison.notes, sep="\n")


if __name__ == "__main__":
    main()
