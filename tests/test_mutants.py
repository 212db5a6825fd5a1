"""The faults that `python -m mutants` puts into the code, and who is asked to notice them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

from coverage import CoverageData

from mutants.faults import faults
from mutants.recording import Record
from tests.processes import ENVIRONMENT, ROOT

MODULE = '''
LIMIT = 3


class Thing:
    count: int = 0

    def add(self, other, *, gently=False):
        """Not a fault: 1 < 2."""
        if other < self.count and not gently:
            raise ValueError(f"{other + 1} is less")
        self.count += other
        _log.info("added", count=self.count + 1)
        return self.count

    def empty(self):
        for _ in zip(self.count, (), strict=True):
            return False


def each(things):
    for thing in things:
        try:
            thing.add(1, gently=True)
        except KeyError:
            continue
    with lock, other as name:
        release(name)
'''


def changes(source):
    """What can be done to a module, as (function, change)."""
    return [(fault.where, fault.change) for fault in faults(source)]


def test_every_kind_of_place_has_its_faults():
    """In functions alone, and neither in texts nor in logs."""
    assert [
        ("Thing.add", "And is Or in other < self.count and (not gently)"),
        ("Thing.add", "Lt is LtE in other < self.count"),
        ("Thing.add", "without not in not gently"),
        ("Thing.add", "condition the other way round"),
        ("Thing.add", "left out"),
        ("Thing.add", "left out"),
        ("Thing.add", "returns None"),
        ("Thing.empty", "False is True"),
        ("each", "KeyError is raised again"),
        ("each", "left out"),
        ("each", "without gently= in thing.add"),
        ("each", "1 is 2"),
        ("each", "True is False"),
        ("each", "break"),
        ("each", "without lock"),
        ("each", "left out"),
    ] == changes(MODULE)


def test_a_fault_is_one_change_and_the_others_are_undone():
    """Each is a module that differs from the one without a fault, and from all others."""
    whole = ast.unparse(ast.parse(MODULE))
    sources = [fault.source for fault in faults(MODULE)]

    assert len(sources) == len({*sources, whole}) - 1
    for source in sources:
        ast.parse(source)
        missing = set(whole.splitlines()) - set(source.splitlines())
        assert 1 == len(missing), missing


def test_names_tell_faults_apart_and_outlive_lines():
    """The list of those that are equivalent names them so."""
    moved = [fault.name for fault in faults("\n\n\n# a remark\n" + MODULE)]

    assert moved == [fault.name for fault in faults(MODULE)]
    twice = [fault.name for fault in faults("def f():\n    g()\n    g()\n")]
    assert ["f: g(): left out", "f: g(): left out (2)"] == twice


def test_the_fastest_tests_are_asked_first(tmp_path):
    """As many as there is time for, but one at least; what several processes wrote is one record."""
    for number, tests in enumerate((["slow", "quick"], ["slower"])):
        data = CoverageData(basename=str(tmp_path / f"lines.{number}"))
        for test in tests:
            data.set_context(test)
            data.add_lines({str(tmp_path / "m.py"): [7]})
        data.write()
        seconds = {"slow": 2.0, "quick": 0.1} if not number else {"slower": 5.0}
        (tmp_path / f"times.{number}.json").write_text(json.dumps(seconds))

    record = Record.load(tmp_path, tmp_path)

    assert ["quick", "slow", "slower"] == record.covering("m.py", 7, 60)
    assert ["quick", "slow"] == record.covering("m.py", 7, 3)
    assert ["quick"] == record.covering("m.py", 7, 0)
    assert [] == record.covering("m.py", 8, 60)
    assert [] == record.covering("other.py", 7, 60)


TRIALS = """
import pathlib, sys, time
from mutants import trial

checkout = pathlib.Path(sys.argv[1])
trial.prepare()
for fault in sys.argv[2:]:
    limit_s = 2 if fault == sys.argv[-1] else 60
    mutation = trial.Mutation("subject.py", f"def one():\\n    {fault}\\n", ("test_subject.py",), limit_s)
    running = trial.start(mutation, checkout, checkout / "output")
    while (verdict := running.poll()) is None:
        time.sleep(0.01)
    print(verdict.name)
"""


def test_a_trial_sees_the_fault_and_nothing_else(tmp_path):
    """The file stays as it is; what never ends is stopped. In a process without a reactor, as it has to be."""
    (tmp_path / "subject.py").write_text("def one():\n    return 1\n")
    (tmp_path / "test_subject.py").write_text("from subject import one\n\n\ndef test_one():\n    assert one() == 1\n")
    faulty = ["return 1", "return 2", "return 1 / 0", "__import__('time').sleep(600)"]

    done = subprocess.run(
        [sys.executable, "-c", TRIALS, tmp_path, *faulty],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ["SURVIVED", "NOTICED", "NOTICED", "HUNG"] == done.stdout.split(), done.stderr
    assert "def one():\n    return 1\n" == (tmp_path / "subject.py").read_text()


def test_a_condition_of_several_lines_is_where_it_begins():
    """No test executes the line of the parenthesis before it."""
    [first, *_] = faults("def f(x):\n    if (\n        x == 1\n        or x == 2\n    ):\n        return x\n")

    assert (3, "Or is And in x == 1 or x == 2") == (first.line, first.change)
