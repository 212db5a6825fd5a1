"""Empty directories of the source: which of them a run removes, and when."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from realize.errors import AccessDenied, ConnectionFailed, DeadlineReached
from realize.mover.events import Failed, Pruned
from realize.mover.filters import selection
from realize.mover.pruning import Vacancies
from realize.mover.run import Run, Side, TransferOptions
from realize.mover.stop_flag import StopFlag
from realize.store.interfaces import IListing
from realize.values import Attributes, Entry, Kind, Vacant
from tests.memory_store import MemoryStore

OLD, YOUNG = 10, 10_000
AGE = 5_000


def directory(path: bytes, mtime_ns: int = OLD) -> Entry:
    """A directory in a listing."""
    return Entry(path, Kind.DIRECTORY, mtime_ns=mtime_ns)


def vacant(*entries: Entry, page: int = 500) -> list[Vacant]:
    """What is found in a listing that comes in pages of so many."""
    vacancies = Vacancies(lambda entry: entry.mtime_ns == OLD)
    found: list[Vacant] = []
    for start in range(0, len(entries), page):
        found += vacancies.seen(entries[start : start + page])
    return found + vacancies.ended()


@pytest.mark.parametrize("page", [1, 2, 500])
def test_children_go_before_their_parents(page: int) -> None:
    """What holds only such directories is one too, whose age nobody asks about again; the page does not matter."""
    entries = [directory(path) for path in (b"a", b"a/b", b"a/c", b"a/c/d", b"ab", b"e")]

    assert [
        Vacant(b"a/b", OLD),
        Vacant(b"a/c/d", OLD),
        Vacant(b"a/c", None),
        Vacant(b"a", None),
        Vacant(b"ab", OLD),
        Vacant(b"e", OLD),
    ] == vacant(*entries, page=page)


def test_one_that_changed_lately_stays_with_all_above_it() -> None:
    """A young directory stays, and so does the old one that it is in; its old and empty siblings go."""
    entries = [directory(b"a"), directory(b"a/b", YOUNG), directory(b"a/b/c"), directory(b"a/d")]

    assert [Vacant(b"a/b/c", OLD), Vacant(b"a/d", OLD)] == vacant(*entries)


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.PARTIAL, Kind.LEFT, Kind.UNREADABLE])
def test_anything_in_it_keeps_it(kind: Kind) -> None:
    """Files, partials, symlinks and what cannot be looked at keep a directory, and so does its own being unreadable."""
    within = [directory(b"a"), directory(b"a/b"), Entry(b"a/b/x", kind), directory(b"a/c")]
    itself = [directory(b"a"), Entry(b"a", Kind.UNREADABLE)]

    assert [Vacant(b"a/c", OLD)] == vacant(*within)
    assert [] == vacant(*itself)


class Trial:
    """A run over memory stores, whose sources have been there for so long."""

    def __init__(self, *sources: MemoryStore, stop_flag: StopFlag | None = None, **options: object) -> None:
        self.events: list[object] = []
        self.clock = Clock()
        self.stop_flag = StopFlag() if stop_flag is None else stop_flag
        self.destination = MemoryStore()
        sides = [Side(store, f"src{number}") for number, store in enumerate(sources)]
        wanted = TransferOptions(**{"prune_age_ns": AGE, **options})  # type: ignore[arg-type]
        self.run = Run(sides, Side(self.destination, "dst"), wanted, self.events.append, self.clock, self.stop_flag)
        self.results: list[object] = []
        self.run.start().addBoth(self.results.append)
        self.clock.pump([0.05] * 200)

    @property
    def error(self) -> object:
        """What the run ended with."""
        [result] = self.results
        return getattr(result, "value", result)

    def pruned(self) -> list[tuple[bytes, bool]]:
        """The directories that it removed, or would."""
        return [(event.path, event.removed) for event in self.events if isinstance(event, Pruned)]


def aged(files: dict[bytes, bytes] | None = None, *directories: bytes) -> MemoryStore:
    """A store with old directories, whose clock is far beyond `AGE`."""
    store = MemoryStore(files)
    for path in directories:
        store.plant_directory(path)
    for path in list(store.directories):
        store.plant_directory(path, Attributes(OLD, 0o755))
    store.advance(YOUNG + 100)
    return store


def test_without_the_option_directories_stay() -> None:
    """However old and empty they are, and whoever emptied them."""
    source = aged({b"d/f": b"1"}, b"empty")

    trial = Trial(source, prune_age_ns=None)

    assert {b"d", b"empty"} == set(source.directories)
    assert [] == trial.pruned()
    assert {} == source.files


def test_what_this_run_empties_is_too_young() -> None:
    """Old ones that earlier runs emptied go; the one that was emptied now waits for its age."""
    source = aged({b"d/f": b"1"}, b"before/it")

    trial = Trial(source)

    assert [(b"before/it", True), (b"before", True)] == trial.pruned()
    assert {b"d"} == set(source.directories)
    assert trial.error is None


def test_an_age_of_zero_takes_all_that_is_empty() -> None:
    """Also what this very run has emptied, and whatever the clocks say."""
    source = MemoryStore({b"d/e/f": b"1", b"g": b"2"})
    source.plant_directory(b"future", Attributes(1 << 60, 0o755))

    trial = Trial(source, prune_age_ns=0)

    assert {b"d/e", b"d", b"future"} == {path for path, _ in trial.pruned()}
    assert {} == source.directories


def test_every_source_is_pruned_at_its_own_end() -> None:
    """With several sources, each has its turn."""
    one, two = aged({}, b"a"), aged({}, b"b")

    trial = Trial(one, two)

    assert [(b"a", True), (b"b", True)] == trial.pruned()


def test_a_dry_run_only_says_so() -> None:
    """It names the directories that are empty already, and removes none."""
    source = aged({b"d/f": b"1"}, b"before/it")

    trial = Trial(source, dry_run=True)

    assert [(b"before/it", False), (b"before", False)] == trial.pruned()
    assert {b"d", b"before", b"before/it"} == set(source.directories)


def test_what_a_pattern_leaves_out_stays() -> None:
    """A directory that an exclude names, everything in it, and what it is in; an include leaves out no directory."""
    paths = (b"cache/a", b"jpg/cache", b"other/deep", b"jpg/x")
    excluded, included = aged({}, *paths), aged({}, *paths)

    left = Trial(excluded, selection=selection([("exclude", "cache/")]))
    taken = Trial(included, selection=selection([("include", "*.jpg")]))

    assert {b"cache", b"cache/a", b"jpg", b"jpg/cache"} == set(excluded.directories)
    assert [b"jpg/x", b"other/deep", b"other"] == [path for path, _ in left.pruned()]
    assert {} == included.directories
    assert trial_failures(left, taken) == []


def trial_failures(*trials: Trial) -> list[Failed]:
    """What failed in them."""
    return [event for trial in trials for event in trial.events if isinstance(event, Failed)]


def test_a_directory_that_is_used_again_stays() -> None:
    """What was put there after the listing, or has changed since, is kept, and that is no failure."""
    source = aged({}, b"a", b"b")
    prune = source.prune

    def busy(paths):  # type: ignore[no-untyped-def]
        source.plant(b"a/f", b"new")
        source.plant_directory(b"b", Attributes(YOUNG, 0o755))
        return prune(paths)

    source.prune = busy  # type: ignore[method-assign]

    trial = Trial(source)

    assert [] == trial.pruned()
    assert b"new" == source.files[b"a/f"].content
    assert {b"a", b"b"} == set(source.directories)
    assert (None, []) == (trial.error, trial_failures(trial))


def test_a_run_that_the_time_limit_ends_prunes_nothing() -> None:
    """There may be files that were not looked at; that something was left undone counts."""
    source = aged({}, b"a")
    stop_flag = StopFlag()
    stop_flag.request()

    trial = Trial(source, stop_flag=stop_flag)

    assert isinstance(trial.error, DeadlineReached)
    assert {b"a"} == set(source.directories)


@pytest.mark.parametrize("error", [ConnectionFailed("lost"), AccessDenied("not you")])
def test_what_ends_the_run_ends_it(error: ConnectionFailed | AccessDenied) -> None:
    """A connection that is lost while directories are removed is one that is lost."""
    source = aged({}, b"a")
    source.fail_next["prune", b""] = error

    trial = Trial(source)

    assert type(error) is type(trial.error)


def test_a_clock_that_is_set_back_makes_no_directory_old() -> None:
    """What was made after that is not older than it is because the clock was ahead when the run began."""
    source = MemoryStore()
    walk = source.walk

    def late(**options: Any) -> IListing:
        source.clock_ahead = -2 * AGE
        source.plant_directory(b"young")
        return walk(**options)

    source.walk = late  # type: ignore[method-assign]
    trial = Trial(source)

    assert [None] == trial.results
    assert {b"young"} <= set(source.directories)


@pytest.mark.parametrize(("younger", "left"), [(0, set()), (1, {b"d"})])
def test_a_directory_goes_when_it_is_just_old_enough(younger: int, left: set[bytes]) -> None:
    """Not an instant before."""
    source = aged({}, b"d")
    source.now_ns = lambda: OLD + AGE - younger  # type: ignore[method-assign]

    Trial(source)

    assert left == set(source.directories)
