"""A name that is taken: both files are kept, and a file that was kept once is recognised."""

import json
import os
import stat

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from realize.cli.display.wording import Wording, plan_line
from realize.errors import Conflict, ConnectionFailed, ProtocolError, UsageError
from realize.fs import syscalls
from realize.mover.events import Failed, Finished, How, OlderDestination, Planned, Postponed
from realize.mover.history import RunHistory
from realize.mover.plan import Action, decide, resolve
from realize.mover.run import Run, Side, TransferOptions
from realize.store.local import siblings as siblings_module
from realize.values import Committed, Existing, Expected, OnConflict, Siblings, Sized, Stored
from realize.wire import packing
from tests.leftovers import leave_partial
from tests.local_stores import behind, opened, root  # noqa: F401 -- fixtures
from tests.memory_store import MemoryStore
from tests.store_helpers import digest, small_file
from tests.test_end_to_end import site  # noqa: F401 -- a fixture
from tests.test_manifest import Notes
from tests.test_move import BIG, Trial, contents, moved

RENAME = OnConflict.RENAME
SIZES = pytest.mark.parametrize("content", [b"new", b"new" + BIG], ids=["small", "large"])


def keeps(source, destination, *more, **options):
    """A trial that keeps both, and ran to its end."""
    return moved(source, destination, *more, policy=RENAME, **options)


def cut_off(source, destination):
    """A run that is cut off when everything has arrived, and nothing is removed."""
    removing = source.remove

    def lose(removals):
        if removals:
            source.fail_next["remove", b""] = ConnectionFailed("the connection was lost")
        return removing(removals)

    source.remove = lose
    trial = Trial(source, destination, policy=RENAME)
    assert isinstance(trial.finish(), ConnectionFailed)
    source.remove = removing


@SIZES
def test_the_newcomer_gets_a_free_name_that_is_told(content):
    """What was there stays; the event has the name under which the new one is."""
    source, destination = MemoryStore({b"d/app.log": content}), MemoryStore({b"d/app.log": b"old"})

    [finished] = keeps(source, destination).of(Finished)

    assert {b"d/app.log": b"old", b"d/app.1.log": content} == contents(destination)
    assert {} == source.files
    assert (How.RENAMED, b"d/app.1.log", True) == (finished.how, finished.stored_as, finished.removed)
    assert "kept both: destination: d/app.log: its name was taken there; it is d/app.1.log" == Wording().note(finished)
    assert digest(content) == finished.digest


@SIZES
@pytest.mark.parametrize("obstacle", ["directory", "symlink"])
def test_what_is_no_file_is_kept_as_well(content, obstacle):
    """A directory or a link of that name is in nobody's way."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    destination.obstacles[b"x"] = obstacle

    keeps(source, destination)

    assert ({b"x.1": content}, {b"x": obstacle}) == (contents(destination), destination.obstacles)


@SIZES
def test_a_run_that_was_cut_off_before_the_removal_makes_no_second_copy(content):
    """The next run finds its own file among the numbered names, by size and content."""
    source, destination = MemoryStore({b"x": content}), MemoryStore({b"x": b"old", b"x.1": content[::-1]})
    cut_off(source, destination)
    there = contents(destination)

    [finished] = keeps(source, destination).of(Finished)

    assert {b"x": b"old", b"x.1": content[::-1], b"x.2": content} == contents(destination) == there
    assert (How.ALREADY_THERE, b"x.2", 0, True) == (finished.how, finished.stored_as, finished.sent, finished.removed)
    assert {} == source.files


@SIZES
@pytest.mark.parametrize("obstacle", ["directory", "symlink"])
def test_nor_beside_what_is_no_file(content, obstacle):
    """The next run looks among the numbered names then, too."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    destination.obstacles[b"x"] = obstacle
    cut_off(source, destination)

    [finished] = keeps(source, destination).of(Finished)

    assert {b"x.1": content} == contents(destination)
    assert (How.ALREADY_THERE, b"x.1", 0, True) == (finished.how, finished.stored_as, finished.sent, finished.removed)


@SIZES
def test_what_is_there_under_its_own_name_is_not_kept_twice(content):
    """As with every policy."""
    source, destination = MemoryStore({b"x": content}), MemoryStore({b"x": content})

    assert {b"x": How.ALREADY_THERE} == keeps(source, destination).how()
    assert {b"x": content} == contents(destination)


@SIZES
def test_a_file_that_is_written_anew_is_another_one(content):
    """Each time that the name comes again with other content, it gets the next number."""
    destination = MemoryStore()
    for number in range(3):
        keeps(MemoryStore({b"x": content + b"%d" % number}), destination)

    assert {b"x": content + b"0", b"x.1": content + b"1", b"x.2": content + b"2"} == contents(destination)


