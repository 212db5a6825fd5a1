"""Hard links: names of one file become names of one file, whatever happens, and nobody gains anything else by it."""

from __future__ import annotations

import errno
import json
import os

import pytest
from twisted.internet.defer import succeed

from realize.errors import BadName, Busy, ConnectionFailed, NoSpace
from realize.fs.names import partial_name, partial_names
from realize.mover import directories, grouped
from realize.mover.events import Finished, How, NoHardLinks, Planned
from realize.mover.plan import Action
from realize.mover.stop_flag import StopFlag
from realize.store.local import hard_links as unlinked
from realize.store.local import known_files, linking
from realize.store.local.headroom import Headroom
from realize.store.local.partial_marks import RECEIVING
from realize.units import Reserve
from realize.values import Attributes, Expected, HardLink, HardLinked, OnConflict, Preserve, Removal
from tests.local_stores import at_once, behind, opened, put, root
from tests.memory_store import MemoryStore
from tests.processes import Site
from tests.store_helpers import digest, lose_connection_at
from tests.test_move_links import Trial

__all__ = ["behind", "root"]

HARD = {"preserve": {Preserve.MODE, Preserve.TIMES, Preserve.HARDLINKS}}
CREATED, THERE, NOT = HardLinked.CREATED, HardLinked.ALREADY_THERE, HardLinked.NOT_LINKED


def link(path, to=b"a", content=b"content"):
    """A request for a hard link."""
    return HardLink(path, to, digest(content))


async def with_file(root, **options):
    """A store that has put a file, and knows that it may be asked to link it."""
    store = await opened(root, **options)
    assert [] == await store.link_files([])
    await put(store, b"a", b"content")
    return store


