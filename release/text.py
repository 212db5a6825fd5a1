"""What a release changes in the files of the repository, and which version it may have; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

from packaging.version import Version

UNRELEASED = "## Unreleased\n"
"""The heading of what no release has yet, in CHANGELOG.md."""

_FORM = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:rc[1-9]\d*)?")
_VERSION = re.compile(r'^__version__ = "([^"\n]*)"$', re.MULTILINE)


class Refused(Exception):
    """Why there can be no release now, in one sentence."""


def tag_of(version: str) -> str:
    """The tag of a release."""
    return f"v{version}"


def check_version(version: str, present: str, tags: Iterable[str]) -> None:
    """Refuse a version that is none, that lies behind that of the code, or that is not newer than every release."""
    if not _FORM.fullmatch(version):
        raise Refused(f"{version!r} is not a version: write make release VERSION=1.2.3, or 1.2.3rc1 for a candidate")
    released = [tag.removeprefix("v") for tag in tags if _FORM.fullmatch(tag.removeprefix("v"))]
    if version in released:
        raise Refused(f"{version} is released already: there is a tag {tag_of(version)}")
    newest = max([present, *released], key=Version)
    if Version(version) < Version(newest):
        raise Refused(f"{version} is older than {newest}")


def deb_version(version: str, system: str, release: str) -> str:
    """The version of the Debian package for a release of a system, such as 12 of debian.

    A candidate comes before its release, and the package for a system before that for the next one, so that each
    is an upgrade.
    """
    short = {"debian": "deb"}.get(system, system)
    return f"{version.replace('rc', '~rc')}+{short}{release}"


def version_in(module: str) -> str:
    """The version that the source of ``realize/__init__.py`` says."""
    found = _VERSION.findall(module)
    if len(found) != 1:
        raise Refused(f'realize/__init__.py has {len(found)} lines __version__ = "..." where one is expected')
    return str(found[0])


def with_version(module: str, version: str) -> str:
    """The source of ``realize/__init__.py`` with another version."""
    version_in(module)
    return _VERSION.sub(f'__version__ = "{version}"', module)


def dated(changelog: str, version: str, day: date) -> str:
    """The changelog with what was unreleased as a version of that day, below a new and empty heading."""
    if changelog.count(f"\n{UNRELEASED}") != 1:
        raise Refused("CHANGELOG.md has no heading '## Unreleased', or more than one")
    before, _, rest = changelog.partition(f"\n{UNRELEASED}")
    changes = rest.partition("\n## ")[0]
    if not changes.strip():
        raise Refused("CHANGELOG.md has nothing below '## Unreleased': there is nothing to release")
    return f"{before}\n{UNRELEASED}\n## {version} ({day.isoformat()})\n{rest}"
