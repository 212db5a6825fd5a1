"""What a tool is to the harness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from attrs import field, frozen

from benchmarks.comparison.workloads import BIG

MOVES: Final = ("large", "small", "mixture")
"""The workloads that every tool can do."""

ALL: Final = (*MOVES, "changed", "half-there")

Start: TypeAlias = Callable[[Sequence[object], int], None]
"""Starts a server and waits until it listens at a port."""


@frozen
class Place:
    """The folders of one run."""

    source: Path
    destination: Path
    scratch: Path
    """Configurations and logs; the current directory of all programs."""
    jobs: int | None = None
    """How many files go at once, for the tools that have an option for that; None is each tool's default."""


@frozen
class Guarantees:
    """What holds when a tool removes a file from the source; short words for a table."""

    encrypted: str
    verified: str
    durable: str


@frozen
class Tool(ABC):
    """Moves all that is in a source directory to a destination, as its users would have it do that."""

    name: str
    """As on the command line."""
    title: str
    """As in tables."""
    how: str
    """The command in short."""
    guarantees: Guarantees
    workloads: Sequence[str] = MOVES
    bound: str = ""
    """Why it is shown but not compared with, if that is so."""

    @property
    @abstractmethod
    def programs(self) -> frozenset[str]:
        """What has to be installed."""

    @abstractmethod
    def serve(self, place: Place, start: Start) -> int:
        """Start what runs at the destination; returns the port to connect to."""

    @abstractmethod
    def command(self, place: Place, port: int) -> Sequence[object]:
        """The command that moves."""

    def environment(self, place: Place) -> Mapping[str, str]:
        """Variables for the servers and the command."""
        del place
        return {}

    def half(self, place: Place) -> Path:
        """Where the tool looks for the first half of a file."""
        return place.destination / BIG


@frozen
class OptionedTool(Tool):
    """A tool with further options."""

    options: Sequence[str] = field(default=(), kw_only=True)
