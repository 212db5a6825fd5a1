"""The pages for people: all are listed in docs/index.md, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from release.site.navigation import sections
from tests.pages import ROOT, quoted

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
    ROOT / "deploy" / "README.md",
    ROOT / "benchmarks" / "FIGURES.md",
    ROOT / "benchmarks" / "RECORD.md",
]
INDEX = ROOT / "docs" / "index.md"
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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_rows_have_as_many_cells_as_their_head(page: Path) -> None:
    """What lacks is shown as an empty cell, and a cell too many not at all."""
    tables = re.findall(r"(?:^\|.*\n)+", page.read_text(), flags=re.MULTILINE)
    counted = [[len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()] for table in tables]

    assert [] == [tables[at] for at, cells in enumerate(counted) if len(set(cells)) > 1]


def test_the_index_lists_all_pages() -> None:
    """Each page has a row below what kind of page it is; the pages of a folder of guides are listed in its README."""
    named = [name for _, names in sections(INDEX.read_text()) for name in names]
    listed = [(INDEX.parent / f"{name}.md").resolve() for name in named if name != "python"]

    assert sorted(PAGES) == sorted([INDEX, *listed, *(page for page in PAGES if is_guide_in_folder(page))])


def is_guide_in_folder(page: Path) -> bool:
    """Whether that is a page of docs/howto, but not the one that lists them."""
    return page.parent.name == "howto" and page.name != "README.md"


def test_everything_in_deploy_is_listed() -> None:
    """Its page names each file that is there for use."""
    folder = ROOT / "deploy"
    linked = re.findall(r"\]\(([^)#]+)\)", (folder / "README.md").read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    assert {"README.md"} == files - set(linked)


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
