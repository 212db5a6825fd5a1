"""The harness that runs Realize and other tools side by side; how fast any of them is, nobody asserts here."""

import json
import os
import re
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve

from benchmarks import compare, page
from benchmarks.comparison.catalogue import OURS, TOOLS, tools_for
from benchmarks.comparison.keeper import Kept
from benchmarks.comparison.plot import plot
from benchmarks.comparison.programs import PACKAGES, missing, version_in
from benchmarks.comparison.report import lines, machine_text, remarks, time_table
from benchmarks.comparison.results import Case, Results, Run, Session, line, middle, ratio, read, write
from benchmarks.comparison.tool import ALL
from benchmarks.comparison.verification import faults
from benchmarks.comparison.workloads import BIG, MIB, WORKLOADS, master
from benchmarks.machine import Machine
from benchmarks.procfs import busy_ticks, received_bytes
from tests.processes import ENVIRONMENT, lives, wait_for

CASE = Case("large", "shm")
MACHINE = Machine("3.11.2", "as it comes", "a processor", 2, 24, "6.1", "0123456789")
SESSION = Session("s", "2026-01-02T03:04:05+00:00", MACHINE, {"rsync": "3.2.7"})


def run(tool, seconds, *, number=1, case=CASE, code=0, faults=(), foreign=0.0, session="s"):
    """One run."""
    return Run(
        session, case, tool, number, seconds, 0.0, 1.0, 2.0, MIB, 2 * MIB, 3_000_000, foreign, code, list(faults)
    )


