"""The pages for people: all are listed in README.md, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import ROOT, quoted, rows, section

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in a link."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each file that is linked exists, and each section."""
    text = page.read_text()
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)

    assert [] == broken


def test_the_readme_lists_all_pages() -> None:
    """Whoever looks for a page finds it in one table."""
    listed = {
        link
        for row in rows(section((ROOT / "README.md").read_text(), "More"))
        for link in re.findall(r"\((.+)\)", row[0])
    }
    pages = {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md", "CHANGELOG.md"}

    assert set() == pages - listed


def test_the_guide_for_contributors_names_what_is_there() -> None:
    """Each path that it quotes exists; NAME stands for any."""
    text = re.sub(r"^    .*\n", "", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    paths = [each for each in quoted(text) if re.fullmatch(r"[\w./*-]+(/[\w*-]+|\.(py|md|cfg|yaml))", each)]

    assert len(paths) > 30
    assert [] == [path for path in paths if not [*ROOT.glob(path.replace("NAME", "*"))] and not path.startswith("cli/")]
