"""Compressed content between a command and a daemon."""

from __future__ import annotations

import json
import signal

import pytest

from tests.leftovers import partial_at
from tests.processes import Site, digests, wait_for

LOG = b"".join(
    b"%06d host sshd[%d]: session opened for user %d\n" % (n, n * 7919 % 9973, n * 31 % 997) for n in range(80_000)
)


@pytest.fixture
def site(tmp_path):
    """A daemon and a command."""
    site = Site(tmp_path)
    site.start()
    yield site
    site.stop()


def plant(here):
    """Make a large file and small ones."""
    here.mkdir()
    (here / "large.log").write_bytes(LOG)
    for number in range(20):
        (here / f"{number}.log").write_bytes(LOG[number * 10_000 :][:10_000])
    return digests(here)


def summary(done):
    """What a command says in the end."""
    return json.loads(done.stdout.splitlines()[-1])


def test_content_is_compressed_both_ways_and_is_the_same(site, tmp_path):
    """Small files and large ones shrink on their way there, and back; what files have is the same."""
    here = tmp_path / "here"
    expected = plant(here)
    size = len(LOG) + 200_000

    there = site.realize("--json", "--compress", "always", str(here), "hostb::inbox")
    kept = digests(site.inbox)
    back = site.realize("--json", "--compress", "always", "hostb::inbox", str(here))

    for done in (there, back):
        assert 0 == done.returncode, done.stderr
        assert size == summary(done)["sent_bytes"]
        assert size / 2 < summary(done)["compression_saved_bytes"] < size
    assert expected == kept == digests(here)


@pytest.mark.parametrize(
    ("daemon", "options", "compressed"),
    [
        ("never", ("--compress", "always"), False),
        ("always", (), True),
        ("always", ("--compress", "never"), False),
        ("auto", ("--throttle", "4M"), True),
        ("auto", (), False),
    ],
)
def test_the_daemon_has_a_say(site, tmp_path, daemon, options, compressed):
    """Its configuration counts as much as the option; by itself, only a slow line is compressed for."""
    site.stop()
    site.write_daemon_config()
    config = site.folder / "realized.toml"
    config.write_text(f'compress = "{daemon}"\n{config.read_text()}')
    site.start()
    for number in range(3):  # where the daemon stands still for a moment, its line is slow
        here = tmp_path / f"{number}"
        expected = plant(here)
        done = site.realize("--json", *options, str(here), f"hostb::inbox/{number}")
        assert 0 == done.returncode, done.stderr
        if compressed == (summary(done)["compression_saved_bytes"] > 0):
            break

    assert compressed == (summary(done)["compression_saved_bytes"] > 0)
    assert ('"not_compressed"' in done.stdout) == ((daemon, options) == ("never", ("--compress", "always")))
    assert expected == digests(site.inbox / f"{number}")


def test_a_killed_daemon_leaves_what_can_be_gone_on_with(site, tmp_path):
    """What arrived compressed is a partial like any other; the next run sends the rest."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "f").write_bytes(LOG)
    expected = digests(here)
    partial = partial_at(site.inbox, "f")
    first = site.spawn("--quiet", "--throttle", "100k", str(here), "hostb::inbox")
    wait_for(lambda: partial.exists() and partial.stat().st_size >= 1 << 20)
    site.stop(signal.SIGKILL)
    first.kill()
    first.wait()
    had = partial.stat().st_size
    site.start()

    done = site.realize("--json", "--compress", "never", str(here), "hostb::inbox")

    assert 0 == done.returncode, done.stderr
    assert summary(done)["sent_bytes"] <= len(LOG) - had + (1 << 20)
    assert expected == digests(site.inbox)
