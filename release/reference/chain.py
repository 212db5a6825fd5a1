"""The way from one page to the next: the last line of each page, in the order of docs/index.md."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from release.site.navigation import sections

DOCS: Final = Path(__file__).parent.parent.parent / "docs"

_LINE: Final = re.compile(r"\n+Next: \[.+\]\(\S+\)\n*\Z")


def chain() -> list[Path]:
    """The pages in Markdown to be read, from the tutorial on; those on the project lead nowhere."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    named = [name for kind, names in sections(index) if kind != "Project" for name in names]
    paths = [Path(os.path.normpath(DOCS / f"{name}.md")) for name in named]
    return [path for path in paths if path.exists()]


def with_next(text: str, path: Path, following: Path | None) -> str:
    """The text of a page with that line at its end, and no other; without one for the last page."""
    plain = without_next(text)
    if following is None:
        return plain
    title = re.search(r"^# (.+)$", following.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if title is None:
        raise ValueError(f"{following} has no title")
    return f"{plain}\nNext: [{title[1]}]({os.path.relpath(following, path.parent)})\n"


def without_next(text: str) -> str:
    """The text of a page without that line."""
    return _LINE.sub("", text).rstrip("\n") + "\n"
