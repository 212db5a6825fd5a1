"""A pytest plugin that writes down which test executes which lines of Realize, and how long it takes.

Every process of a run writes files of its own into the folder that the environment names; `Record.load` puts them
together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest
from attrs import field, frozen
from coverage import Coverage, CoverageData

FOLDER: Final = "REALIZE_RECORDING"
"""The variable that names the folder."""


def pytest_configure(config: pytest.Config) -> None:
    """Record in the processes that run tests, from before anything of Realize is imported."""
    if FOLDER in os.environ and (hasattr(config, "workerinput") or not config.getoption("numprocesses", None)):
        config.pluginmanager.register(_Recorder(Path(os.environ[FOLDER])))


class _Recorder:
    def __init__(self, folder: Path) -> None:
        self._times = folder / f"times.{os.getpid()}.json"
        self._seconds: dict[str, float] = {}
        self._coverage = Coverage(data_file=str(folder / f"lines.{os.getpid()}"), source_pkgs=["realize"], branch=False)
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0) + report.duration

    def pytest_unconfigure(self) -> None:
        self._coverage.stop()
        self._coverage.save()
        self._times.write_text(json.dumps(self._seconds))


@frozen
class Record:
    """``tests`` are those that execute a line of a file; ``seconds`` is what each takes.

    Files are named by their path below the checkout, line numbers count from 1.
    """

    tests: dict[str, dict[int, frozenset[str]]] = field(repr=False)
    seconds: dict[str, float] = field(repr=False)

    @classmethod
    def load(cls, folder: Path, checkout: Path) -> Self:
        """What all processes wrote into that folder."""
        tests: dict[str, dict[int, frozenset[str]]] = {}
        for each in sorted(folder.glob("lines.*")):
            data = CoverageData(basename=str(each))
            data.read()
            for file in data.measured_files():
                lines = tests.setdefault(os.path.relpath(file, checkout), {})
                for line, contexts in data.contexts_by_lineno(file).items():
                    lines[line] = lines.get(line, frozenset()) | {test for test in contexts if test}
        seconds: dict[str, float] = {}
        for each in sorted(folder.glob("times.*.json")):
            seconds.update(json.loads(each.read_text()))
        return cls(tests, seconds)

    def covering(self, file: str, line: int, limit_s: float) -> list[str]:
        """The tests that execute that line, the fastest first, as many as take no longer than that together."""
        chosen: list[str] = []
        total = 0.0
        for test in sorted(
            self.tests.get(file, {}).get(line, ()), key=lambda each: (self.seconds.get(each, 0.0), each)
        ):
            total += self.seconds.get(test, 0.0)
            if chosen and total > limit_s:
                break
            chosen.append(test)
        return chosen
