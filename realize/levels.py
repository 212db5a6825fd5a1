"""Log levels: one for all components, and exceptions for single ones; pure.

A component is a package of Realize, or the origin of events that are not ours: ``twisted``, or ``python`` for the
standard library's `logging`, `warnings` and uncaught exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import Factory, frozen

from realize.by_value import ByValue
from realize.errors import UsageError
from realize.units import quoted

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""The levels by name; the numbers are those of `logging`."""

COMPONENTS: Final = (
    "cli",
    "daemon",
    "mover",
    "moves",
    "python",
    "store",
    "telemetry",
    "throttle",
    "twisted",
    "watch",
    "wire",
)
"""The components that may have a level of their own."""

FORMATS: Final = ("auto", "console", "json", "logfmt", "systemd")
"""The formats of a log; ``auto`` is console on a terminal, systemd in the journal, else json."""

_LEVELS_FORM: Final = "error, warning, info or debug, such as info or info,wire=debug"


@frozen(eq=False, repr=False)
class Levels(ByValue):
    """The lowest level that is logged, by name, and the levels of the components that differ."""

    default: str = "info"
    components: Mapping[str, str] = Factory(dict)

    def of(self, component: str) -> int:
        """The number of the lowest level that is logged for a component."""
        return LEVELS[self.components.get(component, self.default)]


def parse_levels(text: str, default: str = "info") -> Levels:
    """Levels as people write them: ``info``, ``info,wire=debug``, ``wire=debug`` (the others as ``default``).

    Raises `UsageError`.
    """
    components: dict[str, str] = {}
    for position, part in enumerate(text.split(",")):
        name, equals, level = (word.strip() for word in part.partition("="))
        if not equals and not position:
            default = _level(name, text)
        elif not equals:
            raise UsageError(f"{quoted(text)} has more than one level for everything: write one, then NAME=LEVEL")
        elif name not in COMPONENTS:
            raise UsageError(f"{quoted(name)} is not a component of the log: expected one of {', '.join(COMPONENTS)}")
        elif name in components:
            raise UsageError(f"{quoted(text)} names {name} twice")
        else:
            components[name] = _level(level, text)
    return Levels(default, components)


def _level(word: str, text: str) -> str:
    if word not in LEVELS:
        where = "" if word == text else f" in {quoted(text)}"
        raise UsageError(f"{quoted(word)}{where} is not a level: expected {_LEVELS_FORM}")
    return word
