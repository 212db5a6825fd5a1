"""Rows with bars in terminals of any width: `realize.cli.display.rows`."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from realize.cli.display.rows import MIN_BAR_COLUMNS, Row, Shape

OVERALL = Row(
    ("1/12,345+ files", "1/12,345+"),
    1,
    10,
    ("2.6 GiB/44 GiB+  834 MiB/s  51s+ left", "5%  834 MiB/s  51s+ left", "5%  834 MiB/s", "5%"),
)
FILE = Row(("  films/[bold]holiday in the mountains.mkv",), 5, 10, ("1.8 GiB/9 GiB", "20%", "20%", "20%"))


def drawn(width, *rows, shape=None):
    """The lines of these rows."""
    console = Console(file=io.StringIO(), width=width, no_color=True, markup=False)
    console.print((shape or Shape(width)).table(rows))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "figures"),
    [(100, OVERALL.figures[0]), (80, OVERALL.figures[0]), (60, OVERALL.figures[1]), (40, OVERALL.figures[2])],
)
def test_what_does_not_fit_is_said_shorter(width, figures):
    """Sizes become a share, then the time left goes; the bars stay, one below the other."""
    overall, file = drawn(width, OVERALL, FILE)
    start = overall.index("━")

    assert overall.startswith(OVERALL.labels[1])
    assert overall.endswith(figures)
    assert start == file.index("━")
    assert file.count("━") >= MIN_BAR_COLUMNS // 2 - 1


def test_in_a_very_narrow_terminal_the_share_is_left():
    """With a bar, and what there is room for of the label."""
    [line] = drawn(20, OVERALL)

    assert line.startswith("1/12,")
    assert line.endswith("5%")


def test_names_are_no_markup():
    """A file may be called like some."""
    assert any("films/[bold]holiday" in line for line in drawn(120, OVERALL, FILE))


def test_bars_do_not_jump_with_every_figure():
    """A figure that becomes shorter leaves a gap."""
    shape = Shape(100)
    longer, shorter = (
        drawn(100, Row(("files",), 5, 10, (figures,)), shape=shape)[0] for figures in ("1023.9 KiB/s", "1 MiB/s")
    )

    assert longer.count("━") == shorter.count("━")


@given(
    st.integers(1, 200),
    st.lists(st.text(st.characters(categories=["L", "N"]), max_size=60), max_size=3),
    st.integers(0, 100),
)
def test_no_line_is_wider_than_the_terminal_and_no_row_has_two(width, names, done):
    """Whatever the names, wide characters too."""
    files = [Row((name,), done, 100, FILE.figures) for name in names]
    lines = drawn(width, OVERALL, *files)

    assert 1 + len(files) == len(lines)
    assert all(cell_len(line) <= width for line in lines)