def tree(folder: Path, **files: bytes) -> Path:
    """A folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_move_that_did_all_has_no_fault(tmp_path):
    """Everything is there, and the source has nothing but directories, or is gone."""
    expected, there = (tree(tmp_path / name, one=b"1", two=b"") for name in ("expected", "there"))
    (tmp_path / "source" / "empty").mkdir(parents=True)

    assert [] == faults(expected, there, tmp_path / "source")
    assert [] == faults(expected, there, tmp_path / "gone")


@pytest.mark.parametrize(
    ("there", "source", "expected"),
    [
        ({"one": b"12", "two": b"3"}, {}, "1 wrong content: one"),
        ({"one": b"11"}, {}, "1 missing: two"),
        ({"one": b"11", "two": b"3", ".one.part": b"1"}, {}, "1 not wanted there: .one.part"),
        ({"one": b"11", "two": b"3"}, {"two": b"3"}, "1 left at the source: two"),
        ({"one": b"111", "two": b"3"}, {}, "1 wrong content: one"),
    ],
)
def test_whatever_is_wrong_after_a_move_is_found(tmp_path, there, source, expected):
    """A wrong byte, a file that is missing, one too many, one that was left at the source, one of another size."""
    trees = tree(tmp_path / "e", one=b"11", two=b"3"), tree(tmp_path / "d", **there), tree(tmp_path / "s", **source)

    assert [expected] == faults(*trees)


def test_a_link_in_the_place_of_a_file_is_wrong(tmp_path):
    """Even if what it leads to has the right content."""
    expected, there = tree(tmp_path / "e", one=b"1"), tree(tmp_path / "d")
    (there / "one").symlink_to(expected / "one")

    assert ["1 wrong content: one"] == faults(expected, there, tmp_path / "s")


def test_the_ratio_is_that_of_rounds():
    """Each of our runs is divided by that of the other tool in its round and session; then the median counts.

    So a machine that is slow in one hour does not matter.
    """
    ours = [run(OURS, 1, number=1), run(OURS, 20, number=2), run(OURS, 3, number=3), run(OURS, 9, session="t")]
    theirs = [run("lftp", 2, number=1), run("lftp", 40, number=2), run("lftp", 4, number=3), run("lftp", 99, number=4)]

    assert 0.5 == ratio(ours, theirs)
    assert 22 == middle(theirs)
    assert ratio(ours, [run("lftp", 1, session="u")]) is None


def test_single_runs_are_kept_and_read_again(tmp_path):
    """A line of JSON each; what is as usual in a case takes no room, and more rounds are added at the end."""
    far = run("rsyncd", 2.5, case=Case("small", "disk", 0.2, 1e9, 0.1, 4))
    write(tmp_path / "runs", [SESSION, run(OURS, 1.25)], append=False)
    write(tmp_path / "runs", [far], append=True)

    assert Results([SESSION], [run(OURS, 1.25), far]) == read((tmp_path / "runs").read_text())
    assert {"workload", "fs"} == json.loads(line(run(OURS, 1))).keys() & {"workload", "fs", "round_trip", "scale"}

    write(tmp_path / "runs", [SESSION], append=False)

    assert Results([SESSION], []) == read((tmp_path / "runs").read_text())


def test_the_table_has_the_fastest_first_and_says_what_went_wrong():
    """With the ratio of the rounds; what went wrong comes last, for its time means nothing."""
    runs = [run("rsync-ssh", 4), run(OURS, 2), run("lftp", 3, faults=["1 missing: x"]), run("rsyncd", 8, foreign=5.0)]
    rows = list(lines(Results([SESSION], runs)))

    assert [OURS, "rsync-ssh", "rsyncd", "lftp"] == [each[1] for each in rows]
    assert ["", "0.50", "0.25", ""] == [each[4] for each in rows]
    assert ["", "", "not encrypted; 1 beside other load", "1 WRONG: exit code 0; 1 missing: x"] == [
        each[-1] for each in rows
    ]


def test_a_tool_that_was_stopped_is_not_said_to_have_ended():
    """It took too long."""
    assert "1 WRONG: stopped; took too long" == remarks("lftp", [run("lftp", 240, code=None, faults=["took too long"])])


def test_the_page_shows_no_time_of_a_tool_that_went_wrong():
    """Seconds of a move that lost something are worth nothing."""
    runs = [run(OURS, 1), run("rsync-ssh", 2), run("lftp", 3), run("lftp", 3, number=2, faults=["1 missing: x"])]
    text = time_table(Results([SESSION], runs), [CASE], guarantees=True)

    assert "| **Realize** | **1.00 s** | TLS 1.3 | a digest of each file | yes |" in text
    assert "| rsync over ssh | 2.00 s (0.50) | ssh | a digest of each file | no |" in text
    assert "| lftp over sftp | went wrong | ssh | no | no |" in text

    stopped = [run(OURS, 1), run("lftp", 240, code=None, faults=["took too long"])]

    assert "| lftp over sftp | more than 240 s |" in time_table(Results([SESSION], stopped), [CASE], guarantees=False)


def test_the_page_names_a_machine_once():
    """With each commit that was measured there; another machine has its own line."""
    machines = [MACHINE, evolve(MACHINE, commit="abcdef"), evolve(MACHINE, cores=4)]
    sessions = [evolve(SESSION, session=str(number), machine=machine) for number, machine in enumerate(machines)]

    text = machine_text(Results(sessions, [run(OURS, 1, session="0")])).splitlines()

    assert ["commit 0123456789 · commit abcdef", "commit 0123456789"] == [
        each.partition("6.1 · ")[2].rstrip() for each in text[:2]
    ]
    assert ["2 cores", "4 cores"] == [re.search(r"\d cores", each)[0] for each in text[:2]]


def test_every_tool_says_what_it_is():
    """Its workloads exist, and each program that it needs has a package."""
    assert set(WORKLOADS) == set(ALL)
    for tool in TOOLS.values():
        assert {"how": True, "title": True} == {"how": bool(tool.how), "title": bool(tool.title)}
        assert set(tool.workloads) <= set(WORKLOADS)
        assert tool.programs <= set(PACKAGES)


def test_tools_are_chosen_by_what_they_can_do():
    """Ours is first; those that wait for the disk are measured where there is one, bounds and all in memory."""
    assert OURS == tools_for("half-there", "shm", quick=False, far=False)[0]
    assert "rsync-ssh-fsync" not in tools_for("small", "shm", quick=False, far=False)
    assert "rsync-ssh-fsync" in tools_for("small", "disk", quick=False, far=False)
    assert "lftp" not in tools_for("small", "shm", quick=True, far=False)
    assert "plain-tcp" in tools_for("large", "shm", quick=False, far=True)


def test_a_program_that_is_not_here_is_named_with_its_package(monkeypatch):
    """And what needs it is left out; the rest is measured."""
    monkeypatch.setattr("benchmarks.comparison.programs.PATH", "/nowhere")
    said = []

    found = compare.usable([OURS, "rsyncd", "lftp"], said.append)

    assert [OURS] == found
    assert "left out, for want of rsync: rsyncd (apt-get install rsync)" == said[0]
    assert "left out, for want of lftp, ssh, sshd: lftp (apt-get install lftp openssh-client openssh-server)" == said[1]
    assert ["sh"] == missing(["sh"])


def test_tools_take_turns_and_each_round_begins_with_another():
    """What is measured after what else is not always the same."""
    assert [(1, "b"), (1, "a"), (2, "a"), (2, "b"), (3, "b"), (3, "a")] == list(compare.in_turns(["a", "b"], 3, 5))
    assert [] == list(compare.in_turns([], 3, 5))


@pytest.mark.parametrize(("text", "expected"), [("5G", 5e9), ("100M", 1e8), ("56k", 56e3), ("9600", 9600.0)])
def test_rates_of_links_are_in_bits(text, expected):
    """As links are sold."""
    assert expected == compare.bits(text)


def test_what_is_measured_follows_from_the_options():
    """All in memory and some on the disk, or what is named; fewer over a link."""

    def cases(*argv):
        return [(case.workload, case.fs) for case in compare.chosen_cases(compare.parse(list(argv)))]

    assert [(name, "shm") for name in WORKLOADS] + [("large", "disk"), ("small", "disk")] == cases()
    assert [("large", "shm"), ("small", "shm"), ("mixture", "shm")] == cases("--quick")
    assert [("large", "shm"), ("small", "shm")] == cases("--round-trip", "0.2")
    assert [("changed", "disk")] == cases("--only", "changed", "--fs", "disk")
    with pytest.raises(SystemExit):
        cases("--tools", "scp")


def test_the_trees_are_always_the_same(tmp_path):
    """The same bytes at every call, so that figures of two days can be compared; what is there is not made again."""
    one, other = (master("changed", tmp_path / name, 0.001) for name in ("one", "other"))

    assert [] == faults(one.new, other.new, tmp_path / "none")
    assert MIB + 123 == (one.new / BIG).stat().st_size - (one.old / BIG).stat().st_size
    assert one.folder.stat().st_ino == master("changed", tmp_path / "one", 0.001).folder.stat().st_ino
    assert 10 == len(master("small", tmp_path, 0.001).sizes())
    assert all(1024 <= size <= 8 * MIB for size in master("mixture", tmp_path, 0.02).sizes())


def test_all_that_comes_of_a_command_is_kept_hold_of(tmp_path):
    """A process that outlives its parent counts on that side, and is ended with it."""
    script = "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo $$ > pid; exec sleep 60' & exit 3"
    kept = Kept(["sh", "-c", script], ENVIRONMENT, tmp_path, tmp_path / "log")
    before = kept.cpu
    kept.go()
    ended = kept.wait(30)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    orphan = int((tmp_path / "pid").read_text())
    wait_for(lambda: kept.processes == [orphan])
    cpu = kept.cpu - before
    wait_for(lambda: kept.memory)  # it may be about to become another program, and that has none at first
    kept.stop()

    assert 3 == ended.code
    assert cpu > 0
    assert not lives(orphan)


def test_a_command_that_takes_too_long_is_stopped(tmp_path):
    """It and what came of it, and it has no figures."""
    kept = Kept(["sh", "-c", "echo $$ > pid; exec sleep 60"], ENVIRONMENT, tmp_path, tmp_path / "log")
    kept.go()
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())

    ended = kept.wait(0.1)
    kept.stop()

    assert ended is None
    assert not lives(int((tmp_path / "pid").read_text()))


def test_what_the_kernel_counts_is_read():
    """The busy time of all processors without idling, waiting and what other machines took; bytes of one device."""
    assert 1 + 2 + 4 + 32 + 64 == busy_ticks("cpu  1 2 4 8 16 32 64 128 256 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert 42 == received_bytes("Inter-|\n face |\n    lo: 42 1 0\n eth0: 7 1\n", "lo")
    with pytest.raises(ValueError, match="no device wlan0"):
        received_bytes("lo: 42 1", "wlan0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rsync  version 3.2.7  protocol version 31", "3.2.7"),
        ("OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.1", "9.2p1"),
        ("who knows", "?"),
    ],
)
def test_versions_of_other_tools_are_found(text, expected):
    """Each says its own in another way."""
    assert expected == version_in(text)


def test_tools_are_really_run_and_their_outcomes_looked_at(tmp_path, monkeypatch, capsys):
    """The whole way with tiny trees: Realize and rsync's daemon, a line for each run, and the table."""
    saved, places = tmp_path / "runs.jsonl", ["--disk", str(tmp_path), "--shm", str(tmp_path)]
    options = ["--scale", "0.001", "--rounds", "1", "--only", "small", "--fs", "shm", "--tools", "realize,rsyncd"]
    monkeypatch.setattr(sys, "argv", ["compare", *places, *options, "--save", str(saved)])
    monkeypatch.setattr("random.randrange", lambda _: 0)  # which tool begins the first round
    started = time.time()

    compare.main()

    results = read(saved.read_text())
    assert ["realize", "rsyncd"] == [each.tool for each in results.runs]
    assert all(each.right for each in results.runs)
    assert all(0 < each.seconds < time.time() - started for each in results.runs)
    assert all(each.wire > 100_000 for each in results.runs)
    assert "3." in results.sessions[0].versions["rsync"]
    assert re.search(r"small shm x 0\.001 +rsyncd .* 1 +not encrypted", capsys.readouterr().out)
    assert [] == list((tmp_path / f"realize-benchmarks-{os.getuid()}").glob("run-*"))


