"""Whatever is killed, and whenever: every file is whole at one end at least, and in the end all have arrived.

These tests run real processes, because nothing else can be killed for real.
"""

import base64
import json
import random
import time

import pytest

from realize.numbered import numbered
from tests.processes import Site, digests, plant


def first_arrival(site, process, seconds):
    """Wait until something has reached the destination, the command ended, or time is up."""
    deadline = time.monotonic() + seconds
    before = names(site)
    while time.monotonic() < deadline and process.poll() is None and names(site) == before:
        time.sleep(0.005)


def recorded(manifest):
    """The paths of all files that the manifest says have arrived."""
    found = set()
    for line in manifest.read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        if record["event"] == "durable":
            exact = record.get("path_base64")
            found.add(record["path"].encode() if exact is None else base64.b64decode(exact))
    return found


def names(site):
    """All names below the destination, partials too."""
    return set(site.inbox.rglob("*"))


def plant_old_versions(source, inbox):
    """Give the destination other versions of the large files, which differ in the middle."""
    for path in source.rglob("*"):
        if path.is_file() and path.stat().st_size > 1 << 20:
            content = path.read_bytes()
            old = inbox / path.relative_to(source)
            old.parent.mkdir(parents=True, exist_ok=True)
            old.write_bytes(content[: 5 << 20] + content[6 << 20 : 9 << 20] + b"old" + content[9 << 20 :])


def campaign(tmp_path, seed, kills):
    """Move a tree while killing one side or the other; the answer is how many kills hit a run under way."""
    rng = random.Random(seed)
    site = Site(tmp_path)
    source = tmp_path / "source"
    original = plant(source, seed, small=150, large=4, large_size=12 << 20)
    older, options = {}, ("--on-conflict", "replace")
    if seed % 4:
        plant_old_versions(source, site.inbox)
    if seed % 4 == 2:
        older, options = digests(site.inbox), ()
    expected = older | {numbered(path, 1) if path in older else path: digest for path, digest in original.items()}
    hits = 0
    manifest = tmp_path / "manifest"
    site.start()
    try:
        for _ in range(kills):
            process = site.spawn("--quiet", "--no-retry", *options, "--manifest", manifest, source, "hostb::inbox")
            first_arrival(site, process, 5)
            time.sleep(rng.uniform(0, 0.25))
            victim = rng.choice(["command", "daemon"])
            hits += process.poll() is None
            if victim == "command":
                process.kill()
            else:
                site.stop(9)
            process.wait(60)
            if victim == "daemon":
                site.start()
            here, there = digests(source), digests(site.inbox)
            lost = [
                path
                for path, digest in original.items()
                if digest not in (here.get(path), there.get(numbered(path, 1) if path in older else path))
            ]
            assert older.items() <= there.items()
            assert [] == lost
            assert {} == {path: original[path] for path in original.keys() - here.keys() - recorded(manifest)}
        last = site.realize("--quiet", *options, "--manifest", manifest, source, "hostb::inbox")
        assert (0, "") == (last.returncode, last.stderr)
        assert {} == digests(source)
        assert expected == digests(site.inbox)
        assert original.keys() == recorded(manifest)
    finally:
        site.stop()
    return hits


@pytest.mark.parametrize("seed", range(3))
def test_no_file_is_lost_when_either_side_is_killed(tmp_path, seed):
    """SIGKILL to either side at random instants, then re-runs: nothing lost, left, or removed without a line.

    With most seeds the destination has older versions of the large files, which are made use of; with seed 2 these are
    kept as well, and nothing is kept twice.
    """
    campaign(tmp_path, seed, kills=3)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 150))
def test_no_file_is_lost_in_a_long_campaign(tmp_path, seed):
    """The same, many times over, for `make soak`."""
    campaign(tmp_path, seed, kills=6)
