"""What is to be done with one file, and which locations may not be moved into each other."""

import pytest

from realize.errors import Conflict
from realize.mover import history
from realize.mover.history import OtherNames, RunHistory
from realize.mover.plan import Action, decide, overlap
from realize.values import Committed, Existing, OnConflict, Stored, Where, WhereKind

RUN_START = 10_000_000_003


def action(size, existing, policy=OnConflict.REPLACE, *, started_ns=RUN_START, **history):
    """Decide about a file called x."""
    return decide(b"x", size, existing, policy, RunHistory(started_ns, **history))


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (Existing(), Action.SEND),
        (Existing(partial_size=3), Action.RESUME),
        (Existing(final_size=7), Action.REPLACE),
        (Existing(final_size=10), Action.COMPARE),
        (Existing(final_size=10, partial_size=3), Action.COMPARE),
    ],
)
def test_action_by_what_the_destination_has(existing, expected):
    """Nothing there: send; a partial: resume; another size: replace; the same size: compare, whatever its time."""
    assert expected == action(10, existing)


def test_policy_skip_leaves_both_files_alone():
    """With --on-conflict skip another file at the destination stays."""
    assert Action.SKIP == action(10, Existing(final_size=7), OnConflict.SKIP)


def test_policy_fail_is_a_conflict():
    """With --on-conflict fail another file at the destination is an error that names the file."""
    with pytest.raises(Conflict, match="x: another file has this name"):
        action(10, Existing(final_size=7), OnConflict.FAIL)


@pytest.mark.parametrize("policy", list(OnConflict))
def test_equal_size_is_compared_under_every_policy(policy):
    """Identical content is no conflict, so it is looked at before the policy is."""
    assert Action.COMPARE == action(10, Existing(final_size=10), policy)


@pytest.mark.parametrize("obstacle", ["directory", "symlink"])
def test_something_else_under_the_name_is_never_replaced(obstacle):
    """Only regular files are replaced."""
    with pytest.raises(Conflict, match=f"a {obstacle} has this name"):
        action(10, Existing(obstacle=obstacle))


def test_a_file_that_arrived_during_the_run_is_not_replaced():
    """Two sources with the same name in one run: the second one stays at its source, the first one is not lost."""
    with pytest.raises(Conflict, match="arrived there, or changed, during this run"):
        action(10, Existing(final_size=7, ctime_ns=RUN_START))


def test_why_another_name_of_a_file_that_the_run_has_replaced_stays():
    """It has not arrived there, and nobody else has changed it; another file that has got its inode may have."""
    others = OtherNames()
    others.note(Existing(final_size=7, mtime_ns=5, identity=b"place", ctime_ns=RUN_START - 1))

    with pytest.raises(Conflict, match="x: this run has replaced, or found identical, the same file under another"):
        action(10, Existing(final_size=7, mtime_ns=5, identity=b"place", ctime_ns=RUN_START), other_names=others)
    with pytest.raises(Conflict, match="arrived there, or changed, during this run"):
        action(10, Existing(final_size=8, mtime_ns=5, identity=b"place", ctime_ns=RUN_START), other_names=others)


def test_so_many_files_with_other_names_are_remembered(monkeypatch):
    """The oldest is dropped."""
    monkeypatch.setattr(history, "MAX_FILES", 2)
    others, files = OtherNames(), [Existing(final_size=1, identity=bytes([number])) for number in range(3)]
    for each in files:
        others.note(each)

    assert [False, True, True] == [others.has(each) for each in files]


def test_a_file_that_was_there_before_the_run_is_replaced():
    """One nanosecond before the run began is before the run began."""
    assert Action.REPLACE == action(10, Existing(final_size=7, ctime_ns=RUN_START - 1))


@pytest.mark.parametrize("stamp", [10_000_000_000, 9_000_000_000])
def test_coarse_stamps_count_as_late_as_they_may_be(stamp):
    """Where a file system keeps whole seconds, or 10 ms, a file may have arrived later than its stamp says."""
    with pytest.raises(Conflict, match="arrived there, or changed, during this run"):
        action(10, Existing(final_size=7, ctime_ns=stamp))


def test_stamps_of_ten_milliseconds_are_coarse_too():
    """A file system like exFAT keeps hundredths of a second."""
    since = 10_015_000_000

    with pytest.raises(Conflict, match="arrived there, or changed, during this run"):
        action(10, Existing(final_size=7, ctime_ns=10_010_000_000), started_ns=since)
    assert Action.REPLACE == action(10, Existing(final_size=7, ctime_ns=9_990_000_000), started_ns=since)


OURS = Stored(Committed.CREATED, b"place", RUN_START + 5)


def test_what_the_run_has_sent_itself_is_replaced():
    """A newer version of the same source may replace just the version that this run has sent."""
    existing = Existing(final_size=7, identity=b"place", ctime_ns=RUN_START + 5)

    assert Action.REPLACE == action(10, existing, stored=OURS)


@pytest.mark.parametrize(
    "existing",
    [
        Existing(final_size=7, identity=b"other", ctime_ns=RUN_START + 5),
        Existing(final_size=7, identity=b"place", ctime_ns=RUN_START + 6),
        Existing(final_size=7, identity=b"other", ctime_ns=RUN_START - 1),
        Existing(final_size=7, identity=b"other", ctime_ns=RUN_START + 10**18),
    ],
)
def test_nothing_else_is_replaced_by_a_later_attempt(existing):
    """Another file, or the same one changed since, is somebody else's, whatever the clocks say of it."""
    with pytest.raises(Conflict, match="arrived there, or changed, during this run"):
        action(10, existing, stored=OURS)


def test_what_could_not_be_told_is_not_replaced():
    """Without knowing which version it was, nothing is taken for it."""
    with pytest.raises(Conflict):
        action(10, Existing(final_size=7, ctime_ns=0), stored=Stored(Committed.CREATED))


def where(*chain, kind=WhereKind.DIRECTORY):
    """A place with the given identities, nearest first."""
    return Where(kind, tuple(name.encode() for name in chain), 0)


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (where("a", "/"), where("b", "/"), ""),
        (where("a", "/"), where("a", "/"), "they are the same directory"),
        (where("a", "/"), where("sub", "a", "/"), "the destination is inside the source"),
        (where("sub", "a", "/"), where("a", "/"), "the source is inside the destination"),
        (where("a", "/"), where("a", "/", kind=WhereKind.ABSENT), "the destination is inside the source"),
        (where("a", "/"), where("/", kind=WhereKind.ABSENT), ""),
        (where("a", "/", kind=WhereKind.ABSENT), where("a", "/"), ""),
        (where("f", "a", "/", kind=WhereKind.FILE), where("a", "/"), "the file is already in that directory"),
        (where("f", "sub", "a", "/", kind=WhereKind.FILE), where("a", "/"), ""),
    ],
)
def test_overlapping_locations_are_refused(source, destination, expected):
    """A directory cannot be moved into itself, into its inside or into what holds it; a file may move upwards."""
    assert expected == overlap(source, destination)