def inodes(folder):
    """The files below a folder by their paths, with their inodes and how many names these have."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(where, name))
            found[os.fsdecode(os.path.relpath(os.path.join(where, name), folder))] = status.st_ino, status.st_nlink
    return found


# What a store links.


async def test_a_file_gets_other_names(root):
    """In other directories, too, also by way of a name that it got; what it has already is there."""
    store = await with_file(root)
    answers = await store.link_files([link(b"b"), link(b"x/y/c"), link(b"b"), link(b"d", b"x/y/c")])

    assert [CREATED, CREATED, THERE, CREATED] == answers
    assert {4} == {names for _, names in inodes(root).values()}
    assert 1 == len({inode for inode, _ in inodes(root).values()})


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EMLINK, errno.EPERM])
async def test_where_there_can_be_no_link(root, monkeypatch, error):
    """On another file system, or one without them, or with too many of them: the content may be sent."""
    store = await with_file(root)

    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(linking, "link_open_file", refuse)

    assert [NOT] == await store.link_files([link(b"d/b")])
    assert ["a"] == list(inodes(root)), "and no directory is left"


async def test_nothing_is_replaced(root, behind):
    """Neither a file, even with that content, nor anything else."""
    store = await with_file(root)
    behind.plant(b"same", b"content")
    behind.plant_link(b"link", b"a")
    os.mkdir(behind.at(b"d"))

    assert [NOT] * 3 == await store.link_files([link(b"same"), link(b"link"), link(b"d")])
    assert (b"content", b"a") == (behind.content(b"same"), behind.target(b"link"))


async def test_only_what_was_put_or_compared_is_linked(root, behind):
    """By this very store: nobody reaches what others put by the name, not even with the right digest."""
    behind.plant(b"theirs", b"content")
    store, other = await with_file(root), await opened(root)
    await put(other, b"others", b"content")
    unasked = await opened(root)
    await put(unasked, b"early", b"content")
    behind.plant(b"compared", b"content")
    assert [True] == await store.settle([Expected(b"compared", 7, digest(b"content"))])

    assert [NOT] * 4 + [CREATED] == await store.link_files(
        [
            link(b"1", b"theirs"),
            link(b"2", b"others"),
            link(b"3", b"early"),
            link(b"4", content=b"another"),
            link(b"5", b"compared"),
        ]
    )
    assert [NOT] == await unasked.link_files([link(b"6", b"early")])


@pytest.mark.parametrize("how", ["written", "replaced", "touched", "gone"])
async def test_what_changed_since_is_not_linked(root, behind, how):
    """By whomever."""
    store = await with_file(root)
    if how == "written":
        with open(behind.at(b"a"), "ab") as target:
            target.write(b"!")
    elif how == "replaced":
        behind.plant(b"new", b"content")
        os.rename(behind.at(b"new"), behind.at(b"a"))
    elif how == "touched":
        os.utime(behind.at(b"a"), ns=(1, 1))
    else:
        os.unlink(behind.at(b"a"))

    assert [NOT] == await store.link_files([link(b"b")])


async def test_names_of_our_own_are_not_given(root, behind):
    """Nor may a name lead out, or to backups; what looks like a partial is sent, as ever."""
    store = await with_file(root)
    answers = await store.link_files([link(b"../b"), link(b".realize-backups/b"), link(partial_name(b"b"))])

    assert [BadName, BadName] == [type(each) for each in answers[:2]]
    assert NOT is answers[2]


async def test_partials_of_others_are_not_told_of(root, behind):
    """Nobody learns by linking what somebody else is sending."""
    store = await with_file(root, origin=b"o" * 32)
    others = next(iter(partial_names(b"theirs", b"p" * 32)))
    behind.plant(others, b"content")
    os.chmod(behind.at(others), RECEIVING)

    assert [NOT] * 2 == await store.link_files([link(b"b", others), link(b"b", b"no" + others)])


async def test_names_keep_the_reserve(root):
    """They take space, too; what is there already takes none."""
    headroom = Headroom(at_once)
    store = await with_file(root, headroom=headroom)
    assert [CREATED] == await store.link_files([link(b"b")])
    headroom.reserve = Reserve(size=1 << 60)
    there, *others = await store.link_files([link(b"b"), link(b"c"), link(b"d/c")])

    assert (THERE, [NoSpace] * 2) == (there, list(map(type, others)))
    assert ["a", "b"] == sorted(inodes(os.fsdecode(root))) == sorted(os.listdir(os.fsdecode(root)))


async def test_few_files_are_known(root, monkeypatch):
    """Those that came last: of another one the content is sent again."""
    monkeypatch.setattr(known_files, "MAX_LINKABLE_FILES", 1)
    store = await with_file(root)
    await put(store, b"later", b"more")

    assert [NOT, CREATED] == await store.link_files([link(b"1"), link(b"2", b"later", b"more")])


async def test_identities_are_listed_if_asked_for(root, behind):
    """Of files with several names only, and by a token of the run."""
    behind.plant(b"a", b"content")
    behind.plant(b"one", b"content")
    os.link(behind.at(b"a"), behind.at(b"b"))
    store = await opened(root)
    asked = {entry.path: entry.identity for entry in await store.walk(hard_links=True).next_page()}
    examined = await store.examine([b"b", b"one"], hard_links=True)

    assert asked[b"a"] == asked[b"b"] == examined.entries[0].identity != b"" == asked[b"one"]
    assert {b""} == {entry.identity for entry in await store.walk().next_page()}
    await store.open(b"another salt")
    assert asked[b"a"] != (await store.walk(hard_links=True).next_page())[0].identity


async def test_all_names_of_a_file_are_removed(root, behind, monkeypatch):
    """However many: each removal changes what the others are, and what was read first is not forgotten."""
    monkeypatch.setattr(unlinked, "MAX_NAMES_PER_FILE", 2)
    behind.plant(b"0", b"content")
    for number in range(1, 8):
        os.link(behind.at(b"0"), behind.at(b"%d" % number))
    store = await opened(root)
    [fetched] = await store.read_small([b"0"])

    assert [None] * 8 == await store.remove([Removal(b"%d" % number, fetched.version) for number in range(8)])


# Moving.


def several(*groups, **single):
    """A store in memory; each group has the names of one file."""
    store = MemoryStore()
    for number, names in enumerate(groups):
        store.plant(names[0], b"content %d" % number)
        for name in names[1:]:
            store.files[name] = store.files[names[0]]
    for name, content in single.items():
        store.plant(name.encode(), content)
    return store


def groups(store):
    """Which names are those of one file."""
    found = {}
    for path, file in sorted(store.files.items()):
        found.setdefault(id(file), []).append(path)
    return sorted(found.values())


class HardTrial(Trial):
    """A run that keeps hard links; its records are sorted in memory."""

    def __init__(self, source, destination, **options):
        super().__init__(source, destination, **{"links": False, **HARD, **options})

    def _go(self, run):
        run.sorting = InMemory
        super()._go(run)


class InMemory:
    """Sorts a few records."""

    def __init__(self):
        self.records = []

    def add(self, records):
        """See `Sorting`."""
        self.records += records
        return succeed(None)

    def sort(self):
        """See `Sorting`."""
        self.records.sort()
        return succeed(None)

    def read(self, position, most):
        """See `Sorting`."""
        found = self.records[position : position + most]
        return succeed((found, position + len(found)))

    def close(self):
        """See `Sorting`."""


A, B = [b"a", b"d/b", b"e/c"], [b"d/x", b"y"]


def test_names_of_one_file_stay_that():
    """The content goes once, and each name is told, recorded and removed."""
    source, destination = several(A, B, one=b"single"), MemoryStore()
    trial = HardTrial(source, destination)

    assert (None, [A, B, [b"one"]], {}) == (trial.error, groups(destination), source.files)
    assert {b"a": b"", b"d/b": b"a", b"e/c": b"a", b"d/x": b"", b"y": b"d/x", b"one": b""} == {
        each.path: each.linked_to for each in trial.of(Finished)
    }
    assert 6 == sum(each.removed for each in trial.of(Finished)) == len(set(trial.notes.gone))
    assert 6 == len(trial.notes.arrived)


def test_without_the_option_each_is_a_file():
    """As ever."""
    destination = MemoryStore()
    HardTrial(several(A), destination, preserve=True)

    assert [[name] for name in A] == groups(destination)


@pytest.mark.parametrize("older", ["source", "destination"])
def test_an_older_peer_is_told_of(older):
    """Once; each name goes by itself."""
    source, destination = several(A, B), MemoryStore()
    (source if older == "source" else destination).hard_links = False
    trial = HardTrial(source, destination)

    assert [older] == [each.end.value for each in trial.of(NoHardLinks)]
    assert (5, {}) == (len(groups(destination)), source.files)


def test_a_copy_and_a_dry_run_leave_them():
    """And say what is, or would be, linked to what."""
    source, destination = several(A), MemoryStore()
    planned = HardTrial(source, destination, dry_run=True).of(Planned)

    assert [(b"a", Action.SEND, b""), (b"d/b", Action.SEND, b"a"), (b"e/c", Action.SEND, b"a")] == [
        (each.path, each.action, each.linked_to) for each in planned
    ]
    assert {} == destination.files
    HardTrial(source, destination, remove=False)
    assert groups(source) == groups(destination) == [A]


@pytest.mark.parametrize(
    ("policy", "content", "links"),
    [
        (OnConflict.SKIP, b"other", {b"d/b": b"", b"e/c": b"d/b"}),
        (OnConflict.FAIL, b"other", {b"d/b": b"", b"e/c": b"d/b"}),
        (OnConflict.REPLACE, b"other", {b"a": b"", b"d/b": b"a", b"e/c": b"a"}),
    ],
)
def test_a_dry_run_links_to_what_would_be_there(policy, content, links):
    """Not to a name that would stay: then the content goes under the next one."""
    source, destination = several(A), MemoryStore()
    destination.plant(b"a", content)
    planned = HardTrial(source, destination, dry_run=True, policy=policy, policy_asked=True).of(Planned)

    assert links == {each.path: each.linked_to for each in planned if each.action is not Action.SKIP}


def test_a_dry_run_links_to_what_may_be_there_already():
    """As the run does, whichever name that is."""
    source, destination = several(A), MemoryStore()
    destination.plant(b"d/b", b"content 0")
    planned = HardTrial(source, destination, dry_run=True).of(Planned)

    assert {b"a": b"d/b", b"d/b": b"", b"e/c": b"d/b"} == {each.path: each.linked_to for each in planned}


STEPS = ["read_small", "put_small", "link_files", "remove"]


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("anew", [False, True], ids=["resumed", "another run"])
def test_whatever_breaks_the_links_stay(step, done, anew):
    """When a connection is lost at any step, no name is gone whose file is not whole there; the rest follows."""
    source, destination = several(A, B), MemoryStore()
    store = source if step in {"read_small", "remove"} else destination
    lose_connection_at(store, step, done=done)
    trial = HardTrial(source, destination)
    assert isinstance(trial.error, ConnectionFailed)
    assert step == "remove" or [A, B] == groups(source)
    if anew:
        trial = HardTrial(source, destination)
    else:
        trial.resume(source, destination)

    assert (None, [A, B], {}) == (trial.error, groups(destination), source.files)


@pytest.mark.parametrize("policy", list(OnConflict))
def test_a_name_that_is_taken_goes_by_itself(policy):
    """As the policy says; the others are linked all the same."""
    source, destination = several(A), MemoryStore()
    destination.plant(b"d/b", b"another")
    trial = HardTrial(source, destination, policy=policy, policy_asked=True)
    stays = policy in {OnConflict.SKIP, OnConflict.FAIL}

    assert trial.error is None
    assert [b"a", b"e/c"] in groups(destination)
    assert ([b"d/b"] if stays else []) == list(source.files)
    assert (b"content 0" if policy is OnConflict.REPLACE else b"another") == destination.files[b"d/b"].content


def test_directories_are_finished_on_the_way(monkeypatch):
    """So that memory stays bounded, also while hard links are made; each has its own time in the end."""
    monkeypatch.setattr(directories, "MAX_REMEMBERED_DIRECTORIES", 4)
    monkeypatch.setattr(grouped, "BATCH_NAMES", 2)
    source, destination = several(*([b"%02d/a" % number, b"%02d/b" % number] for number in range(64))), MemoryStore()
    source.directories |= {b"%02d" % number: Attributes(number, 0o755) for number in range(64)}
    real, calls = destination.set_directories, []

    def note(wanted):
        calls.append(len(wanted))
        return real(wanted)

    destination.set_directories = note
    HardTrial(source, destination)

    assert 64 == len(groups(destination)) == sum(calls)
    assert max(calls) < 32, "of the 64"
    assert list(range(64)) == [destination.directories[b"%02d" % number].mtime_ns for number in range(64)]


def test_a_name_that_is_tried_again_holds_the_others():
    """They are removed when it has arrived, or has failed for good, and are links then."""
    source, destination = several(A), MemoryStore()
    destination.fail_next[("link_files", b"d/b")] = Busy("in use")
    trial = HardTrial(source, destination)

    assert (None, [A], {}) == (trial.error, groups(destination), source.files)


def test_links_that_the_destination_has_no_room_for():
    """All names stay, so that they are links when there is room again."""
    source, destination = several(A, B), MemoryStore()
    destination.fail_next[("link_files", b"d/b")] = NoSpace("full")
    trial = HardTrial(source, destination)

    assert ([A], [[b"a", b"e/c"], B]) == (groups(source), groups(destination))
    assert {b"a": False, b"e/c": False, b"d/x": True, b"y": True} == {e.path: e.removed for e in trial.of(Finished)}
    HardTrial(source, destination)
    assert ([A, B], {}) == (groups(destination), source.files)


def test_a_first_name_that_is_gone():
    """Then the next one is the first."""
    source, destination = several(A), MemoryStore()
    real = source.read_small

    def gone(paths, **options):
        source.read_small = real
        del source.files[b"a"]
        return real(paths, **options)

    source.read_small = gone
    trial = HardTrial(source, destination)

    assert (None, [A[1:]], {}) == (trial.error, groups(destination), source.files)
    assert [b"a"] == [each.path for each in trial.of(Finished) if each.how is How.GONE]


def meanwhile(store, step, act):
    """Have something done just before the first real call of a step."""
    real = getattr(store, step)

    def call(items, *arguments, **options):
        if items:
            setattr(store, step, real)
            act()
        return real(items, *arguments, **options)

    setattr(store, step, call)


@pytest.mark.parametrize("remove", [True, False], ids=["move", "copy"])
@pytest.mark.parametrize("name", A)
@pytest.mark.parametrize("step", ["read_small", "put_small"])
def test_what_is_another_file_by_now_is_not_linked(step, name, remove):
    """A name that was replaced since it was listed goes with its own content, and the others with theirs."""
    source, destination = several(A), MemoryStore()
    meanwhile(source if step == "read_small" else destination, step, lambda: source.plant(name, b"another"))
    trial = HardTrial(source, destination, remove=remove)

    assert trial.error is None
    read_before = name == b"a" and step == "put_small"
    contents = {path: file.content for path, file in destination.files.items()}
    assert {**dict.fromkeys(A, b"content 0"), name: b"content 0" if read_before else b"another"} == contents
    assert [path for path in A if path != name] in groups(destination)
    if remove:
        assert ([name] if read_before else []) == list(source.files), "what was read is another file by now"


@pytest.mark.parametrize("replaced", ["before", "after"])
def test_a_file_that_was_replaced_under_all_of_its_names(replaced):
    """Is the new one, whose names are links, too."""
    source, destination = several(A), MemoryStore()

    def replace():
        source.plant(A[0], b"another")
        source.files |= dict.fromkeys(A[1:], source.files[A[0]])

    meanwhile(*((source, "read_small") if replaced == "before" else (destination, "put_small")), replace)
    HardTrial(source, destination, remove=False)

    assert {"before": [A], "after": [A[:1], A[1:]]}[replaced] == groups(destination)
    assert b"another" == destination.files[A[1]].content == destination.files[A[2]].content


def test_nothing_of_a_file_is_begun_after_the_time_limit():
    """All of its names stay."""
    stop_flag = StopFlag()
    source, destination = several(A), MemoryStore()
    stop_flag.request()
    HardTrial(source, destination, stop_flag=stop_flag)

    assert ([A], {}) == (groups(source), destination.files)


def test_where_nothing_can_be_linked_it_is_tried_a_few_times_only():
    """However many names a file has: on a file system without links each goes with its own content."""
    names = [b"%03d" % number for number in range(100)]
    source, destination = several(names), MemoryStore()
    asked = []

    def refuse(links):
        asked.extend(links)
        return succeed([NOT] * len(links))

    destination.link_files = refuse
    trial = HardTrial(source, destination)

    assert (None, {}, 100) == (trial.error, source.files, len(groups(destination)))
    assert 100 < len(asked) <= 200


def test_each_file_system_has_its_links():
    """Names on several of them are links as far as they can be, however many file systems there are."""
    names = [b"%d/%d" % (number % 10, number) for number in range(40)]
    source, destination = several(names), MemoryStore()
    real = destination.link_files

    async def link_files(links):
        answers = await real([each for each in links if each.path[:1] == each.to[:1]])
        return [answers.pop(0) if each.path[:1] == each.to[:1] else NOT for each in links]

    destination.link_files = link_files
    trial = HardTrial(source, destination)

    assert (None, {}) == (trial.error, source.files)
    assert [4] * 10 == [len(group) for group in groups(destination)]


def test_what_was_begun_before_the_time_limit_is_told():
    """A name that is there, while another one that cannot be linked is no more begun; both stay."""
    stop_flag = StopFlag()
    source, destination = several(A), MemoryStore()

    def refuse(links):
        if links:
            stop_flag.request()
        return succeed([NOT] * len(links))

    destination.link_files = refuse
    trial = HardTrial(source, destination, stop_flag=stop_flag)

    assert ([A], [[b"a"]]) == (groups(source), groups(destination))
    assert [(b"a", False)] == [(each.path, each.removed) for each in trial.of(Finished)]


# Real ones.


def plant(folder):
    """A tree with hard links, one of a large file, and one to a name outside."""
    for name, content in {"a": b"small", "d/large": b"x" * 5_000_000, "one": b"single"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "e").mkdir()
    for name, other in {"e/b": "a", "e/c": "a", "large": "d/large"}.items():
        os.link(folder / other, folder / name)
    os.link(folder / "a", folder.parent / "outside")


@pytest.mark.parametrize("way", ["push", "pull", "local"])
def test_between_processes(tmp_path, way):
    """The links are there, and are told in JSON and in the manifest; a name outside the source stays."""
    site = Site(tmp_path)
    source, target = tmp_path / "source", site.inbox if way == "push" else tmp_path / "target"
    if way == "pull":
        source = site.inbox
    names = {"push": (source, "hostb::inbox"), "pull": ("hostb::inbox", target)}.get(way, (source, target))
    plant(source)
    if way != "local":
        site.start()
    try:
        done = site.realize("--preserve=mode,times,hardlinks", "--json", "--manifest", tmp_path / "m", *names)
    finally:
        if way != "local":
            site.stop()

    assert (0, {}) == (done.returncode, inodes(source)), done.stderr
    found = inodes(target)
    assert {"a": 3, "e/b": 3, "e/c": 3, "d/large": 2, "large": 2, "one": 1} == {n: k for n, (_, k) in found.items()}
    assert found["a"] == found["e/b"] == found["e/c"] != found["large"] == found["d/large"]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (6, 3, 5_000_011) == tuple(summary[name] for name in ("removed", "linked", "sent_bytes"))
    lines = [json.loads(line) for line in (tmp_path / "m").read_text().splitlines()]
    assert {"e/b": "a", "e/c": "a", "large": "d/large"} == {
        each["path"]: each["linked_to"] for each in lines if each["event"] == "removed" and "linked_to" in each
    }
    assert 1 == os.stat(source.parent / "outside").st_nlink
