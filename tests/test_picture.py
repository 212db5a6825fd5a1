"""The picture of a run that the README shows: `demo/picture.py`."""

import html
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def text_of(picture):
    """What a picture says, whatever version of rich has drawn it."""
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>|\s", "", picture, flags=re.DOTALL))


def test_the_picture_in_the_readme_is_what_the_bars_draw():
    """If this fails, the bars look different now: run `python demo/picture.py`."""
    drawn = runpy.run_path(str(ROOT / "demo" / "picture.py"))["picture"]()

    assert text_of(drawn) == text_of((ROOT / "docs" / "run.svg").read_text())
    assert "1,800/4,127" in text_of(drawn)
    assert "(docs/run.svg)" in (ROOT / "README.md").read_text()
