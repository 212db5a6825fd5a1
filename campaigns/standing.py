"""A soak of standing moves: two daemons, a hostile producer, kills and a link that breaks; docs/campaigns.md has more.

    python -m campaigns.standing [--seconds 3600] [--seed 1] [--settle 1] [--folder /dev/shm] [--artefacts DIR]

The exit code is 0 if no fault was found, and 1 if there was one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.procfs import peak_memory
from campaigns.hostile_producer import HostileProducer
from campaigns.ledger import FORGOTTEN, Ledger
from campaigns.oracle import Fault
from tests.processes import Proxy, Site, start_daemon, wait_for

CYCLE_S: Final = 60.0
"""Seconds with disturbances before a calm."""

LATE_S: Final = 5.0
"""Seconds, beside what it takes to settle, after which everything must have been moved in a calm."""

PATIENCE_S: Final = 120.0
"""Seconds after which a calm is given up."""

MAX_MORE_FILES: Final = 30
"""Open files that a daemon may have more in a calm than in the first one."""

DISTURBANCES: Final = (
    "kill mover",
    "kill receiver",
    "kill both",
    "stop mover",
    "cut",
    "half cut",
    "stall",
    "outage",
    "reload",
)

FAULTY: Final = {"internal_error", "twisted_failed", "python_failed", "metrics_failed", "records_dropped"}
"""Events of a log that say that something is wrong with the program."""


class Pair:
    """A daemon with a standing move, one that it moves to, and a proxy in between."""

    def __init__(self, folder: Path, settle_s: float) -> None:
        self.source, self.inbox = folder / "camera", folder / "inbox"
        self.source.mkdir()
        self._folder = folder
        self.receiver = Site(folder, inbox=self.inbox)
        self.receiver.start()
        self.proxy = Proxy(self.receiver.port)
        self.mover: subprocess.Popen[bytes] | None = None
        self._config = folder / "mover.toml"
        self.log = folder / "mover.log"
        self._config.write_text(
            f'key = "command.key"\nlisten = []\nstate = "state"\n'
            f'[peers.hostb]\naddress = "127.0.0.1:{self.proxy.port}"\n'
            f'key = "{self.receiver.keys["daemon"]}"\n'
            f'[moves.camera]\nfrom = [{json.dumps(str(self.source))}]\nto = "hostb::inbox"\non_conflict = "replace"\n'
            f'settle = "{settle_s}s"\nmanifest = "mover.jsonl"\n'
        )

    def start_mover(self) -> None:
        """Start the daemon with the standing move, and wait until it has started."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        self.mover = mover = start_daemon(self._config, self.log)
        wait_for(lambda: b'"event":"started"' in self.log.read_bytes()[seen:] or mover.poll() is not None)
        if mover.poll() is not None:
            raise AssertionError(f"the daemon did not start:\n{self.log.read_text()[seen:]}")

    def end_mover(self, number: signal.Signals) -> None:
        """End it, and wait for that."""
        assert self.mover is not None
        self.mover.send_signal(number)
        self.mover.wait(60)

    def pids(self) -> list[int]:
        """Both daemons."""
        return [process.pid for process in (self.mover, self.receiver.daemon) if process is not None]

    def close(self) -> None:
        """End everything."""
        self.proxy.stalled = False
        if self.mover is not None and self.mover.poll() is None:
            self.end_mover(signal.SIGTERM)
        self.receiver.stop()
        self.proxy.close()


