"""Moving symlinks: what becomes of each, whatever happens on the way, here and between real processes."""

from __future__ import annotations

import json
import os

import pytest
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock

from realize.errors import (
    Busy,
    Conflict,
    ConnectionFailed,
    DeadlineReached,
    NoSpace,
    SourceChanged,
    StorageError,
    UsageError,
)
from realize.mover.events import End, Failed, Finished, Found, How, Left, NoRoom, Planned, Postponed, Unknown
from realize.mover.filters import selection
from realize.mover.links import MAX_BATCH_LINKS
from realize.mover.plan import Action
from realize.mover.run import Run, Side, TransferOptions
from realize.mover.stop_flag import StopFlag
from realize.values import Links, OnConflict
from tests.memory_store import MemoryStore
from tests.processes import Site
from tests.store_helpers import lose_connection_at

CREATED, REPLACED, THERE, SKIPPED, GONE = How.CREATED, How.REPLACED, How.ALREADY_THERE, How.SKIPPED, How.GONE


class Notes:
    """A manifest that keeps what it is told."""

    def __init__(self):
        self.arrived = []
        self.gone = []
        self.unsure = []
        self.answer = succeed(None)

    def durable(self, source, files):
        """Record."""
        self.arrived += [(each.path, each.target, each.digest) for each in files]
        return self.answer

    def removed(self, source, files):
        """Record."""
        self.gone += [each.path for each in files]

    def unknown(self, source, files):
        """Record."""
        self.unsure += [each.path for each in files]


def with_links(**links):
    """A store with symlinks."""
    store = MemoryStore()
    for name, target in links.items():
        store.plant_link(name.encode(), target.encode())
    return store


def targets(store):
    """The symlinks in a store, by path."""
    return {path.decode(): link.target.decode() for path, link in store.symlinks.items()}


class Trial:
    """A run over stores in memory that is driven by hand."""

    def __init__(self, source, destination, **options):
        self.events, self.result, self.clock, self.notes = [], [], Clock(), Notes()
        self.stop_flag = options.pop("stop_flag", StopFlag())
        self.run = Run(
            [Side(source, "src")],
            Side(destination, "dst"),
            TransferOptions(**{"links": True, "policy": OnConflict.REPLACE, **options}),
            self.events.append,
            self.clock,
            self.stop_flag,
            manifest=self.notes,
        )
        self._go(self.run)

    def _go(self, run):
        self.run = run
        self.result.clear()
        run.start().addBoth(self.result.append)
        self.clock.pump([0.05] * 200)

    def resume(self, source, destination):
        """Go on over new connections."""
        self._go(self.run.resumed([Side(source, "src")], Side(destination, "dst")))

    @property
    def error(self):
        """What the run ended with; None if it went to its end."""
        [result] = self.result
        return getattr(result, "value", result)

    def of(self, kind):
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def how(self):
        """How each symlink, or file, ended."""
        return {event.path.decode(): (event.how, event.removed) for event in self.of(Finished)}


def test_symlinks_move_as_they_are():
    """They arrive with their targets, are recorded without a digest, and are gone from the source."""
    source, destination = with_links(l="f", m="no/where"), MemoryStore()
    source.plant(b"f", b"content")
    source.plant_link(b"d/e/up", b"../../f")
    trial = Trial(source, destination)

    assert trial.error is None
    assert {"l": "f", "m": "no/where", "d/e/up": "../../f"} == targets(destination)
    assert ({}, {}) == (source.symlinks, source.files)
    assert {(CREATED, True)} == set(trial.how().values())
    assert {b"l", b"m", b"d/e/up", b"f"} == set(trial.notes.gone)
    assert (b"l", b"f", b"") in trial.notes.arrived
    assert 4 == sum(found.files for found in trial.of(Found))
    assert destination.directories[b"d/e"].mode == 0o755


