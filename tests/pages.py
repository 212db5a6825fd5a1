"""Reading the pages of ``docs/``: sections, tables and what stands between backquotes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def page(name: str) -> str:
    """The text of a page of ``docs/``."""
    return (ROOT / "docs" / name).read_text()


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level, up to the next one."""
    _, found, rest = text.partition(f"\n## {title}\n")
    assert found, f"there is no section {title}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of all tables, without the rows of their heads; a bar behind a backslash is no border."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"\|(-+\|)+", line):
            found.pop()
        elif line.startswith("|"):
            found.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def quoted(text: str) -> list[str]:
    """What is between backquotes."""
    return re.findall(r"`([^`]+)`", text)
