"""What the campaigns are built upon: the file system and the disk that forget, and the oracle."""

import hashlib
import os
import random
import stat
import subprocess
import sys
import threading

import pytest

from campaigns import __main__ as program
from campaigns import mounts
from campaigns.attributes import AttributeOracle, AttributePlanter
from campaigns.disk import BLOCK, NAME, DiskTree
from campaigns.oracle import LOST, Fault, Oracle, Version
from campaigns.running import summary
from campaigns.stage import Report
from campaigns.strict import StrictTree
from campaigns.trees import Planter

FILE = stat.S_IFREG | 0o600
DIRECTORY = stat.S_IFDIR | 0o755


@pytest.fixture
def tree():
    """A file system that keeps only what was synced."""
    return StrictTree()


def left(tree):
    """What a power cut leaves: digests by path."""
    return {b"/".join(place): digest for place, digest in tree.durable_files()}


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_a_name_is_durable_when_its_directory_was_synced(tree):
    """An fsync of the file alone keeps the content, but no name for it."""
    node = tree.create(tree.root, b"a", FILE)
    tree.write(node, 0, b"content")
    tree.sync(node)
    assert {} == left(tree)

    tree.sync(tree.root)

    assert {b"a": sha(b"content")} == left(tree)


def test_content_is_durable_when_the_file_was_synced(tree):
    """An fsync of the directory alone keeps a name without content."""
    node = tree.create(tree.root, b"a", FILE)
    tree.write(node, 0, b"content")

    tree.sync(tree.root)

    assert {b"a": sha(b"")} == left(tree)


def test_a_new_directory_is_durable_when_the_one_above_was_synced(tree):
    """All of a chain counts, up to the root."""
    above = tree.create(tree.root, b"new", DIRECTORY)
    below = tree.create(above, b"deep", DIRECTORY)
    node = tree.create(below, b"a", FILE)
    for each in (node, below, above):
        tree.sync(each)
    assert {} == left(tree)
    assert tree.find((b"new", b"deep", b"a")) is None

    tree.sync(tree.root)

    assert tree.find((b"new", b"deep", b"a")) is node
    assert (b"new", b"deep") == tree.path(below)


def test_a_power_cut_takes_back_renames_removals_and_attributes(tree):
    """What was not synced since is as it was before."""
    old, new = (tree.create(tree.root, name, FILE) for name in (b"old", b"new"))
    for node, content in ((old, b"1"), (new, b"2")):
        tree.write(node, 0, content)
        tree.set_mtime(node, 5)
    tree.settle()
    tree.rename(tree.root, b"new", tree.root, b"old")
    tree.set_mode(new, 0o444)
    tree.set_mtime(new, 7)
    tree.write(new, 0, b"3")

    tree.cut()

    assert {b"old", b"new"} == tree.root.names.keys()
    again = tree.lookup(tree.root, b"new")
    assert (b"2", FILE, 5, new.inode) == (bytes(again.content), again.mode, again.mtime_ns, again.inode)
    with pytest.raises(OSError, match="Stale"):
        tree.node(new.number)


def test_a_name_that_is_taken_is_not_renamed_over_when_that_is_forbidden(tree):
    """As renameat2(2) does it, where it is known."""
    for name in (b"a", b"b"):
        tree.create(tree.root, name, FILE)
    with pytest.raises(FileExistsError):
        tree.rename(tree.root, b"a", tree.root, b"b", 1)

    tree.noreplace = False

    with pytest.raises(OSError, match="Invalid argument"):
        tree.rename(tree.root, b"a", tree.root, b"c", 1)


def test_whoever_watches_removals_sees_the_file_before(tree):
    """With the directory and the name."""
    seen = []
    tree.removing = lambda directory, name, node: seen.append((directory, name, name in directory.names, node))
    node = tree.create(tree.root, b"a", FILE)

    tree.unlink(tree.root, b"a")

    assert [(tree.root, b"a", True, node)] == seen


@pytest.mark.parametrize(("kept", "found"), [("none", b"1"), ("all", b"3")])
def test_a_disk_forgets_what_it_was_not_told_to_flush(tmp_path, kept, found):
    """Everything since the last flush, or nothing of it; what was flushed stays."""
    disk = DiskTree(16 * BLOCK)
    node = disk.lookup(disk.root, NAME)
    disk.write(node, 0, b"0" * BLOCK)
    disk.write(node, BLOCK, b"1" * BLOCK)
    disk.sync(node)
    disk.write(node, BLOCK, b"2" * BLOCK)
    disk.write(node, BLOCK, b"3" * BLOCK)

    lost = disk.leave(str(tmp_path / "image"), kept, random.Random(1))

    image = (tmp_path / "image").read_bytes()
    assert (b"0" * BLOCK + found * BLOCK, 16 * BLOCK) == (image[: 2 * BLOCK], len(image))
    assert (2 if kept == "none" else 0) == lost
    assert b"3" * BLOCK == disk.read(node, BLOCK, BLOCK)


