"""Tables of results: for a terminal, and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from benchmarks.comparison.catalogue import OURS, TOOLS
from benchmarks.comparison.results import Case, Results, Run, middle, ratio
from benchmarks.comparison.workloads import WORKLOADS
from benchmarks.tables import mebibytes, spread

HEAD: Final = (
    "", "tool", "seconds", "min to max", "realize/it", "+sync s", "CPU s src", "dst", "MiB src", "dst", "wire MB",
    "runs", "remarks",
)  # fmt: skip


def case_title(case: Case) -> str:
    """A case in short."""
    parts = [case.workload, case.fs]
    if case.round_trip or case.rate:
        parts.append(f"{case.round_trip * 1000:g} ms")
    if case.rate:
        parts.append(f"{case.rate / 1e9:g} Gbit/s")
    if case.scale != 1:
        parts.append(f"x {case.scale:g}")
    if case.jobs:
        parts.append(f"{case.jobs} at once")
    return " ".join(parts)


def lines(results: Results) -> Iterator[list[str]]:
    """A line for each case and tool, the fastest of a case first, and last what went wrong."""
    for case in results.cases():
        by_tool = results.by_tool(case)
        ours = by_tool.get(OURS, [])
        for tool, runs in sorted(by_tool.items(), key=lambda item: (not right(item[1]), middle(item[1]))):
            part = ratio(ours, runs)
            yield [
                case_title(case),
                tool,
                f"{middle(runs):.2f}",
                spread([run.seconds for run in runs]),
                "" if part is None or tool == OURS or not right(runs) else f"{part:.2f}",
                f"{median(run.settled for run in runs):.2f}" if case.fs == "disk" else "",
                f"{median(run.cpu_source for run in runs):.2f}",
                f"{median(run.cpu_destination for run in runs):.2f}",
                mebibytes(median(run.memory_source for run in runs)),
                mebibytes(median(run.memory_destination for run in runs)),
                f"{median(run.wire for run in runs) / 1e6:.1f}",
                str(len(runs)),
                remarks(tool, runs),
            ]


def right(runs: Sequence[Run]) -> bool:
    """Whether all of them did what they were to do."""
    return all(run.right for run in runs)


def remarks(tool: str, runs: Sequence[Run]) -> str:
    """What one has to know of these runs."""
    found = [TOOLS[tool].bound] if TOOLS[tool].bound else []
    if wrong := [run for run in runs if not run.right]:
        how = "stopped" if wrong[0].code is None else f"exit code {wrong[0].code}"
        found.append(f"{len(wrong)} WRONG: {how}; {' '.join('; '.join(wrong[0].faults).split())[:120]}")
    if disturbed := sum(run.disturbed for run in runs):
        found.append(f"{disturbed} beside other load")
    return "; ".join(found)


# For the page


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def time_table(results: Results, cases: Sequence[Case], *, guarantees: bool) -> str:
    """Seconds of each tool for each case, and how long Realize takes as a part of that.

    Tools are in the order of the catalogue.
    A tool that once did something wrong has no figure, but says so.
    """
    promised = ["encrypted", "verified", "durable"] if guarantees else []
    rows = []
    for name, tool in TOOLS.items():
        cells = [time_cell(results.by_tool(case), name) for case in cases]
        if any(cells):
            words = tool.guarantees
            said = [words.encrypted, words.verified, words.durable] if guarantees else []
            rows.append([tool.title, *cells, *said])
    return markdown(["", *[case.workload for case in cases], *promised], rows)


def time_cell(by_tool: dict[str, list[Run]], name: str) -> str:
    """Seconds, and Realize's time as a part of them."""
    runs = by_tool.get(name, [])
    if not runs:
        return ""
    if stopped := [run.seconds for run in runs if run.code is None]:
        return f"more than {max(stopped):.0f} s"
    if not right(runs):
        return "went wrong"
    if name == OURS:
        return f"**{middle(runs):.2f} s**"
    part = ratio(by_tool.get(OURS, []), runs)
    return f"{middle(runs):.2f} s" + ("" if part is None else f" ({part:.2f})")


def cost_table(results: Results, cases: Sequence[Case]) -> str:
    """What each tool takes of both machines, and puts on the wire."""
    rows = [
        [case.workload, TOOLS[name].title, *cost_cells(runs)]
        for case in cases
        for name, runs in results.by_tool(case).items()
        if right(runs)
    ]
    return markdown(["", "", "CPU", "memory", "on the wire"], rows)


def cost_cells(runs: Sequence[Run]) -> Iterator[str]:
    """CPU time and memory of either side, and bytes on the wire."""
    source, destination = median(run.cpu_source for run in runs), median(run.cpu_destination for run in runs)
    yield f"{source:.1f} + {destination:.1f} s"
    source, destination = median(run.memory_source for run in runs), median(run.memory_destination for run in runs)
    yield f"{mebibytes(source)} + {mebibytes(destination)} MiB"
    yield f"{median(run.wire for run in runs) / 1e6:,.0f} MB"


def machine_text(results: Results) -> str:
    """Where and with what was measured: each machine once, with the commits that were measured on it."""
    commits: dict[str, list[str]] = {}
    for machine in dict.fromkeys(session.machine for session in results.sessions):
        *where, commit = machine.lines
        commits.setdefault(" · ".join(where), []).append(commit)
    versions = {name: version for session in results.sessions for name, version in session.versions.items()}
    cases = results.cases()
    rounds = [len(results.by_tool(case).get(OURS, [])) for case in cases]
    dates = sorted({session.at[:10] for session in results.sessions})
    text = [
        *(" · ".join((where, *of_it)) for where, of_it in commits.items()),
        " · ".join(f"{name} {version}" for name, version in versions.items()),
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {rounds_of(rounds)} of each.",
    ]
    return "  \n".join(text)


def rounds_of(numbers: Sequence[int]) -> str:
    """How many rounds, or from how many to how many."""
    least, most = min(numbers, default=0), max(numbers, default=0)
    if least != most:
        return f"{least} to {most} rounds"
    return "1 round" if most == 1 else f"{most} rounds"


def legend(cases: Sequence[Case]) -> str:
    """What the workloads are."""
    return "; ".join(f"`{case.workload}`: {WORKLOADS[case.workload].title}" for case in cases) + "."
