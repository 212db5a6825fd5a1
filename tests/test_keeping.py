"""What a run carries over beside content, mode and time: what becomes of files of which it cannot be kept."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from attrs import evolve

from realize.errors import AclNotKept, NotKept, OwnerNotKept, SourceChanged, UsageError, XattrNotKept
from realize.extras import Extras, Owner, WantedExtras
from realize.mover.events import End, Failed, How, NotPreserved, Planned, Postponed
from realize.values import (
    EXTRAS,
    MAX_SMALL_BYTES,
    USUALLY_PRESERVED,
    Attributes,
    Preserve,
)
from tests.extras_contract import COLOUR
from tests.memory_store import MemoryStore
from tests.processes import Site
from tests.test_extras import READ_BY_BIN, SHUT
from tests.test_move_links import Trial

KIM = Extras(Owner(1, 1, b"kim", b"staff"), b"", None, COLOUR)
ALL = USUALLY_PRESERVED | EXTRAS
SIZES = pytest.mark.parametrize("size", [3, MAX_SMALL_BYTES + 1], ids=["small", "large"])
OWNER = Preserve.OWNER


def source_with(*names, size=3, extras=KIM):
    """A store with files that have these extras."""
    store = MemoryStore(page=1000)
    for name in names:
        store.plant(name.encode(), bytes(size))
        file = store.files[name.encode()]
        file.attributes = evolve(file.attributes, extras=extras)
    return store


def picky(store, error=OwnerNotKept):
    """Let a store refuse whatever has an owner that has to be kept, or what ``error`` is about."""
    kind = Preserve(error.kind) if error.kind else OWNER
    asked = []

    def refusing(call, attributes_of):
        def called(items, *more):
            asked.append([attributes_of(each).extras.lenient for each in items])
            answers = call(items, *more)
            refused = [kind not in attributes_of(each).extras.lenient for each in items]
            return answers.addCallback(
                lambda found: [error("no kim") if no else one for no, one in zip(refused, found, strict=True)]
            )

        return called

    put = store.put_small

    def put_small(files, policy):
        fit = [each for each in files if kind in each.attributes.extras.lenient]
        asked.append([each.attributes.extras.lenient for each in files])
        outcomes = put(fit, policy)

        def joined(found):
            rest = iter(found)
            return [next(rest) if each in fit else error("no kim") for each in files]

        return outcomes.addCallback(joined)

    foresee = store.foresee

    def foreseeing(paths, extras):
        refused = [kind not in each.lenient for each in extras]
        return foresee(paths, extras).addCallback(
            lambda found: [error("no kim") if no else one for no, one in zip(refused, found, strict=True)]
        )

    store.put_small = lambda files, policy: put_small(files, policy) if files else put(files, policy)
    store.foresee = foreseeing
    store.settle = refusing(store.settle, lambda each: each.attributes)
    return asked


def extras_at(store, path):
    """What a file was given."""
    return store.files[path.encode()].attributes.extras


def run(source, destination, **options):
    """A run that carries everything over."""
    return Trial(source, destination, **{"links": False, "preserve": ALL, **options})


@SIZES
def test_everything_that_was_asked_for_goes_along(size):
    """With files of any size, and with directories."""
    source, destination = source_with("d/f", size=size), MemoryStore()
    source.plant_directory(b"d", Attributes(5, 0o750, KIM))
    trial = run(source, destination)

    assert trial.error is None
    assert {"d/f": (How.CREATED, True)} == trial.how()
    assert (KIM, KIM) == (extras_at(destination, "d/f"), destination.directories[b"d"].extras)


@pytest.mark.parametrize("preserve", [USUALLY_PRESERVED, frozenset()])
def test_nothing_is_read_that_nobody_asked_for(preserve):
    """Mode and time alone, or nothing at all, cost no further question."""
    source, destination = source_with("f"), MemoryStore()
    source.read_extras = destination.foresee = None
    trial = run(source, destination, preserve=preserve)

    assert {"f": (How.CREATED, True)} == trial.how()


@SIZES
def test_a_file_stays_of_which_something_cannot_be_kept(size):
    """It has failed, nothing of it is at the destination, and so it says."""
    source, destination = source_with("f", size=size), MemoryStore()
    picky(destination)
    trial = run(source, destination)

    [failed] = trial.of(Failed)
    assert (b"f", End.DESTINATION, OwnerNotKept) == (failed.path, failed.end, type(failed.error))
    assert ({b"f"}, {}, {}) == (set(source.files), destination.files, destination.partials)
    assert [] == trial.of(Postponed)


@SIZES
@pytest.mark.parametrize("error", [OwnerNotKept, NotKept])
def test_with_best_effort_it_is_moved_and_told_once(size, error):
    """From then on the run does not insist on that kind."""
    source, destination = source_with("a", "b", "c", size=size), MemoryStore()
    picky(destination, error)
    trial = run(source, destination, best_effort=True, jobs=1)

    kinds = {OWNER} if error.kind else EXTRAS
    assert dict.fromkeys("abc", (How.CREATED, True)) == trial.how()
    assert sorted(each.value for each in kinds) == [each.kind.value for each in trial.of(NotPreserved)]
    assert {"no kim"} == {each.why for each in trial.of(NotPreserved)}
    assert frozenset(kinds) == extras_at(destination, "c").lenient


def test_a_file_that_is_there_stays_at_the_source_too():
    """Equal content is not all: its attributes would be lost."""
    source, destination = source_with("f"), MemoryStore()
    destination.plant(b"f", bytes(3))
    picky(destination)
    strict = run(source, destination)
    lenient = run(source, destination, best_effort=True)

    assert [OwnerNotKept] == [type(each.error) for each in strict.of(Failed)]
    assert {"f": (How.ALREADY_THERE, True)} == lenient.how()
    assert [OWNER] == [each.kind for each in lenient.of(NotPreserved)]


@SIZES
def test_a_destination_that_never_gives_way_ends_it(size):
    """Even one that lies: no file is tried for ever."""
    source, destination = source_with("f", size=size), MemoryStore()
    for name in ("put_small", "commit"):
        destination.fail_next[name, b"f"] = XattrNotKept("no")
    always = destination.take_fault
    destination.take_fault = lambda call, path: (
        (_ for _ in ()).throw(XattrNotKept("no"))
        if path == b"f" and call in {"put_small", "commit"}
        else always(call, path)
    )
    trial = run(source, destination, best_effort=True)

    assert [XattrNotKept] == [type(each.error) for each in trial.of(Failed)]
    assert {b"f"} == set(source.files)


@SIZES
@pytest.mark.parametrize("best_effort", [False, True])
def test_what_cannot_be_read_keeps_the_file_where_it_is(size, best_effort):
    """Or is left out, and told."""
    source, destination = source_with("f", size=size), MemoryStore()
    source.fail_next["read_extras", b"f"] = AclNotKept("f: odd list")
    trial = run(source, destination, best_effort=best_effort)

    if best_effort:
        assert {"f": (How.CREATED, True)} == trial.how()
        assert [Preserve.ACL] == [each.kind for each in trial.of(NotPreserved)]
    else:
        assert [(End.SOURCE, AclNotKept)] == [(each.end, type(each.error)) for each in trial.of(Failed)]


@SIZES
def test_extras_belong_to_the_content_that_was_read(size):
    """Between the two a file may be replaced: then it is read again."""
    source, destination = source_with("f", size=size), MemoryStore()
    reading, first = source.read_extras, []

    def read_extras(paths, *more, **named):
        if not first:
            first.append(1)
            source.plant(b"f", bytes(size - 1) + b"x")
        return reading(paths, *more, **named)

    source.read_extras = read_extras
    trial = run(source, destination)

    assert [SourceChanged] == [type(each.error) for each in trial.of(Postponed)]
    assert {"f": (How.CREATED, True)} == trial.how()
    assert bytes(size - 1) + b"x" == destination.files[b"f"].content


def test_what_came_with_the_content_is_not_asked_for():
    """And the rest is."""
    source, destination = source_with("f", "g"), MemoryStore()
    reading, telling, asked = source.read_small, source.read_extras, []

    def read_small(paths, *, wanted, **how):
        asked.append(wanted)
        come = lambda each: evolve(each.file, attributes=evolve(each.file.attributes, extras=KIM))  # noqa: E731
        return reading(paths, **how).addCallback(lambda found: [evolve(found[0], file=come(found[0])), *found[1:]])

    def read_extras(paths, *more, **named):
        asked.append(paths)
        return telling(paths, *more, **named)

    source.read_small, source.read_extras = read_small, read_extras
    trial = run(source, destination, preserve=EXTRAS, numeric_ids=True)

    assert [WantedExtras(EXTRAS, numeric=True, leaves=frozenset({Preserve.TIMES})), [b"g"]] == asked
    assert {(How.CREATED, True)} == set(trial.how().values())
    assert extras_at(destination, "f") == extras_at(destination, "g")


def test_the_owner_that_came_with_a_symlink_is_not_asked_for():
    """And the others are."""
    source, destination = MemoryStore(), MemoryStore()
    for path in (b"l", b"m"):
        source.plant_link(path, b"x")
    reading, telling, asked = source.read_links, source.read_extras, []

    def read_links(paths, *, wanted):
        asked.append(wanted)
        come = lambda each: evolve(each.link, extras=Extras(KIM.owner))  # noqa: E731
        return reading(paths).addCallback(lambda found: [evolve(found[0], link=come(found[0])), *found[1:]])

    def read_extras(paths, *more, **named):
        asked.append(paths)
        return telling(paths, *more, **named)

    source.read_links, source.read_extras = read_links, read_extras
    trial = run(source, destination, links=True)

    assert [WantedExtras(frozenset({OWNER})), [b"m"]] == asked
    assert {"l": (How.CREATED, True), "m": (How.CREATED, True)} == trial.how()


def test_a_file_with_very_many_attributes_goes_by_itself():
    """A batch holds no more of them than a MiB; who goes by itself has only its own."""
    source = source_with(*(f"{number:02}" for number in range(40)), extras=evolve(KIM, xattrs=bytes(48_000)))
    destination = MemoryStore()
    trial = run(source, destination)

    assert {(How.CREATED, True)} == set(trial.how().values())
    assert 0 < len(trial.of(Postponed)) < 40


@pytest.mark.parametrize("end", list(End))
@pytest.mark.parametrize(
    ("preserve", "text"), [(ALL, "cannot keep acl: the peer runs an older release"), ({Preserve.MODE}, "both mode")]
)
def test_older_peers_are_told_of_before_anything_moves(end, preserve, text):
    """One that knows mode and time together, and nothing else."""
    source, destination = source_with("f"), MemoryStore()
    for store in (source, destination) if end is End.SOURCE else (destination,):
        store.tells = store.accepts = USUALLY_PRESERVED
    trial = run(source, destination, preserve=preserve)

    assert isinstance(trial.error, UsageError)
    assert text in str(trial.error)
    assert {b"f"} == set(source.files)


@pytest.mark.parametrize("best_effort", [False, True])
def test_a_directory_that_does_not_accept_it(best_effort):
    """It is told before anything moves, and with best effort once for each kind."""
    source, destination = source_with("f"), MemoryStore()
    destination.accepts = USUALLY_PRESERVED | {Preserve.XATTR}
    trial = run(source, destination, best_effort=best_effort)

    if not best_effort:
        assert "destination dst: cannot keep acl: the daemon there does not accept it" in str(trial.error)
        return
    assert {"f": (How.CREATED, True)} == trial.how()
    assert [(b"", Preserve.ACL), (b"", OWNER)] == [(each.path, each.kind) for each in trial.of(NotPreserved)]
    # The list goes along, so that the daemon knows whom not to let in by the mode.
    kept = extras_at(destination, "f")
    assert (None, KIM.acl, {Preserve.ACL}) == (kept.owner, kept.acl, kept.lenient)


@pytest.mark.parametrize("best_effort", [False, True])
def test_a_dry_run_says_what_could_not_be_kept(best_effort):
    """And touches nothing."""
    source, destination = source_with("f", "g"), MemoryStore()
    source.fail_next["read_extras", b"g"] = XattrNotKept("g: too many")
    picky(destination)
    trial = run(source, destination, dry_run=True, best_effort=best_effort)

    failed = {} if best_effort else {b"f": OwnerNotKept, b"g": XattrNotKept}
    assert failed == {each.path: type(each.error) for each in trial.of(Failed)}
    assert {b"f", b"g"} - set(failed) == {each.path for each in trial.of(Planned)}
    assert {} == destination.files


@pytest.mark.parametrize("best_effort", [False, True])
def test_a_directory_of_which_something_cannot_be_kept_has_failed(best_effort):
    """And none is removed then, for it has the only copy."""
    source, destination = source_with("d/f"), MemoryStore()
    source.plant_directory(b"d", Attributes(5, 0o750, KIM))
    setting = destination.set_directories

    def set_directories(directories):
        no = OWNER not in directories[0].extras.lenient
        return setting(directories).addCallback(lambda answers: [OwnerNotKept("no kim")] if no else answers)

    destination.set_directories = set_directories
    trial = run(source, destination, prune_age_ns=0, best_effort=best_effort)

    assert [(b"d", False)] * (not best_effort) == [(each.path, each.found) for each in trial.of(Failed)]
    assert best_effort == (b"d" not in source.directories)
    assert best_effort == bool(trial.of(NotPreserved))


def test_a_source_gives_only_what_it_is_asked_for():
    """A daemon that tells an owner, or that numbers count, though nobody wants that, changes nothing here."""
    source, destination = source_with("f", extras=evolve(KIM, numeric=True, lenient=EXTRAS)), MemoryStore()
    trial = run(source, destination, preserve={*USUALLY_PRESERVED, Preserve.XATTR})

    assert {"f": (How.CREATED, True)} == trial.how()
    assert Extras(xattrs=COLOUR) == extras_at(destination, "f")


def test_only_the_mode_or_only_the_time():
    """What is not asked for stays behind, of files and directories."""
    source, destination = source_with("d/f"), MemoryStore()
    trial = run(source, destination, preserve={Preserve.TIMES})

    assert {"d/f": (How.CREATED, True)} == trial.how()
    assert frozenset({Preserve.MODE}) == extras_at(destination, "d/f").leaves
    assert frozenset({Preserve.MODE}) == destination.directories[b"d"].extras.leaves


# Real processes.

ACCEPTING = '[dirs.inbox]\naccept = ["owner", "acl", "xattr"]'


def plant_tree(folder):
    """Files and a directory with all that is carried over; given away if whoever runs the tests may do so."""
    (folder / "d").mkdir(parents=True)
    for path, size in ((folder / "small", 100), (folder / "d" / "large", 3 << 20)):
        path.write_bytes(os.urandom(size))
        os.setxattr(path, "user.colour", b"red")
        os.setxattr(path, "system.posix_acl_access", READ_BY_BIN)
    os.setxattr(folder / "d", "system.posix_acl_default", READ_BY_BIN)
    os.symlink("small", folder / "link")
    if os.geteuid() == 0:
        os.chown(folder / "link", 2, 3, follow_symlinks=False)
        os.chown(folder / "small", 1, 2)
        os.chown(folder / "d" / "large", 2, 1)
        os.chown(folder / "d", 1, 1)
    os.utime(folder / "d", ns=(5, 1_234_567_890_000_000_000))


def tree_of(folder):
    """What is carried over of all that is in a folder; whose content a file has is noted where it arrives."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            _xattrs_of(path),
        )
        for path in folder.rglob("*")
        if (status := path.lstat())
    }


