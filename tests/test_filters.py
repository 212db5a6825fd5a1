"""Which files of the source are meant."""

import os
import tracemalloc

import pathspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realize.errors import UsageError
from realize.leaving import Leaving
from realize.mover.filters import MAX_CLOCK_LAG_NS, selection
from realize.store.local.location import locate
from realize.store.local.walker import Walker


def accepted(rules, *paths):
    """Those of the paths that the rules leave in."""
    chosen = selection(rules)
    return [path for path in paths if chosen.accepts_path(path)]


def test_without_rules_everything_is_meant():
    """No pattern, no restriction."""
    assert [b"a", b"b/c"] == accepted([], b"a", b"b/c")


def test_exclude_leaves_out_at_any_depth():
    """A pattern without a slash matches names at every depth, as in .gitignore."""
    assert [b"a.jpg"] == accepted([("exclude", "*.tmp")], b"a.jpg", b"x.tmp", b"sub/y.tmp")


def test_a_leading_include_means_only_these():
    """--include '*.jpg' alone leaves out everything else."""
    assert [b"sub/a.jpg"] == accepted([("include", "*.jpg")], b"sub/a.jpg", b"b.txt")


def test_the_last_matching_rule_decides():
    """An include after an exclude brings files back."""
    rules = [("exclude", "*.tmp"), ("include", "keep.tmp")]

    assert [b"keep.tmp", b"z"] == accepted(rules, b"a.tmp", b"keep.tmp", b"z")


def test_an_anchored_directory_pattern_covers_what_is_below():
    """`/cache/` leaves out the top-level cache and all in it, but not another one further down."""
    assert [b"sub/cache/x"] == accepted([("exclude", "/cache/")], b"cache/x", b"cache/y/z", b"sub/cache/x")


def test_undecodable_names_can_be_matched():
    """Names are bytes; a pattern still applies to the part of them that is text."""
    assert [] == accepted([("exclude", "*.tmp")], b"\xff\xfe.tmp", b"new\nline.tmp")


def test_names_may_have_line_breaks():
    """In directories above, where a pattern that is tried at every depth passes over them, and at the end."""
    paths = [b"a\nb/secret", b"a\nb/c/secret", b"secret\n", b"secret\n/x", b"x/secret"]

    assert [b"secret\n", b"secret\n/x"] == accepted([("exclude", "secret")], *paths)
    assert [b"a\nb/c/secret"] == accepted([("include", "a*/**/c/secret")], *paths)
    assert not selection([("exclude", "secret")]).accepts_directory(b"a\nb/secret")


def test_names_may_have_line_breaks_whatever_is_installed(monkeypatch):
    """Other engines for patterns, which are taken where they are to be had, would know nothing of that."""
    asked, spec = [], pathspec.PathSpec
    monkeypatch.setattr(pathspec, "PathSpec", lambda *given, **how: asked.append(how) or spec(*given, **how))
    selection([("exclude", "secret")])

    assert [{"backend": "simple"}] == asked


def test_minimum_age_keeps_young_files():
    """A file is meant from the moment it is as old as asked for."""
    chosen = selection([], min_age=2.0)

    assert not chosen.accepts_age(1_000_000_001, 3_000_000_000)
    assert chosen.accepts_age(1_000_000_000, 3_000_000_000)


def test_sizes_keep_files_that_are_smaller_or_larger():
    """A file of just the least or the greatest size is meant; without them, every one is."""
    chosen = selection([], min_size=2, max_size=4)

    assert [2, 3, 4] == [size for size in range(7) if chosen.accepts_size(size)]
    assert selection([]).accepts_size(0)
    assert selection([]).accepts_size(1 << 50)
    assert not selection([], max_size=0).accepts_size(1)


def test_directories_are_left_out_by_name_only():
    """An exclude that names a directory, or one above it, counts for it; that an include comes first does not."""
    excluding, including = selection([("exclude", "cache/"), ("include", "cache/keep")]), selection([("include", "a*")])

    assert not excluding.accepts_directory(b"cache")
    assert not excluding.accepts_directory(b"x/cache/deep")
    assert excluding.accepts_directory(b"cache/keep")
    assert excluding.accepts_directory(b"caches")
    assert including.accepts_directory(b"b")
    assert not including.accepts_path(b"b")
    assert selection([]).accepts_directory(b"b")


