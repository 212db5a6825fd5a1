"""Who may not read, in real processes: nothing is sent twice, or compared with what others have put there."""

import contextlib
import json
import os
import random
import shutil

import pytest

from tests.leftovers import partial_at
from tests.processes import Site, digests, files_below, plant, wait_for

LARGE = 16 << 20

REPLACE = ("--on-conflict", "replace")


@pytest.fixture(params=["drop box", "pull"])
def way(request, tmp_path):
    """A site, and source and destination as folders and for the command, where the source may not read."""
    folder = tmp_path / "folder"
    folder.mkdir()
    pushing = request.param == "drop box"
    site = Site(tmp_path, ["write"] if pushing else ["read", "remove"])
    site.start()
    yield (
        (site, folder, site.inbox, folder, "hostb::inbox")
        if pushing
        else (
            site,
            site.inbox,
            folder,
            "hostb::inbox",
            folder,
        )
    )
    site.stop()


def finished(done):
    """What became of each file."""
    assert 0 == done.returncode, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["path"]: each for each in records if each["event"] == "finished"}


def in_partials(folder):
    """How much the partials have; those that become final meanwhile have nothing."""
    sizes = []
    for path in folder.glob("**/.*.realize-*.part"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def whole(folder):
    """The paths of the files that are no partials."""
    return {os.fsdecode(path) for path in files_below(folder) if not path.endswith(b".part")}


@pytest.mark.parametrize("command", ["copy", "move"])
def test_a_run_that_was_killed_goes_on_where_it_stopped(way, command):
    """SIGKILL to both ends: what has arrived, whole or in part, is recognised and not sent again."""
    site, source, target, from_there, to_there = way
    original = plant(source, 1, small=30, large=1, large_size=LARGE)
    process = site.spawn(command, "--quiet", "--throttle", "4M", from_there, to_there)
    wait_for(lambda: in_partials(target) > 4 << 20 and len(whole(target)) >= 30)
    process.kill()
    site.stop(9)
    process.wait()
    arrived = whole(target)
    had = in_partials(target)
    site.start()

    again = finished(site.realize(command, "--json", *REPLACE, from_there, to_there))

    assert [] == [path for path, record in again.items() if path in arrived and record["sent"]]
    assert sum(record["sent"] for record in again.values()) <= LARGE + 200_000 - (had >> 20 << 20)
    assert original == digests(target)
    assert (original if command == "copy" else {}) == digests(source)


def test_what_is_the_same_is_not_sent_again(way):
    """A second copy sends nothing, though it was another process on both sides that has written all of it."""
    site, source, target, from_there, to_there = way
    original = plant(source, 2, small=30, large=2)
    finished(site.realize("copy", "--json", *REPLACE, from_there, to_there))
    site.stop()
    site.start()

    again = finished(site.realize("copy", "--json", *REPLACE, from_there, to_there))

    assert {("already_there", 0)} == {(each["how"], each["sent"]) for each in again.values()}
    assert original == digests(target)


def test_another_version_costs_what_differs(way):
    """If the old version came from the same peer, only what that lacks travels."""
    site, source, target, from_there, to_there = way
    old = random.Random(7).randbytes(LARGE)
    new = old[: 3 << 20] + b"inserted" + old[3 << 20 :]
    (source / "f").write_bytes(old)
    finished(site.realize("copy", "--json", *REPLACE, from_there, to_there))
    (source / "f").write_bytes(new)

    again = finished(site.realize("copy", "--json", *REPLACE, from_there, to_there))["f"]

    assert ("replaced", True) == (again["how"], again["sent"] < 200_000)
    assert new == (target / "f").read_bytes()


def test_what_came_another_way_is_sent_and_replaced(way):
    """Whether it is the same, or has something in common, or is a partial, shows to nobody who may not read."""
    site, source, target, from_there, to_there = way
    plant(source, 3, small=20, large=2)
    shutil.copytree(source, target, dirs_exist_ok=True)
    large = source / "large 1"
    partial_at(target, "unfinished").write_bytes(large.read_bytes()[: 2 << 20])
    partial_at(target, "unfinished").chmod(0o1600)
    shutil.copy(large, source / "unfinished")
    with large.open("ab") as file:
        file.write(b"more")

    sent = finished(site.realize("copy", "--json", *REPLACE, from_there, to_there))

    assert {"created": 1, "replaced": len(sent) - 1} == {
        how: sum(each["how"] == how for each in sent.values()) for how in ("created", "replaced")
    }
    assert {path.name: path.stat().st_size for path in source.glob("*large*")} == {
        path: each["sent"] for path, each in sent.items() if "large" in path
    }
    assert large.stat().st_size - 4 == sent["unfinished"]["sent"]


def test_a_source_can_be_trusted(tmp_path):
    """Then a command that pulls compares with whatever is there, and sends what differs."""
    site = Site(tmp_path, ["read"])
    site.start()
    try:
        plant(site.inbox, 4, small=20, large=1)
        shutil.copytree(site.inbox, tmp_path / "here")
        again = finished(site.realize("copy", "--json", *REPLACE, "--trust-source", "hostb::inbox", tmp_path / "here"))
    finally:
        site.stop()

    assert {("already_there", 0)} == {(each["how"], each["sent"]) for each in again.values()}


def test_a_source_does_not_learn_what_another_daemon_holds(tmp_path):
    """Who pulls from one daemon and pushes to another, where he may read, tells the first one nothing of the second."""
    folders = [tmp_path / "one", tmp_path / "two"]
    sites = []
    for folder in folders:
        folder.mkdir()
        sites.append(Site(folder, ["read", "write"]))
    one, two = sites
    two.keys["command"] = one.keys["command"]
    two.write_daemon_config()
    try:
        one.start()
        two.start()
        config = one.folder / "realize.toml"
        config.write_text(
            f'{config.read_text()}[peers.hostc]\naddress = "127.0.0.1:{two.port}"\nkey = "{two.keys["daemon"]}"\n'
        )
        plant(one.inbox, 5, small=20, large=1)
        shutil.copytree(one.inbox, two.inbox, dirs_exist_ok=True)
        hows = []
        for options in ((), (), ("--trust-source",)):
            done = finished(one.realize("copy", "--json", *REPLACE, *options, "hostb::inbox", "hostc::inbox"))
            hows.append({each["how"] for each in done.values()})
    finally:
        for site in sites:
            site.stop()

    assert [{"replaced"}, {"already_there"}, {"already_there"}] == hows
