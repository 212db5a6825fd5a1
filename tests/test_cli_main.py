"""The real command in processes of its own, since exit codes and start-up are what counts here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leftovers import leave_partial
from tests.processes import COMMAND, ENVIRONMENT, closing, run_program


def realize(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in an empty home, so that no configuration of the machine is used."""
    return run_program(
        [*COMMAND, *map(str, arguments)],
        env={**ENVIRONMENT, "HOME": str(home)},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    """`realize --help` answers at once because Twisted, rich and cryptography are imported by commands only."""
    code = (
        "import sys, realize.cli.main as m\n"
        "sys.argv = ['realize', '--help']\n"
        "m.run()\n"
        "heavy = {'twisted', 'rich', 'cryptography', 'cattrs', 'pathspec', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)

    assert "[]" == done.stdout.splitlines()[-1]
    assert "keygen" in done.stdout


def test_a_run_without_metrics_does_not_load_prometheus(tmp_path: Path) -> None:
    """Who asks for no metrics does not wait for their library."""
    (tmp_path / "a").mkdir()
    code = (
        f"import sys, realize.cli.main as m\nsys.argv = ['realize', '--quiet', {str(tmp_path / 'a')!r}, "
        f"{str(tmp_path / 'b')!r}]\n"
        "print(m.run(), 'prometheus_client' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)

    assert "0 False\n" == done.stdout


LINGERING = """
import os, signal, sys, threading, time, traceback
import realize.cli.main as m

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it

def joins():
    return any(frame.f_code.co_name == "join" for frame, _ in traceback.walk_stack(sys._current_frames()[main]))

def linger():
    while not joins():
        time.sleep(0.01)
    end()

def run():
    threading.Thread(target=linger).start()
    return 3

main, m.run = threading.get_ident(), run
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [("print('late')", "late\n"), ("os.kill(os.getpid(), signal.SIGINT); time.sleep(600)", "")],
    ids=["to its end", "until it is interrupted"],
)
def test_a_thread_that_has_something_to_do_is_waited_for(end, said):
    """What it prints is printed, and to interrupt that does not change how the command has ended."""
    code = f"{LINGERING}def end():\n    {end}\nm.main()\n"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
    )

    assert (3, said, "") == (done.returncode, done.stdout, done.stderr)


def test_local_to_local_through_the_entry_point(tmp_path: Path) -> None:
    """A tree moves; the closing line goes to stderr, nothing to stdout, and the exit code is 0."""
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "below").mkdir(parents=True)
    (source / "below" / "x").write_bytes(b"content")
    (source / "empty").write_bytes(b"")

    done = realize(source, target, home=tmp_path)

    assert (0, "") == (done.returncode, done.stdout)
    assert "realize: moved 2 files, 7 B" in done.stderr
    assert f"from {source} to {target}" in done.stderr
    assert b"content" == (target / "below" / "x").read_bytes()
    assert b"" == (target / "empty").read_bytes()
    assert [source / "below"] == list(source.rglob("*"))


def test_directories_are_pruned_if_they_have_been_empty_for_long(tmp_path: Path) -> None:
    """`--prune-dirs` takes an age behind its ``=``, else an hour, and says how many went; without it all stay."""
    source, target = tmp_path / "a", tmp_path / "b"
    for name in ("old", "young"):
        (source / name).mkdir(parents=True)
    os.utime(source / "old", (0, 0))
    (source / "f").write_bytes(b"content")

    moved = realize(source, target, home=tmp_path)
    dry = realize("--dry-run", "--prune-dirs", source, target, home=tmp_path)
    kept = sorted(path.name for path in source.iterdir())
    pruned = realize("--prune-dirs", source, target, home=tmp_path)
    left = [path.name for path in source.iterdir()]
    all_pruned = realize("--json", "--prune-dirs=0", source, target, home=tmp_path)

    assert [0] * 4 == [done.returncode for done in (moved, dry, pruned, all_pruned)]
    assert (["old", "young"], ["young"], []) == (kept, left, list(source.iterdir()))
    assert "empty director" not in moved.stderr
    assert "; 1 empty directory would be removed" in dry.stderr
    assert "; 1 empty directory removed" in pruned.stderr
    assert '"event": "pruned", "path": "young", "removed": true' in all_pruned.stdout


def test_an_age_for_pruning_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    """It names the option; a copy has no such option."""
    wrong = realize("--prune-dirs=soon", tmp_path / "a", tmp_path / "b", home=tmp_path)
    copy = realize("copy", "--prune-dirs", tmp_path / "a", tmp_path / "b", home=tmp_path)

    assert (2, 2) == (wrong.returncode, copy.returncode)
    assert "--prune-dirs" in wrong.stderr
    assert "soon" in wrong.stderr
    assert "--prune-dirs" in copy.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["a", "nas:inbox"],
        ["copy", "a", "nas:inbox"],
        ["a", "nas:inbox/below"],
        ["a", "me@nas:inbox"],
        ["a", "sftp://nas/inbox"],
        ["--dry-run", "a", "nas:inbox"],
        ["x:y", "b"],
        ["a", "x:y", "b"],
        ["ls", "x:y"],
        ["check", "nas:inbox"],
    ],
)
def test_a_remote_of_another_program_is_refused(words: list[str], tmp_path: Path) -> None:
    """One colon too few makes no directory of that name here: nothing is touched, and the error says what to write."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"content")
    (tmp_path / "x:y").write_bytes(b"content")

    done = realize(*words, home=tmp_path)

    assert (2, "") == (done.returncode, done.stdout)
    assert "::" in done.stderr
    assert "or ./" in done.stderr
    assert ["a", "a/x", "x:y"] == sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*"))


def test_a_name_with_a_colon_is_written_with_a_dot_and_a_slash(tmp_path: Path) -> None:
    """Both ends may have such a name; a dry run and the closing line name them as they were resolved."""
    (tmp_path / "x:y").write_bytes(b"content")

    planned = realize("--dry-run", "./x:y", "./nas:inbox", home=tmp_path)
    done = realize("./x:y", "./nas:inbox", home=tmp_path)

    assert f"would move 1 file, 7 B, from {tmp_path}/x:y to {tmp_path}/nas:inbox\n" in planned.stderr
    assert (0, 0) == (planned.returncode, done.returncode)
    assert b"content" == (tmp_path / "nas:inbox" / "x:y").read_bytes()


def test_json_is_one_object_a_line_with_a_summary_at_the_end(tmp_path: Path) -> None:
    """Everything on stdout is JSON, and nothing is on stderr."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"content")

    done = realize("--json", tmp_path / "a", tmp_path / "b", home=tmp_path)

    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert (0, "") == (done.returncode, done.stderr)
    assert ["source", "finished", "summary"] == [record["event"] for record in records if record["event"] != "progress"]
    assert (1, 7) == (records[-1]["created"], records[-1]["arrived_bytes"])
    assert ([f"{tmp_path}/a"], f"{tmp_path}/b") == (records[-1]["sources"], records[-1]["destination"])


def test_what_failed_makes_the_exit_code_1_and_the_rest_is_moved(tmp_path: Path) -> None:
    """A file that cannot be put there is named with its end and cause; the others are moved."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "x").mkdir(parents=True)
    for name in ("x", "y"):
        (tmp_path / "a" / name).write_text(name)

    done = realize("--on-conflict", "replace", tmp_path / "a", tmp_path / "b", home=tmp_path)

    assert 1 == done.returncode
    assert f"realize: error: destination {tmp_path / 'b'}: x: a directory has this name" in done.stderr
    assert "y" == (tmp_path / "b" / "y").read_text()
    assert "x" == (tmp_path / "a" / "x").read_text()


def test_a_missing_source_is_one_sentence(tmp_path: Path) -> None:
    """No traceback, but which location, which end, and what is the matter."""
    done = realize(tmp_path / "none", tmp_path / "b", home=tmp_path)

    assert (1, "") == (done.returncode, done.stdout)
    assert [f"realize: error: source {tmp_path / 'none'}: no such file or directory"] == done.stderr.splitlines()


@pytest.mark.parametrize("word", ["copy", "ls", "status"])
def test_options_before_the_name_of_a_command_move_nothing(word: str, tmp_path: Path) -> None:
    """`realize --quiet copy a b` copied nothing: it moved `a`, with a source called copy that was missing."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("content")

    done = realize("--quiet", word, "a", "b", home=tmp_path)

    assert 2 == done.returncode
    assert f"realize {word} OPTIONS ...; for a directory called {word}, write ./{word}" in done.stderr
    assert (tmp_path / "a" / "file").exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("word", "meant"), [("cpoy", "copy"), ("cp", "copy"), ("mvoe", "move"), ("statsu", "status")])
def test_a_command_that_is_mistyped_moves_nothing(word: str, meant: str, tmp_path: Path) -> None:
    """`realize cpoy a b` moved `a`, with a source called cpoy that was missing."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("content")

    done = realize(word, "a", "b", home=tmp_path)

    assert 2 == done.returncode
    assert f"{word} is neither a command nor a file here, so nothing was moved; did you mean realize {meant}?" in (
        done.stderr
    )
    assert (tmp_path / "a" / "file").exists()
    assert not (tmp_path / "b").exists()


def test_a_source_that_is_nearly_called_like_a_command(tmp_path: Path) -> None:
    """It is one if it is there, or if anything says so."""
    (tmp_path / "mvoe").mkdir()
    (tmp_path / "mvoe" / "file").write_text("content")
    missing = [realize(*words, "b", home=tmp_path) for words in (["./cpoy"], ["move", "cpoy"], ["photos"])]

    assert [1, 1, 1] == [done.returncode for done in missing]
    assert (0, "") == ((done := realize("--quiet", "mvoe", "b", home=tmp_path)).returncode, done.stderr)
    assert "content" == (tmp_path / "b" / "file").read_text()


def test_a_source_that_has_the_name_of_a_command(tmp_path: Path) -> None:
    """Its path, or the word `move` before it, says that it is one."""
    for options in (["--quiet", "./copy"], ["move", "--quiet", "copy"]):
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / "file").write_text("content")

        done = realize(*options, "b", home=tmp_path)

        assert (0, "") == (done.returncode, done.stderr)
        assert "content" == (tmp_path / "b" / "file").read_text()


def test_of_several_sources_one_may_be_missing(tmp_path: Path) -> None:
    """The others are moved, it is named, and the exit code is 1; as with rsync."""
    for name in ("a", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in {name}").write_text(name)

    done = realize(*(tmp_path / name for name in "abc"), tmp_path / "there", home=tmp_path)

    error, last = done.stderr.splitlines()
    assert 1 == done.returncode
    assert f"realize: error: source {tmp_path / 'b'}: no such file or directory" == error
    assert last.startswith("realize: moved 2 files") and last.endswith("; 1 failed")
    assert {"in a", "in c"} == {each.name for each in (tmp_path / "there").iterdir()}


def test_a_peer_without_a_known_key_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Before anything is connected, the user is told both ways to give the key."""
    done = realize(tmp_path, "hostb.example::inbox", home=tmp_path)

    assert 2 == done.returncode
    assert done.stderr.startswith("realize: error: hostb.example:9771: the key of this peer is not known")
    assert "--peer-key KEY" in done.stderr
    assert '[peers.hostb]\naddress = "hostb.example:9771"\nkey = ' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a"], "at least one SRC and a DST"),
        (["ls"], "LOCATION"),
        (["ls", "hostb::"], "hostb::"),
        (["ls", "hostb::in", "--config", "none.toml"], "none.toml"),
        (["ls", ".", "--config", "none.toml"], "none.toml"),
        (["ls", "hostb::in", "--peer-key", "nonsense"], "nonsense"),
        (["ls", "/", "--peer-key", "MCowBQYDK2VwAyEACi5sLWtAAafK21Sj06+7PeWTGMtiflpGGu2AvLyGuL8="], "--peer-key"),
        (["status", "::"], "::"),
        (["--filter-from", "none.filter", "a", "b"], "none.filter"),
        (["--exclude", "a[", "--min-age", "x", "a", "b"], "min-age"),
    ],
)
def test_bad_input_names_the_thing_and_exits_with_2(tmp_path: Path, arguments: list[str], named: str) -> None:
    """One sentence on stderr that names what is wrong, never a traceback."""
    done = realize(*arguments, home=tmp_path)

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("realize: error: ")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_ls_lists_a_local_directory(tmp_path: Path) -> None:
    """Finals and partials are told apart, with their sizes, for people as for programs."""
    place = tmp_path / "a"
    place.mkdir()
    (place / "done").write_bytes(b"12345")
    leave_partial(place, "coming", b"123")
    os.symlink("done", place / "link")

    text = realize("ls", place, home=tmp_path)
    data = realize("ls", "--json", place, home=tmp_path)

    records = [json.loads(line) for line in data.stdout.splitlines()]
    found = {record["path"]: (record["state"], record.get("size")) for record in records}
    assert {"done": ("final", 5), "coming": ("partial", 3), "link": ("left", None)} == found
    assert [("3", "partial", "coming"), ("5", "final", "done")] == sorted(
        (line.split()[0], *line.split()[-2:]) for line in text.stdout.splitlines() if "symlink" not in line
    )


def test_a_reader_who_has_had_enough_is_no_reason_for_a_traceback(tmp_path: Path) -> None:
    """`realize ls | head -1` ends quietly."""
    place = tmp_path / "a"
    place.mkdir()
    for number in range(5000):
        (place / f"a rather long name, so that the pipe fills {number}").touch()

    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m realize.cli.main ls {place} | head -1"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (1, "") == (len(done.stdout.splitlines()), done.stderr)


def test_a_move_whose_output_breaks_ends_in_order(tmp_path: Path) -> None:
    """If the reader of --json goes away, the run stops as after a signal: one sentence, and every file is whole."""
    source = tmp_path / "a"
    source.mkdir()
    for number in range(3000):
        (source / str(number)).write_text("x" * 100)

    done = subprocess.run(
        [
            "bash",
            "-c",
            f"{sys.executable} -m realize.cli.main --json {source} {tmp_path / 'b'} | head -1; exit ${{PIPESTATUS[0]}}",
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    names = {path.name for path in source.iterdir()} | {path.name for path in (tmp_path / "b").iterdir()}
    assert (1, "realize: error: cannot write output: Broken pipe\n") == (done.returncode, done.stderr)
    assert {str(number) for number in range(3000)} == {name for name in names if name.isdecimal()}


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("options", [[], ["--log-level", "debug"], ["--json"]])
def test_closed_standard_streams_do_no_harm(tmp_path: Path, closed: str, options: list[str]) -> None:
    """A command that was started without stderr moves as ever, and no line of its log gets into a file."""
    source, destination = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    contents = {str(number): os.urandom(number * 100_000) for number in range(20)}
    for name, content in contents.items():
        (source / name).write_bytes(content)

    done = subprocess.run(
        closing(closed, *COMMAND, *options, str(source), str(destination)),
        env=ENVIRONMENT,
        check=False,
    )

    assert 0 == done.returncode
    assert [] == list(source.iterdir())
    assert contents == {path.name: path.read_bytes() for path in destination.iterdir()}


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [["ls", "."], ["--help"], ["status", "--help"], ["--version"], ["keygen", "new.key"], ["--dry-run", ".", "below"]],
    ids=" ".join,
)
def test_output_that_cannot_be_written_is_one_sentence(arguments: list[str], buffered: bool, tmp_path: Path) -> None:
    """A full disk behind stdout, noticed at once or when the last of it is written, is no traceback and no success."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "" if buffered else "1"}
    with open("/dev/full", "w") as full:
        done = run_program(
            [*COMMAND, *(str(tmp_path / "other") if each == "below" else each for each in arguments)],
            env=environment,
            cwd=source,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )

    assert 1 == done.returncode
    assert "realize: error: cannot write output: No space left on device" == done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["ls", "."], ["a", "b"], ["keygen", "x.key"]], ids=" ".join)
def test_a_working_directory_that_is_gone(arguments: list[str], tmp_path: Path) -> None:
    """Somebody has removed it: one sentence, whatever was to be done there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["bash", "-c", 'rmdir "$PWD" && exec "$@"', "bash", *COMMAND, *arguments]

    done = subprocess.run(
        command,
        env={**ENVIRONMENT, "HOME": str(tmp_path)},
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode in {1, 2}
    assert 1 == len(done.stderr.splitlines()), done.stderr


def test_no_key_is_made_where_nobody_lives(tmp_path: Path) -> None:
    """Without a home, a key would go to a file named `~` in whatever directory this is."""
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "HOME"}
    code = (
        "import os, sys, realize.cli.main as m\n"
        "os.path.expanduser = lambda path: path\n"
        "sys.argv = ['realize', 'keygen']\n"
        "sys.exit(m.run())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert 2 == done.returncode
    assert "HOME is not set, and this user has no home directory" in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_the_help_names_what_a_script_needs(tmp_path: Path) -> None:
    """The exit codes, where to read on, and nothing that was meant for the program that lays it out."""
    done = realize("--help", home=tmp_path)

    assert 0 == done.returncode
    assert "\\b" not in done.stdout
    for line in ("0   everything was moved", "11  --max-duration", "20  interrupted", "docs/usage.md"):
        assert line in done.stdout


def test_too_little_memory_is_one_sentence(tmp_path: Path) -> None:
    """Wherever it runs out."""
    code = (
        "import sys, realize.cli.main as m\ndef fail(**_): raise MemoryError\nm.realize.main = fail\nsys.exit(m.run())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60
    )

    assert (1, "realize: error: not enough memory\n") == (done.returncode, done.stderr)
