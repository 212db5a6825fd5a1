"""The pages for people: all are listed in README.md, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import ROOT, quoted, rows, section

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "RECORD.md"]
NOT_HISTORY = [page for page in PAGES if page.name not in {"CHANGELOG.md", "RECORD.md"}]


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


@pytest.mark.parametrize("page", NOT_HISTORY, ids=lambda path: path.name)
def test_modules_that_a_page_names_are_there(page: Path) -> None:
    """A page names a module by its path, from the top of the checkout or below ``realize/``; NAME stands for any."""
    paths = {
        word for each in quoted(page.read_text()) for word in each.split() if re.fullmatch(r"\w[\w./]*/\w+\.py", word)
    }

    patterns = {path: path.replace("NAME", "*") for path in paths}
    assert set() == {path for path, like in patterns.items() if not [*ROOT.glob(like), *ROOT.glob(f"realize/{like}")]}


@pytest.mark.parametrize("page", NOT_HISTORY, ids=lambda path: path.name)
def test_names_that_a_page_imports_are_there(page: Path) -> None:
    """A dotted name of ours leads to a module, or to what a module defines."""
    names = {
        word for each in quoted(page.read_text()) for word in each.split() if re.fullmatch(r"realize(\.\w+)+", word)
    }

    assert set() == {name for name in names if not leads_somewhere(name)}


def leads_somewhere(name: str) -> bool:
    """Whether there is a module of that name, or a word of that name in the module above."""
    path = ROOT.joinpath(*name.split("."))
    above = path.parent.with_suffix(".py") if path.parent.with_suffix(".py").exists() else path.parent / "__init__.py"
    return (
        path.is_dir()
        or path.with_suffix(".py").exists()
        or (above.exists() and re.search(rf"\b{path.name}\b", above.read_text()) is not None)
    )
