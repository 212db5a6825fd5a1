"""`docs/glossary.md` points to what is there, and has each word once."""

from __future__ import annotations

import ast
import re

import pytest

from tests.pages import ROOT, page, quoted, rows

PAGE = page("glossary.md")
ROWS = rows(PAGE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_row_names_is_there(row):
    """A word is at home in a module that exists, and in a class, function or constant of it; it may have a page."""
    assert 3 == len(row)
    for part in row[2].split(";"):
        module, *names = quoted(part) or [""]
        if module:
            text = (ROOT / "realize" / module).read_text()
            tree = ast.parse(text)
            defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
            defined |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
            assert set() == set(names) - defined
        else:
            assert re.search(r"\]\(\w+\.md", part)


def test_each_word_is_there_once():
    """No word has two rows, so none has two meanings that do not know of each other."""
    words = [word.strip() for row in ROWS for word in row[0].split(",")]

    assert sorted(set(words)) == sorted(words)