def changing(content):
    """A source whose file ``x`` grows once, after it was stored and before it is removed."""
    source, changed = MemoryStore({b"x": content}), []
    removing = source.remove

    def change(removals):
        if removals and not changed:
            changed.append(True)
            source.plant(b"x", content + b"more")
        return removing(removals)

    source.remove = change
    return source


@SIZES
def test_what_a_run_has_stored_of_a_file_that_changes_is_replaced(content):
    """The former state of the same file is no other one; whatever else was there stays."""
    for there in ({}, {b"x": b"old"}):
        source, destination = changing(content), MemoryStore(there)
        trial = keeps(source, destination)

        assert {**there, (b"x.1" if there else b"x"): content + b"more"} == contents(destination)
        assert {} == source.files
        assert 1 == len(trial.of(Postponed))


@SIZES
@pytest.mark.parametrize("there", [{}, {b"x": b"old"}], ids=["free", "taken"])
def test_where_nothing_may_be_replaced_both_states_of_a_file_that_changes_are_kept(content, there):
    """A peer that may only create has no failure because of it: the later state gets the next number."""
    source, destination = changing(content), MemoryStore(there)
    destination.replaces = False
    trial = keeps(source, destination)

    first, second = (b"x.1", b"x.2") if there else (b"x", b"x.1")
    assert {**there, first: content, second: content + b"more"} == contents(destination)
    assert {} == source.files
    assert ([], 1) == (trial.of(Failed), len(trial.of(Postponed)))


@SIZES
def test_sources_with_the_same_name_are_both_kept(content):
    """The second one of a run gets the next name, as if the first had long been there."""
    first, second, destination = MemoryStore({b"x": b"1"}), MemoryStore({b"x": content}), MemoryStore()

    keeps(first, destination, second)

    assert {b"x": b"1", b"x.1": content} == contents(destination)


@SIZES
@pytest.mark.parametrize("same", [True, False], ids=["the same", "another"])
def test_what_came_between_looking_and_committing_is_looked_at(content, same):
    """It may be the very file, from another run: then it is not kept a second time."""
    source, destination = MemoryStore({b"x": content}), MemoryStore({b"x": b"old"})
    asking, came = destination.siblings, content if same else content[::-1]

    def meanwhile(files):
        answer = asking(files)
        if b"x.1" not in destination.files:
            destination.plant(b"x.1", came)
        return answer

    destination.siblings = meanwhile
    keeps(source, destination)

    expected = {b"x": b"old", b"x.1": came}
    assert (expected if same else {**expected, b"x.2": content}) == contents(destination)
    assert {} == source.files


@SIZES
def test_what_came_under_a_free_name_is_looked_at(content):
    """Nobody gets a numbered name because of a file that it has not seen."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    asking = destination.describe

    def meanwhile(paths):
        answer = asking(paths)
        destination.describe = asking
        destination.plant(b"x", content)
        return answer

    destination.describe = meanwhile

    assert {b"x": How.ALREADY_THERE} == keeps(source, destination).how()
    assert {b"x": content} == contents(destination)


def test_an_interrupted_file_goes_on_under_its_own_name():
    """The partial has the name that the file has at the source, whatever name it gets in the end."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore({b"x": b"old"})
    destination.plant_partial(b"x", BIG[: 2 << 20])

    [finished] = keeps(source, destination).of(Finished)

    assert {b"x": b"old", b"x.1": BIG} == contents(destination)
    assert (1 << 20, {}) == (finished.sent, destination.partials)


def test_what_the_old_file_has_is_not_sent():
    """A delta takes from it, and leaves it as it is."""
    old = BIG[: 1 << 20] + b"former" + BIG[1 << 20 :]
    source, destination = MemoryStore({b"x": BIG}), MemoryStore({b"x": old})

    [finished] = keeps(source, destination).of(Finished)

    assert {b"x": old, b"x.1": BIG} == contents(destination)
    assert finished.sent < 1 << 20


@SIZES
def test_a_copy_keeps_both_once(content):
    """What stays at the source is not kept anew by each run."""
    source, destination = MemoryStore({b"x": content}), MemoryStore({b"x": b"old"})

    for _ in range(3):
        keeps(source, destination, remove=False)

    assert {b"x": b"old", b"x.1": content} == contents(destination)


