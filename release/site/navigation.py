"""The navigation of the site, which is what docs/index.md links to below each of its headings; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_LINK = re.compile(r"^(?:\* |\| |\d+\. )\[[^\]]*\]\(([^)#\s]+)[^)]*\)", re.MULTILINE)


def sections(index: str) -> Iterator[tuple[str, list[str]]]:
    """Each heading, and the pages that the rows and items below it begin with, each once, without their ends."""
    for part in re.split(r"^(?=## )", index, flags=re.MULTILINE):
        heading = _HEADING.match(part)
        pages = dict.fromkeys(re.sub(r"\.(md|rst)$", "", link) for link in _LINK.findall(part))
        if heading and pages:
            yield heading[1], list(pages)


def with_navigation(index: str) -> str:
    """The page with a hidden table of contents for each of its headings, as MyST writes them.

    A page ``README`` of a folder brings the others of that folder along.
    """
    trees = []
    for heading, pages in sections(index):
        folders = (page.removesuffix("README") + "*" for page in pages if re.fullmatch(r"\w+/README", page))
        entries = "\n".join([*pages, *folders])
        trees.append(f"```{{toctree}}\n:hidden:\n:glob:\n:caption: {heading}\n\n{entries}\n```\n")
    return "\n".join([index, *trees])
