"""What `make docs` adds to Sphinx: the navigation, and a look at where the alerts lead."""

from __future__ import annotations

import re

import pytest

from release.site.navigation import sections, with_navigation
from release.site.runbooks import missing_runbooks


def test_the_navigation_is_that_of_the_index() -> None:
    """Each heading has what its rows and items begin with, once; a folder of guides brings all of them along."""
    index = (
        "# Title\n\n[No entry](a.md)\n\n## First\n\n* [b](b.md): see [c](c.md)\n* [b again](b.md#x)\n\n"
        "## None\n\nText.\n\n## Second\n\n| page | about |\n|---|---|\n| [d](../d/README.md) | [e](e.md) |\n"
        "| [g](guides/README.md) | |\n| [p](p.rst) | |\n"
    )

    assert [("First", ["b"]), ("Second", ["../d/README", "guides/README", "p"])] == list(sections(index))
    made = with_navigation(index)
    assert made.startswith(index)
    assert [":caption: First", ":caption: Second"] == re.findall(r":caption: .+", made)
    assert made.endswith("\n\n../d/README\nguides/README\np\nguides/*\n```\n")


def test_runbooks_that_are_missing() -> None:
    """An alert whose section the page does not have is named; rules without any are a fault of ours."""
    alerts = 'runbook_url: "{{ $externalLabels.realize_runbook }}#here"\nrunbook_url: "https://a.example/b#there"\n'

    assert ["there"] == missing_runbooks(alerts, '<section id="here">')
    with pytest.raises(ValueError, match="no runbooks"):
        missing_runbooks("groups: []", "")
