"""Places of files, by which two ends see that they are one and the same: `realize.fs.identities`."""

from __future__ import annotations

import os

from blake3 import blake3

from realize.fs.identities import identity_token, identity_tokens_upwards


def test_every_version_says_the_same_place():
    """The two ends need not be of one: which machine it is, and where on it, with the salt of the run before it."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        boot = file.read().strip()
    where = boot + (0x0102).to_bytes(8, "big") + (0x0A0B0C).to_bytes(8, "big")

    assert blake3(b"salt" + where).digest()[:16] == identity_token(b"salt", (0x0102, 0x0A0B0C))
    assert identity_token(b"other", (0x0102, 0x0A0B0C)) != identity_token(b"salt", (0x0102, 0x0A0B0C))


def test_the_places_of_a_directory_are_its_own_and_those_above(tmp_path):
    """The nearest first, and the root of the file system last; once each."""
    (tmp_path / "a").mkdir()
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    chain = identity_tokens_upwards(b"salt", fd)
    os.close(fd)

    above = [tmp_path / "a", *(tmp_path / "a").parents]
    expected = [(each.stat().st_dev, each.stat().st_ino) for each in above]
    assert tuple(identity_token(b"salt", each) for each in expected) == chain