def test_the_page_and_its_picture_are_what_the_saved_runs_give():
    """Neither is written by hand: `python -m benchmarks.page` makes both anew."""
    results = read(page.SAVED.read_text())

    assert all(page.filled(each.read_text(), results) == each.read_text() for each in page.PAGES)
    assert page.picture(results) == page.PICTURE.read_text()
    assert set(page.FIGURES) == {name for each in page.PAGES for _, name, _ in page.BETWEEN.findall(each.read_text())}


def test_figures_go_between_the_comments_and_nowhere_else():
    """Twice the same changes nothing."""
    text = "Before.\n<!-- figures: workloads -->\nold\n<!-- end of figures -->\nAfter.\n"

    filled = page.filled(text, Results([SESSION], [run(OURS, 1)]))

    assert f"Before.\n<!-- figures: workloads -->\n`large`: {WORKLOADS['large'].title}.\n" in filled
    assert filled.endswith("<!-- end of figures -->\nAfter.\n")
    assert filled == page.filled(filled, Results([SESSION], [run(OURS, 1)]))


def test_the_picture_has_a_bar_for_each_tool_that_did_right():
    """As long as its time, cut off where it would hide the others; what went wrong has none, and words say the same."""
    runs = [run(OURS, 2), run("rsync-ssh", 4), run("lftp", 80), run("rsyncd", 1, code=1)]
    drawn = plot(Results([SESSION], runs), [CASE], [OURS, "rsync-ssh", "lftp", "rsyncd"])
    root = ET.fromstring(drawn)
    widths = [float(each.get("width")) for each in root.iter("{http://www.w3.org/2000/svg}rect")]

    assert [24.0, 48.0, 96.0] == widths
    assert 1 == len(list(root.iter("{http://www.w3.org/2000/svg}path")))
    assert "one file of 2 GiB: Realize 2.0 s, rsync over ssh 4.0 s, lftp over sftp 80.0 s." in drawn
    assert "prefers-color-scheme: dark" in drawn


def test_tables_of_the_page_can_be_made_of_few_runs():
    """Of a link, of the disk, of what it costs: one run of each is enough."""
    far = Case("large", "shm", 0.2, 1e9)
    results = Results([SESSION], [run(OURS, 2), run(OURS, 1, case=Case("large", "disk")), run(OURS, 3, case=far)])
    tables = {name: make(results) for name, make in page.FIGURES.items()}

    over_link = "A round trip of 200 ms and 1 Gbit/s:\n\n|  | large |\n| --- | --- |\n| **Realize** | **3.00 s** |"
    assert over_link == tables["far"]
    assert "| **Realize** | **1.00 s** |" in tables["disk"]
    assert "| large | **Realize** | 1.0 + 2.0 s | 1 + 2 MiB | 3 MB |" in tables["cost"]
    assert tables["machine"].startswith(
        "Python 3.11.2, as it comes · a processor, 2 cores, 24 GiB of memory, Linux 6.1"
    )
    assert tables["machine"].endswith("rsync 3.2.7  \n2026-01-02, 1 round of each.")
