"""The diagrams of the pages: `release.diagrams`."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from release.diagrams.pictures import PICTURES
from release.diagrams.svg import FOLDER, Arrow, Box, Frame, Picture, Words, drawn
from tests.test_pages import PAGES

BOLD_PX, PLAIN_PX = 8.5, 7
"""How wide a letter is, on average."""

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", PICTURES)
def test_a_diagram_is_as_it_was_drawn(name):
    """If this fails, a picture says something else now: run `make diagrams`."""
    assert drawn(PICTURES[name]) == (FOLDER / f"{name}.svg").read_text()


def test_each_diagram_is_shown_by_one_page():
    """No file is left over, and none is missing."""
    shown = {name: sum(f"diagrams/{name}.svg)" in page.read_text() for page in PAGES) for name in PICTURES}

    assert dict.fromkeys(PICTURES, 1) == shown
    assert set(PICTURES) == {path.stem for path in FOLDER.iterdir()}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_everything_is_inside_the_picture(picture):
    """Boxes, lines and the beginnings of words; and a box is wide enough for its words in most fonts."""
    root = ET.fromstring(drawn(picture))
    boxes = [shape for shape in picture.shapes if isinstance(shape, Box)]

    for each in root.iter():
        x, y = float(each.get("x", 0)), float(each.get("y", 0))
        assert 0 <= x <= x + float(each.get("width", 0)) <= picture.width
        assert 0 <= y <= picture.height
    assert [] == [box.lines for box in boxes if len(box.lines[0]) * BOLD_PX > box.width]
    assert [] == [box.lines for box in boxes if max(map(len, box.lines)) * PLAIN_PX > box.width]


def test_how_shapes_are_drawn():
    """A box has its words in the middle, an arrow a tip; a picture is in words too, and for dark pages."""
    shapes = (
        Frame(0, 0, 90, 90, "a <frame>"),
        Box(10, 30, 60, 40, ("one", "two")),
        Arrow(((0, 0), (5, 5))),
        Arrow(((0, 0), (9, 9)), "mark"),
        Words(1, 2, "end", anchor="end"),
    )

    content = drawn(Picture(100, 100, "A & B", "In words.", shapes))

    root = ET.fromstring(content)
    assert ["A & B", "In words."] == [root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")]
    words = {each.text: (each.get("x"), each.get("y"), each.get("text-anchor")) for each in root.iter(f"{SVG}text")}
    assert {
        "a <frame>": ("10", "18", "start"),
        "one": ("40", "45.5", "middle"),
        "two": ("40", "63.5", "middle"),
        "end": ("1", "2", "end"),
    } == words
    assert ["url(#tip)", None] == [each.get("marker-end") for each in root.iter(f"{SVG}polyline")]
    assert "prefers-color-scheme: dark" in content
