"""All tools, and which are measured when nobody says which."""

from __future__ import annotations

from typing import Final

from benchmarks.comparison import bounds, lftp, rclone, realize, rsync
from benchmarks.comparison.tool import Tool

TOOLS: Final[dict[str, Tool]] = {
    tool.name: tool for family in (realize, rsync, rclone, lftp, bounds) for tool in family.TOOLS
}

OURS: Final = realize.OURS.name

QUICK: Final = (OURS, "rsync-ssh", "rsync-ssh-aes", "rsyncd", "rclone-sftp")

FAR: Final = (OURS, "rsync-ssh", "rsyncd", "rclone-sftp", "plain-tcp")
"""Over a long link."""


def tools_for(workload: str, fs: str, *, quick: bool, far: bool) -> list[str]:
    """The names of the tools to measure, ours first; those that wait for the disk only where there is one."""
    if quick or far:
        names = [*(QUICK if quick else FAR)]
    else:
        names = [name for name in TOOLS if fs == "disk" or not name.endswith("-fsync")]
    return [name for name in names if workload in TOOLS[name].workloads]
