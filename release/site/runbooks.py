"""Whether the alerts lead to sections that the site has; pure."""

from __future__ import annotations

import re


def missing_runbooks(alerts: str, page: str) -> list[str]:
    """The anchors that rules of Prometheus name as their runbooks, and that the page, in HTML, does not have.

    Raises `ValueError` if the rules name none at all.
    """
    anchors = re.findall(r"runbook_url: .*#(\S+)\"", alerts)
    if not anchors:
        raise ValueError("the alerts name no runbooks")
    return [each for each in anchors if f'id="{each}"' not in page]
