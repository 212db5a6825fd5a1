"""Put what `benchmarks.compare` has saved into docs/performance.md, its picture, and benchmarks/FIGURES.md.

    python -m benchmarks.compare --rounds 5 --save docs/performance.jsonl
    python -m benchmarks.compare --rounds 5 --round-trip 0.2 --rate 1G --save docs/performance.jsonl --append
    python -m benchmarks.page

What stands between the comments ``<!-- figures: NAME -->`` and ``<!-- end of figures -->`` is made from the runs in
docs/performance.jsonl; all else in the pages is written by hand.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.comparison.catalogue import TOOLS
from benchmarks.comparison.plot import plot
from benchmarks.comparison.report import cost_table, legend, machine_text, time_table
from benchmarks.comparison.results import Case, Results, read
from benchmarks.comparison.workloads import WORKLOADS
from benchmarks.machine import ROOT

SAVED: Final = ROOT / "docs" / "performance.jsonl"
PAGES: Final = (ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "FIGURES.md")
PICTURE: Final = ROOT / "docs" / "performance.svg"

CHOICE: Final = (
    "realize", "rsync-ssh", "rsync-ssh-aes", "rsync-ssl", "rsyncd", "rclone-sftp", "rclone-webdav", "lftp"
)  # fmt: skip
"""The tools of the picture and of the first table."""


def near(results: Results, fs: str) -> list[Case]:
    """The cases without a link, as large as usual."""
    wanted = [Case(name, fs) for name in WORKLOADS]
    return [case for case in wanted if case in results.cases()]


def far(results: Results) -> list[Case]:
    """The cases over a link."""
    return [case for case in results.cases() if case.round_trip and case.scale == 1]


def only(results: Results, tools: Sequence[str]) -> Results:
    """The runs of these tools."""
    return Results(results.sessions, [run for run in results.runs if run.tool in tools])


def others(results: Results) -> str:
    """The table of the tools that the first one leaves out, with Realize."""
    more = ["realize", *(name for name in TOOLS if name not in CHOICE)]
    return time_table(only(results, more), near(results, "shm"), guarantees=False)


def by_link(results: Results) -> str:
    """A table for each link."""
    links = dict.fromkeys((case.round_trip, case.rate) for case in far(results))
    tables = []
    for round_trip, rate in links:
        cases = [case for case in far(results) if (case.round_trip, case.rate) == (round_trip, rate)]
        line = f" and {rate / 1e9:g} Gbit/s" if rate else ""
        tables += [f"A round trip of {round_trip * 1000:g} ms{line}:", time_table(results, cases, guarantees=False)]
    return "\n\n".join(tables)


FIGURES: Final[dict[str, Callable[[Results], str]]] = {
    "choice": lambda results: time_table(only(results, CHOICE), near(results, "shm"), guarantees=True),
    "workloads": lambda results: legend(near(results, "shm")),
    "machine": machine_text,
    "disk": lambda results: time_table(results, near(results, "disk"), guarantees=False),
    "far": by_link,
    "cost": lambda results: cost_table(only(results, CHOICE), near(results, "shm")),
    "others": others,
}
"""What can stand between comments in the page."""

BETWEEN: Final = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def filled(page: str, results: Results) -> str:
    """The page with the figures of these results."""
    return BETWEEN.sub(lambda match: f"{match[1]}{FIGURES[match[2]](results)}\n{match[3]}", page)


def picture(results: Results) -> str:
    """The picture of these results."""
    return plot(results, near(results, "shm"), CHOICE)


def main() -> None:
    """Write them all."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    results = read(SAVED.read_text())
    PICTURE.write_text(picture(results))
    for page in PAGES:
        page.write_text(filled(page.read_text(), results))


if __name__ == "__main__":
    main()
