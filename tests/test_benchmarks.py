"""What the benchmarks compute; what they measure is nobody's to assert here."""

import platform
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import benchmarks
from benchmarks import small_steps
from benchmarks.ageing import growth
from benchmarks.distance import Link, far_site
from benchmarks.distant_link import distant
from benchmarks.growth import Look, competition, rate, shares
from benchmarks.machine import build, commit, cpu_model, print_machine
from benchmarks.many_files import resident_at
from benchmarks.tables import table


def test_columns_are_as_wide_as_what_is_in_them():
    """Names left, figures right, nothing after the last."""
    text = table(["tool", "s", ""], [["realize", "1.5", "fine"], ["x", "10.25", ""]])

    assert "tool         s\nrealize    1.5  fine\nx        10.25" == text


def test_only_what_is_got_while_all_are_under_way_is_compared():
    """What somebody got before the last began, or after the first ended, was no competition."""
    sizes = [[50, 0], [60, 10], [70, 40], [100, 90]]
    compared = competition([Look(10.0 + number, each) for number, each in enumerate(sizes)], 100)

    assert [60, 10] == compared[0].sizes
    assert [0.5, 1.5] == shares(*compared)
    assert 40 == rate(*compared)


@pytest.mark.parametrize("sizes", [[], [[1, 1]], [[0, 5], [5, 100]]])
def test_nothing_is_compared_if_they_were_never_under_way_together(sizes):
    """Two looks at least, with all files begun and none ended."""
    assert competition([Look(float(number), each) for number, each in enumerate(sizes)], 100) is None


def test_memory_is_shown_as_it_was_after_a_share_of_the_time():
    """The first sample from then on counts; without samples there was none."""
    samples = [(100.0, 5), (101.0, 6), (104.0, 7), (110.0, 8)]

    assert [5, 6, 7, 8] == [resident_at(samples, share) for share in (0.0, 0.1, 0.3, 0.5)]
    assert 0 == resident_at([], 0.1)


def test_only_what_grows_is_found():
    """The classes of which there are more objects than before, by more than is usual; most growth first."""
    before, after = {"a.Same": 50, "a.Fewer": 90, "a.More": 5}, {"a.Same": 60, "a.Fewer": 1, "a.More": 95, "a.New": 30}

    assert [("a.More", 5, 95), ("a.New", 0, 30)] == growth(before, after, 20)


def test_the_long_link_holds_back_both_directions():
    """A question and its answer take at least the round trip, and nothing is lost at the end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        distant(listening.getsockname()[1], 0.1) as port,
        socket.create_connection(("127.0.0.1", port)) as near,
    ):
        far, _ = listening.accept()
        with far:
            started = time.monotonic()
            near.sendall(b"question")
            question = far.recv(100)
            far.sendall(b"answer")
            far.shutdown(socket.SHUT_WR)
            answer = near.recv(100)
            took = time.monotonic() - started
            end = near.recv(100)

    assert (b"question", b"answer", b"") == (question, answer, end)
    assert took >= 0.1


def test_the_long_link_is_no_faster_than_its_line():
    """Connections share the rate, all of it arrives in order, and the last no earlier than the line can."""
    content = bytes(range(256)) * 2048
    received = bytearray()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        distant(listening.getsockname()[1], 0.02, 8 * len(content)) as port,
        socket.create_connection(("127.0.0.1", port)) as near,
        socket.create_connection(("127.0.0.1", port)) as beside,
    ):
        ends = [listening.accept()[0] for _ in range(2)]
        started = time.monotonic()
        for each in (near, beside):
            threading.Thread(target=each.sendall, args=(content,)).start()
        for number, far in enumerate(ends, start=1):
            with far:
                while len(received) < number * len(content):
                    received += far.recv(1 << 20)
        took = time.monotonic() - started

    assert 2 * content == received
    assert took >= 0.25


def test_every_step_of_a_small_file_is_measured(tmp_path, capsys):
    """The steps are those that the stores take, so a change of theirs must not leave this behind."""
    small_steps.measure(tmp_path, 20, 100, 7)

    steps = [line[:16].strip() for line in capsys.readouterr().out.splitlines()]
    assert ["walk", "describe", "pack found", "unpack found", "read"] == steps[:5]
    assert ["pack heads", "unpack heads", "write", "commit", "remove"] == steps[5:]
    assert [] == [each for each in (tmp_path / "source").rglob("*") if each.is_file()]
    assert 20 == len([each for each in (tmp_path / "destination").rglob("*") if each.is_file()])


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("*.py")))
def test_every_benchmark_says_what_it_was_measured_with(name):
    """What people start prints the interpreter, the machine and the commit; what other benchmarks start does not."""
    text = Path(benchmarks.__file__).with_name(f"{name}.py").read_text()
    no_measurement = {"counted_daemon", "crowd", "distant_link", "page", "probe"}
    starts = 'if __name__ == "__main__"' in text and name not in no_measurement

    assert starts == ("print_machine()\n" in text and name != "machine")


def test_the_machine_is_named_without_paths(capsys):
    """Versions and models, which tell a figure from another; where things lie is nobody's business."""
    print_machine()

    lines = capsys.readouterr().out.splitlines()
    assert ["Python", "commit"] == [lines[0].split()[0], lines[2].split()[0]]
    assert sys.version.split()[0] in lines[0]
    assert [] == [line for line in lines if re.search(r"(^|\s)/\w", line)]


@pytest.mark.parametrize(
    ("arguments", "package", "debug", "expected"),
    [
        ("'--enable-optimizations' '--with-lto=full' '--prefix=/opt'", None, False, "profile-guided, LTO, GCC 12"),
        ("'--with-lto'", None, False, "LTO, GCC 12"),
        ("'--prefix=/--with-lto'", None, False, "NOT optimised (no --enable-optimizations, no --with-lto), GCC 12"),
        ("'--enable-shared'", "python3.11 3.11.2-6", False, "Debian's package python3.11 3.11.2-6, GCC 12"),
        ("--enable-optimizations", None, True, "profile-guided, GCC 12, DEBUG build"),
    ],
)
def test_how_the_interpreter_was_built_is_said(arguments, package, debug, expected):
    """By what ``configure`` was told, or by the package, whose rules optimise without telling it."""
    assert expected == build(arguments, compiler="GCC 12", package=package, debug=debug)


def test_the_model_of_the_processor_is_named():
    """Without signs of trade marks, and as the architecture where the kernel has no name for it."""
    assert "Intel Xeon Processor" == cpu_model("processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  Processor\n")
    assert platform.machine() == cpu_model("processor\t: 0\n")


def test_a_commit_is_named_with_what_differs_from_it(tmp_path):
    """Results that are saved in the pages change no figure, code does."""
    nothing = commit(tmp_path / "nothing")
    for argv in (
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", tmp_path, *argv], check=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("figures")
    clean = commit(tmp_path)
    (tmp_path / "realize").mkdir()
    (tmp_path / "realize" / "new.py").write_text("")

    assert "unknown (no checkout)" == nothing
    assert 10 == len(clean)
    assert f"{clean} with changes" == commit(tmp_path)


def test_a_daemon_far_away_may_be_given_more_memory(tmp_path):
    """`benchmarks.distance --memory`: the daemon starts with such a configuration."""
    with far_site(str(tmp_path), Link(0.0, None, pull=False, memory=512 << 20)) as site:
        assert site.daemon.poll() is None
