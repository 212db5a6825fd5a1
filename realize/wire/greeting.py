"""What two peers say about themselves in Hello."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import VersionMismatch
from realize.wire import commands
from realize.wire.packing import harmless


class Role(enum.Enum):
    """Which side of the connection we are."""

    CONNECTING = 1
    ACCEPTING = 2


@frozen(eq=False, repr=False)
class Greeting(ByValue):
    """What a peer says about itself in Hello."""

    software: str
    capabilities: tuple[str, ...] = commands.CAPABILITIES
    run: str = ""
    major: int = commands.MAJOR
    minor: int = commands.MINOR

    def as_arguments(self) -> dict[str, Any]:
        """Return the arguments of Hello."""
        return {
            "major": self.major,
            "minor": self.minor,
            "software": self.software,
            "capabilities": list(self.capabilities),
            "run": self.run,
        }


def from_arguments(arguments: Mapping[str, Any]) -> Greeting:
    """Return the greeting that the arguments of Hello stand for; its texts are safe to show."""
    return Greeting(
        harmless(arguments["software"]),
        tuple(arguments["capabilities"]),
        harmless(arguments["run"]),
        arguments["major"],
        arguments["minor"],
    )


def mismatch(connecting: Greeting, accepting: Greeting) -> VersionMismatch:
    """Return the error for major versions that differ; both sides report it in the same words."""
    return VersionMismatch(
        f"{connecting.software} speaks version {connecting.major}.{connecting.minor} of the protocol, "
        f"{accepting.software} speaks {accepting.major}.{accepting.minor}: "
        "both ends must have the same number before the dot"
    )