def test_a_dry_run_says_what_the_name_would_be():
    """For a conflict that is known, and for one that may be."""
    files = {b"a.log": b"new", b"b": b"same size", b"c": b"3"}
    source, destination = MemoryStore(files), MemoryStore({b"a.log": b"older", b"a.1.log": b"1", b"b": b"SAME SIZE"})
    before = contents(destination)

    planned = keeps(source, destination, dry_run=True).of(Planned)

    assert (files, before) == (contents(source), contents(destination))
    assert [
        "rename 3 B a.log (would keep both, as a.2.log)",
        "compare 9 B b (would keep both if they differ, as b.1)",
        "send 1 B c",
    ] == [" ".join(plan_line(each).split()) for each in planned]


def test_the_manifest_has_the_name():
    """So that whoever reads it finds the file."""
    source, destination = MemoryStore({b"x": b"1", b"y": BIG}), MemoryStore({b"x": b"old", b"y": b"old"})
    noted = []

    class Noting(Notes):
        def durable(self, name, files):
            noted.extend(files)
            return super().durable(name, files)

    run = Run(
        [Side(source, "src")],
        Side(destination, "dst"),
        TransferOptions(),
        lambda _: None,
        Clock(),
        manifest=Noting(source),
    )
    run.start()
    run.clock.pump([0.05] * 100)

    assert {(b"x", b"x.1"), (b"y", b"y.1")} == {(each.path, each.stored_as) for each in noted}


def test_a_destination_that_cannot_keep_both_refuses_if_that_was_asked_for():
    """Before anything is moved."""
    source, destination = MemoryStore({b"x": b"1"}), MemoryStore()
    destination.can_keep_both = False
    trial = Trial(source, destination, policy=RENAME, policy_asked=True)

    error = trial.finish()

    assert isinstance(error, UsageError)
    assert "older version that cannot keep both" in str(error)
    assert ({b"x": b"1"}, {}) == (contents(source), contents(destination))


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_destination_that_cannot_keep_both_makes_the_default_give_way(dry_run):
    """What conflicts is skipped, with one warning; a run without a conflict has none."""
    for there, warnings in ({b"x": b"old", b"y": b"old"}, 1), ({}, 0):
        source, destination = MemoryStore({b"x": b"1", b"y": BIG, b"z": b"3"}), MemoryStore(there)
        destination.can_keep_both = False
        trial = keeps(source, destination, dry_run=dry_run)

        assert warnings == len(trial.of(OlderDestination))
        assert [] == trial.of(Failed)
        assert dry_run or {b"x": b"1", b"y": BIG, b"z": b"3", **there} == contents(destination)
    assert "older version that cannot keep two files" in Wording().note(OlderDestination())


def test_only_the_run_itself_replaces_what_it_has_stored():
    """Whatever somebody else has done with that file since, it is kept."""
    before, after = RunHistory(0), RunHistory(0, Stored(Committed.CREATED, b"place", 5))
    existing, obstacle = Existing(final_size=7, ctime_ns=5, identity=b"place"), Existing(obstacle="symlink")

    assert Action.RENAME is resolve(b"x", existing, RENAME, before)
    assert Action.REPLACE is resolve(b"x", existing, RENAME, after)
    assert Action.RENAME is resolve(b"x", evolve(existing, ctime_ns=6), RENAME, after)
    assert Action.RENAME is decide(b"x", 7, obstacle, RENAME, before)
    with pytest.raises(Conflict):
        decide(b"x", 7, obstacle, OnConflict.SKIP, before)


