"""Moving only the files that a list names."""

from __future__ import annotations

import os
import threading

import pytest
from twisted.internet.defer import Deferred, succeed

from realize.errors import ConnectionFailed, Interrupted, StorageError, UsageError
from realize.fs.sorting import Sorter
from realize.mover.allowance import Allowance
from realize.mover.events import Failed, Finished, Left
from realize.mover.filters import selection
from realize.mover.named import PAGE_NAMES, NamedListing
from realize.runs.name_list import read_names
from realize.runs.wanted_names import WantedNames
from realize.values import Attributes, Kind
from tests import test_move as move
from tests.memory_store import MemoryStore
from tests.processes import Site
from tests.test_move import contents


def at_once(work, *args):
    """What a thread would return."""
    return succeed(work(*args))


def wanted(*names):
    """The names of a list."""
    sorter = Sorter()
    for name in names:
        sorter.add(name)
    return WantedNames(sorter.sorted(), at_once)


def read(tmp_path, content, *, from0=False):
    """The names in a file with that content."""
    (tmp_path / "list").write_bytes(content)
    records = read_names(str(tmp_path / "list"), from0=from0, should_stop=lambda: False)
    return records.read(0, 1_000)[0]


def moved(source, destination, *names, **options):
    """The run that moved these names."""
    return move.moved(source, destination, names=wanted(*names), **options)


def test_names_are_sorted_and_each_comes_once(tmp_path):
    """Empty lines, a dot before a name, and slashes behind it or too many count for nothing; the last end may lack."""
    assert [b"a", b"b/c", b"d"] == read(tmp_path, b"d/\n\n./b//c\n.\na\n././a")


def test_a_nul_byte_may_end_names(tmp_path):
    """Then they may hold line breaks; and what begins like a comment is a name in either form."""
    assert [b"#a\nb", b"c\r"] == read(tmp_path, b"c\r\0#a\nb\0", from0=True)
    assert [b"#x"] == read(tmp_path, b"#x\n")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"/etc/passwd", "line 2: /etc/passwd: the name is absolute; expected names below the source"),
        (b"a/../b", "line 2: a/../b: the name has a component ..; expected"),
        (b"..", "line 2: "),
        (b"x" * 300, "line 2: .*longer than 255 bytes"),
        (b"x" * 1_000_000, "line 2: .*has .* bytes, more than 4000"),
        (b"a\0b", "line 2: .*NUL byte"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, line, why):
    """With the number of its line, before anything is moved."""
    with pytest.raises(UsageError, match=why):
        read(tmp_path, b"good\n" + line + b"\nalso good\n")


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    """With the reason."""
    for name in ("missing", "."):
        with pytest.raises(UsageError, match=r"--files-from .*(No such file|Is a directory)"):
            read_names(str(tmp_path / name), from0=False, should_stop=lambda: False)


def test_a_pipe_that_says_nothing_is_not_waited_for(tmp_path):
    """Once the run is to end."""
    end, other = os.pipe()
    os.write(other, b"a\n")
    asked = []
    try:
        with pytest.raises(Interrupted):
            read_names(f"/dev/fd/{end}", from0=False, should_stop=lambda: asked.append(1) or len(asked) > 2)
    finally:
        os.close(end)
        os.close(other)


def test_a_pipe_is_read_to_its_end():
    """However its writer takes its time."""
    end, other = os.pipe()

    def write():
        for _ in range(3):
            os.write(other, b"a\nb")
        os.close(other)

    writing = threading.Thread(target=write)
    writing.start()
    records = read_names(f"/dev/fd/{end}", from0=False, should_stop=lambda: False)
    writing.join()
    os.close(end)

    assert [b"a", b"b", b"ba"] == records.read(0, 10)[0]


def test_only_the_named_files_are_moved():
    """With the attributes of their directories; the source is not walked."""
    source = MemoryStore({b"a/f": b"1", b"a/g": b"2", b"b/c/h": b"3", b"i": b"4"})
    source.plant_directory(b"b/c", Attributes(77, 0o700))
    source.walk = None
    destination = MemoryStore()
    moved(source, destination, b"a/f", b"b/c/h")

    assert {b"a/g": b"2", b"i": b"4"} == contents(source)
    assert {b"a/f": b"1", b"b/c/h": b"3"} == contents(destination)
    assert Attributes(77, 0o700) == destination.directories[b"b/c"]


def test_what_does_not_exist_fails_and_directories_are_left():
    """Each is said once; a directory is not entered, as with rsync."""
    source = MemoryStore({b"a/f": b"1", b"g": b"2"})
    trial = moved(source, MemoryStore(), b"a", b"g", b"g/x", b"no/such")

    assert {b"a/f": b"1"} == contents(source)
    assert [(b"g/x", "is not a directory"), (b"no/such", "there is no such file")] == [
        (each.path, str(each.error)) for each in trial.of(Failed)
    ]
    assert all(type(each.error) is StorageError and not each.found for each in trial.of(Failed))
    assert [Left(b"a", "directory; only files are moved by name")] == trial.of(Left)