def test_a_bad_pattern_is_a_usage_error():
    """What is no gitignore pattern is refused by its text."""
    with pytest.raises(UsageError, match="not a gitignore pattern"):
        selection([("exclude", "a/**b/***c\\")])


def test_an_include_that_is_turned_round_leaves_out():
    """`--include '!ab'` is `--exclude ab`, and of nothing else."""
    assert [b"b", b"c"] == accepted([("exclude", "*.tmp"), ("include", "!ab")], b"ab", b"b", b"c")


BELOW = "names are those below the source, as in"


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("./keep", f"'./keep' matches nothing; {BELOW} '/keep'"),
        ("../x/", f"'../x/' matches nothing; {BELOW} '/x/'"),
        ("a/./b", f"'a/./b' matches nothing; {BELOW} '/a/b'"),
        ("a//b", f"'a//b' matches nothing; {BELOW} '/a/b'"),
        ("//a", f"'//a' matches nothing; {BELOW} '/a'"),
        ("a//", f"'a//' matches nothing; {BELOW} '/a/'"),
        (".", f"'.' matches nothing; {BELOW} '*'"),
        ("", "'' matches nothing; for all files, write '*'"),
        ("  ", "'  ' matches nothing; for all files, write '*'"),
        ("/", "'/' matches nothing; for all files, write '*'"),
    ],
)
@pytest.mark.parametrize("verb", ["include", "exclude"])
def test_a_pattern_that_can_never_match_is_refused(verb, pattern, told):
    """Whoever gives one means something else, and would move what was to stay, or nothing at all."""
    with pytest.raises(UsageError) as caught:
        selection([(verb, pattern)])

    assert f"pattern {told}" == str(caught.value)


def test_a_comment_and_an_open_bracket_match_nothing_either():
    """The right form is told."""
    for pattern, told in (("#x", r"for a name that begins so, write '\#x'"), ("[a", r"stands for itself as in '\['")):
        with pytest.raises(UsageError) as caught:
            selection([("exclude", pattern)])
        assert f"pattern '{pattern}' matches nothing" in str(caught.value)
        assert told in str(caught.value)


@pytest.mark.parametrize("pattern", ["**", "/keep", "a/**/b", "a b", "...", "..a", r"\#x", r"\[a", "x/", "[ab]c"])
def test_a_pattern_that_can_match_is_not_refused(pattern):
    """However odd it looks."""
    selection([("exclude", pattern)])


@pytest.mark.parametrize("pattern", ["secret", "/secret", "/secret/", "secret/", "/secret/**", "secret/*", "*"])
def test_every_way_to_leave_a_directory_out(pattern):
    """What cannot be looked into, and is left out as a whole, is nobody's failure."""
    chosen = selection([("exclude", pattern)])

    assert not chosen.accepts_unreadable(b"secret")
    assert (pattern != "*") == chosen.accepts_unreadable(b"other")


def test_what_cannot_be_looked_into_may_hold_what_is_meant():
    """Unless it is left out as a whole."""
    for rules in ([], [("include", "*.jpg")], [("exclude", "*.tmp")], [("exclude", "secret/*"), ("include", "**")]):
        assert selection(rules).accepts_unreadable(b"secret")


# Directories that need not be entered.


