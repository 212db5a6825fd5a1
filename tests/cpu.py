"""What CPU each test takes, with all processes that it waits for: `make suite ARGS=--cpu` shows the dearest."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

SHOWN: Final = 30
_BEGAN: Final = pytest.StashKey[float]()
_TAKEN: Final = "cpu_s"
# Tests set clocks of the module time.
_own_s, _usage = time.process_time, resource.getrusage


def _spent_s() -> float:
    children = _usage(resource.RUSAGE_CHILDREN)
    return _own_s() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Begin to count."""
    item.stash[_BEGAN] = _spent_s()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Let the last report of a test tell, also from one worker of several."""
    if call.when == "teardown":
        item.user_properties.append((_TAKEN, _spent_s() - item.stash[_BEGAN]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the files and the tests that took most."""
    tests: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if getattr(report, "when", "") == "teardown":
            taken_s = dict(report.user_properties)[_TAKEN]
            tests[report.nodeid] += taken_s
            files[report.nodeid.partition("::")[0]] += taken_s
    terminalreporter.section(f"{tests.total():.1f} s of CPU")
    for name, taken_s in (*files.most_common(SHOWN), *tests.most_common(SHOWN)):
        terminalreporter.line(f"{taken_s:7.2f} {name}")
