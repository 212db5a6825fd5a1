"""Runs that may send only so much."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from realize.errors import DeadlineReached
from realize.mover.allowance import Allowance
from realize.mover.events import Failed, Finished, How, Planned
from tests.memory_store import MemoryStore
from tests.processes import Site
from tests.test_move import Trial, contents

MIB = 1 << 20
LARGE = bytes(3 * MIB)


def limited(source, destination, limit, **options):
    """A run that may send so much, and how it ended."""
    trial = Trial(source, destination, allowance=Allowance(limit), **options)
    return trial, trial.finish()


def sent(trial, destination):
    """What was sent, and kept, of all files."""
    return sum(each.sent for each in trial.of(Finished)) + sum(map(len, destination.partials.values()))


@pytest.mark.parametrize("limit", [1, 4, 5, 9, 14, 15, 16])
def test_small_files_are_sent_as_far_as_they_fit(limit):
    """A batch is cut; of the first file that does not fit alone, the beginning is kept."""
    source, destination = MemoryStore({b"%d" % number: b"12345" for number in range(3)}), MemoryStore()
    trial, error = limited(source, destination, limit)

    assert limit // 5 == len(trial.of(Finished)) or limit == 16
    assert (limit < 15) == isinstance(error, DeadlineReached)
    assert sent(trial, destination) <= limit
    assert [] == trial.of(Failed)


@pytest.mark.parametrize("limit", [1, MIB + 5, 3 * MIB, 4 * MIB, 5 * MIB])
def test_a_large_file_is_kept_as_far_as_it_came(limit):
    """Later runs go on there, and each gets on, however little it may send."""
    source, destination = MemoryStore({b"a": LARGE, b"b": LARGE}), MemoryStore()
    trial, error = limited(source, destination, limit, jobs=1)

    assert isinstance(error, DeadlineReached)
    assert "the limit of bytes to send was reached" in str(error)
    assert limit == sent(trial, destination)
    assert [] == trial.of(Failed)


def test_runs_one_after_another_move_everything():
    """Files that are small, and those that are larger than a run may send."""
    source = MemoryStore({b"a": LARGE, b"b": bytes(MIB), b"c": b"1"})
    expected, destination, runs = contents(source), MemoryStore(), 0
    while source.files:
        limited(source, destination, MIB // 2 * 3)
        runs += 1
        assert runs < 10

    assert expected == contents(destination)


def test_what_is_there_already_costs_nothing():
    """Neither small files nor large ones, and the run goes on to those that are new."""
    files = {b"a": LARGE, b"b": b"small", b"c": b"new"}
    source, destination = MemoryStore(files), MemoryStore({b"a": LARGE, b"b": b"small"})
    trial, error = limited(source, destination, 8)

    assert error is None
    assert {b"a": How.ALREADY_THERE, b"b": How.ALREADY_THERE, b"c": How.CREATED} == trial.how()


def test_a_dry_run_ends_there_too():
    """It names the files that would begin."""
    source = MemoryStore({b"%d" % number: b"12345" for number in range(4)})
    trial, error = limited(source, MemoryStore(), 10, dry_run=True)

    assert [b"0", b"1"] == [each.path for each in trial.of(Planned)]
    assert isinstance(error, DeadlineReached)


def test_what_a_file_does_not_need_others_get():
    """Whoever finds nothing left waits for those that may give something back, and for nobody else."""
    allowance = Allowance(10)
    assert 7 == allowance.take(7)
    assert 3 == allowance.take(9)
    waiting = Deferred.fromCoroutine(allowance.reserve(5))
    assert not waiting.called
    allowance.settle(7, 3)
    assert 4 == waiting.result
    allowance.settle(4, 4)
    allowance.settle(3, 3)

    assert 0 == Deferred.fromCoroutine(allowance.reserve(5)).result


def test_the_command_says_why_it_ended(tmp_path):
    """With the code of a limit; each further run gets on with what was begun, until all is there."""
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    site.start()
    try:
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "a").write_bytes(LARGE)
        (tmp_path / "src" / "b").write_bytes(b"b")
        first = site.realize("move", "--max-transfer", "2M", tmp_path / "src", "hostb::inbox")
        shown = site.realize("ls", "hostb::inbox").stdout
        kept = [path.stat().st_size for path in site.inbox.iterdir()]
        pulled = site.realize("copy", "--max-transfer", "1M", site.inbox, tmp_path / "local")
        further = [0]
        while (tmp_path / "src" / "a").exists():
            before = sum(path.stat().st_size for path in site.inbox.iterdir())
            further.append(site.realize("move", "--max-transfer", "2M", tmp_path / "src", "hostb::inbox").returncode)
            assert before < sum(path.stat().st_size for path in site.inbox.iterdir())
        back = site.realize("move", "--max-transfer", "2M", "hostb::inbox", tmp_path / "back")
    finally:
        site.stop()

    assert (11, 0, 0, 11) == (first.returncode, pulled.returncode, further[-1], back.returncode)
    assert {11} >= set(further[1:-1])
    assert "--max-transfer reached: " in first.stderr
    assert "partial" in shown
    assert 2 * MIB == sum(kept) == sum(path.stat().st_size for path in (tmp_path / "back").rglob("*"))
