"""How Sphinx makes the site; the sources are the pages of the checkout, from its top."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from realize import __version__  # noqa: E402 - the checkout has to be on the path
from release.reference.chain import without_next  # noqa: E402
from release.site.navigation import with_navigation  # noqa: E402

project = "Realize"
author = "the authors of Realize"
version = release = __version__
copyright = f"{datetime.now(UTC).year}, {author}"  # noqa: A001 - Sphinx wants this name

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "docs/**.rst", "deploy/**.md", "benchmarks/*.md"]
exclude_patterns = [".*", "build", "dist"]

html_theme = "furo"
html_title = f"Realize {__version__}"
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_copy_source = False
html_show_sphinx = False

# Headings are linked to as on a forge; a page may be seven levels deep.
myst_heading_anchors = 6
# What people type has two hyphens, and straight quotes.
smartquotes = False
highlight_language = "none"

autodoc_default_options = {"undoc-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# In docstrings `name` is code.
default_role = "code"


# The theme has links to the next page and to the one before.
def _add_navigation(_app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = with_navigation(source[0]) if name == root_doc else without_next(source[0])


def setup(app: Sphinx) -> None:
    """Add the navigation to the first page as it is read."""
    app.connect("source-read", _add_navigation)