def test_filters_and_sizes_count_for_named_files_too():
    """What they leave out is not even missed."""
    source = MemoryStore({b"a.tmp": b"1", b"b": b"22", b"c": b"333"})
    trial = moved(
        source, MemoryStore(), b"a.tmp", b"b", b"c", b"no.tmp", selection=selection([("exclude", "*.tmp")], max_size=2)
    )

    assert [b"b"] == [each.path for each in trial.of(Finished)]
    assert [] == trial.of(Failed)


def test_what_was_moved_is_not_missed_when_the_run_comes_back():
    """Names that were there before are gone since this run has moved them; others are reported once."""
    source, names = MemoryStore({b"a": b"1"}), wanted(b"a", b"no")
    listed = []
    for _ in range(2):
        listing = NamedListing(source, names, links=False)
        found = []
        listing.next_page().addCallback(found.extend)
        listed.append([(each.path, each.kind) for each in found])
        listing.next_page()
        source.files.clear()

    assert [[(b"a", Kind.FILE), (b"no", Kind.UNREADABLE)], []] == listed


def test_what_was_looked_up_ahead_is_missed_when_the_run_comes_back():
    """A page that waits for its turn when the connection is lost has not reported the names of nothing on it."""
    files = {b"%04d" % number: b"x" for number in range(PAGE_NAMES)}
    source, destination, names = MemoryStore(files), MemoryStore(), wanted(*files, b"no")
    describing, lost = destination.describe, Deferred()
    destination.describe = lambda _paths: lost
    first = move.Trial(source, destination, names=names, allowance=Allowance(1 << 20))
    lost.errback(ConnectionFailed("lost"))
    assert isinstance(first.finish(), ConnectionFailed)
    destination.describe = describing

    again = move.moved(source, destination, names=names)

    assert [b"no"] == [each.path for each in (*first.of(Failed), *again.of(Failed))]
    assert {} == source.files


def test_pages_are_small():
    """So a long list takes no memory."""
    names = wanted(*(b"%04d" % number for number in range(PAGE_NAMES + 1)))
    store = MemoryStore({b"%04d" % number: b"" for number in range(PAGE_NAMES + 1)})
    listing, sizes = NamedListing(store, names, links=False), []
    while not sizes or sizes[-1]:
        listing.next_page().addCallback(lambda page: sizes.append(len(page)))

    assert [PAGE_NAMES, 1, 0] == sizes


def test_a_failed_look_up_ends_the_listing():
    """As a failed walk does."""
    store = MemoryStore({b"a": b""})
    store.fail_next["examine", b""] = ConnectionFailed("lost")
    failures = []
    NamedListing(store, wanted(b"a"), links=False).next_page().addErrback(lambda failure: failures.append(failure.type))

    assert [ConnectionFailed] == failures


@pytest.fixture
def site(tmp_path):
    """A daemon that serves ``inbox``."""
    site = Site(tmp_path)
    site.start()
    yield site
    site.stop()


def test_in_all_directions(site, tmp_path):
    """Between directories here, to a daemon and from one; a partial of Realize cannot be named."""
    for name in ("a b", "sub/c", "stays"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(name)
    (tmp_path / "list").write_text("sub/c\na b\n")
    (tmp_path / "list0").write_bytes(b"./a b\0sub/c\0")

    pushed = site.realize("move", "--files-from", tmp_path / "list", tmp_path / "src", "hostb::inbox")
    planned = site.realize(
        "move", "--dry-run", "-0", "--files-from", tmp_path / "list0", "hostb::inbox", tmp_path / "x"
    )
    pulled = site.realize("move", "-0", "--files-from", tmp_path / "list0", "hostb::inbox", tmp_path / "back")
    local = site.realize("move", "--files-from", tmp_path / "list", tmp_path / "back", tmp_path / "there")
    again = site.realize("move", "--files-from", tmp_path / "list", tmp_path / "back", tmp_path / "there")

    assert [0, 0, 0, 0, 1] == [each.returncode for each in (pushed, planned, pulled, local, again)]
    assert ["a b", "sub/c"] == sorted(line.split(maxsplit=3)[-1] for line in planned.stdout.splitlines())
    assert "sub/c: there is no such file" in again.stderr
    assert ["stays"] == os.listdir(tmp_path / "src") or {"stays", "sub"} == set(os.listdir(tmp_path / "src"))
    assert ["a b", "sub/c"] == [
        str(path.relative_to(tmp_path / "there")) for path in sorted((tmp_path / "there").rglob("*")) if path.is_file()
    ]


def test_a_named_symlink_is_moved_only_with_links(site, tmp_path):
    """Without the option it is left, as in a walk; here, to a daemon and from one."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "l").symlink_to("f")
    (tmp_path / "list").write_text("l\n")
    named = ["--files-from", tmp_path / "list"]

    left = site.realize("move", *named, tmp_path / "src", "hostb::inbox")
    assert "symlink" in left.stderr
    assert ["l"] == os.listdir(tmp_path / "src")

    for source, destination in (
        (tmp_path / "src", "hostb::inbox"),
        ("hostb::inbox", tmp_path / "back"),
        (tmp_path / "back", tmp_path / "there"),
    ):
        assert 0 == site.realize("move", "--links", *named, source, destination).returncode
    assert "f" == os.readlink(tmp_path / "there" / "l")
    assert [] == [*os.listdir(tmp_path / "src"), *os.listdir(site.inbox), *os.listdir(tmp_path / "back")]