class Soak:
    """Disturbs a pair while files are made, and looks at what becomes of them."""

    def __init__(self, folder: Path, seed: int, settle_s: float) -> None:
        self._rng = random.Random(seed)
        self.pair = Pair(folder, settle_s)
        self.ledger = Ledger(self.pair.source, self.pair.inbox, settle_s)
        self._settle_s = settle_s
        self.pair.start_mover()
        self.producer = HostileProducer(self.ledger, folder / "spool", seed)
        self.events: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.late: list[float] = []
        """Seconds from the beginning of each calm until everything had been moved."""
        self._files: list[int] = []
        self.peaks = [0, 0]
        """The most memory of both daemons so far, in bytes."""
        self._read_logs: dict[Path, int] = {}
        self.records: Counter[str] = Counter()
        """What both logs have, by level and event."""

    def cycle(self, seconds: float) -> None:
        """Disturb for so long, then let it come to rest, and look."""
        self.producer.go_on()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(self._rng.uniform(0.5, 5.0))
            self._disturb()
            self._look()
        self._rest()

    def _disturb(self) -> None:
        pair = self.pair
        kind = self._rng.choice(DISTURBANCES)
        self.events[kind] += 1
        if kind in {"kill mover", "kill both"}:
            pair.end_mover(signal.SIGKILL)
        if kind in {"kill receiver", "kill both", "outage"}:
            pair.receiver.stop(signal.SIGKILL)
        if kind == "stop mover":
            pair.end_mover(signal.SIGTERM)
        elif kind == "outage":
            time.sleep(self._rng.uniform(1.0, 10.0))
        elif kind == "stall":
            pair.proxy.stalled = True
            time.sleep(self._rng.uniform(0.1, 3.0))
            pair.proxy.stalled = False
        elif kind == "reload":
            assert pair.mover is not None
            pair.mover.send_signal(signal.SIGHUP)
        elif kind in {"cut", "half cut"}:
            pair.proxy.cut(both=kind == "cut")
        if pair.receiver.daemon is None:
            pair.receiver.start()
        if pair.mover is None or pair.mover.poll() is not None:
            pair.start_mover()

    def _look(self) -> None:
        self._note(*self.ledger.look(time.monotonic() - 0.5), *self.producer.faults)

    def _note(self, *faults: Fault) -> None:
        for fault in faults:
            if fault not in self.faults:
                self.faults.append(fault)
                print(f"{fault.kind}: {fault.text}", flush=True)

    def _rest(self) -> None:
        """No disturbance any more: everything complete by now must be moved in time."""
        self.pair.proxy.bury()
        self.producer.pause()
        calm = time.monotonic()
        while True:
            self._look()
            waited = time.monotonic() - calm
            waiting = self.ledger.waiting(calm)
            if not waiting or waited > PATIENCE_S:
                break
            time.sleep(0.1)
        self.late.append(waited)
        if waited > self._settle_s + LATE_S:
            what = f"{waiting} files still wait" if waiting else "everything was moved"
            self._note(Fault(FORGOTTEN, f"{what} {waited:.1f} s after the last fault (calm {len(self.late)})"))
        self._look_at_processes()
        self._look_at_logs()

    def _look_at_processes(self) -> None:
        pids = self.pair.pids()
        now = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
        self.peaks = [max(peak, peak_memory(pid)) for peak, pid in zip(self.peaks, pids, strict=True)]
        self._files = self._files or now
        for who, first, number in zip(("mover", "receiver"), self._files, now, strict=True):
            if number > first + MAX_MORE_FILES:
                self._note(Fault("leak", f"the {who} has {number} open files, and had {first}"))

    def _look_at_logs(self) -> None:
        for path in (self.pair.log, self.pair.receiver.log):
            with path.open("rb") as log:
                log.seek(self._read_logs.get(path, 0))
                lines = log.read().split(b"\n")
                self._read_logs[path] = log.tell() - len(lines[-1])
            for line in lines[:-1]:
                try:
                    record = json.loads(line)
                except ValueError:
                    self._note(Fault("log", f"{path.name}: {line[:300]!r}"))
                    continue
                self.records[f"{record['level']} {record['event']}"] += 1
                if record["event"] in FAULTY:
                    self._note(Fault("log", f"{path.name}: {line[:2_000].decode(errors='replace')}"))

    def end(self) -> None:
        """The producer ends; then everything must be there, once, and nothing else."""
        self.producer.stop()
        since = time.monotonic()
        self._rest()
        self._note(*self.ledger.final(since))

    def report(self) -> str:
        """What was done, and what came of it."""
        late = sorted(self.late)
        bound = self._settle_s + LATE_S
        mover, receiver = (f"{peak >> 20} MiB" for peak in self.peaks)
        loud = Counter({name: number for name, number in self.records.items() if name.startswith(("warn", "error"))})
        rests = (
            "none" if not late else f"median {late[len(late) // 2]:.1f} s, longest {late[-1]:.1f} s of {bound:.1f} s"
        )
        return f"""disturbances: {self.events.total()} ({_listed(self.events)})
producer: {_listed(self.producer.counts)}
files: {_listed(self.ledger.counts)}
until everything was moved in {len(late)} calms: {rests}
memory at most: mover {mover}, receiver {receiver}
records at warning and error: {_listed(loud)}
faults: {len(self.faults)} ({_listed(Counter(fault.kind for fault in self.faults))})"""


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.most_common())


def main() -> int:
    """Soak for as long as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.standing", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=3600, help="for how long (default an hour)")
    parser.add_argument("--seed", type=int, default=1, help="another one is another soak (default 1)")
    parser.add_argument("--settle", type=float, default=1.0, help="seconds after which a file has settled (default 1)")
    parser.add_argument("--folder", default="/dev/shm", help="where it works (default /dev/shm)")
    parser.add_argument("--artefacts", default="campaign-artefacts", help="where logs are kept if it fails")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"standing-{options.seed}-", dir=options.folder))
    ends = time.monotonic() + options.seconds
    soak = Soak(folder, options.seed, options.settle)
    try:
        while time.monotonic() < ends:
            soak.cycle(min(CYCLE_S, max(0.0, ends - time.monotonic())))
        soak.end()
    finally:
        soak.producer.stop()
        soak.pair.close()
        print(soak.report(), flush=True)
        if soak.faults:
            kept = Path(options.artefacts) / folder.name
            kept.mkdir(parents=True, exist_ok=True)
            for path in [*folder.glob("*.log"), *folder.glob("*.toml"), *folder.glob("*.jsonl")]:
                shutil.copy(path, kept)
        shutil.rmtree(folder, ignore_errors=True)
    return int(bool(soak.faults))


if __name__ == "__main__":
    sys.exit(main())