def test_without_the_option_they_stay():
    """As ever, they are reported."""
    source, destination = with_links(l="f"), MemoryStore()
    trial = Trial(source, destination, links=False)

    assert [Left(b"l", "symlink")] == trial.of(Left)
    assert ({"l": "f"}, {}) == (targets(source), targets(destination))


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("end", list(End))
def test_a_symlink_that_is_refused_is_left(end, dry_run):
    """Whoever refuses it; it is no failure, and the others go."""
    source, destination = with_links(l="f", out="/etc"), MemoryStore()
    source.gives_links = Links.INSIDE if end is End.SOURCE else Links.ANY
    destination.takes_links = Links.INSIDE if end is End.DESTINATION else Links.ANY
    trial = Trial(source, destination, dry_run=dry_run)

    assert trial.error is None
    [left] = trial.of(Left)
    assert (b"out", "symlink: may lead outside") == (left.path, left.note)
    assert [] == trial.of(Failed)
    assert "out" in targets(source)
    assert ({} if dry_run else {"l": "f"}) == targets(destination)
    assert (0 if dry_run else 1) == sum(found.files for found in trial.of(Found))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (OnConflict.REPLACE, {"same": (THERE, True), "other": (REPLACED, True)}),
        (OnConflict.SKIP, {"same": (THERE, True), "other": (SKIPPED, False)}),
        (OnConflict.FAIL, {"same": (THERE, True)}),
        (OnConflict.RENAME, {"same": (THERE, True)}),
    ],
)
def test_the_policy_decides(policy, expected):
    """About another symlink; the same one is there already."""
    source = with_links(same="f", other="new", file="x")
    destination = with_links(same="f", other="old")
    destination.plant(b"file", b"content")
    trial = Trial(source, destination, policy=policy)

    assert expected == trial.how()
    failed = {b"file"} | ({b"other"} if policy in {OnConflict.FAIL, OnConflict.RENAME} else set())
    assert failed == {each.path for each in trial.of(Failed) if isinstance(each.error, Conflict)}
    assert failed <= set(source.symlinks)
    assert b"content" == destination.files[b"file"].content
    assert {"same": "f", "other": "new" if policy is OnConflict.REPLACE else "old"} == targets(destination)


def test_a_dry_run_says_what_would_be_done():
    """And does nothing."""
    source, destination = with_links(a="f", b="f", c="new"), with_links(b="f", c="old")
    source.fail_next["forbidden to move", b"a"] = StorageError("a: may not")
    trial = Trial(source, destination, dry_run=True)

    assert [
        Planned(b"b", 0, Action.COMPARE, target=b"f"),
        Planned(b"c", 0, Action.REPLACE, target=b"new"),
    ] == trial.of(Planned)
    assert [b"a"] == [each.path for each in trial.of(Failed)]
    assert ({"a", "b", "c"}, {"b": "f", "c": "old"}) == (set(targets(source)), targets(destination))


def test_a_copy_leaves_the_symlinks():
    """And records that they are there."""
    source, destination = with_links(l="f"), MemoryStore()
    trial = Trial(source, destination, remove=False, preserve=False)

    assert {"l": (CREATED, False)} == trial.how()
    assert targets(source) == targets(destination)
    assert ([(b"l", b"f", b"")], []) == (trial.notes.arrived, trial.notes.gone)


def test_filters_and_ages_count():
    """As for files; what was not modified for long enough stays without a word."""
    source, destination = with_links(old="x", **{"skip.tmp": "x"}), MemoryStore()
    source.advance(1_000)
    source.plant_link(b"young", b"x")
    trial = Trial(source, destination, selection=selection([("exclude", "*.tmp")], min_age=1e-7))

    assert {"old": (CREATED, True)} == trial.how()
    assert [] == trial.of(Left)
    assert {"skip.tmp", "young"} == set(targets(source))


