"""`Containerfile` and its page, as far as they can be tried without an engine; `make try-systemd` takes the steps."""

from __future__ import annotations

import json
import re

from tests.pages import ROOT, page
from tests.shipped import read_daemon_config


def test_the_containerfile_copies_what_is_there():
    """Each file and directory that is copied into the image exists."""
    words = [line.split()[1:-1] for line in containerfile() if line.startswith("COPY ") and "--from=" not in line]
    named = [name for line in words for name in line]

    assert len(named) > 5
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_the_image_runs_what_is_there():
    """It has the programs that it starts, the daemon on its port, and pins as the Debian package has them."""
    text = "\n".join(containerfile())
    command = json.loads(text.rpartition("\nCMD ")[2])
    health = json.loads(re.findall(r"HEALTHCHECK .* CMD (\[.*\])", text)[0])

    assert ["/opt/realize/bin/twistd", "realized"] == [command[0], command[3]]
    assert ["realize", "status"] == health[:2]
    assert command[-2:] == health[-2:]
    assert "EXPOSE 9771" in text
    assert "--require-hashes --requirement /src/pins.txt" in text


def containerfile():
    """Its lines."""
    return (ROOT / "Containerfile").read_text().splitlines()


def test_the_configuration_for_containers_is_good(tmp_path):
    """The page has one that the daemon takes as it is."""
    (lines,) = re.findall(r"(?m)^    (key = .*\n(?:    .*\n|\n)*)", page("containers.md"))

    assert ["inbox"] == [*read_daemon_config(tmp_path, re.sub(r"(?m)^    ", "", lines)).directories]