NAMES = st.sampled_from(["a", "b", "ab", "a.d", "cache", "é", "x\udcff", "a\nb", "b\n"])
COMPONENTS = st.sampled_from(["a", "b", "ab", "a.d", "cache", "é", "*", "a*", "*.d", "?", "**", "[ab]", "a\\b", "**b"])
PATTERNS = st.builds(
    lambda before, components, after: before + "/".join(components) + after,
    st.sampled_from(["", "/"]),
    st.lists(COMPONENTS, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)
RULES = st.lists(st.tuples(st.sampled_from(["include", "exclude"]), PATTERNS), min_size=1, max_size=4)


@given(RULES, st.lists(NAMES, min_size=1, max_size=4), st.lists(NAMES, min_size=1, max_size=2))
@settings(max_examples=1_000)
def test_no_file_that_is_meant_is_in_a_directory_that_is_not_entered(rules, directory, below):
    """Whatever the patterns are, and in whatever order."""
    try:
        chosen = selection(rules)
    except UsageError:
        return
    leaves = Leaving(chosen.leaving())
    path = os.fsencode("/".join(directory))

    if any(leaves(os.fsencode("/".join(directory[:depth]))) for depth in range(1, len(directory) + 1)):
        assert not chosen.accepts_path(path + b"/" + os.fsencode("/".join(below)))


@pytest.mark.parametrize(
    ("rules", "entered", "not_entered"),
    [
        ([("exclude", "cache")], "other", "x/cache"),
        ([("exclude", "cache/")], "other", "cache/below"),
        ([("exclude", "/secret/")], "x/secret", "secret"),
        ([("exclude", "/secret/**")], "x/secret", "secret"),
        ([("exclude", "**/cache")], "other", "x/cache"),
        ([("exclude", "a/b*")], "a", "a/bc"),
        ([("exclude", "*")], None, "anything"),
        ([("exclude", "cache/"), ("include", "cache/keep")], "cache", "cache/other"),
        ([("exclude", "cache/"), ("include", "/cache/keep/**")], "cache/keep", "x/cache"),
        ([("exclude", "cache/"), ("include", "*.jpg")], "cache", None),
        ([("include", "*.jpg"), ("exclude", "cache/")], "other", "cache"),
        ([("include", "/photos/**")], "photos/2024", "music"),
        ([("include", "*.jpg")], "music", None),
        ([("exclude", "[ab]")], "a", None),
        ([("exclude", "x*" * 5_000)], "x", None),
        ([("exclude", f"d{number}") for number in range(300)], "d1", None),
    ],
)
def test_which_directories_need_not_be_entered(rules, entered, not_entered):
    """Those of which everything is left out, unless a later include could mean something in them."""
    leaves = Leaving(selection(rules).leaving())

    assert entered is None or not leaves(entered.encode())
    assert not_entered is None or leaves(not_entered.encode())


@pytest.mark.parametrize("pattern", ["[ab]", "a\\b", "a/**/b", "**/a/b", "a/**/"])
def test_a_pattern_that_rules_cannot_say_is_no_rule(pattern):
    """It leaves out files one by one, and a listing is not told of it."""
    assert () == selection([("exclude", pattern)]).leaving()
    assert (b"-x",) == selection([("exclude", "x"), ("exclude", pattern)]).leaving()


def test_a_rule_stands_for_itself_but_for_stars_and_question_marks():
    """It may come from a peer, so brackets mean nothing, and no rule takes long."""
    leaves = Leaving([b"-[a]", b"-a\xff?", b"-" + b"*a" * 2_000 + b"b"])

    assert [True, False, True, False] == [leaves(name) for name in (b"[a]", b"a", b"a\xffx", b"a" * 255)]


def test_directories_that_are_left_out_cost_nothing(tmp_path, monkeypatch):
    """None of them is opened, so nobody hears of one that could not be."""
    for name in ("secret", "a/secret", "a/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "f").touch()
    opened, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda fd: opened.append(os.readlink(f"/proc/self/fd/{fd}")) or scandir(fd))
    location = locate(os.fsencode(tmp_path), b"", None)
    rules = selection([("exclude", "secret/")]).leaving()

    entries = Walker(location, salt=b"", partials=False, avoid=b"", leave=rules).page()

    assert [b"a", b"a/b", b"a/b/f", b"a/secret", b"secret"] == [entry.path for entry in entries]
    assert [str(tmp_path / name) for name in (".", "a", "a/b")] == opened


@pytest.mark.parametrize("rules", [[b"-/" + b"/".join([b"a"] * 4000)], [b"-" + b"?\xff*" * 128], [b"-" + b"x" * 8000]])
def test_rules_take_no_more_memory_than_they_say(rules):
    """Whoever asks for a listing chooses them, and the daemon counts what they take."""
    leaves = Leaving(rules)
    tracemalloc.start()
    try:
        leaves(b"x")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken < leaves.held


def test_only_a_time_in_the_future_holds_a_file_back():
    """One that is too young waits until it is not; clocks that differ a little are no future."""
    chosen, now = selection([], 60.0), 10**18

    held = [chosen.holds_back(now + ahead, now) for ahead in (-(10**18), 0, MAX_CLOCK_LAG_NS, MAX_CLOCK_LAG_NS + 1)]
    assert [False, False, False, True] == held
    assert not selection([]).holds_back(now + 10 * MAX_CLOCK_LAG_NS, now)
