"""What a reload has changed, for people; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from realize.units import display_text


def reload_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A line for each change, and one about what needs a restart; see `realize.runs.reports.parse_reload`."""
    for row in report["changes"]:
        yield f"{display_text(row['key'])}: {display_text(row['change'])}"
    if report.get("truncated"):
        yield "…"
    if not report["changes"]:
        yield "nothing has changed"
    if report["restart_needed"]:
        yield f"needs a restart: {', '.join(map(display_text, report['restart_needed']))}"