def test_very_many_go_in_batches():
    """No call has more than a command takes."""
    source, destination, calls = MemoryStore(page=1000), MemoryStore(), []
    for number in range(3 * MAX_BATCH_LINKS):
        source.plant_link(b"%04d" % number, b"x")
    put = destination.put_links
    destination.put_links = lambda links, policy, **how: calls.append(len(links)) or put(links, policy, **how)
    trial = Trial(source, destination)

    assert trial.error is None
    assert {} == source.symlinks
    assert 3 * MAX_BATCH_LINKS == len(destination.symlinks) == sum(calls)
    assert max(calls) <= MAX_BATCH_LINKS


@pytest.mark.parametrize("end", list(End))
def test_a_peer_that_does_not_know_symlinks_is_told_of_before_anything_moves(end):
    """One error, and both sides stay as they are."""
    source, destination = with_links(l="f"), MemoryStore()
    source.plant(b"f", b"content")
    (source if end is End.SOURCE else destination).links = False
    trial = Trial(source, destination)

    assert isinstance(trial.error, UsageError)
    assert f"{end.value} " in str(trial.error)
    assert "older release" in str(trial.error)
    assert {b"f"} == set(source.files)
    assert [] == trial.of(Finished)


def test_what_changed_is_tried_again():
    """In the same run; and it counts once."""
    source, destination = with_links(l="f", m="f"), MemoryStore()
    source.fail_next["read_links", b"l"] = SourceChanged("l: changed")
    destination.fail_next["put_links", b"m"] = Busy("m: busy")
    trial = Trial(source, destination)

    assert {b"l", b"m"} == {each.path for each in trial.of(Postponed)}
    assert {"l": (CREATED, True), "m": (CREATED, True)} == trial.how()
    assert 2 == sum(found.files for found in trial.of(Found))


def test_no_space_for_a_symlink():
    """It stays, as a failure, and counts among what did not fit; others go."""
    source, destination = with_links(l="f", m="f"), MemoryStore()
    destination.fail_next["put_links", b"m"] = NoSpace("m: full")
    trial = Trial(source, destination)

    assert ({"l": (CREATED, True)}, [b"m"]) == (trial.how(), [each.path for each in trial.of(Failed)])
    assert [(1, 0)] == [(each.files, each.size) for each in trial.of(NoRoom)]


def test_a_symlink_that_somebody_else_took_is_gone():
    """Between the listing and its turn."""
    source, destination = with_links(l="f"), MemoryStore()
    read = source.read_links
    source.read_links = lambda paths, **_: source.symlinks.clear() or read(paths)
    trial = Trial(source, destination)

    assert {"l": (GONE, False)} == trial.how()


def test_what_cannot_be_recorded_is_not_removed():
    """It is at both ends then."""
    source, destination = with_links(l="f"), MemoryStore()
    put = destination.put_links

    def put_and_break(*arguments, **options):
        trial_notes[0].answer = fail(StorageError("manifest: full"))
        return put(*arguments, **options)

    trial_notes = [Notes()]
    destination.put_links = put_and_break
    events, result = [], []
    run = Run(
        [Side(source, "src")],
        Side(destination, "dst"),
        TransferOptions(links=True),
        events.append,
        Clock(),
        manifest=trial_notes[0],
    )
    run.start().addBoth(result.append)

    assert [StorageError] == [failure.type for failure in result]
    assert targets(source) == targets(destination) == {"l": "f"}
    assert [False] == [each.removed for each in events if isinstance(each, Finished)]


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("step", ["read_links", "put_links", "remove"])
def test_a_connection_that_breaks_at_any_step(step, done):
    """The run goes on where it was: nothing is lost, and each symlink counts once."""
    source, destination = with_links(l="f", m="g"), MemoryStore()
    store = destination if step == "put_links" else source
    lose_connection_at(store, step, done=done)
    trial = Trial(source, destination)
    assert isinstance(trial.error, ConnectionFailed)
    unknown = {each.path: each.how for each in trial.of(Unknown)}
    expected = {"read_links": {}, "put_links": {b"l": None, b"m": None}, "remove": {b"l": CREATED, b"m": CREATED}}
    assert expected[step] == unknown
    trial.resume(source, destination)

    assert trial.error is None
    assert ({}, {"l": "f", "m": "g"}) == (targets(source), targets(destination))
    assert {True} == {removed for _, removed in trial.how().values()}
    assert 2 == len(trial.of(Finished))


