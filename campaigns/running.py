"""Run cases, one after the other or several at a time, and collect their figures."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Final

from benchmarks.tables import table
from campaigns.oracle import LOST, Fault, files, shown
from campaigns.scenes import SCENES
from campaigns.stage import Report

_SPACING: Final = 100_000
"""The distance between the seeds of two campaigns."""


def run_case(scene: str, seed: int, top: str, artefacts: str) -> Report:
    """Run one case, in a folder of its own; the folder of a failed one is copied to the artefacts."""
    report = Report(scene, seed)
    folder = Path(tempfile.mkdtemp(prefix=f"{scene}-{seed}-", dir=top))
    begun = time.monotonic()
    try:
        SCENES[scene](folder, report)
    except Exception:  # noqa: BLE001
        report.faults.append(Fault("campaign", traceback.format_exc()))
    report.seconds = time.monotonic() - begun
    if report.faults:
        _keep(folder, report, Path(artefacts))
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _keep(folder: Path, report: Report, artefacts: Path) -> None:
    kept = artefacts / f"{report.scene}-{report.seed}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for path in [*folder.glob("*.log"), *folder.glob("*.toml")]:
        shutil.copy(path, kept)
    listing = [f"{status.st_size:10} {status.st_mode:o} {shown(path)}" for path, status in files(folder)]
    (kept / "files").write_text("\n".join(listing) + "\n")
    found = [[each.kind, each.text] for each in report.faults]
    record = {"scene": report.scene, "seed": report.seed, "title": report.title, "faults": found}
    (kept / "report.json").write_text(json.dumps({**record, "events": report.events}, indent=1))


def _cases(scenes: Sequence[str], seed: int) -> Iterator[tuple[str, int]]:
    number = seed * _SPACING
    while True:
        for scene in scenes:
            yield scene, number
        number += 1


def campaign(
    scenes: Sequence[str], *, events: int, seed: int, jobs: int, folder: str, artefacts: str
) -> Iterator[Report]:
    """Run cases of each scene in turn, until enough events have been counted."""
    cases, counted = _cases(scenes, seed), 0
    with (
        tempfile.TemporaryDirectory(prefix="campaign-", dir=folder) as top,
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=20) as pool,
    ):
        running: set[Future[Report]] = set()
        while running or counted < events:
            while len(running) < jobs and counted < events:
                running.add(pool.submit(run_case, *next(cases), top, artefacts))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                report = each.result()
                counted += report.events.total()
                yield report


def summary(reports: Sequence[Report]) -> str:
    """A report of what was done in each scene, and of what happened to files."""
    rows = []
    for scene in [*dict.fromkeys(each.scene for each in reports), "all"]:
        mine = [each for each in reports if scene in {each.scene, "all"}]
        events = sum((each.events for each in mine), Counter[str]())
        counts = sum((each.counts for each in mine), Counter[str]())
        faults = [fault.kind for each in mine for fault in each.faults]
        lost = faults.count(LOST)
        figures = [len(mine), events.total(), counts["commands"], counts["files"], counts["checks"], lost]
        kinds = ", ".join(f"{name} {number}" for name, number in events.most_common())
        rows.append([scene, *map(str, figures), str(len(faults) - lost), kinds])
    text = table(["scene", "cases", "events", "commands", "files", "checks", "lost", "other faults", ""], rows)
    counts = sum((each.counts for each in reports), Counter[str]())
    for name in ("commands", "files", "checks"):
        del counts[name]
    return text + "\n\n" + ", ".join(f"{name}: {number}" for name, number in counts.most_common())
