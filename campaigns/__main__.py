"""Run campaigns until a number of events have hit running processes; docs/campaigns.md describes the events.

    python -m campaigns [--events 2000] [--seed 1] [--jobs 2] [--folder /dev/shm] [--artefacts DIR] [SCENE ...]
    python -m campaigns --case SCENE:SEED

The exit code is 0 if no fault was found, 1 if there was one, and 2 if this machine lacks what a campaign needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter

from campaigns.mounts import isolate, missing
from campaigns.running import campaign, run_case, summary
from campaigns.scenes import SCENES
from campaigns.stage import Report


def main() -> int:
    """Run the campaigns of the command line."""
    parser = argparse.ArgumentParser(prog="python -m campaigns", description=__doc__.split("\n", 1)[0])
    parser.add_argument("scenes", nargs="*", default=list(SCENES), metavar="SCENE", help=", ".join(SCENES))
    parser.add_argument("--events", type=int, default=2000, help="stop after so many (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="another one is another campaign (default 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at a time (default: one per processor)")
    parser.add_argument("--folder", default="/dev/shm", help="where the cases work (default /dev/shm)")
    parser.add_argument("--artefacts", default="campaign-artefacts", help="where what failed is kept")
    parser.add_argument("--case", metavar="SCENE:SEED", help="this one case")
    options = parser.parse_args()
    unknown = [scene for scene in options.scenes if scene not in SCENES]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(SCENES)}")
    if lacks := missing():
        print("this machine cannot run the campaigns; it lacks", *lacks, sep="\n  ", file=sys.stderr)
        return 2
    isolate()
    if options.case:
        scene, _, seed = options.case.partition(":")
        reports = [run_case(scene, int(seed), options.folder, options.artefacts)]
        _say(reports[0])
    else:
        reports = []
        for report in campaign(
            options.scenes,
            events=options.events,
            seed=options.seed,
            jobs=options.jobs,
            folder=options.folder,
            artefacts=options.artefacts,
        ):
            reports.append(report)
            _say(report)
    print(summary(reports))
    return int(any(each.faults for each in reports))


def _say(report: Report) -> None:
    for kind, number in Counter(fault.kind for fault in report.faults).items():
        first = next(fault.text for fault in report.faults if fault.kind == kind)
        print(f"{report.scene}:{report.seed} ({report.title}): {kind} x {number}: {first}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