def _xattrs_of(path):
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names if "realize" not in name}


def accepting(site, table=ACCEPTING):
    """Let the daemon of a site accept that."""
    config = site.folder / "realized.toml"
    config.write_text(config.read_text().replace("[dirs.inbox]", table))


@pytest.mark.parametrize("way", ["push", "pull", "local"])
def test_a_tree_arrives_as_it_was(tmp_path, way):
    """Owners, lists, attributes, modes and times, of files and directories, whichever way it goes."""
    site = Site(tmp_path)
    accepting(site)
    source, target = tmp_path / "source", tmp_path / "target" if way == "local" else site.inbox
    names = {"push": (source, "hostb::inbox"), "pull": ("hostb::inbox", tmp_path / "target")}
    if way == "pull":
        source, target = site.inbox, tmp_path / "target"
    plant_tree(source)
    before = tree_of(source)
    if way != "local":
        site.start()
    try:
        done = site.realize("--links", "--preserve=mode,times,owner,acl,xattr", *names.get(way, (source, target)))
    finally:
        if way != "local":
            site.stop()

    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stderr)
    assert before == tree_of(target)
    assert ["d"] == os.listdir(source)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ((), 2, "cannot keep acl: the daemon there does not accept it"),
        (("--best-effort", "--json"), 0, ["acl", "owner"]),
    ],
)
def test_a_daemon_takes_nothing_unless_it_is_told_to(tmp_path, options, code, told):
    """By default modes and times; who can do without the rest says so."""
    site = Site(tmp_path)
    accepting(site, '[dirs.inbox]\naccept = ["xattr"]')
    plant_tree(tmp_path / "source")
    for path in (tmp_path / "source" / "shut", tmp_path / "source" / "d" / "shut"):
        path.write_bytes(bytes(3 << 20 if path.parent.name == "d" else 1))
        os.setxattr(path, "system.posix_acl_access", SHUT)
    site.start()
    try:
        done: subprocess.CompletedProcess = site.realize(
            "--preserve=all", *options, tmp_path / "source", "hostb::inbox"
        )
    finally:
        site.stop()

    assert code == done.returncode
    if not options:
        assert told in done.stderr
        assert [] == os.listdir(site.inbox)
        return
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [each["kind"] for each in records if each["event"] == "not_kept"] == records[-1]["not_kept"]
    arrived = site.inbox / "small"
    assert (os.geteuid(), {"user.colour"}) == (arrived.stat().st_uid, set(os.listxattr(arrived)))
    # The group could do nothing at the source, whatever the mask of the list, which `ls` shows as what it may.
    assert {0o600} == {stat.S_IMODE((site.inbox / name).stat().st_mode) for name in ("shut", "d/shut")}


def test_an_interrupted_run_goes_on_with_them(tmp_path):
    """A partial that is there is gone on with, and gets them in the end."""
    site = Site(tmp_path)
    source: Path = tmp_path / "source"
    plant_tree(source)
    before = tree_of(source)
    local = ("--links", "--preserve=mode,times,owner,acl,xattr", source, tmp_path / "target")
    first = site.realize("--max-transfer", "1M", *local)
    again = site.realize("--json", *local)

    records = [json.loads(line) for line in again.stdout.splitlines()]
    assert (11, 0) == (first.returncode, again.returncode)
    assert [(1 << 20) - 100] == [each["have"] for each in records if each["event"] == "started"]
    assert before == tree_of(tmp_path / "target")
    assert [] == [each for each in records if each["event"] == "failed"]