@pytest.mark.parametrize("way", ["push", "pull", "through", "local"])
def test_nothing_that_was_there_is_destroyed_unasked(site, tmp_path, way):  # noqa: F811 -- a fixture
    """By default, in each direction, small and large, with the name in the JSON and in the manifest."""
    source = site.inbox if way in {"pull", "through"} else tmp_path / "source"
    target = {"push": site.inbox, "through": site.inbox / "below"}.get(way, tmp_path / "target")
    if way == "through":
        source = site.inbox / "from"
    new = {"small.txt": b"new", "large.bin": BIG, "gone on": b"1" + BIG}
    for folder in (source, target):
        folder.mkdir(exist_ok=True)
    for name, content in new.items():
        (source / name).write_bytes(content)
        (target / name).write_bytes(b"old")
    (target / "small.1.txt").write_bytes(b"older")
    leave_partial(target, "gone on", (b"1" + BIG)[: 2 << 20])
    remote = {tmp_path / "source": None, tmp_path / "target": None}
    names = [
        path if path in remote else "hostb::inbox" + (f"/{path.name}" if path != site.inbox else "")
        for path in (source, target)
    ]

    done = site.realize("--json", "--manifest", tmp_path / "manifest", "--trust-source", *names)

    records = [json.loads(line) for line in done.stdout.splitlines()]
    finished = {each["path"]: each for each in records if each["event"] == "finished"}
    expected = {"small.txt": "small.2.txt", "large.bin": "large.1.bin", "gone on": "gone on.1"}
    assert 0 == done.returncode
    assert expected == {path: each["stored_as"] for path, each in finished.items()}
    assert (3, 3, 0) == tuple(records[-1][name] for name in ("renamed", "removed", "replaced"))
    assert new == {name: (target / numbered).read_bytes() for name, numbered in expected.items()}
    assert [b"old"] * 3 == [(target / name).read_bytes() for name in new]
    assert b"older" == (target / "small.1.txt").read_bytes()
    assert 7 == sum(path.is_file() for path in target.iterdir())
    assert not any((source / name).exists() for name in new)
    assert finished["gone on"]["sent"] < len(BIG) < finished["large.bin"]["sent"] + 1
    recorded = [json.loads(line) for line in (tmp_path / "manifest").read_text().splitlines()]
    assert set(expected.items()) == {
        (each["path"], each["stored_as"]) for each in recorded if each["event"] == "durable"
    }


async def test_a_commit_that_was_cut_off_between_two_names_is_finished(root, behind, monkeypatch):  # noqa: F811
    """Where renaming takes a link(2), the file may have the partial's name as well; the next run takes that away."""
    monkeypatch.setattr(syscalls, "_renameat2", None)
    behind.plant(b"d/f.log", b"old")
    store = await opened(root)
    with monkeypatch.context() as patched:
        unlink = os.unlink
        patched.setattr(os, "unlink", lambda *given, **options: None if options else unlink(*given))
        [answer] = await store.put_small([small_file(b"d/f.log", b"new")], RENAME)
    os.chmod(behind.at(b"d/f.1.log"), 0o644 | stat.S_ISVTX)  # as if it had died before the mark was cleared
    assert isinstance(answer, Stored)
    assert 2 == os.stat(behind.at(b"d/f.1.log")).st_nlink

    [siblings] = await store.siblings([Sized(b"d/f.log", 3)])
    settled = await store.settle([Expected(b"d/f.1.log", 3, digest(b"new"))])

    assert (Siblings(2, (1,)), [True]) == (siblings, settled)
    assert [b"d", b"d/f.1.log", b"d/f.log"] == behind.everything()
    assert not os.stat(behind.at(b"d/f.1.log")).st_mode & stat.S_ISVTX
    await store.close()


async def test_the_latest_is_found_when_the_oldest_were_removed(root, behind):  # noqa: F811 -- fixtures
    """Between a run that was cut off and the next one, somebody may have made room."""
    store = await opened(root)
    for number in range(3, 300):
        behind.plant(b"x.%d" % number, b"the same" if number == 299 else b"other")

    [found] = await store.siblings([Sized(b"x", len(b"the same"))])

    assert Siblings(1, (299,)) == found
    await store.close()


async def test_a_name_with_very_many_numbered_ones_is_found_a_free_one_soon(root, behind, monkeypatch):  # noqa: F811
    """By doubling and halving: not all of them are looked at."""
    for number in range(3000):
        behind.plant(b"f" if not number else b"f.%d" % number, b"1")
    store, looks = await opened(root), []
    looking = siblings_module._status
    monkeypatch.setattr(siblings_module, "_status", lambda fd, name: looks.append(name) or looking(fd, name))

    [found] = await store.siblings([Sized(b"f", 1)])

    assert 3000 == found.free
    assert set(range(2992, 3000)) == set(found.alike)
    assert len(looks) < 200
    await store.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\0" + bytes(8),  # no number is free
        b"\0" + b"\0\0\0\1" * 20 + bytes(4),  # too many
        b"\0" + b"\0\0\0\1",  # no end
    ],
)
def test_numbers_of_a_hostile_peer_are_refused(data):
    """It can tell numbers only, so no name of its making is printed, or gets into a manifest."""
    with pytest.raises(ProtocolError):
        packing.SIBLINGS.unpack(data)


def test_a_name_without_a_number_is_no_numbered_name():
    """As an outcome, and as a condition."""
    stored = Stored(Committed.RENAMED, b"place", 5, 7)
    assert [stored] == packing.OUTCOMES.unpack(packing.OUTCOMES.pack([stored]))
    with pytest.raises(ProtocolError, match="0 is the number of no name"):
        packing.OUTCOMES.unpack(packing.OUTCOMES.pack([evolve(stored, number=0)]))