def test_a_disk_goes_on_with_an_image(tmp_path):
    """What was there before is gone."""
    disk = DiskTree(4 * BLOCK)
    node = disk.lookup(disk.root, NAME)
    disk.write(node, 0, b"x" * BLOCK)
    (tmp_path / "image").write_bytes(bytes(2 * BLOCK) + b"y" * BLOCK + bytes(BLOCK))

    disk.load(str(tmp_path / "image"))

    assert bytes(2 * BLOCK) + b"y" * BLOCK + bytes(BLOCK) == disk.read(node, 0, 9 * BLOCK)


@pytest.fixture
def oracle(tmp_path):
    """An oracle that knows a small tree at its source."""
    (tmp_path / "source").mkdir()
    (tmp_path / "inbox").mkdir()
    oracle = Oracle(tmp_path / "source", tmp_path / "inbox")
    Planter(oracle, random.Random(1)).wave(small=6, large=0)
    return oracle


def move(oracle, *, changed=lambda content: content):
    """Move everything without Realize; the files have these contents then."""
    top, to = os.fsencode(oracle.source), os.fsencode(oracle.destination)
    for path, (mode, _) in sorted(oracle.directories.items()):
        os.mkdir(os.path.join(to, path), mode)
        os.chmod(os.path.join(to, path), mode)
    for path, version in oracle.versions.items():
        with open(os.path.join(top, path), "rb") as source, open(os.path.join(to, path), "wb") as target:
            target.write(changed(source.read()))
            os.fchmod(target.fileno(), version.mode)
        os.utime(os.path.join(to, path), ns=(version.mtime_ns, version.mtime_ns))
        os.unlink(os.path.join(top, path))
    for path, (_, mtime_ns) in oracle.directories.items():
        os.utime(os.path.join(to, path), ns=(mtime_ns, mtime_ns))


def kinds(faults):
    return {fault.kind for fault in faults}


def test_the_oracle_is_content_when_all_has_arrived_as_it_was(oracle):
    """Content, modes and times of files and directories."""
    assert [] == oracle.check()

    move(oracle)

    assert [] == oracle.final()


def test_the_oracle_finds_what_is_lost(oracle):
    """A file that is at neither end, or whole at none of them."""
    move(oracle, changed=lambda content: content[:-1])

    assert LOST in kinds(oracle.check())


def test_a_partial_is_no_copy(oracle):
    """Only what has its final name counts."""
    path = next(iter(oracle.versions))
    name = oracle.destination / os.fsdecode(b"." + os.path.basename(path) + b".part")
    os.rename(os.path.join(os.fsencode(oracle.source), path), name)

    assert {LOST} == kinds(oracle.check())


def test_a_producer_may_replace_its_own_content(oracle):
    """The newest version is what must be somewhere."""
    path = next(iter(oracle.versions))
    move(oracle)
    oracle.made(path, Version(sha(b"newer"), 0o600, 5))
    assert {LOST} == kinds(oracle.check())

    with open(os.path.join(os.fsencode(oracle.source), path), "wb") as file:
        file.write(b"newer")

    assert [] == oracle.check()
    assert {"stranded", "attributes"} >= kinds(oracle.final()) >= {"stranded"}


def test_the_oracle_finds_what_is_left_and_what_was_touched(oracle):
    """Partials, strangers, attributes, and somebody else's files."""
    foreign = oracle.destination / "not ours"
    foreign.write_bytes(b"1")
    oracle.planted(foreign)
    move(oracle)
    assert [] == oracle.final()

    foreign.write_bytes(b"2")
    (oracle.destination / ".x.part").write_bytes(b"")
    (oracle.destination / "stranger").write_bytes(b"")
    os.chmod(os.path.join(os.fsencode(oracle.destination), next(iter(oracle.directories))), 0o777)
    path = max(oracle.versions)
    os.utime(os.path.join(os.fsencode(oracle.destination), path), ns=(0, 0))

    assert {"foreign", "partial left", "extra", "attributes", "open", "directory"} == kinds(oracle.final())


@pytest.fixture
def attributed(tmp_path):
    """An oracle that knows files with attributes, and several names of some."""
    (tmp_path / "source").mkdir()
    (tmp_path / "inbox").mkdir()
    oracle = AttributeOracle(tmp_path / "source", tmp_path / "inbox")
    AttributePlanter(oracle, random.Random(1)).wave(small=12, large=0)
    return oracle


def moved_by_cp(oracle):
    """Move everything with its attributes, without Realize."""
    subprocess.run(["cp", "-a", f"{oracle.source}/.", oracle.destination], check=True)
    for path in [*oracle.versions, *oracle.symlinks]:
        os.unlink(os.path.join(os.fsencode(oracle.source), path))


