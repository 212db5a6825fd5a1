"""Sparse files between a command and a daemon."""

from __future__ import annotations

import json
import random
import signal

import pytest
from blake3 import blake3

from tests.leftovers import partial_at
from tests.processes import Site, wait_for

MIB = 1 << 20
HOLE = 200 * MIB


@pytest.fixture
def site(tmp_path):
    """A daemon and a command."""
    site = Site(tmp_path)
    site.start()
    yield site
    site.stop()


def write(path, *, middle):
    """Make a file of hole, content and hole, with this much content; its digest."""
    path.parent.mkdir(exist_ok=True)
    hasher = blake3(bytes(HOLE))
    with path.open("wb") as file:
        file.seek(HOLE)
        content = random.Random(1).randbytes(middle)
        file.write(content)
        file.truncate(2 * HOLE + middle)
    return hasher.update(content).update(bytes(HOLE)).hexdigest()


def of(done, event):
    """The events of one kind that a command has told of."""
    return [line for line in map(json.loads, done.stdout.splitlines()) if line["event"] == event]


def test_a_sparse_file_goes_and_comes_back(site, tmp_path):
    """It takes no more room at either end, travels as what it has, and has the digest that other programs tell."""
    here = tmp_path / "here"
    expected = write(here / "f", middle=3 * MIB)
    there = site.realize("--json", str(here), "hostb::inbox")
    room = (site.inbox / "f").stat().st_blocks * 512
    back = site.realize("--json", "hostb::inbox", str(here))

    for done in (there, back):
        assert 0 == done.returncode, done.stderr
        [file], [summary] = of(done, "finished"), of(done, "summary")
        assert (expected, 2 * HOLE + 3 * MIB) == (file["blake3"], file["size"])
        assert 3 * MIB <= file["sent"] <= 3 * MIB + 128 * 1024
        assert file["size"] == file["sent"] + file["holes"]
        assert (file["sent"], file["holes"]) == (summary["sent_bytes"], summary["hole_bytes"])
    assert room < 4 * MIB > (here / "f").stat().st_blocks * 512
    assert not (site.inbox / "f").exists()


def test_a_daemon_that_dies_leaves_what_can_be_gone_on_with(site, tmp_path):
    """Killed behind the first hole, it has a partial of that length that takes no room; the next run begins there."""
    here = tmp_path / "here"
    expected = write(here / "f", middle=3 * MIB)
    partial = partial_at(site.inbox, "f")
    first = site.spawn("--quiet", "--throttle", "256k", str(here), "hostb::inbox")
    wait_for(lambda: partial.exists() and partial.stat().st_size >= HOLE)
    site.stop(signal.SIGKILL)
    first.kill()
    first.wait()
    room = partial.stat().st_blocks * 512
    site.start()

    done = site.realize("--json", str(here), "hostb::inbox")

    assert 0 == done.returncode, done.stderr
    [started], [file] = of(done, "started"), of(done, "finished")
    assert (HOLE <= started["have"], expected) == (True, file["blake3"])
    assert room < 4 * MIB > (site.inbox / "f").stat().st_blocks * 512
    assert blake3((site.inbox / "f").read_bytes()).hexdigest() == expected