def test_nothing_is_begun_after_the_time_limit():
    """Symlinks wait for the next run."""
    source, destination, stop_flag = with_links(l="f"), MemoryStore(), StopFlag()
    stop_flag.request()
    trial = Trial(source, destination, stop_flag=stop_flag)

    assert isinstance(trial.error, DeadlineReached)
    assert {"l": "f"} == targets(source)


# Real processes.


def plant_links(folder):
    """A tree with symlinks of all kinds, and what it should be where those that may lead outside are left."""
    (folder / "d").mkdir(parents=True)
    (folder / "f").write_text("content")
    kept = {"l": "f", "d/up": "../f", "dangling": "no\nwhere", "dir": "d", "long": "x/" * 100}
    for name, target in {**kept, "out": "/etc/passwd", "d/above": "../../x", "dots": "d/../f"}.items():
        os.symlink(target, folder / name)
        os.utime(folder / name, ns=(1, 1_234_567_890_123_456_789), follow_symlinks=False)
    return kept


def links_in(folder):
    """The symlinks in a folder, with their times."""
    return {
        str(path.relative_to(folder)): (os.readlink(path), path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_symlink()
    }


@pytest.mark.parametrize("way", ["push", "pull", "local"])
def test_between_processes(tmp_path, way):
    """Those whose targets stay inside move, with their times; the rest stays, is told of, and is no failure."""
    site = Site(tmp_path)
    source, target = (tmp_path / "source", tmp_path / "target") if way == "local" else (tmp_path / "source", site.inbox)
    names = {"push": (source, "hostb::inbox"), "pull": ("hostb::inbox", tmp_path / "target")}
    if way == "pull":
        source, target = site.inbox, tmp_path / "target"
    kept = plant_links(source)
    if way != "local":
        site.start()
    try:
        done = site.realize("--links", "--json", "--manifest", tmp_path / "m", *names.get(way, (source, target)))
    finally:
        if way != "local":
            site.stop()

    assert (0, {}) == (done.returncode, {name: how for name, how in links_in(source).items() if name in kept})
    assert {name: (to, 1_234_567_890_123_456_789) for name, to in kept.items()} == links_in(target)
    assert "content" == (target / "f").read_text()
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"out", "d/above", "dots"} == {each["path"] for each in records if each["event"] == "left"}
    assert kept == {
        each["path"]: each["target"] for each in records if each["event"] == "finished" and "target" in each
    }
    assert (5, 3, 6) == tuple(records[-1][name] for name in ("links", "left", "removed"))
    lines = [json.loads(line) for line in (tmp_path / "m").read_text().splitlines()]
    assert kept == {each["path"]: each["target"] for each in lines if each["event"] == "removed" and "target" in each}


def test_a_directory_that_takes_none(tmp_path):
    """It says so of each symlink; files move."""
    site = Site(tmp_path)
    config = site.folder / "realized.toml"
    config.write_text(config.read_text().replace("[dirs.inbox]", '[dirs.inbox]\nlinks = "none"'))
    plant_links(tmp_path / "source")
    site.start()
    try:
        done = site.realize("--links", tmp_path / "source", "hostb::inbox")
    finally:
        site.stop()

    assert 0 == done.returncode
    assert 8 == done.stderr.count("the directory takes no symlinks")
    assert ["f"] == [str(path.relative_to(site.inbox)) for path in site.inbox.rglob("*") if not path.is_dir()]