def test_attributes_that_are_kept_are_no_fault(attributed):
    """Owners, lists, extended attributes, names of one file, symlinks and directories."""
    assert [] == attributed.check()

    moved_by_cp(attributed)

    assert attributed.links
    assert [] == attributed.final()


@pytest.mark.parametrize("what", ["owner", "xattr", "link", "symlink"])
def test_attributes_that_are_lost_are_found(attributed, what):
    """What is nowhere else is lost; names that became files of their own are told."""
    moved_by_cp(attributed)
    top = os.fsencode(attributed.destination)
    path = attributed.links[0][0]
    place = os.path.join(top, path)
    if what == "owner":
        os.chown(place, 7, 7)
        os.chmod(place, attributed.versions[path].mode)
    elif what == "xattr":
        os.setxattr(place, "user.other", b"")
    elif what == "symlink":
        os.unlink(os.path.join(top, next(iter(attributed.symlinks))))
    else:
        copy = place + b"-copy"
        subprocess.run(["cp", "-a", place, copy], check=True)
        os.rename(copy, place)

    assert ("links" if what == "link" else LOST) in kinds(attributed.final())


def test_the_figures_of_all_cases_are_summed_up():
    """By scene, and altogether."""
    one, other = Report("kills", 1), Report("strict", 2)
    one.events["kill command"] = 3
    other.events["power cut"] = 4
    other.counts["files"] = 10
    other.faults = [Fault(LOST, "a"), Fault("open", "b")]

    rows = {line.split()[0]: line.split()[1:8] for line in summary([one, other]).splitlines() if line}

    assert ["1", "3", "0", "0", "0", "0", "0"] == rows["kills"]
    assert ["2", "7", "0", "10", "0", "1", "1"] == rows["all"]


def test_a_disk_that_fails_keeps_what_was_flushed(tmp_path):
    """And says of everything else that it was not written, until it has another content."""
    disk = DiskTree(4 * BLOCK)
    node = disk.lookup(disk.root, NAME)
    disk.write(node, 0, b"a" * BLOCK)
    disk.sync(node)
    disk.write(node, BLOCK, b"b" * BLOCK)
    disk.fails = True

    with pytest.raises(OSError, match="Input/output error"):
        disk.write(node, 0, b"c" * BLOCK)
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync(node)

    disk.leave(str(tmp_path / "image"), "none", random.Random(1))
    disk.load(str(tmp_path / "image"))
    assert b"a" * BLOCK + bytes(3 * BLOCK) == disk.read(node, 0, 4 * BLOCK)
    disk.write(node, 0, b"d" * BLOCK)
    disk.sync(node)


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """A file system in a file, and the place where the kernel tells what is behind its device."""
    behind = tmp_path / "devices" / "loop7" / "loop" / "backing_file"
    behind.parent.mkdir(parents=True)
    monkeypatch.setattr(mounts, "_DEVICES", tmp_path / "devices")
    monkeypatch.setattr(mounts, "run", lambda *command: "/dev/loop7" if command[0] == "losetup" else "")
    loop = mounts.Loop(tmp_path / "disk", "ext4", tmp_path)
    loop.mount()
    return loop, behind


def test_a_file_system_that_lives_on_elsewhere_has_not_ended(loop, tmp_path, monkeypatch):
    """A copy of the mount, in the namespace of another program, would write to what it is reverted to."""
    loop, behind = loop
    monkeypatch.setattr(mounts, "_ENDS_WITHIN_S", 0.05)
    behind.write_text(f"{tmp_path}/disk\n")

    with pytest.raises(RuntimeError, match="disk: is unmounted, and in use"):
        loop.unmount()


@pytest.mark.parametrize("then", ["free", "of another file"])
def test_a_device_that_is_released_in_a_moment_is_waited_for(loop, tmp_path, then):
    """Whoever mounts something else may look at it just then."""
    loop, behind = loop
    behind.write_text(f"{tmp_path}/disk\n")
    release = behind.unlink if then == "free" else lambda: behind.write_text("/another\n")
    timer = threading.Timer(0.05, release)
    timer.start()

    loop.unmount()

    timer.join()
    assert not behind.exists() or behind.read_text() == "/another\n"


def test_a_campaign_has_its_mounts_to_itself(monkeypatch, capsys):
    """Else a program that takes a copy of all mounts meanwhile keeps file systems alive that were unmounted."""
    steps = []

    def run_case(*_arguments):
        steps.append("case")
        return Report("kills", 7)

    monkeypatch.setattr(sys, "argv", ["campaigns", "--case", "kills:7"])
    monkeypatch.setattr(program, "missing", list)
    monkeypatch.setattr(program, "isolate", lambda: steps.append("isolate"))
    monkeypatch.setattr(program, "run_case", run_case)

    assert 0 == program.main()
    assert ["isolate", "case"] == steps
    assert "kills" in capsys.readouterr().out
