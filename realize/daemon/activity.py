"""What a daemon does, in one line, for ``systemctl status``; pure.

Any user of the machine may read it, so it has names of the configuration, and none of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from realize.moves.status import MoveStatus, Phase
from realize.units import display_text

MAX_NAMES: Final = 3
"""Names of failing moves in the line, and of stuck ones; of more there is the number."""


def activity_line(*, served: int, directories: int, peers: int, connections: int, moves: Sequence[MoveStatus]) -> str:
    """How many of the ``directories`` are ``served``, to how many peers, and how the standing moves fare."""
    parts = []
    if directories or not moves:
        number = f"{served}" if served == directories else f"{served} of {directories}"
        parts.append(f"serves {number} {_word(directories, 'directory', 'directories')} to {_counted(peers, 'peer')}")
        parts.append(_counted(connections, "connection"))
    if moves:
        parts.append(", ".join([_counted(len(moves), "move"), *_phases(moves)]))
    line = "; ".join(parts)
    return line[0].upper() + line[1:]


def _phases(moves: Sequence[MoveStatus]) -> list[str]:
    said = [f"{count} {phase.value}" for phase in (Phase.RUNNING, Phase.PAUSED) if (count := _in(phase, moves))]
    for phase in (Phase.FAILING, Phase.STUCK):
        names = [display_text(each.name) for each in moves if each.phase is phase]
        if names:
            more = len(names) - MAX_NAMES
            shown = names[:MAX_NAMES] + ([f"{more} more"] if more > 0 else [])
            said.append(f"{phase.value}: {', '.join(shown)}")
    return said


def _in(phase: Phase, moves: Sequence[MoveStatus]) -> int:
    return sum(each.phase is phase for each in moves)


def _counted(number: int, one: str) -> str:
    return f"{number} {_word(number, one, f'{one}s')}"


def _word(number: int, one: str, several: str) -> str:
    return one if number == 1 else several
