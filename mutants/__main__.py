"""Put small faults into the code, one at a time, and say which the tests do not notice; docs/testing.md says more.

    python -m mutants [--faults 1500] [--seed 1] [--jobs 2] [--again] [MODULE ...]

MODULE is a file or folder below realize/, by default those that guard the two rules. The exit code is 0 if each of them
has the score that is wanted, and 1 if not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from mutants import recording, trial
from mutants.faults import Fault, faults
from mutants.trial import Mutation, Running, Verdict

GUARDS: Final = (
    "fs",
    "concurrency",
    "store",
    "mover",
    "daemon/peer_changes.py",
    "daemon/steering.py",
    "wire/control.py",
    "wire/server.py",
    "wire/responding.py",
    "wire/arguments.py",
)
WANTED: Final = 0.95
"""Of the faults that are not equivalent, so many are to be noticed."""

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_WORK: Final = _CHECKOUT / ".mutants"
_CONFINED: Final = "REALIZE_MUTANTS_CONFINED"
_TESTS_S: Final = 20.0
"""The tests for one fault take no longer than this, where there is no fault."""
_CONTROL_S: Final = 0.2


@frozen
class Result:
    """How a fault was taken."""

    file: str
    fault: Fault
    verdict: Verdict
    equivalent: str | None = None


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("modules", nargs="*", default=GUARDS, metavar="MODULE", help="below realize/")
    parser.add_argument("--faults", type=int, default=1500, help="try so many, drawn at random (default 1500; 0: all)")
    parser.add_argument("--seed", type=int, default=1, help="another one draws others (default 1)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="trials at a time (default: one per processor)"
    )
    parser.add_argument("--again", action="store_true", help="do not run all tests first to see what each executes")
    options = parser.parse_args()
    files = _files(options.modules)
    if not options.again or not (_WORK / "record").exists():
        _record()
    _confine()
    record = recording.Record.load(_WORK / "record", _CHECKOUT)
    known = _equivalent()
    drawn = _draw(files, options.faults, options.seed)
    trial.prepare()
    _control(drawn, record)
    results: list[Result] = []
    for result in _try(drawn, record, known, options.jobs or 1):
        results.append(result)
        if result.verdict in {Verdict.SURVIVED, Verdict.NOT_RUN} and result.equivalent is None:
            print(f"{result.verdict.value}: {result.file}:{result.fault.line}: {result.fault.name}", flush=True)
    return _summarise(results, known, files, all_drawn=not options.faults)


def _files(modules: Sequence[str]) -> list[str]:
    files: list[str] = []
    for module in modules:
        path = _CHECKOUT / "realize" / module
        if not path.exists():
            sys.exit(f"there is no realize/{module}")
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        files.extend(str(each.relative_to(_CHECKOUT)) for each in found)
    return files


def _record() -> None:
    """Run the tests once, to learn which of them execute a line."""
    print("running all tests once, to learn what each executes ...", flush=True)
    folder = _WORK / "record"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {**os.environ, recording.FOLDER: str(folder), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(os.cpu_count()), "-p", "mutants.recording"]
    if subprocess.run(command, cwd=_CHECKOUT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode:
        sys.exit("the tests fail without any fault")


def _confine() -> None:
    """Begin anew where nothing but scratch can be written to, if we are root.

    A check with a fault may let through what a test hopes to see refused.
    """
    if os.geteuid() or _CONFINED in os.environ:
        return
    _WORK.mkdir(exist_ok=True)
    script = (
        'mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp '
        '&& mount -t tmpfs tmpfs /dev/shm && shift && exec "$@"'
    )
    arguments = sys.argv[1:] if "--again" in sys.argv else [*sys.argv[1:], "--again"]
    again = [sys.executable, "-m", "mutants", *arguments]
    environment = {**os.environ, _CONFINED: "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(_WORK / "hypothesis")}
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(_WORK), *again]
    os.execvpe(command[0], command, environment)


def _equivalent() -> dict[str, dict[str, str]]:
    """The faults that change nothing anybody could see, and why, by file."""
    with (_CHECKOUT / "mutants" / "equivalent.toml").open("rb") as file:
        return tomllib.load(file)


def _draw(files: Sequence[str], count: int, seed: int) -> list[tuple[str, Fault]]:
    every = [(file, fault) for file in files for fault in faults((_CHECKOUT / file).read_text())]
    chosen = random.Random(seed).sample(every, min(count, len(every)) if count else len(every))
    return sorted(chosen, key=lambda each: (each[0], each[1].line))


def _control(drawn: Sequence[tuple[str, Fault]], record: recording.Record) -> None:
    """Stop if the tests fail without a fault: each would seem to be noticed."""
    controlled: set[str] = set()
    for file, fault in drawn:
        if file in controlled or not (tests := record.covering(file, fault.line, _CONTROL_S)):
            continue
        controlled.add(file)
        output = _WORK / "output.control"
        running = trial.start(Mutation(file, (_CHECKOUT / file).read_text(), tuple(tests), 60.0), _CHECKOUT, output)
        while (verdict := running.poll()) is None:
            time.sleep(0.01)
        if verdict is not Verdict.SURVIVED:
            sys.exit(f"the tests of {file} fail without any fault:\n{output.read_text()[-4000:]}")


def _try(
    drawn: Sequence[tuple[str, Fault]], record: recording.Record, known: dict[str, dict[str, str]], jobs: int
) -> Iterator[Result]:
    """Each fault's result, as they come."""
    waiting = list(reversed(drawn))
    running: dict[int, tuple[Running, str, Fault]] = {}
    slots = list(range(jobs))
    while waiting or running:
        while waiting and slots:
            file, fault = waiting.pop()
            reason = known.get(file, {}).get(fault.name)
            tests = record.covering(file, fault.line, _TESTS_S)
            if reason is not None or not tests:
                yield Result(file, fault, Verdict.SURVIVED if tests else Verdict.NOT_RUN, reason)
                continue
            limit_s = 15 + 4 * sum(record.seconds.get(test, 0.0) for test in tests)
            slot = slots.pop()
            mutation = Mutation(file, fault.source, tuple(tests), limit_s)
            running[slot] = (trial.start(mutation, _CHECKOUT, _WORK / f"output.{slot}"), file, fault)
        for slot, (started, file, fault) in list(running.items()):
            verdict = started.poll()
            if verdict is not None:
                del running[slot]
                slots.append(slot)
                yield Result(file, fault, verdict)
        time.sleep(0.01)


