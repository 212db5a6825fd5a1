"""Every single run, as a line of JSON, and what comes out of many of them.

A file of results has a line for each session, which says where and with what it was measured, and one for each run.
Runs of one round of one session were made one after the other, so the ratio of two of them means something even if the
machine is faster at other hours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs
from attrs import frozen

from benchmarks.machine import Machine

DISTURBED: Final = 0.1
"""The part of a core that others use, from which on a run counts as disturbed."""

LEAST_FOREIGN_S: Final = 0.1
"""What is not counted as used by others: the clocks of the kernel are that coarse."""


@frozen
class Case:
    """What was moved, where."""

    workload: str
    fs: str
    round_trip: float = 0.0
    """Seconds."""
    rate: float = 0.0
    """Bits per second of the link; 0 is without any limit."""
    scale: float = 1.0
    jobs: int | None = None


@frozen
class Run:
    """One move by one tool, and what it took."""

    session: str
    case: Case
    tool: str
    round: int
    seconds: float
    settled: float
    """Seconds that syncfs took at the destination after the tool had ended."""
    cpu_source: float
    cpu_destination: float
    """CPU time in seconds of either side."""
    memory_source: int
    memory_destination: int
    """The most at one time, of all processes of a side together."""
    wire: int
    """Bytes on the wire in both directions."""
    foreign: float
    """CPU time in seconds of everything else on the machine."""
    code: int | None
    """The exit code; None if it was stopped because it took too long."""
    faults: Sequence[str]

    @property
    def right(self) -> bool:
        """Whether it did what it was to do."""
        return self.code == 0 and not self.faults

    @property
    def disturbed(self) -> bool:
        """Whether others worked at the same time."""
        return self.foreign > max(LEAST_FOREIGN_S, DISTURBED * self.seconds)


@frozen
class Session:
    """One start of the benchmark."""

    session: str
    at: str
    """The date."""
    machine: Machine
    versions: Mapping[str, str]


@frozen
class Results:
    """What a file has."""

    sessions: Sequence[Session]
    runs: Sequence[Run]

    def cases(self) -> list[Case]:
        """In the order in which they were measured first."""
        return list(dict.fromkeys(run.case for run in self.runs))

    def by_tool(self, case: Case) -> dict[str, list[Run]]:
        """The runs of a case."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.case == case:
                found.setdefault(run.tool, []).append(run)
        return found


def line(record: Session | Run) -> str:
    """The line of JSON."""
    fields = attrs.asdict(record)
    if isinstance(record, Run):
        usual = {name: value for name, value in attrs.asdict(Case("", "")).items() if name not in {"workload", "fs"}}
        fields |= {name: value for name, value in fields.pop("case").items() if usual.get(name, ...) != value}
    return json.dumps(fields)


def read(text: str) -> Results:
    """What some lines say."""
    sessions, runs = [], []
    for each in map(json.loads, text.splitlines()):
        if "machine" in each:
            sessions.append(Session(**{**each, "machine": Machine(**each["machine"])}))
        else:
            runs.append(_run(each))
    return Results(sessions, runs)


def _run(fields: dict[str, Any]) -> Run:
    case = Case(**{name: fields.pop(name) for name in attrs.fields_dict(Case) if name in fields})
    return Run(case=case, **fields)


def write(path: Path, records: Iterable[Session | Run], *, append: bool) -> None:
    """Write them to a file, anew or at its end."""
    with path.open("a" if append else "w") as file:
        file.writelines(f"{line(record)}\n" for record in records)


def middle(runs: Sequence[Run]) -> float:
    """The median of the seconds."""
    return median(run.seconds for run in runs)


def ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> float | None:
    """How long ours take as a part of theirs: the median of the ratios, one for each round that has both."""
    of = {(run.session, run.round): run.seconds for run in theirs}
    found = [run.seconds / of[key] for run in ours if (key := (run.session, run.round)) in of]
    return median(found) if found else None