def _summarise(
    results: Sequence[Result],
    known: dict[str, dict[str, str]],
    files: Sequence[str],
    *,
    all_drawn: bool,
) -> int:
    print(f"\n{'module':<34}{'faults':>8}{'equal':>7}{'noticed':>9}{'hung':>6}{'score':>8}")
    fine = True
    for file in files:
        mine = [each for each in results if each.file == file]
        if not mine:
            continue
        fine = _line(file, mine) >= WANTED and fine
    fine = _line("all", results) >= WANTED and fine
    if all_drawn:
        names = {(each.file, each.fault.name) for each in results}
        for file, entries in known.items():
            for name in entries:
                if file in files and (file, name) not in names:
                    print(f"equivalent.toml: {file} has no such fault any more: {name}")
    for file in files:
        lines = sorted({each.fault.line for each in results if each.file == file and each.verdict is Verdict.NOT_RUN})
        if lines:
            print(f"no test in this process runs {file}:{','.join(map(str, lines))}")
    return 0 if fine else 1


def _line(name: str, results: Sequence[Result]) -> float:
    counted = [each for each in results if each.equivalent is None]
    hung = sum(each.verdict is Verdict.HUNG for each in counted)
    noticed = hung + sum(each.verdict is Verdict.NOTICED for each in counted)
    score = noticed / len(counted) if counted else 1.0
    print(f"{name:<34}{len(results):>8}{len(results) - len(counted):>7}{noticed:>9}{hung:>6}{score:>8.1%}")
    return score


if __name__ == "__main__":
    sys.exit(main())
